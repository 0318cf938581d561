//! `model.safetensors.index.json`: which file holds which tensor.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

/// The index of a checkpoint of several files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// The file of each tensor: a plain name in the checkpoint's folder.
    pub weight_map: BTreeMap<String, String>,
    /// Bytes of all tensors together, where the index says so.
    pub total_size: Option<u64>,
}

/// What can be wrong with an index.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// A text that stands for the real file.
    #[error("this is a Git-LFS pointer, not the file itself")]
    GitLfsPointer,
    /// Not JSON of the expected form, or a tensor that stands twice.
    #[error("not a valid index: {0}")]
    Json(serde_json::Error),
    /// No tensor in it.
    #[error("`weight_map` is empty")]
    Empty,
    /// A file that is not one of the folder itself.
    #[error(
        "tensor `{tensor}` is in `{file}`, expected the name of a `.safetensors` file in the same folder"
    )]
    UnexpectedFile {
        /// The tensor.
        tensor: String,
        /// What stands there.
        file: String,
    },
}

impl Index {
    /// Parses an index. Fields that it does not know are passed over.
    ///
    /// # Errors
    /// Not valid JSON, a tensor or a field that stands twice, entries that are
    /// not text, or files outside the folder or of another format.
    pub fn parse(json: &[u8]) -> Result<Self, IndexError> {
        if json.starts_with(b"version https://git-lfs") {
            return Err(IndexError::GitLfsPointer);
        }
        let raw: RawIndex = serde_json::from_slice(json).map_err(IndexError::Json)?;
        let WeightMap(weight_map) = raw.weight_map;
        if weight_map.is_empty() {
            return Err(IndexError::Empty);
        }
        for (tensor, file) in &weight_map {
            let plain = !file.contains(['/', '\\', '\0']);
            if !plain || !file.ends_with(".safetensors") {
                return Err(IndexError::UnexpectedFile {
                    tensor: tensor.clone(),
                    file: file.clone(),
                });
            }
        }
        let total_size = raw
            .metadata
            .and_then(|metadata| metadata.total_size)
            .and_then(|size| whole_number(&size));
        Ok(Self {
            weight_map,
            total_size,
        })
    }
}

/// Some writers spell the size as `1.5e10`.
fn whole_number(number: &serde_json::Value) -> Option<u64> {
    number.as_u64().or_else(|| {
        let float = number.as_f64()?;
        // Up to 2^53 every whole number is exact.
        (float.fract() == 0.0 && (0.0..=9_007_199_254_740_992.0).contains(&float))
            .then_some(float as u64)
    })
}

#[derive(Deserialize)]
struct RawIndex {
    metadata: Option<RawMetadata>,
    weight_map: WeightMap,
}

#[derive(Deserialize)]
struct RawMetadata {
    total_size: Option<serde_json::Value>,
}

struct WeightMap(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(WeightMapVisitor)
    }
}

struct WeightMapVisitor;

impl<'de> Visitor<'de> for WeightMapVisitor {
    type Value = WeightMap;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of file names by tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<WeightMap, A::Error> {
        let mut files = BTreeMap::new();
        while let Some(tensor) = map.next_key::<String>()? {
            let file = map
                .next_value::<String>()
                .map_err(|error| A::Error::custom(format_args!("tensor `{tensor}`: {error}")))?;
            if files.contains_key(&tensor) {
                let message = format_args!("tensor `{tensor}` stands twice");
                return Err(A::Error::custom(message));
            }
            files.insert(tensor, file);
        }
        Ok(WeightMap(files))
    }
}
