//! What a run finds in the output folder, and what it may do with it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use chatvec_core::ids::{Digest, JobId, RequestId};
use chatvec_core::job::JobState;
use chatvec_core::manifest::{self, Manifest, PublishState};
use chatvec_core::problem::Problem;
use chatvec_core::recipe::Recipe;
use rustix::io::Errno;

use super::{EarlierRun, EmbeddedError};
use crate::coordinator::planner::{Blueprint, SurveyedInputs};
use crate::coordinator::store::{JobFilter, JobRow, Store};
use crate::coordinator::{Resumed, discard, resume};
use crate::storage::lock::{FolderLock, LOCK_NAME, take};
use crate::storage::{ObjectStorage, Output};

/// The job store's file in the state folder.
const STORE_NAME: &str = "state.db";

/// A recipe with its inputs surveyed and its output, before or under the lock.
#[derive(Debug)]
pub(super) struct State {
    storage: ObjectStorage,
    recipe: Recipe,
    inputs: SurveyedInputs,
    key: Digest,
    output: Output,
    /// Where the job store and the lock are: in the output folder, or, for an
    /// output in object storage, among the user's own files.
    dir: PathBuf,
    /// Whether the output folder was there before.
    existed: bool,
    lock: Option<FolderLock>,
    /// The jobs of this state folder's store. Other jobs may publish into the
    /// same folder; what is theirs is left alone.
    jobs: Vec<JobId>,
}

/// What [`State::open`] found.
#[derive(Debug)]
pub(super) enum Opened {
    /// The folder is ours.
    Ready {
        state: Box<State>,
        store: Store,
        resumed: Option<Resumed>,
    },
    /// Another run finished the very same job meanwhile.
    AlreadyPublished,
}

impl State {
    /// Reads what can be read without changing anything, and rejects what
    /// cannot work. `state_home` holds the state of merges into object storage.
    ///
    /// Blocks: not for a thread of a runtime.
    pub(super) fn check(
        storage: &ObjectStorage,
        recipe: Recipe,
        state_home: &Path,
    ) -> Result<Self, EmbeddedError> {
        let rejected = |problem| EmbeddedError::Rejected(vec![problem]);
        let output = Output::at(storage, &recipe.output.url).map_err(rejected)?;
        let inputs = SurveyedInputs::survey(storage, &recipe)
            .map_err(|error| EmbeddedError::Rejected(error.problems))?;
        output
            .check_apart_from(&inputs.locations())
            .map_err(rejected)?;
        let key = inputs.key(&recipe);
        let (dir, existed) = match &output {
            Output::Folder(folder) => (folder.state_dir(), folder.root().exists()),
            Output::Prefix(prefix) => {
                let name = Digest::of_parts([prefix.url().to_string()]).0;
                (state_home.join("merge").join(name), true)
            }
        };
        Ok(Self {
            storage: storage.clone(),
            recipe,
            inputs,
            key,
            output,
            dir,
            existed,
            lock: None,
            jobs: Vec::new(),
        })
    }

    /// Whether the complete result of this very recipe on these very inputs
    /// stands in the output folder.
    pub(super) async fn is_published(&self) -> Result<bool, EmbeddedError> {
        let Some(manifest) = self.manifest().await? else {
            return Ok(false);
        };
        Ok(manifest.state == PublishState::Complete
            && manifest.key == self.key
            && self.has_all_files(&manifest).await?)
    }

    /// Whether a run left something in the state folder, or is at work there.
    pub(super) fn has_leftovers(&self) -> bool {
        self.dir.exists()
    }

    async fn manifest(&self) -> Result<Option<Manifest>, EmbeddedError> {
        let bytes = self.output.read(manifest::FILE_NAME).await;
        let bytes = bytes.context("the output cannot be read")?;
        // A manifest of another program is just a file that is in the way.
        Ok(bytes.and_then(|bytes| manifest::parse(&bytes).ok()))
    }

    async fn has_all_files(&self, manifest: &Manifest) -> Result<bool, EmbeddedError> {
        let sizes = self
            .output
            .sizes(manifest.outputs.iter().map(|file| &*file.path));
        let sizes = sizes.await.context("the output cannot be read")?;
        let expected = manifest.outputs.iter().map(|file| Some(file.size));
        Ok(sizes.into_iter().eq(expected))
    }

