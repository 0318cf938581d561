//! Checkpoints of any size whose weights are a hole in the file: for everything
//! that reads headers alone.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;

use anyhow::Context as _;
use safetensors::Dtype;

use super::layout::Layout;
use super::{Family, FamilySpec, Member, side, tensors};

/// Gives 163 shards.
const SHARD_BYTES: u64 = 8_400_000_000;

/// Writes a family of 683 billion parameters, 91,000 tensors and 163 shards a
/// checkpoint. Headers and index are real, weights are a hole: it takes some
/// 90 MB of disk and no time.
///
/// # Errors
/// Whatever the filesystem says.
pub fn write_sparse(root: &Path) -> anyhow::Result<Family> {
    let layout = Layout::new(tensors::mixture(), Dtype::BF16, SHARD_BYTES);
    let index = layout.index().expect("there are many shards");
    // The side files of a Llama of the same vocabulary will do for a plan.
    let spec = FamilySpec {
        vocab: 129_280,
        ..FamilySpec::tiny(0)
    };
    for member in Member::ALL {
        let folder = root.join(member.folder());
        fs::create_dir_all(&folder)?;
        for shard in layout.shards() {
            let path = folder.join(&shard.name);
            File::create(&path)
                .and_then(|mut file| {
                    file.write_all(&shard.header)?;
                    file.set_len(shard.size())
                })
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        fs::write(folder.join("model.safetensors.index.json"), &index)?;
        side::write(&spec, member, &folder)?;
    }
    Ok(Family {
        root: root.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mixture_fills_as_many_shards_as_promised() {
        let layout = Layout::new(tensors::mixture(), Dtype::BF16, SHARD_BYTES);
        assert_eq!(layout.shards().len(), 163);
    }
}
