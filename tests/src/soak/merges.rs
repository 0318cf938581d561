//! What jobs merge, and what must come out.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use super::schedule::Size;
use crate::cluster::{Cluster, some_tasks};
use crate::emulator::Emulator;
use crate::family::Member;
use crate::fleet::{FAMILY, merge_flags};
use crate::published::{Files, MANIFEST, OF_THE_JOB};

/// Where the larger family lies: below the other one, with all that is no job's.
const LARGER: &str = "family/larger";
/// Small enough for ten files.
const MANY_FILES: [&str; 2] = ["--shard-size", "2MB"];

/// The golden bytes of each kind of job.
#[derive(Debug)]
pub(super) struct Merges {
    golden: Vec<(Size, Arc<Files>)>,
    /// The same, by name, to be shared by all that is equal.
    shared: Vec<(Size, BTreeMap<String, Bytes>)>,
}

impl Merges {
    /// Writes and uploads what is merged, and merges each in one process.
    pub(super) fn new(cluster: &Cluster) -> Self {
        let larger = cluster.fleet.upload_as(LARGER, &some_tasks());
        let golden = Size::ALL.map(|size| {
            let files = match size {
                Size::Small => Arc::clone(cluster.golden()),
                Size::ManyFiles => cluster.merge_alone(cluster.family(), &MANY_FILES).into(),
                Size::Large => cluster.merge_alone(&larger, &[]).into(),
            };
            (size, files)
        });
        let shared = golden.iter().map(|(size, files)| {
            let files = files.iter();
            let files = files.filter(|(name, _)| !OF_THE_JOB.contains(&name.as_str()));
            let files = files.map(|(name, bytes)| (name.clone(), bytes.clone().into()));
            (*size, files.collect())
        });
        Self {
            shared: shared.collect(),
            golden: golden.into(),
        }
    }

    /// What a job of this size makes.
    pub(super) fn golden(&self, size: Size) -> &Arc<Files> {
        let found = self.golden.iter().find(|(of, _)| *of == size);
        &found.expect("every size is there").1
    }

    /// Bytes of weights that a job of this size makes.
    pub(super) fn weights(&self, size: Size) -> u64 {
        let files = self.golden(size).iter();
        let weights = files.filter(|(name, _)| name.ends_with(".safetensors"));
        weights.map(|(_, bytes)| bytes.len() as u64).sum()
    }

    /// The flags that say what is merged, and into what.
    pub(super) fn flags(&self, cluster: &Cluster, size: Size, out: &str) -> Vec<String> {
        let bucket = &cluster.fleet.bucket;
        let (family, more) = match size {
            Size::Small => (FAMILY, &[][..]),
            Size::ManyFiles => (FAMILY, &MANY_FILES[..]),
            Size::Large => (LARGER, &[][..]),
        };
        let input = |member: Member| bucket.url(&format!("{family}/{}", member.folder()));
        let mut flags = merge_flags(input, &bucket.url(out));
        flags.extend(more.iter().map(ToString::to_string));
        flags
    }

    /// Compares what a job has published byte by byte, unless another job has
    /// begun to replace it, and keeps equal bytes once: no number of jobs fills
    /// the memory.
    pub(super) fn verify(
        &self,
        store: &Emulator,
        job: &str,
        out: &str,
        size: Size,
    ) -> Option<String> {
        let manifest = store.object(&format!("{out}/{MANIFEST}"));
        let manifest = manifest.map(|object| serde_json::from_slice::<Value>(&object.bytes()));
        let Some(Ok(manifest)) = manifest else {
            return Some(format!("`{out}` of job {job} has no manifest"));
        };
        if manifest["job"] != job {
            return None;
        }
        if manifest["state"] != "complete" {
            return Some(format!(
                "job {job} has succeeded, and the manifest of `{out}` says {}",
                manifest["state"]
            ));
        }
        let shared = self.shared.iter().find(|(of, _)| *of == size);
        let (_, files) = shared.expect("every size is there");
        let other = files
            .iter()
            .find(|(name, bytes)| !store.share(&format!("{out}/{name}"), bytes));
        let (name, _) = other?;
        // Between the two looks another job may have begun.
        let again = store.object(&format!("{out}/{MANIFEST}"));
        let is_still = again.is_some_and(|object| {
            serde_json::from_slice::<Value>(&object.bytes()).is_ok_and(|again| again == manifest)
        });
        is_still.then(|| format!("`{out}/{name}` of job {job} is not what one process makes alone"))
    }
}
