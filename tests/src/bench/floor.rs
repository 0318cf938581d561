//! What any merge must do at least: read three checkpoints, write one.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::PathBuf;

use crate::direct::DirectWriter;
use crate::family::{Family, Member};

/// One read.
const BLOCK_BYTES: usize = 1 << 20;

/// What to read and where to write.
#[derive(Debug, Clone)]
pub struct Floor {
    /// The three checkpoints.
    pub family: Family,
    /// The folder for the copy.
    pub out: PathBuf,
}

/// Reads every weight of the three checkpoints once, then copies cp's files past
/// the page cache and waits for the disk.
///
/// # Errors
/// Whatever the filesystem says.
pub fn copy(floor: &Floor) -> io::Result<()> {
    let mut block = vec![0; BLOCK_BYTES];
    for member in Member::ALL {
        for path in super::weights(&floor.family.member(member))? {
            let mut file = File::open(path)?;
            while file.read(&mut block)? > 0 {}
        }
    }
    fs::create_dir_all(&floor.out)?;
    for path in super::weights(&floor.family.cp())? {
        let mut source = File::open(&path)?;
        let name = path.file_name().expect("a listed file has a name");
        let mut copy = DirectWriter::create(&floor.out.join(name), source.metadata()?.len())?;
        copy.write_from(&mut source)?;
        copy.finish()?;
    }
    File::open(&floor.out)?.sync_all()
}
