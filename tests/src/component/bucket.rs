//! A bucket as a test or a person sees it: folders go in and come out, and
//! everything that lies in it can be listed, unfinished uploads too.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::Path;

use anyhow::Context as _;
use futures_util::TryStreamExt as _;
use object_store::aws::{AmazonS3, AmazonS3Builder, AwsAuthorizer, AwsCredential};
use object_store::client::{
    ClientOptions, HttpClient, HttpConnector as _, HttpRequestBody, ReqwestConnector,
};
use object_store::multipart::MultipartStore as _;
use object_store::{MultipartId, ObjectStore, ObjectStoreExt as _, RetryConfig, WriteMultipart};
use tokio::runtime::Runtime;
use tonic::codegen::http::Request;

/// The region of every server here.
const REGION: &str = "us-east-1";
/// A part of an upload.
const PART_BYTES: usize = 8 << 20;
/// Parts of a file under way at once.
const PARTS_AT_ONCE: usize = 4;

/// Where a server is, and who calls it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// The server, as `http://HOST:PORT`.
    pub endpoint: String,
    /// The name of the key.
    pub key_id: String,
    /// The key.
    pub secret_key: String,
}

impl Access {
    /// The same as variables of the environment, by which `chatvec` and other
    /// clients of S3 learn it.
    pub fn environment(&self) -> [(&'static str, &str); 4] {
        [
            ("AWS_ENDPOINT_URL", &self.endpoint),
            ("AWS_ACCESS_KEY_ID", &self.key_id),
            ("AWS_SECRET_ACCESS_KEY", &self.secret_key),
            ("AWS_REGION", REGION),
        ]
    }

    /// What the environment of this process says, by the same names.
    ///
    /// # Errors
    /// A variable that is not set, by its name.
    pub fn from_environment() -> anyhow::Result<Self> {
        let variable =
            |name| std::env::var(name).map_err(|error| anyhow::anyhow!("`{name}`: {error}"));
        Ok(Self {
            endpoint: variable("AWS_ENDPOINT_URL")?,
            key_id: variable("AWS_ACCESS_KEY_ID")?,
            secret_key: variable("AWS_SECRET_ACCESS_KEY")?,
        })
    }

    /// A client of one bucket, to be built. It tries nothing twice.
    pub(crate) fn client(&self, bucket: &str) -> AmazonS3Builder {
        // Whoever came first has installed the same one.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_endpoint(&self.endpoint)
            .with_access_key_id(&self.key_id)
            .with_secret_access_key(&self.secret_key)
            .with_region(REGION)
            .with_retry(no_retries())
    }
}

/// A bucket and the means to call it. Nothing is tried twice.
#[derive(Debug)]
pub struct Bucket {
    name: String,
    access: Access,
    store: AmazonS3,
    http: HttpClient,
    runtime: Runtime,
}

impl Bucket {
    /// A bucket that exists. Nothing is called yet.
    pub fn new(name: &str, access: Access) -> Self {
        let options = ClientOptions::new().with_allow_http(true);
        let client = access.client(name).with_client_options(options.clone());
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        Self {
            name: name.to_owned(),
            access,
            store: client.build().expect("everything it needs is given"),
            http: ReqwestConnector::default()
                .connect(&options)
                .expect("a client can be made"),
            runtime: runtime.enable_all().build().expect("a runtime can be made"),
        }
    }

    /// The URL of a key.
    pub fn url(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.name)
    }

    /// Writes an object.
    ///
    /// # Errors
    /// Whatever the server says.
    pub fn put(&self, key: &str, bytes: Vec<u8>) -> object_store::Result<()> {
        let put = async { self.store.put(&key.into(), bytes.into()).await };
        self.runtime.block_on(put).map(drop)
    }

    /// Reads an object.
    ///
    /// # Errors
    /// Whatever the server says.
    pub fn get(&self, key: &str) -> object_store::Result<Vec<u8>> {
        let get = async { self.store.get(&key.into()).await?.bytes().await };
        self.runtime.block_on(get).map(Into::into)
    }

