//! Checkpoints of equal matrices whose weights are one block again and again:
//! as many and as large as a measurement wants, at the cost of the block.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use safetensors::Dtype;

use super::layout::Layout;
use super::random::Values;
use super::tensors::Named;
use super::{Family, FamilySpec, Member, side};

/// Elements of a block.
const BLOCK_ELEMENTS: usize = 1 << 20;
/// The name of the only file.
pub const UNIFORM_FILE: &str = "model.safetensors";

/// A family of checkpoints of one file with equal matrices in BF16.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uniform {
    /// How many matrices.
    pub tensors: usize,
    /// Rows of each.
    pub rows: usize,
    /// Columns of each.
    pub columns: usize,
}

impl Uniform {
    /// The first bytes of a member's file, up to its weights, and its size.
    pub fn header(&self) -> (Vec<u8>, u64) {
        let named = |ordinal| Named {
            name: format!("model.layers.{ordinal}.mlp.up_proj.weight"),
            shape: vec![self.rows, self.columns],
        };
        let tensors = (0..self.tensors).map(named).collect();
        let layout = Layout::new(tensors, Dtype::BF16, u64::MAX);
        let file = &layout.shards()[0];
        (file.header.clone(), file.size())
    }

    /// The block of weights that a member's file repeats; its last copy may be cut.
    pub fn block(member: Member) -> Vec<u8> {
        let mut block = vec![0; BLOCK_ELEMENTS * Dtype::BF16.bitsize() / 8];
        Values::new(1, member, "block").fill(Dtype::BF16, 0, &mut block);
        block
    }

    /// Writes the configuration and the other small files of a member.
    ///
    /// # Errors
    /// Whatever the filesystem says.
    pub fn write_side(member: Member, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        side::write(&FamilySpec::tiny(1), member, folder)
    }

    /// Writes the family into `root`.
    ///
    /// # Errors
    /// Whatever the filesystem says.
    pub fn write(&self, root: &Path) -> io::Result<Family> {
        let (header, size) = self.header();
        for member in Member::ALL {
            let folder = root.join(member.folder());
            Self::write_side(member, &folder)?;
            let mut file = File::create(folder.join(UNIFORM_FILE))?;
            file.write_all(&header)?;
            let block = Self::block(member);
            let mut left = (size - header.len() as u64) as usize;
            while left > 0 {
                let some = left.min(block.len());
                file.write_all(&block[..some])?;
                left -= some;
            }
        }
        Ok(Family {
            root: root.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_its_header_and_copies_of_the_block() {
        let folder = tempfile::tempdir().unwrap();
        let uniform = Uniform {
            tensors: 3,
            rows: 1 << 10,
            columns: 600,
        };
        let family = uniform.write(folder.path()).unwrap();
        let (header, size) = uniform.header();
        let bytes = fs::read(family.cp().join(UNIFORM_FILE)).unwrap();
        assert_eq!(bytes.len() as u64, size);
        let block = Uniform::block(Member::Cp);
        let weights = bytes.strip_prefix(&header[..]).unwrap();
        assert_eq!(weights.len(), (3 * 2 * 600) << 10);
        assert_eq!(weights[..block.len()], block);
        assert_eq!(weights[block.len()..], block[..weights.len() - block.len()]);
    }
}
