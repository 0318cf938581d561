//! Clients of the library, from the settings.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::multipart::MultipartStore;
use object_store::{ClientConfigKey, ClientOptions, ObjectStore, RetryConfig};

use super::answer::Connector;
use super::credentials::{Credentials, Nobody};
use super::s3::S3;
use super::{ObjectError, ObjectStorageOptions, ObjectUrl, Scheme};

/// Stores close connections that were idle for 20 s or more; a request on one
/// that is being closed fails.
const IDLE_MAX: Duration = Duration::from_secs(15);

/// One bucket's clients.
pub(super) struct Connection {
    /// Whole objects.
    pub(super) objects: Arc<dyn ObjectStore>,
    /// Uploads in parts.
    pub(super) uploads: Arc<dyn MultipartStore>,
    /// What only S3 can do.
    pub(super) s3: Option<S3>,
    /// Who should answer, for people.
    pub(super) endpoint: String,
    /// Forgets credentials that were got; nothing where they are given.
    pub(super) forget_credentials: Option<Box<dyn Fn() + Send + Sync>>,
}

/// Makes the clients of the bucket of `url`. Reaches nothing.
pub(super) fn connect(
    url: &ObjectUrl,
    options: &ObjectStorageOptions,
) -> Result<Connection, ObjectError> {
    // Two libraries in the tree could bring a provider of their own.
    let _already_chosen = rustls::crypto::ring::default_provider().install_default();
    if let Some(feature) = url.scheme().missing_feature() {
        return Err(ObjectError::Unsupported {
            url: url.to_string(),
            says: format!("this build lacks the feature `{feature}`"),
        });
    }
    let connection = match url.scheme() {
        Scheme::S3 => s3(url, options),
        #[cfg(feature = "gcs")]
        Scheme::Gs => super::other_stores::gcs(url, options),
        #[cfg(feature = "azure")]
        Scheme::Az => super::other_stores::azure(url, options),
        #[cfg(not(all(feature = "gcs", feature = "azure")))]
        Scheme::Gs | Scheme::Az => unreachable!("refused above"),
    };
    connection.map_err(|error| ObjectError::Config {
        url: url.to_string(),
        says: error.to_string(),
        hint: None,
    })
}

fn s3(url: &ObjectUrl, options: &ObjectStorageOptions) -> object_store::Result<Connection> {
    let mut builder = AmazonS3Builder::new()
        .with_client_options(client_options())
        .with_checksum_algorithm(Checksum::CRC64NVME);
    for (name, value) in options.of("AWS_") {
        // Much begins with `AWS_` that is not for this library.
        if let Ok(key) = name.parse() {
            builder = builder.with_config(key, value);
        }
    }
    let get = |key| builder.get_config_value(&key);
    let is_given = get(AmazonS3ConfigKey::AccessKeyId).is_some();
    let region = get(AmazonS3ConfigKey::Region).unwrap_or_else(|| "us-east-1".to_owned());
    let endpoint = get(AmazonS3ConfigKey::S3Endpoint).or(get(AmazonS3ConfigKey::Endpoint));
    let endpoint = endpoint.unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
    let is_plain = endpoint.starts_with("http://");
    builder = builder
        .with_bucket_name(url.bucket())
        .with_region(region)
        .with_disable_bulk_delete(true);
    if is_plain {
        builder = builder.with_allow_http(true);
    } else if options
        .of("AWS_")
        .all(|(name, _)| name != "aws_unsigned_payload")
    {
        // TLS guards the body already, and the part's checksum too.
        builder = builder.with_unsigned_payload(true);
    }

    let for_credentials = builder
        .clone()
        .with_config(AmazonS3ConfigKey::Client(ClientConfigKey::Timeout), "10s")
        .with_retry(credential_retries());
    let asks_nobody = !is_given && forbids_instance(options);
    let make = move || match asks_nobody {
        true => Ok(Arc::new(Nobody) as _),
        false => Ok(Arc::clone(for_credentials.clone().build()?.credentials())),
    };
    let credentials = Arc::new(Credentials::new(make)?);

    let connector = Connector::default();
    let store = builder
        .with_credentials(Arc::clone(&credentials) as _)
        .with_http_connector(connector.clone())
        .with_retry(no_retries())
        .build()?;
    let store = Arc::new(store);
    Ok(Connection {
        objects: Arc::clone(&store) as _,
        uploads: Arc::clone(&store) as _,
        s3: connector.client().map(|client| S3::new(store, client)),
        endpoint,
        forget_credentials: (!is_given).then(|| Box::new(move || credentials.forget()) as _),
    })
}

/// Whether nothing but the instance could give credentials, and the user, as
/// with the stores' own tools, has forbidden to ask it.
fn forbids_instance(options: &ObjectStorageOptions) -> bool {
    let named = |wanted: &str| options.of("AWS_").find(|(name, _)| name == wanted);
    let is_forbidden = named("aws_ec2_metadata_disabled")
        .is_some_and(|(_, value)| value.eq_ignore_ascii_case("true"));
    let others = [
        "aws_web_identity_token_file",
        "aws_container_credentials_relative_uri",
        "aws_container_credentials_full_uri",
    ];
    is_forbidden && others.iter().all(|other| named(other).is_none())
}

/// Timeouts by the size of bodies are ours to set; HTTP/1, because one
/// connection per request is much faster than streams in one.
pub(super) fn client_options() -> ClientOptions {
    ClientOptions::new()
        .with_timeout_disabled()
        .with_http1_only()
        .with_pool_idle_timeout(IDLE_MAX)
}

pub(super) fn no_retries() -> RetryConfig {
    RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    }
}

pub(super) fn credential_retries() -> RetryConfig {
    RetryConfig {
        max_retries: 2,
        retry_timeout: Duration::from_secs(20),
        ..RetryConfig::default()
    }
}
