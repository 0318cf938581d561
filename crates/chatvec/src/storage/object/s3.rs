//! What only S3 can do and the library cannot ask for: checksums of objects,
//! and the lists of parts and uploads. The library signs, we send and read.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use chatvec_core::ids::{Crc64, PartOrdinal};
use object_store::aws::AmazonS3;
use object_store::client::{HttpClient, HttpRequestBody, HttpResponse};
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer as _};
use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, ETAG, HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use super::bucket::{Head, NONCE, Target};
use super::{ListedPart, ObjectError};

/// How long a signature holds; it is used at once.
const SIGNATURE_HOLDS: Duration = Duration::from_secs(60);

/// A bucket of S3.
#[derive(Debug)]
pub(super) struct S3 {
    store: Arc<AmazonS3>,
    client: HttpClient,
}

/// One page of ListParts.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Parts {
    #[serde(default)]
    is_truncated: bool,
    #[serde(default)]
    next_part_number_marker: Option<String>,
    #[serde(default)]
    part: Vec<Part>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Part {
    part_number: u32,
    #[serde(rename = "ETag")]
    e_tag: String,
    size: u64,
    #[serde(default, rename = "ChecksumSHA256")]
    checksum_sha256: Option<String>,
    #[serde(default, rename = "ChecksumCRC64NVME")]
    checksum_crc64nvme: Option<String>,
}

/// One page of ListMultipartUploads.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Uploads {
    #[serde(default)]
    is_truncated: bool,
    #[serde(default)]
    next_key_marker: Option<String>,
    #[serde(default)]
    next_upload_id_marker: Option<String>,
    #[serde(default)]
    upload: Vec<Upload>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Upload {
    key: String,
    upload_id: String,
}

/// A part id with checksums, as the library writes and reads it.
#[derive(Debug, Serialize, Deserialize)]
struct PartMetadata {
    e_tag: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    checksum_sha256: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    checksum_crc64nvme: Option<String>,
}

impl S3 {
    /// Of the library's store, and the client that it sends with.
    pub(super) fn new(store: Arc<AmazonS3>, client: HttpClient) -> Self {
        Self { store, client }
    }

    /// An object's size, ETag, nonce and checksum.
    pub(super) async fn head(&self, target: &Target) -> Result<Head, ObjectError> {
        let mut headers = HeaderMap::new();
        headers.insert(
            HeaderName::from_static("x-amz-checksum-mode"),
            HeaderValue::from_static("ENABLED"),
        );
        let answer = self
            .send(Method::HEAD, target, &target.path, &[], headers)
            .await?;
        let text = |name: &str| Some(answer.headers().get(name)?.to_str().ok()?.to_owned());
        let size = text(CONTENT_LENGTH.as_str()).and_then(|size| size.parse().ok());
        let size = size.ok_or_else(|| defect(target, "it tells no size of an object"))?;
        let etag = text(ETAG.as_str());
        let etag = etag.ok_or_else(|| defect(target, "it tells no ETag of an object"))?;
        // A checksum of the parts' checksums says nothing of the object.
        let is_whole = text("x-amz-checksum-type").is_none_or(|kind| kind == "FULL_OBJECT");
        let crc64 = text("x-amz-checksum-crc64nvme").and_then(|text| crc64_from(&text));
        Ok(Head {
            size,
            etag,
            nonce: text(&format!("x-amz-meta-{NONCE}")),
            crc64: crc64.filter(|_| is_whole),
        })
    }

    /// All parts of an upload.
    pub(super) async fn list_parts(
        &self,
        target: &Target,
        upload_id: &str,
    ) -> Result<Vec<ListedPart>, ObjectError> {
        let mut parts = Vec::new();
        let mut marker = None;
        loop {
            let mut query = vec![("uploadId", upload_id.to_owned())];
            query.extend(marker.map(|marker| ("part-number-marker", marker)));
            let page: Parts = self.read(target, &target.path, &query).await?;
            for part in page.part {
                parts.push(part.listed(target)?);
            }
            match page.next_part_number_marker {
                Some(next) if page.is_truncated => marker = Some(next),
                _ => return Ok(parts),
            }
        }
    }