    /// Removes an object.
    ///
    /// # Errors
    /// Whatever the server says.
    pub fn delete(&self, key: &str) -> object_store::Result<()> {
        let delete = async { self.store.delete(&key.into()).await };
        self.runtime.block_on(delete)
    }

    /// The keys below a prefix, sorted; of the whole bucket where it is empty.
    ///
    /// # Errors
    /// Whatever the server says.
    pub fn keys(&self, prefix: &str) -> object_store::Result<Vec<String>> {
        let prefix = prefix.into();
        let listed = self.store.list(Some(&prefix)).try_collect::<Vec<_>>();
        let objects = self.runtime.block_on(listed)?;
        let mut keys: Vec<String> = objects
            .into_iter()
            .map(|object| object.location.into())
            .collect();
        keys.sort();
        Ok(keys)
    }

    /// The keys of all multipart uploads that are neither completed nor aborted.
    ///
    /// # Errors
    /// Whatever the server says.
    pub fn unfinished_uploads(&self) -> anyhow::Result<Vec<String>> {
        let uploads = self.list_uploads()?;
        Ok(uploads.into_iter().map(|(key, _)| key).collect())
    }

    /// Aborts every unfinished upload of a key, as a lifecycle rule or a person
    /// does; how many there were.
    ///
    /// # Errors
    /// Whatever the server says.
    pub fn abort_uploads(&self, key: &str) -> anyhow::Result<usize> {
        let mut uploads = self.list_uploads()?;
        uploads.retain(|(of, _)| of == key);
        for (key, id) in &uploads {
            let abort = async { self.store.abort_multipart(&key.as_str().into(), id).await };
            self.runtime.block_on(abort)?;
        }
        Ok(uploads.len())
    }

    /// Puts a part into the one unfinished upload of a key, over the part that
    /// stands there.
    ///
    /// # Errors
    /// Whatever the server says; no such upload.
    pub fn put_part(&self, key: &str, ordinal: usize, bytes: Vec<u8>) -> anyhow::Result<()> {
        let mut uploads = self.list_uploads()?.into_iter();
        let upload = uploads.find(|(of, _)| of == key);
        let (_, id) = upload.with_context(|| format!("no upload of `{key}`"))?;
        let path = key.into();
        let put = async { self.store.put_part(&path, &id, ordinal, bytes.into()).await };
        self.runtime.block_on(put)?;
        Ok(())
    }

    /// Completes the one unfinished upload of a key from these bytes, one part
    /// each: over the parts that stand there.
    ///
    /// # Errors
    /// Whatever the server says; no such upload.
    pub fn complete(&self, key: &str, parts: Vec<Vec<u8>>) -> anyhow::Result<()> {
        let mut uploads = self.list_uploads()?.into_iter();
        let upload = uploads.find(|(of, _)| of == key);
        let (_, id) = upload.with_context(|| format!("no upload of `{key}`"))?;
        let path = key.into();
        self.runtime.block_on(async {
            let mut ids = Vec::new();
            for (ordinal, bytes) in parts.into_iter().enumerate() {
                let put = self.store.put_part(&path, &id, ordinal, bytes.into());
                ids.push(put.await?);
            }
            self.store.complete_multipart(&path, &id, ids).await?;
            Ok(())
        })
    }

    /// Puts bytes to a URL of the server that wants no signature.
    pub(crate) fn put_to(&self, url: &str, bytes: Vec<u8>) -> anyhow::Result<()> {
        let request = Request::put(url).body(HttpRequestBody::from(bytes))?;
        let answer = self.runtime.block_on(self.http.execute(request))?;
        anyhow::ensure!(answer.status().is_success(), "{url}: {}", answer.status());
        Ok(())
    }

