//! Clients of Google Cloud Storage and Azure, for builds with their features.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::multipart::MultipartStore;

use super::answer::Connector;
use super::connect::{Connection, client_options, credential_retries, no_retries};
use super::{ObjectStorageOptions, ObjectUrl};

/// The clients of a bucket of Google Cloud Storage.
#[cfg(feature = "gcs")]
pub(super) fn gcs(
    url: &ObjectUrl,
    options: &ObjectStorageOptions,
) -> object_store::Result<Connection> {
    let mut builder =
        object_store::gcp::GoogleCloudStorageBuilder::new().with_client_options(client_options());
    for (name, value) in options.of("GOOGLE_") {
        if let Ok(key) = name.parse() {
            builder = builder.with_config(key, value);
        }
    }
    builder = builder.with_bucket_name(url.bucket());
    let asking = builder.clone().with_retry(credential_retries()).build()?;
    let store = builder
        .with_credentials(Arc::clone(asking.credentials()))
        .with_http_connector(Connector::default())
        .with_retry(no_retries())
        .build()?;
    Ok(connection(store, "https://storage.googleapis.com"))
}

/// The clients of a container of Azure Blob Storage.
#[cfg(feature = "azure")]
pub(super) fn azure(
    url: &ObjectUrl,
    options: &ObjectStorageOptions,
) -> object_store::Result<Connection> {
    let mut builder =
        object_store::azure::MicrosoftAzureBuilder::new().with_client_options(client_options());
    for (name, value) in options.of("AZURE_") {
        if let Ok(key) = name.parse() {
            builder = builder.with_config(key, value);
        }
    }
    builder = builder.with_container_name(url.bucket());
    let asking = builder.clone().with_retry(credential_retries()).build()?;
    let store = builder
        .with_credentials(Arc::clone(asking.credentials()))
        .with_http_connector(Connector::default())
        .with_retry(no_retries())
        .build()?;
    Ok(connection(store, "https://blob.core.windows.net"))
}

fn connection(store: impl ObjectStore + MultipartStore, endpoint: &str) -> Connection {
    let store = Arc::new(store);
    Connection {
        objects: Arc::clone(&store) as _,
        uploads: store,
        s3: None,
        endpoint: endpoint.to_owned(),
        forget_credentials: None,
    }
}
