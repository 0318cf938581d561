//! `chatvec.manifest.json`: the record that claims an output while it is being
//! published, and that says in the end that it is complete. A folder without a
//! complete manifest is no finished checkpoint.
//!
//! Both bodies are pure functions of their arguments, so that another process
//! that takes over the publishing writes the same bytes.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::{Crc64, Digest, JobId};

/// The file's name in the output folder.
pub const FILE_NAME: &str = "chatvec.manifest.json";

/// The version of the format that this code writes, and the newest it reads.
pub const FORMAT_VERSION: u32 = 1;

/// How far the publishing has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PublishState {
    /// Files are appearing; what stands in the folder is not a checkpoint yet.
    Publishing,
    /// Every file is there, verified.
    Complete,
}

/// What the claim and the complete manifest of a job have in common.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    /// The version of the program that planned the job.
    pub chatvec_version: String,
    /// The job.
    pub job: JobId,
    /// Text drawn once for this job, by which it knows its own files again.
    pub nonce: String,
    /// The recipe as it was checked, in canonical JSON.
    pub recipe: Value,
    /// SHA-256 of the canonical recipe.
    pub recipe_digest: Digest,
    /// SHA-256 of the recipe together with the pins of all inputs.
    pub key: Digest,
    /// When the decision to publish fell, by the clock of the job's database:
    /// milliseconds since 1970-01-01T00:00:00Z.
    pub committing_at_ms: u64,
    /// What was read, in the order of the recipe.
    pub inputs: Vec<Input>,
}

/// One input of the merge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// Its place in the recipe: `cp`, `vectors[0].chat`.
    pub role: String,
    /// Where it is.
    pub url: String,
    /// The files of it that were read.
    pub files: Vec<InputFile>,
}

/// One file of an input, as it was when it was planned and read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputFile {
    /// Its path, relative to the input's folder.
    pub name: String,
    /// Its size in bytes.
    pub size: u64,
    /// What identified this very version of it: an ETag, or inode, size and
    /// modification time.
    pub pin: String,
}

/// One file of the output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Its path, relative to the output's folder.
    pub path: String,
    /// Its size in bytes.
    pub size: u64,
    /// CRC-64/NVME of its bytes, 16 lower-case hexadecimal digits.
    pub crc64nvme: String,
}

impl Output {
    /// The entry of a file.
    pub fn new(path: impl Into<String>, size: u64, crc: Crc64) -> Self {
        Self {
            path: path.into(),
            size,
            crc64nvme: crc.to_hex(),
        }
    }
}

/// The file, field by field.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`FORMAT_VERSION`].
    pub format_version: u32,
    /// As in [`Record`].
    pub chatvec_version: String,
    /// As in [`Record`].
    pub job: JobId,
    /// Whether the output is complete.
    pub state: PublishState,
    /// As in [`Record`].
    pub nonce: String,
    /// As in [`Record`].
    pub recipe: Value,
    /// As in [`Record`].
    pub recipe_digest: Digest,
    /// As in [`Record`].
    pub key: Digest,
    /// As in [`Record`].
    pub committing_at_ms: u64,
    /// As in [`Record`].
    pub inputs: Vec<Input>,
    /// Every file but the manifest itself, in the order of publishing; empty
    /// while the state is publishing.
    pub outputs: Vec<Output>,
}

/// Why a manifest cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON, or a field is missing or of another type.
    #[error("not a manifest of chatvec: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Written by another version of the program in another format.
    #[error("expected manifest format {FORMAT_VERSION}, found {found}")]
    OtherFormat {
        /// The version that the file declares.
        found: u32,
    },
}

/// The body that claims the output: no other job may publish there.
pub fn claim(record: &Record) -> Vec<u8> {
    render(record, PublishState::Publishing, &[])
}

/// The body that declares the output complete. `outputs` are all the files, in
/// the order of their publishing.
pub fn complete(record: &Record, outputs: &[Output]) -> Vec<u8> {
    render(record, PublishState::Complete, outputs)
}