    /// Locks the folder and opens its job store, with the job of an earlier
    /// run in it if there was one.
    pub(super) async fn open(mut self, earlier: EarlierRun) -> Result<Opened, EmbeddedError> {
        if !self.dir.exists() {
            self.check_usable().await?;
        }
        match take(&self.dir) {
            Ok(Ok(lock)) => self.lock = Some(lock),
            Ok(Err(held)) => {
                return Err(EmbeddedError::Busy {
                    output: self.output.to_string(),
                    pid: held.pid,
                });
            }
            Err(error) => return Err(EmbeddedError::Rejected(vec![self.unwritable(&error)])),
        }
        // Whoever held the lock before may have finished.
        if self.is_published().await? {
            self.sweep().await?;
            return Ok(Opened::AlreadyPublished);
        }
        match self.store_with_job(earlier).await? {
            (store, Some(row)) => {
                let resumed = self.take_up(&store, &row).await?;
                Ok(Opened::Ready {
                    state: Box::new(self),
                    store,
                    resumed: Some(resumed),
                })
            }
            (store, None) => {
                if let Err(problem) = self.check_usable().await {
                    store.close().await;
                    self.discard().await?;
                    return Err(problem);
                }
                Ok(Opened::Ready {
                    state: Box::new(self),
                    store,
                    resumed: None,
                })
            }
        }
    }

    /// Removes what the run left that published and died before it could do so
    /// itself. An unfinished merge of something else stays.
    async fn sweep(&mut self) -> Result<(), EmbeddedError> {
        let mut published: Vec<_> = Vec::from_iter(self.manifest().await?.map(|one| one.job));
        if self.dir.join(STORE_NAME).exists() {
            let (store, job) = self.store_with_job(EarlierRun::Resume).await?;
            store.close().await;
            if job.is_some_and(|row| row.input_key.as_ref() != Some(&self.key)) {
                return Ok(());
            }
        }
        self.jobs.append(&mut published);
        self.discard().await
    }

    async fn check_usable(&self) -> Result<(), EmbeddedError> {
        let overwrite = self.recipe.output.overwrite;
        let usable = match &self.output {
            Output::Folder(folder) => folder.check_usable(overwrite),
            Output::Prefix(prefix) => {
                let free = prefix.check_free(overwrite).await;
                free.unwrap_or_else(|error| Err(error.failure().problem))
                    .map(drop)
            }
        };
        usable.map_err(|problem| EmbeddedError::Rejected(vec![problem]))
    }

    /// What the user is told when the job store has no room.
    pub(super) fn full_disk(&self) -> Problem {
        self.unwritable(&Errno::NOSPC.into())
    }

    fn unwritable(&self, error: &io::Error) -> Problem {
        Problem::new(
            "output.url",
            format!("cannot write to `{}`: {error}", self.dir.display()),
        )
        .with_hint("check the path, its permissions and the space on its disk")
    }

    /// The store, and the job that an earlier run left unfinished in it.
    async fn store_with_job(
        &mut self,
        earlier: EarlierRun,
    ) -> Result<(Store, Option<JobRow>), EmbeddedError> {
        let store = self.open_store().await?;
        let filter = JobFilter {
            limit: 1,
            ..JobFilter::default()
        };
        let newest = store
            .jobs(&filter)
            .await
            .context("the job store cannot be read")?
            .into_iter()
            .next();
        self.jobs = newest.iter().map(|row| row.job_id.clone()).collect();
        let is_under_way =
            |row: &JobRow| !row.state.is_terminal() && row.state != JobState::Planning;
        match newest {
            Some(row) if is_under_way(&row) && earlier == EarlierRun::Resume => {
                Ok((store, Some(row)))
            }
            // Leftovers: of a job that had ended, of which nothing was done, or
            // that the user discards.
            Some(row) => {
                if let Output::Prefix(_) = &self.output {
                    discard(&store, &self.storage, &row.job_id)
                        .await
                        .context("what an earlier merge left cannot be removed")?;
                }
                store.close().await;
                self.clear().await?;
                Ok((self.open_store().await?, None))
            }
            None => Ok((store, None)),
        }
    }

    async fn open_store(&self) -> Result<Store, EmbeddedError> {
        let opened = Store::open_sqlite(&self.dir.join(STORE_NAME)).await;
        Ok(opened.context("the job store cannot be opened")?)
    }

