//! Small families of checkpoints, made of headers alone.

use serde_json::{Value, json};

use super::{Input, Inputs, VectorInputs};
use crate::checkpoint::{Checkpoint, ListedFile, WeightFile, assemble, select};
use crate::dtype::Dtype;
use crate::header::{self, NewTensor};
use crate::recipe::Recipe;
use crate::task::SourceFile;

/// Name, type and shape of a tensor.
pub(crate) type Tensor = (String, Dtype, Vec<u64>);

/// A BF16 tensor.
pub(crate) fn bf16(name: &str, shape: &[u64]) -> Tensor {
    (name.to_owned(), Dtype::BF16, shape.to_vec())
}

/// A checkpoint of one file with these tensors and this `config.json`.
pub(crate) fn checkpoint(tensors: &[Tensor], config: &Value) -> Checkpoint {
    let mut sorted = tensors.to_vec();
    sorted.sort_by_key(|(_, dtype, _)| std::cmp::Reverse(dtype.bitsize()));
    let new: Vec<_> = sorted
        .iter()
        .map(|(name, dtype, shape)| NewTensor {
            name,
            dtype: *dtype,
            shape,
        })
        .collect();
    let encoded = header::encode(&new).unwrap();
    let data: u64 = sorted
        .iter()
        .map(|(_, dtype, shape)| shape.iter().product::<u64>() * dtype.bitsize() as u64 / 8)
        .sum();
    let size = encoded.len() as u64 + data;
    let name = "model.safetensors".to_owned();
    let header = header::parse(&encoded[8..], size).unwrap();
    let selection = select(
        &[ListedFile {
            name: name.clone(),
            size,
        }],
        None,
    )
    .unwrap();
    assemble(
        selection,
        vec![WeightFile { name, size, header }],
        Some(config.to_string().as_bytes()),
    )
    .unwrap()
}

/// Checkpoints in the roles of a recipe: cp, then chat and base of each vector.
pub(crate) struct Family {
    checkpoints: Vec<Checkpoint>,
    sources: Vec<SourceFile>,
}

impl Family {
    pub(crate) fn new(checkpoints: Vec<Checkpoint>) -> Self {
        let source = |(i, checkpoint): (usize, &Checkpoint)| SourceFile {
            url: format!("/models/{i}/model.safetensors"),
            size: checkpoint.files[0].size,
            pin: format!("pin-{i}"),
        };
        let sources = checkpoints.iter().enumerate().map(source).collect();
        Self {
            checkpoints,
            sources,
        }
    }

    /// Three checkpoints with the same tensors.
    pub(crate) fn alike(tensors: &[Tensor]) -> Self {
        Self::new(
            (0..3)
                .map(|_| checkpoint(tensors, &json!({"tie_word_embeddings": false})))
                .collect(),
        )
    }

    pub(crate) fn inputs(&self) -> Inputs<'_> {
        let input = |i: usize| Input {
            checkpoint: &self.checkpoints[i],
            files: &self.sources[i..=i],
            first_source: i,
        };
        let vectors = (1..self.checkpoints.len()).step_by(2);
        Inputs {
            cp: input(0),
            vectors: vectors
                .map(|i| VectorInputs {
                    chat: input(i),
                    base: input(i + 1),
                })
                .collect(),
        }
    }

    pub(crate) fn sources(&self) -> Vec<SourceFile> {
        self.sources.clone()
    }
}

/// A recipe with one vector of λ = 1 and these further fields.
pub(crate) fn recipe(more: &Value) -> Recipe {
    let mut value = json!({
        "cp": "/models/0",
        "vectors": [{ "chat": "/models/1", "base": "/models/2", "lambda": 1.0 }],
        "output": { "url": "/out" },
    });
    for (field, content) in more.as_object().unwrap() {
        value[field] = content.clone();
    }
    Recipe::from_value(&value).unwrap().recipe
}