    /// The unfinished uploads of exactly this object.
    pub(super) async fn list_uploads(&self, target: &Target) -> Result<Vec<String>, ObjectError> {
        let key = target.path.as_ref();
        let mut ids = Vec::new();
        let mut markers = None;
        loop {
            let mut query = vec![("uploads", String::new()), ("prefix", key.to_owned())];
            if let Some((key, upload_id)) = markers {
                query.push(("key-marker", key));
                query.push(("upload-id-marker", upload_id));
            }
            let page: Uploads = self.read(target, &Path::default(), &query).await?;
            let of_key = page.upload.into_iter().filter(|upload| upload.key == key);
            ids.extend(of_key.map(|upload| upload.upload_id));
            match (page.next_key_marker, page.next_upload_id_marker) {
                (Some(key), Some(upload_id)) if page.is_truncated => {
                    markers = Some((key, upload_id));
                }
                _ => return Ok(ids),
            }
        }
    }

    async fn read<T: for<'a> Deserialize<'a>>(
        &self,
        target: &Target,
        path: &Path,
        query: &[(&str, String)],
    ) -> Result<T, ObjectError> {
        let headers = HeaderMap::new();
        let answer = self.send(Method::GET, target, path, query, headers).await?;
        let body = answer.into_body().bytes().await;
        let body = body.map_err(|error| ObjectError::of_http(target, &error))?;
        let parsed = quick_xml::de::from_reader(body.as_ref());
        parsed.map_err(|error| defect(target, &format!("its list cannot be read: {error}")))
    }

    async fn send(
        &self,
        method: Method,
        target: &Target,
        path: &Path,
        query: &[(&str, String)],
        headers: HeaderMap,
    ) -> Result<HttpResponse, ObjectError> {
        let mut options = SignedUrlOptions::new().with_query(query.iter().cloned());
        options.signed_headers = headers.clone();
        let url = self
            .store
            .signed_url_opts(method.clone(), path, SIGNATURE_HOLDS, &options)
            .await
            .map_err(|error| ObjectError::of(target, &error))?;
        let mut request = object_store::client::HttpRequest::new(HttpRequestBody::empty());
        *request.method_mut() = method;
        *request.uri_mut() = url.as_str().parse().expect("a signed URL is one");
        *request.headers_mut() = headers;
        let answer = self.client.execute(request).await;
        answer.map_err(|error| ObjectError::of_http(target, &error))
    }
}

impl Part {
    fn listed(self, target: &Target) -> Result<ListedPart, ObjectError> {
        let ordinal = self.part_number.checked_sub(1);
        let ordinal = ordinal.ok_or_else(|| defect(target, "it lists a part 0"))?;
        let crc64 = self.checksum_crc64nvme.as_deref().and_then(crc64_from);
        let metadata = PartMetadata {
            e_tag: self.e_tag,
            checksum_sha256: self.checksum_sha256,
            checksum_crc64nvme: self.checksum_crc64nvme,
        };
        Ok(ListedPart {
            part: PartOrdinal(ordinal),
            part_id: quick_xml::se::to_string(&metadata).expect("three texts are XML"),
            size: self.size,
            crc64,
        })
    }
}

/// The checksum in a part id, where the store gave one.
pub(super) fn crc64_of(part_id: &str) -> Option<Crc64> {
    let metadata: PartMetadata = quick_xml::de::from_str(part_id).ok()?;
    crc64_from(&metadata.checksum_crc64nvme?)
}

fn crc64_from(base64: &str) -> Option<Crc64> {
    let bytes = BASE64.decode(base64).ok()?;
    Some(Crc64(u64::from_be_bytes(bytes.try_into().ok()?)))
}

fn defect(target: &Target, says: &str) -> ObjectError {
    ObjectError::Defect {
        url: target.url.clone(),
        says: says.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_id_carries_the_stores_checksum() {
        let metadata = PartMetadata {
            e_tag: "\"a&b\"".to_owned(),
            checksum_sha256: None,
            checksum_crc64nvme: Some(BASE64.encode(7u64.to_be_bytes())),
        };
        let part_id = quick_xml::se::to_string(&metadata).unwrap();
        assert_eq!(crc64_of(&part_id), Some(Crc64(7)));
        assert_eq!(crc64_of("\"an-etag\""), None);
    }
}