    /// Takes up a job if it is the same as this one; else names what differs.
    async fn take_up(&self, store: &Store, row: &JobRow) -> Result<Resumed, EmbeddedError> {
        let mut problems = Vec::new();
        if row.recipe_digest != self.recipe.digest() {
            let message = format!(
                "`{}` holds an unfinished merge of another recipe",
                self.output
            );
            problems.push(Problem::new("recipe", message));
        } else if row.input_key.as_ref() != Some(&self.key) {
            problems.extend(self.changed_inputs(store, row).await?);
        }
        if let Some(last) = problems.last_mut() {
            *last = last
                .clone()
                .with_hint("`--restart` discards the unfinished merge and starts over");
            return Err(EmbeddedError::Rejected(problems));
        }
        Ok(resume(store, &self.storage, &row.job_id).await?)
    }

    /// The input files that are not those of the unfinished job's plan.
    async fn changed_inputs(
        &self,
        store: &Store,
        row: &JobRow,
    ) -> Result<Vec<Problem>, EmbeddedError> {
        let plan = store
            .plan(&row.job_id)
            .await
            .context("the job store cannot be read")?
            .unwrap_or_default();
        let planned = Blueprint::decode(&plan)
            .context("the stored plan cannot be read")?
            .inputs;
        let now = self.inputs.records();
        let mut problems = Vec::new();
        for before in &planned {
            let current = now.iter().find(|input| input.role == before.role);
            for file in &before.files {
                let found = current
                    .and_then(|input| input.files.iter().find(|other| other.name == file.name));
                if found != Some(file) {
                    let found = found.map_or("nothing".to_owned(), |found| found.pin.clone());
                    let message = format!(
                        "changed since the merge began: expected {}, found {found}",
                        file.pin
                    );
                    problems.push(Problem::new(
                        format!("{}: {}/{}", before.role, before.url, file.name),
                        message,
                    ));
                }
            }
        }
        if problems.is_empty() {
            problems.push(Problem::new(
                "inputs",
                "files were added since the merge began",
            ));
        }
        Ok(problems)
    }

    pub(super) fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// One folder holds one job: its request is named after what it asks.
    pub(super) fn request_id(&self) -> RequestId {
        RequestId(self.key.0.clone())
    }

    /// The job of this run, once it is made.
    pub(super) fn job(&self) -> Option<&JobId> {
        self.jobs.last()
    }

    /// Notes the job that this run made, so that its leftovers are known.
    pub(super) fn note_job(&mut self, job: JobId) {
        if !self.jobs.contains(&job) {
            self.jobs.push(job);
        }
    }

    /// Removes the unfinished files of our jobs, a claim of theirs on the
    /// folder, and the store.
    async fn clear(&self) -> Result<(), EmbeddedError> {
        if let Output::Folder(folder) = &self.output {
            for job in &self.jobs {
                folder
                    .partials(job)
                    .remove()
                    .context("unfinished files cannot be removed")?;
            }
            let claim = self.manifest().await?;
            let claim = claim.filter(|claim| claim.state == PublishState::Publishing);
            if claim.is_some_and(|claim| self.jobs.contains(&claim.job)) {
                remove_file(&folder.root().join(manifest::FILE_NAME))?;
            }
        }
        for ending in ["", "-wal", "-shm", "-journal"] {
            remove_file(&self.dir.join(format!("{STORE_NAME}{ending}")))?;
        }
        Ok(())
    }

    /// Removes our state, and an output folder that this run made and nothing
    /// was published into.
    pub(super) async fn discard(&self) -> Result<(), EmbeddedError> {
        self.clear().await?;
        remove_file(&self.dir.join(LOCK_NAME))?;
        // Not empty: another job's state is in it.
        let _in_use = fs::remove_dir(&self.dir);
        if let Output::Folder(folder) = &self.output
            && !self.existed
        {
            // Not empty: the checkpoint is in it.
            let _published = fs::remove_dir(folder.root());
        }
        Ok(())
    }
}

/// Removes a file that may be gone already.
fn remove_file(path: &Path) -> Result<(), EmbeddedError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(anyhow::Error::new(error)
            .context(format!("`{}` cannot be removed", path.display()))
            .into()),
        _ => Ok(()),
    }
}
