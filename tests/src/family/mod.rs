//! Families of checkpoints made from a seed: a base, its chat-tuned sibling and
//! its continually pre-trained sibling, related the way real ones are.
//!
//! Element `i` of a tensor is a function of the seed, the tensor's name and
//! `i`, so the same spec gives the same bytes on every machine.

mod layout;
mod random;
mod side;
mod sparse;
mod tensors;
mod uniform;

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::Context as _;
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use crate::direct::DirectWriter;
use layout::{Layout, Placed};
use random::Values;
pub(crate) use random::mix;

pub use sparse::write_sparse;
pub use uniform::{UNIFORM_FILE, Uniform};

/// What a family looks like. The tensors are those of a Llama model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FamilySpec {
    /// The seed of every element.
    pub seed: u64,
    /// Decoder layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the feed-forward layer.
    pub intermediate: usize,
    /// Attention heads.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Rows of the embedding.
    pub vocab: usize,
    /// Rows that cp's embedding and head have beyond those.
    pub cp_extra_rows: usize,
    /// Whether the head is the embedding, and not stored.
    pub tied: bool,
    /// Type of every weight: BF16, F16, F32 or F64.
    pub dtype: Dtype,
    /// Bytes of tensors after which a new shard begins.
    pub shard_bytes: u64,
}

/// The role of a checkpoint in its family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Member {
    /// θ_base.
    Base,
    /// θ_chat: base and a small change.
    Chat,
    /// θ_cp: base and another change, twice as large.
    Cp,
}

impl Member {
    /// Every member.
    pub const ALL: [Self; 3] = [Self::Cp, Self::Chat, Self::Base];

    /// The name of its folder.
    pub fn folder(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Chat => "chat",
            Self::Cp => "cp",
        }
    }
}

/// A family on disk.
#[derive(Debug, Clone)]
pub struct Family {
    /// The folder that holds the three.
    pub root: PathBuf,
}

impl Family {
    /// The folder of one checkpoint.
    pub fn member(&self, member: Member) -> PathBuf {
        self.root.join(member.folder())
    }

    /// θ_cp's folder.
    pub fn cp(&self) -> PathBuf {
        self.member(Member::Cp)
    }

    /// θ_chat's folder.
    pub fn chat(&self) -> PathBuf {
        self.member(Member::Chat)
    }

    /// θ_base's folder.
    pub fn base(&self) -> PathBuf {
        self.member(Member::Base)
    }
}

impl FamilySpec {
    /// Four layers, 10 MB a checkpoint, two shards.
    pub fn tiny(seed: u64) -> Self {
        Self {
            seed,
            layers: 4,
            hidden: 256,
            intermediate: 688,
            heads: 8,
            kv_heads: 4,
            vocab: 4096,
            cp_extra_rows: 0,
            tied: false,
            dtype: Dtype::BF16,
            shard_bytes: 6_000_000,
        }
    }

    /// 150 MB a checkpoint in four shards: enough to see the work being done.
    pub fn demo(seed: u64) -> Self {
        Self {
            layers: 8,
            hidden: 768,
            intermediate: 2048,
            heads: 12,
            kv_heads: 4,
            vocab: 16_384,
            shard_bytes: 40_000_000,
            ..Self::tiny(seed)
        }
    }

    /// 1.1 billion parameters, 2.2 GB a checkpoint.
    pub fn llama_1b(seed: u64) -> Self {
        Self {
            layers: 22,
            hidden: 2048,
            intermediate: 5632,
            heads: 32,
            kv_heads: 4,
            vocab: 32_000,
            shard_bytes: 1_000_000_000,
            ..Self::tiny(seed)
        }
    }

    /// Four times [`llama_1b`](Self::llama_1b): 4.4 billion parameters.
    pub fn llama_4b(seed: u64) -> Self {
        Self {
            layers: 42,
            hidden: 3072,
            intermediate: 8192,
            heads: 24,
            kv_heads: 8,
            shard_bytes: 4_000_000_000,
            ..Self::llama_1b(seed)
        }
    }

    /// Writes the family into `root`, or does nothing where a family of this
    /// very spec was written there before.
    ///
    /// # Errors
    /// Whatever the filesystem says; a family half written is written again.
    pub fn write(&self, root: &Path) -> anyhow::Result<Family> {
        let family = Family {
            root: root.to_owned(),
        };
        // The stamp is written last, so it vouches for everything else.
        let stamp = root.join("family.json");
        let spec = serde_json::to_vec_pretty(self).expect("a spec is plain data");
        if fs::read(&stamp).is_ok_and(|found| found == spec) {
            return Ok(family);
        }
        if root.exists() {
            fs::remove_dir_all(root)
                .with_context(|| format!("cannot remove the family in {}", root.display()))?;
        }
        thread::scope(|scope| {
            let writers =
                Member::ALL.map(|member| scope.spawn(move || self.write_member(member, root)));
            writers
                .into_iter()
                .try_for_each(|writer| writer.join().expect("writers do not panic"))
        })
        .with_context(|| format!("cannot write a family to {}", root.display()))?;
        fs::write(&stamp, spec)?;
        Ok(family)
    }

    fn write_member(&self, member: Member, root: &Path) -> io::Result<()> {
        let folder = root.join(member.folder());
        fs::create_dir_all(&folder)?;
        let layout = Layout::new(tensors::llama(self, member), self.dtype, self.shard_bytes);
        for shard in layout.shards() {
            let mut file = DirectWriter::create(&folder.join(&shard.name), shard.size())?;
            file.write_from(&mut &shard.header[..])?;
            for tensor in &shard.tensors {
                file.write_from(&mut TensorBytes::new(self, member, tensor))?;
            }
            file.finish()?;
        }
        if let Some(index) = layout.index() {
            fs::write(folder.join("model.safetensors.index.json"), index)?;
        }
        side::write(self, member, &folder)
    }
}

/// The bytes of one tensor, generated while they are read.
struct TensorBytes {
    values: Values,
    dtype: Dtype,
    elements: u64,
    next: u64,
}

impl TensorBytes {
    fn new(spec: &FamilySpec, member: Member, tensor: &Placed) -> Self {
        Self {
            values: Values::new(spec.seed, member, &tensor.name),
            dtype: spec.dtype,
            elements: tensor.elements(),
            next: 0,
        }
    }
}

impl Read for TensorBytes {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let width = self.dtype.bitsize() / 8;
        // Files begin with a header of whole words, so a buffer never ends
        // inside an element.
        let room = (buffer.len() / width) as u64;
        assert!(room > 0, "a buffer holds at least one element");
        let count = room.min(self.elements - self.next);
        let bytes = count as usize * width;
        self.values
            .fill(self.dtype, self.next, &mut buffer[..bytes]);
        self.next += count;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests;