fn render(record: &Record, state: PublishState, outputs: &[Output]) -> Vec<u8> {
    let Record {
        chatvec_version,
        job,
        nonce,
        recipe,
        recipe_digest,
        key,
        committing_at_ms,
        inputs,
    } = record.clone();
    let manifest = Manifest {
        format_version: FORMAT_VERSION,
        chatvec_version,
        job,
        state,
        nonce,
        recipe,
        recipe_digest,
        key,
        committing_at_ms,
        inputs,
        outputs: outputs.to_vec(),
    };
    let mut bytes =
        serde_json::to_vec_pretty(&manifest).expect("text, numbers and lists are always JSON");
    bytes.push(b'\n');
    bytes
}

/// Reads a manifest, a claim or a complete one.
///
/// # Errors
/// What is no manifest, or has another format than [`FORMAT_VERSION`].
pub fn parse(bytes: &[u8]) -> Result<Manifest, ManifestError> {
    #[derive(Deserialize)]
    struct Version {
        format_version: u32,
    }
    let Version { format_version } = serde_json::from_slice(bytes)?;
    if format_version != FORMAT_VERSION {
        return Err(ManifestError::OtherFormat {
            found: format_version,
        });
    }
    Ok(serde_json::from_slice(bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            chatvec_version: "0.1.0".to_owned(),
            job: JobId("j-1".to_owned()),
            nonce: "n\"1".to_owned(),
            recipe: serde_json::json!({"cp": "s3://a/b", "vectors": [{"lambda": 0.9868100332987975}]}),
            recipe_digest: Digest("ab".to_owned()),
            key: Digest("cd".to_owned()),
            committing_at_ms: 1_750_000_000_123,
            inputs: vec![Input {
                role: "vectors[0].chat".to_owned(),
                url: "s3://a/chat".to_owned(),
                files: vec![InputFile {
                    name: "model.safetensors".to_owned(),
                    size: 8,
                    pin: "\"etag\"".to_owned(),
                }],
            }],
        }
    }

    #[test]
    fn a_complete_manifest_reads_back_with_its_files_in_order() {
        let outputs = [
            Output::new("model.safetensors", 5, Crc64(0xabc)),
            Output::new("README.md", 1, Crc64(1)),
        ];
        let bytes = complete(&record(), &outputs);
        let manifest = parse(&bytes).unwrap();
        assert_eq!(manifest.state, PublishState::Complete);
        assert_eq!(manifest.outputs, outputs);
        assert_eq!(manifest.outputs[0].crc64nvme, "0000000000000abc");
        // To the last bit of λ.
        assert_eq!(manifest.recipe, record().recipe);
        assert_eq!(
            manifest.recipe["vectors"][0]["lambda"].as_f64(),
            Some(0.986_810_033_298_797_5)
        );
        assert_eq!(manifest.inputs, record().inputs);
        assert_eq!(bytes, complete(&record(), &outputs));
        assert_eq!(bytes.last(), Some(&b'\n'));
    }

    #[test]
    fn a_claim_names_its_job_and_nonce_and_no_file() {
        let manifest = parse(&claim(&record())).unwrap();
        assert_eq!(manifest.state, PublishState::Publishing);
        assert_eq!(manifest.job, record().job);
        assert_eq!(manifest.nonce, "n\"1");
        assert_eq!(manifest.outputs, []);
    }

    #[test]
    fn states_are_spelled_as_documented() {
        let text = String::from_utf8(claim(&record())).unwrap();
        assert!(text.contains("\"state\": \"publishing\""), "{text}");
        let text = String::from_utf8(complete(&record(), &[])).unwrap();
        assert!(text.contains("\"state\": \"complete\""), "{text}");
    }

    #[test]
    fn another_format_is_told_apart_from_damage() {
        let newer = br#"{"format_version": 2, "shape": "unknown"}"#;
        let error = parse(newer).unwrap_err().to_string();
        assert_eq!(error, "expected manifest format 1, found 2");
        let whole = claim(&record());
        for damaged in [&whole[..whole.len() / 2], b"", b"{}", b"[]"] {
            assert!(matches!(parse(damaged), Err(ManifestError::Malformed(_))));
        }
    }
}
