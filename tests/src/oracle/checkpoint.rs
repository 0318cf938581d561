//! A checkpoint opened for reading, with every claim of its index checked.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail, ensure};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use serde::Deserialize;

/// The longest header that is believed.
const HEADER_MAX_BYTES: u64 = 100_000_000;

/// A tensor in an open file.
pub(super) struct Tensor {
    pub(super) dtype: Dtype,
    pub(super) shape: Vec<usize>,
    file: Arc<File>,
    offset: u64,
}

impl Tensor {
    /// The bytes of `count` elements from `first` on.
    pub(super) fn read(&self, first: u64, count: usize) -> anyhow::Result<Vec<u8>> {
        let width = self.dtype.bitsize() / 8;
        let mut bytes = vec![0; count * width];
        self.file
            .read_exact_at(&mut bytes, self.offset + first * width as u64)?;
        Ok(bytes)
    }
}

/// Every tensor of a checkpoint by its name.
pub(super) struct Checkpoint {
    pub(super) tensors: BTreeMap<String, Tensor>,
}

#[derive(Deserialize)]
struct Index {
    metadata: IndexMetadata,
    weight_map: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct IndexMetadata {
    total_size: u64,
}

impl Checkpoint {
    /// Opens the files that the index of `folder` names, or `model.safetensors`.
    pub(super) fn open(folder: &Path) -> anyhow::Result<Self> {
        Self::open_files(folder).with_context(|| format!("checkpoint {}", folder.display()))
    }

    fn open_files(folder: &Path) -> anyhow::Result<Self> {
        let index_path = folder.join("model.safetensors.index.json");
        if !index_path.exists() {
            let tensors = open_file(&folder.join("model.safetensors"))?.0;
            return Ok(Self { tensors });
        }
        let index: Index = serde_json::from_slice(&fs::read(&index_path)?)
            .context("malformed `model.safetensors.index.json`")?;
        let mut files: Vec<&String> = index.weight_map.values().collect();
        files.sort();
        files.dedup();

        let mut tensors = BTreeMap::new();
        let mut total = 0;
        for file in files {
            let (found, bytes) = open_file(&folder.join(file))?;
            total += bytes;
            for (name, tensor) in found {
                ensure!(
                    index.weight_map.get(&name) == Some(file),
                    "`{name}` is in `{file}` and the index says otherwise"
                );
                tensors.insert(name, tensor);
            }
        }
        if let Some(name) = index
            .weight_map
            .keys()
            .find(|name| !tensors.contains_key(*name))
        {
            bail!("the index names `{name}` and no file has it");
        }
        ensure!(
            total == index.metadata.total_size,
            "the index says {} bytes of tensors, the files have {total}",
            index.metadata.total_size
        );
        Ok(Self { tensors })
    }
}

/// The tensors of a file, and their bytes together.
fn open_file(path: &Path) -> anyhow::Result<(BTreeMap<String, Tensor>, u64)> {
    read_header(path).with_context(|| format!("file {}", path.display()))
}

fn read_header(path: &Path) -> anyhow::Result<(BTreeMap<String, Tensor>, u64)> {
    let file = Arc::new(File::open(path)?);
    let mut length = [0; 8];
    file.read_exact_at(&mut length, 0)?;
    let length = u64::from_le_bytes(length);
    ensure!(length <= HEADER_MAX_BYTES, "a header of {length} bytes");
    let mut header = vec![0; length as usize];
    file.read_exact_at(&mut header, 8)?;
    // The library checks that tensors fill the data section without gap or overlap.
    let metadata: Metadata = serde_json::from_slice(&header).context("malformed header")?;
    let data = metadata.data_len() as u64;
    let size = file.metadata()?.len();
    ensure!(
        size == 8 + length + data,
        "expected {} bytes, found {size}",
        8 + length + data
    );
    let tensors = metadata
        .tensors()
        .into_iter()
        .map(|(name, info)| {
            let tensor = Tensor {
                dtype: info.dtype,
                shape: info.shape.clone(),
                file: Arc::clone(&file),
                offset: 8 + length + info.data_offsets.0 as u64,
            };
            (name, tensor)
        })
        .collect();
    Ok((tensors, data))
}
