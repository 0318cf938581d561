//! The XML of S3, as far as it is spoken here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Serialize};

use super::bucket::{Listed, NamedPart, Object, Part};
use super::refused::{self, Refused};

/// No test may look at a time that the store tells.
pub(super) const LAST_MODIFIED: &str = "2026-01-01T00:00:00.000Z";

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Error<'a> {
    code: &'a str,
    message: &'a str,
    resource: &'a str,
    request_id: u64,
}

/// A page of objects and folders.
#[derive(Serialize, Default)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ListBucketResult {
    pub(super) name: String,
    pub(super) prefix: String,
    pub(super) key_count: usize,
    pub(super) max_keys: usize,
    pub(super) is_truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_continuation_token: Option<String>,
    pub(super) contents: Vec<Contents>,
    pub(super) common_prefixes: Vec<Folder>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Contents {
    key: String,
    last_modified: &'static str,
    #[serde(rename = "ETag")]
    etag: String,
    size: u64,
    storage_class: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Folder {
    prefix: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct InitiateMultipartUploadResult<'a> {
    pub(super) bucket: &'a str,
    pub(super) key: &'a str,
    pub(super) upload_id: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CompleteMultipartUploadResult<'a> {
    pub(super) location: String,
    pub(super) bucket: &'a str,
    pub(super) key: &'a str,
    #[serde(rename = "ETag")]
    pub(super) etag: String,
}

/// A page of parts.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ListPartsResult<'a> {
    pub(super) bucket: &'a str,
    pub(super) key: &'a str,
    pub(super) upload_id: &'a str,
    pub(super) max_parts: usize,
    pub(super) is_truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_part_number_marker: Option<u32>,
    pub(super) part: Vec<ListedPart>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ListedPart {
    pub(super) part_number: u32,
    last_modified: &'static str,
    #[serde(rename = "ETag")]
    etag: String,
    size: u64,
    #[serde(rename = "ChecksumCRC64NVME")]
    checksum_crc64nvme: String,
}

/// A page of uploads.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ListMultipartUploadsResult<'a> {
    pub(super) bucket: &'a str,
    pub(super) prefix: &'a str,
    pub(super) max_uploads: usize,
    pub(super) is_truncated: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_key_marker: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_upload_id_marker: Option<String>,
    pub(super) upload: Vec<ListedUpload>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ListedUpload {
    pub(super) key: String,
    pub(super) upload_id: String,
    pub(super) initiated: &'static str,
}

#[derive(Deserialize)]
struct CompleteMultipartUpload {
    #[serde(rename = "Part", default)]
    parts: Vec<CompletedPart>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CompletedPart {
    part_number: u32,
    #[serde(rename = "ETag")]
    etag: String,
    #[serde(rename = "ChecksumCRC64NVME")]
    checksum_crc64nvme: Option<String>,
}

impl ListBucketResult {
    pub(super) fn push(&mut self, listed: Listed<'_>) {
        self.key_count += 1;
        match listed {
            Listed::Object(key, object) => self.contents.push(Contents::of(key, object)),
            Listed::Folder(prefix) => self.common_prefixes.push(Folder { prefix }),
        }
    }
}

impl Contents {
    fn of(key: &str, object: &Object) -> Self {
        Self {
            key: key.to_owned(),
            last_modified: LAST_MODIFIED,
            etag: quoted(&object.etag),
            size: object.content.len(),
            storage_class: "STANDARD",
        }
    }
}

impl ListedPart {
    pub(super) fn of(part_number: u32, part: &Part) -> Self {
        Self {
            part_number,
            last_modified: LAST_MODIFIED,
            etag: quoted(&part.etag),
            size: part.content.len(),
            checksum_crc64nvme: crc64_to_base64(part.crc64),
        }
    }
}

/// A document as it is sent.
pub(super) fn document(root: &str, body: &impl Serialize) -> String {
    let body = quick_xml::se::to_string_with_root(root, body);
    let body = body.expect("texts and numbers are XML");
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{body}")
}

/// An error as it is sent.
pub(super) fn error(refused: Refused, resource: &str, request_id: u64) -> String {
    let error = Error {
        code: refused.code,
        message: refused.message,
        resource,
        request_id,
    };
    document("Error", &error)
}

/// The parts that a completion names.
pub(super) fn named_parts(body: &[u8]) -> Result<Vec<NamedPart>, Refused> {
    let malformed = refused::MALFORMED_XML;
    let parsed: CompleteMultipartUpload =
        quick_xml::de::from_reader(body).map_err(|_| malformed)?;
    let parts = parsed.parts.into_iter().map(|part| {
        let crc64 = match part.checksum_crc64nvme {
            Some(text) => Some(crc64_from_base64(&text).ok_or(malformed)?),
            None => None,
        };
        Ok(NamedPart {
            number: part.part_number,
            etag: unquoted(&part.etag),
            crc64,
        })
    });
    parts.collect()
}

/// An ETag as it is written.
pub(super) fn quoted(etag: &str) -> String {
    format!("\"{etag}\"")
}

/// An ETag as it is kept.
pub(super) fn unquoted(etag: &str) -> String {
    etag.trim_matches('"').to_owned()
}

pub(super) fn crc64_to_base64(crc64: u64) -> String {
    BASE64.encode(crc64.to_be_bytes())
}

pub(super) fn crc64_from_base64(text: &str) -> Option<u64> {
    let bytes = BASE64.decode(text).ok()?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}
