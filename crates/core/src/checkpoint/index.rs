//! `model.safetensors.index.json`: which file holds which tensor.

use std::collections::HashMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

/// The index of a checkpoint of several files. That of the largest has a hundred
/// thousand tensors, so each name stands once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    /// Plain names in the checkpoint's folder, in the order of their mention.
    files: Vec<String>,
    /// By name, each with the position of its file.
    tensors: Vec<(Box<str>, u32)>,
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
        let WeightMap { files, tensors } = raw.weight_map;
        if tensors.is_empty() {
            return Err(IndexError::Empty);
        }
        let total_size = raw
            .metadata
            .and_then(|metadata| metadata.total_size)
            .and_then(|size| whole_number(&size));
        let index = Self {
            files,
            tensors,
            total_size,
        };
        if let Some((tensor, file)) = index.iter().find(|(_, file)| !is_plain(file)) {
            return Err(IndexError::UnexpectedFile {
                tensor: tensor.to_owned(),
                file: file.to_owned(),
            });
        }
        Ok(index)
    }

    /// The files that hold tensors, each once.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(String::as_str)
    }

    /// The tensors by name, each with its file.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let file_of = |file: u32| self.files[file as usize].as_str();
        self.tensors
            .iter()
            .map(move |(tensor, file)| (&**tensor, file_of(*file)))
    }

    /// The file of a tensor, if the index names the tensor.
    pub fn file_of(&self, tensor: &str) -> Option<&str> {
        let found = self
            .tensors
            .binary_search_by(|(name, _)| (**name).cmp(tensor));
        let (_, file) = self.tensors[found.ok()?];
        Some(&self.files[file as usize])
    }
}

/// Whether it is the name of a weight file in the folder itself.
fn is_plain(file: &str) -> bool {
    !file.contains(['/', '\\', '\0']) && file.ends_with(".safetensors")
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

struct WeightMap {
    files: Vec<String>,
    tensors: Vec<(Box<str>, u32)>,
}

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
        let mut files = Vec::new();
        let mut positions: HashMap<String, u32> = HashMap::new();
        let mut tensors = Vec::new();
        while let Some(tensor) = map.next_key::<Box<str>>()? {
            let file = map
                .next_value::<String>()
                .map_err(|error| A::Error::custom(format_args!("tensor `{tensor}`: {error}")))?;
            let next = u32::try_from(files.len()).expect("a text of 4 GB is not read");
            let position = *positions.entry(file).or_insert_with_key(|file| {
                files.push(file.clone());
                next
            });
            tensors.push((tensor, position));
        }
        tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
        match tensors.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            None => Ok(WeightMap { files, tensors }),
            Some(pair) => {
                let message = format_args!("tensor `{}` stands twice", pair[0].0);
                Err(A::Error::custom(message))
            }
        }
    }
}
