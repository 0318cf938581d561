//! Credentials that can be asked for anew.
//!
//! The library keeps what it got until it expires. A store may refuse earlier:
//! a role was changed, a token revoked, a clock set. One new request for
//! credentials tells that from a lack of permission.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;

/// Where credentials come from.
pub(super) type Provider<T> = Arc<dyn CredentialProvider<Credential = T>>;

/// There are no credentials.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NoCredentials(object_store::Error);

/// A provider that can be replaced while it is in use.
pub(super) struct Credentials<T> {
    make: Box<dyn Fn() -> object_store::Result<Provider<T>> + Send + Sync>,
    current: RwLock<Provider<T>>,
}

impl<T> Credentials<T> {
    /// Of a provider that `make` makes, with nothing asked for yet.
    pub(super) fn new(
        make: impl Fn() -> object_store::Result<Provider<T>> + Send + Sync + 'static,
    ) -> object_store::Result<Self> {
        Ok(Self {
            current: RwLock::new(make()?),
            make: Box::new(make),
        })
    }

    /// Forgets what was got.
    pub(super) fn forget(&self) {
        if let Ok(fresh) = (self.make)() {
            *self.current.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        }
    }
}

#[async_trait]
impl<T: fmt::Debug + Send + Sync + 'static> CredentialProvider for Credentials<T> {
    type Credential = T;

    async fn get_credential(&self) -> object_store::Result<Arc<T>> {
        let current = {
            let current = self.current.read();
            Arc::clone(&current.unwrap_or_else(PoisonError::into_inner))
        };
        let got = current.get_credential().await;
        got.map_err(|error| object_store::Error::Generic {
            store: "credentials",
            source: Box::new(NoCredentials(error)),
        })
    }
}

/// The provider where nothing gives credentials and nobody is to be asked.
#[derive(Debug)]
pub(super) struct Nobody;

#[async_trait]
impl CredentialProvider for Nobody {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        Err(object_store::Error::Generic {
            store: "credentials",
            source: "the environment has none, and AWS_EC2_METADATA_DISABLED forbids to ask the instance".into(),
        })
    }
}

impl<T> fmt::Debug for Credentials<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}
