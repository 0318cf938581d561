//! Tasks: their states and what leads from one to the next, the lease that lets a
//! worker run one, what it may fail with, and the self-contained description of
//! the work.

mod failure;
mod order;
mod spec;
mod state;
mod straggler;
mod transition;

pub use failure::{
    FailureKind, TaskCounters, TaskFailure, Verdict, job_retries_max, judge, reap_max,
};
pub use order::{Share, sched_keys};
pub use spec::{Operation, PartRange, Piece, Segment, SourceFile, TaskSpec, Term};
pub use state::{Lease, TaskState};
pub use straggler::{HeldTask, Others, Pace, STEALS_MAX, Steal, StealLimits, steal};
pub use transition::{
    Around, BEATS_PER_LEASE, DoneBy, Holder, MISSED_MAX, RecordedPart, TakenAway, Task, TaskOp,
    TaskRefused, settled_ms,
};
