//! The half of publishing that only rolls forward: claim, renames, manifest.
//!
//! The manifest comes first as a claim, so that no other job can publish into
//! the same folder, and last as the proof that the checkpoint is complete.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use chatvec_core::ids::Crc64;
use chatvec_core::manifest::{self, FILE_NAME as MANIFEST_NAME, Output, PublishState, Record};
use crc_fast::{CrcAlgorithm, checksum};

use super::super::record::{is_leftover, record, weights};
use super::super::{Finished, Published, small, taken};
use crate::storage::local::{LocalError, rename, rename_noreplace, sync_dir};
use crate::storage::{OutputFolder, Partials};

/// Makes the checkpoint visible. A repeat goes on where an earlier call
/// stopped, and gives the same manifest.
pub(in super::super) fn publish(
    finished: &Finished,
    output: &OutputFolder,
    committing_at_ms: i64,
) -> Result<Published, LocalError> {
    let publishing = Publishing {
        finished,
        output,
        partials: output.partials(&finished.row.job_id),
        root: output.root(),
    };
    publishing.run(&record(finished, committing_at_ms))
}

/// One job on its way into its folder.
struct Publishing<'a> {
    finished: &'a Finished,
    output: &'a OutputFolder,
    partials: Partials,
    root: &'a Path,
}

impl Publishing<'_> {
    fn run(&self, record: &Record) -> Result<Published, LocalError> {
        if !self.claim(record)? {
            let place = self.root.join(MANIFEST_NAME).display().to_string();
            let hint = "submit the job with another output; if the other job is dead, remove this file first";
            return Ok(taken(place, hint));
        }
        sync_dir(self.root)?;
        let outputs = self.outputs()?;
        let blueprint = &self.finished.blueprint;
        let index = blueprint.index.as_ref().map(|index| index.path.as_str());
        let weights = blueprint.files.iter().map(|file| file.name.as_str());
        let small = small::paths(blueprint)
            .into_iter()
            .filter(|path| Some(*path) != index);
        for name in weights.chain(small) {
            self.move_into_place(name)?;
        }
        if self.finished.overwrite {
            self.remove_leftovers()?;
        }
        for folder in self.folders() {
            sync_dir(&folder)?;
        }
        if let Some(index) = index {
            self.move_into_place(index)?;
        }
        self.write_manifest(&manifest::complete(record, &outputs), rename)?;
        sync_dir(self.root)?;
        Ok(Published::Complete {
            files: outputs.len(),
        })
    }

    /// Every file of the output with its checksum: a pure function of the frozen
    /// parts and the staged files.
    fn outputs(&self) -> Result<Vec<Output>, LocalError> {
        let mut outputs = weights(self.finished);
        for name in small::paths(&self.finished.blueprint) {
            let bytes = self.read_staged(name)?;
            let crc = Crc64(checksum(CrcAlgorithm::Crc64Nvme, &bytes));
            outputs.push(Output::new(name, bytes.len() as u64, crc));
        }
        Ok(outputs)
    }

    /// A small file that is staged, or moved into place by an earlier call.
    fn read_staged(&self, name: &str) -> Result<Vec<u8>, LocalError> {
        let staged = self.partials.path(name);
        match fs::read(&staged) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let placed = self.root.join(name);
                fs::read(&placed).map_err(|error| LocalError::io("read", &placed, error))
            }
            outcome => outcome.map_err(|error| LocalError::io("read", &staged, error)),
        }
    }

    /// Puts the manifest into the folder as a claim, unless it is there already.
    /// Whether the folder is this job's.
    fn claim(&self, record: &Record) -> Result<bool, LocalError> {
        let standing = self.output.manifest()?;
        let standing = standing.map(|bytes| manifest::parse(&bytes));
        if let Some(Ok(standing)) = &standing
            && standing.job == self.finished.row.job_id
        {
            return Ok(true);
        }
        // A complete checkpoint may be overwritten; one that is being published may not.
        let is_claimed =
            matches!(&standing, Some(Ok(standing)) if standing.state == PublishState::Publishing);
        let claim = manifest::claim(record);
        let placed = match self.finished.overwrite && !is_claimed {
            true => self.write_manifest(&claim, rename),
            false => self.write_manifest(&claim, rename_noreplace),
        };
        match placed {
            Err(error) if error.io_kind() == Some(io::ErrorKind::AlreadyExists) => Ok(false),
            outcome => outcome.map(|()| true),
        }
    }

    fn write_manifest(
        &self,
        manifest: &[u8],
        place: fn(&Path, &Path) -> Result<(), LocalError>,
    ) -> Result<(), LocalError> {
        let staged = self.partials.path(MANIFEST_NAME);
        let written = File::create(&staged).and_then(|mut file| {
            file.write_all(manifest)?;
            file.sync_all()
        });
        written.map_err(|error| LocalError::io("write", &staged, error))?;
        place(&staged, &self.root.join(MANIFEST_NAME))
    }

    /// Renames a staged file into the output folder; one that an earlier call has
    /// moved stays.
    fn move_into_place(&self, name: &str) -> Result<(), LocalError> {
        let (from, to) = (self.partials.path(name), self.root.join(name));
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder).map_err(|error| LocalError::io("create", folder, error))?;
        }
        match rename(&from, &to) {
            Err(LocalError::Absent { .. }) if to.exists() => Ok(()),
            outcome => outcome,
        }
    }

    /// The folders that something was moved into, the output folder among them.
    fn folders(&self) -> BTreeSet<PathBuf> {
        let paths = small::paths(&self.finished.blueprint);
        let inside = paths.into_iter().filter_map(|path| {
            Path::new(path)
                .parent()
                .map(|folder| self.root.join(folder))
        });
        let mut folders: BTreeSet<_> = inside.collect();
        folders.insert(self.root.to_owned());
        folders
    }

    fn remove_leftovers(&self) -> Result<(), LocalError> {
        let root = self.root;
        let entries = fs::read_dir(root).map_err(|error| LocalError::io("list", root, error))?;
        for entry in entries {
            let path = entry
                .map_err(|error| LocalError::io("list", root, error))?
                .path();
            let name = path.file_name().and_then(|name| name.to_str());
            if path.is_file() && name.is_some_and(|name| is_leftover(self.finished, name)) {
                fs::remove_file(&path).map_err(|error| LocalError::io("remove", &path, error))?;
            }
        }
        Ok(())
    }
}