    /// Every unfinished upload: its key and its id.
    fn list_uploads(&self) -> anyhow::Result<Vec<(String, MultipartId)>> {
        let credential = AwsCredential {
            key_id: self.access.key_id.clone(),
            secret_key: self.access.secret_key.clone(),
            token: None,
        };
        let mut request = Request::get(format!("{}/{}?uploads", self.access.endpoint, self.name))
            .body(HttpRequestBody::empty())?;
        AwsAuthorizer::new(&credential, "s3", REGION).try_authorize(&mut request, None)?;
        let (status, answer) = self.runtime.block_on(async {
            let (head, body) = self.http.execute(request).await?.into_parts();
            anyhow::Ok((head.status, body.bytes().await?))
        })?;
        let answer = String::from_utf8_lossy(&answer);
        anyhow::ensure!(status.is_success(), "{status}: {answer}");
        let uploads = answer.split("<Upload>").skip(1);
        uploads
            .map(|upload| Ok((text_in(upload, "Key")?, text_in(upload, "UploadId")?)))
            .collect()
    }

    /// Writes every file of a folder below a prefix, in parts where it is large.
    ///
    /// # Errors
    /// Whatever the server or the filesystem says.
    pub fn upload(&self, folder: &Path, prefix: &str) -> anyhow::Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().expect("a listed file has a name");
            let key = format!("{prefix}/{}", name.to_string_lossy());
            self.runtime.block_on(self.upload_file(&path, &key))?;
        }
        Ok(())
    }

    async fn upload_file(&self, path: &Path, key: &str) -> anyhow::Result<()> {
        let mut file = File::open(path)?;
        if file.metadata()?.len() <= PART_BYTES as u64 {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            self.store.put(&key.into(), bytes.into()).await?;
            return Ok(());
        }
        let upload = self.store.put_multipart(&key.into()).await?;
        let mut writer = WriteMultipart::new_with_chunk_size(upload, PART_BYTES);
        let mut block = vec![0; PART_BYTES];
        loop {
            let read = file.read(&mut block)?;
            if read == 0 {
                break;
            }
            writer.wait_for_capacity(PARTS_AT_ONCE).await?;
            writer.write(&block[..read]);
        }
        writer.finish().await?;
        Ok(())
    }

    /// Writes every object below a prefix into a folder, which is made.
    ///
    /// # Errors
    /// Whatever the server or the filesystem says; an object in a sub-folder.
    pub fn download(&self, prefix: &str, folder: &Path) -> anyhow::Result<()> {
        fs::create_dir_all(folder)?;
        for key in self.keys(prefix)? {
            let name = key
                .strip_prefix(prefix)
                .and_then(|rest| rest.strip_prefix('/'))
                .filter(|name| !name.contains('/'));
            let name =
                name.ok_or_else(|| anyhow::anyhow!("`{key}` is no file right below `{prefix}`"))?;
            let mut file = File::create(folder.join(name))?;
            self.runtime.block_on(async {
                let mut chunks = self.store.get(&key.as_str().into()).await?.into_stream();
                while let Some(chunk) = chunks.try_next().await? {
                    io::Write::write_all(&mut file, &chunk)?;
                }
                anyhow::Ok(())
            })?;
        }
        Ok(())
    }
}

/// A client that says at once what goes wrong.
fn no_retries() -> RetryConfig {
    RetryConfig {
        max_retries: 0,
        ..RetryConfig::default()
    }
}

/// The text of the first element of this name. Those of tests have nothing to
/// escape.
fn text_in(xml: &str, name: &str) -> anyhow::Result<String> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let text = xml
        .split_once(&open)
        .and_then(|(_, rest)| Some(rest.split_once(&close)?.0));
    text.map(ToOwned::to_owned)
        .ok_or_else(|| anyhow::anyhow!("an upload without `{name}`: {xml}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::component::SeaweedFs;

    #[test]
    fn an_upload_is_listed_until_it_ends() {
        let server = SeaweedFs::start();
        let bucket = server.bucket();
        let begin = async { bucket.store.put_multipart(&"some/object".into()).await };
        let mut upload = bucket.runtime.block_on(begin).unwrap();
        assert_eq!(bucket.unfinished_uploads().unwrap(), ["some/object"]);
        assert!(bucket.keys("").unwrap().is_empty());
        assert_eq!(bucket.abort_uploads("some/other").unwrap(), 0);
        assert_eq!(bucket.abort_uploads("some/object").unwrap(), 1);
        assert!(bucket.unfinished_uploads().unwrap().is_empty());
        assert!(bucket.runtime.block_on(upload.complete()).is_err());
    }
}
