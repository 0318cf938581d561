//! Faults on purpose: every point where a test may crash, hold up or fail the
//! program, and every defect that a test may plant in it.
//!
//! They are there in the binary `chatvec-faults` only, which is built with the
//! feature `fault-testing`. In `chatvec` the calls below are empty and nothing is
//! read from the environment. [`Failpoint`] and [`Mutant`] are lists that a test
//! can walk, so none is forgotten.
//!
//! The environment arms them:
//!
//! * `CHATVEC_FAILPOINT=NAME:ACTION[:K][@SUBJECT]`, several separated by `;`.
//!   ACTION is `crash` (exit with code 137, as after a `kill -9`), `error`,
//!   `delay=MILLISECONDS`, or `pause=FILE`: wait until the file is there. It
//!   happens at the K-th hit, by default the first, with `*` at every one. With
//!   a SUBJECT only hits count that are about something whose name holds that
//!   text. Each time a line on stderr tells, so that a test can prove that its
//!   fault came.
//! * `CHATVEC_MUTANT=NAME` plants one defect.
//! * `CHATVEC_WORKER_NAME=NAME` is what a worker's id begins with, before a `/`:
//!   who compares what the database and what the store say of it has to know it
//!   in both.

use std::borrow::Cow;

#[cfg(any(test, feature = "fault-testing"))]
mod armed;

#[cfg(feature = "fault-testing")]
pub use armed::check_environment;

/// A list of names, which a test can walk.
macro_rules! names {
    ($(#[$about:meta])* $list:ident { $($(#[$doc:meta])* $name:ident,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $list { $($(#[$doc])* $name,)* }

        impl $list {
            /// All of them, in order.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// As the environment names it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

names! {
    /// A point that the program passes, in the order of a job's way. What a hit
    /// is about is the job, and at the worker the URL of the output file.
    Failpoint {
        /// A coordinator has the right to plan a job and has done nothing yet.
        PlanStarted,
        /// It has recorded which uploads are to be made; none is.
        UploadsIntended,
        /// An upload is made, its id is not recorded. Also of a small file.
        UploadCreated,
        /// The id is recorded.
        UploadRecorded,
        /// The plan is ready and not stored.
        PlanReady,
        /// The plan and its tasks are stored.
        PlanStored,

        /// Tasks are claimed by a transaction that is not committed.
        ClaimUncommitted,
        /// It is committed; the worker has no answer.
        ClaimCommitted,

        /// A worker begins a task.
        TaskBegun,
        /// A part is ready, the next thing is to put it.
        PutReady,
        /// The store has taken the part.
        PutDone,
        /// All parts of the task are put, the report is not sent.
        ReportReady,
        /// The coordinator has recorded reports and has not answered.
        ReportCommitted,
        /// The report is answered.
        ReportAnswered,

        /// The reaper knows which leases have expired and has taken none back.
        ReapRead,

        /// A coordinator has the right to publish a job and has done nothing yet.
        PublishStarted,
        /// A small file is uploaded as far as its last step, and recorded.
        SmallFileStaged,
        /// Everything is staged; the next thing is the point of no return.
        CommitReady,
        /// The job is COMMITTING.
        CommitStarted,
        /// The manifest stands as a claim.
        OutputClaimed,
        /// A file's upload is about to be completed.
        CompleteReady,
        /// The store has completed it, nothing of that is recorded.
        CompleteDone,
        /// The file is recorded as complete.
        CompleteRecorded,
        /// All weights are there, and no side file.
        WeightsComplete,
        /// All side files are there, and no index.
        SidesComplete,
        /// All files are there, the manifest is still a claim.
        ManifestReady,
        /// The manifest says that the checkpoint is complete.
        ManifestFinal,
        /// The job is SUCCEEDED.
        CommitFinished,

        /// The leftovers of a job that ended without output are removed, which
        /// is not recorded.
        LeftoversRemoved,
    }
}

names! {
    /// A defect that the checks must find.
    Mutant {
        /// Reports are taken whatever their fence, as long as somebody holds
        /// the task.
        NoFenceGuard,
        /// Reports are taken from the worker that holds the task now, whatever
        /// their fence.
        GuardByWorkerOnly,
        /// Writes start however long ago the lease was renewed.
        NoSelfFence,
        /// Uploads are completed with whatever parts the store has.
        CompleteFromListing,
        /// The reaper takes back what it once read as expired, without a lock
        /// and without another look.
        ReaperWithoutRecheck,
        /// The manifest says complete before the uploads are completed.
        ManifestBeforeFiles,
    }
}

/// The error of a failpoint's action `error`. Without the feature there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Injected {
    /// It was asked for.
    #[cfg(any(test, feature = "fault-testing"))]
    Error,
}

impl From<Injected> for std::io::Error {
    fn from(injected: Injected) -> Self {
        match injected {
            #[cfg(any(test, feature = "fault-testing"))]
            Injected::Error => Self::other("injected by a failpoint"),
        }
    }
}

impl From<Injected> for tonic::Status {
    fn from(injected: Injected) -> Self {
        Self::unavailable(std::io::Error::from(injected).to_string())
    }
}

/// Passes a failpoint.
///
/// # Errors
/// If a test asked for one.
#[inline]
#[cfg_attr(not(feature = "fault-testing"), expect(unused_variables))]
pub async fn hit(point: Failpoint, subject: impl std::fmt::Display) -> Result<(), Injected> {
    #[cfg(feature = "fault-testing")]
    armed::of_environment()
        .hit(point, &subject.to_string())
        .await?;
    Ok(())
}

/// A statement, in which a planted defect has put something else for a guard.
#[inline]
#[cfg_attr(not(feature = "fault-testing"), expect(unused_variables))]
pub fn unguarded<'a>(mutant: Mutant, text: &'a str, guard: &str, instead: &str) -> Cow<'a, str> {
    #[cfg(feature = "fault-testing")]
    if is_planted(mutant) {
        assert!(text.contains(guard), "the guard `{guard}` is gone: {text}");
        return text.replace(guard, instead).into();
    }
    text.into()
}

/// The id of a worker, with its name in front where a test gave it one.
#[inline]
pub fn named_worker(id: String) -> String {
    #[cfg(feature = "fault-testing")]
    if let Ok(name) = std::env::var("CHATVEC_WORKER_NAME") {
        return format!("{name}/{id}");
    }
    id
}

/// Whether a defect is planted.
#[inline]
#[cfg_attr(not(feature = "fault-testing"), expect(unused_variables))]
pub fn is_planted(mutant: Mutant) -> bool {
    #[cfg(feature = "fault-testing")]
    return armed::of_environment().mutant() == Some(mutant);
    #[cfg(not(feature = "fault-testing"))]
    false
}
