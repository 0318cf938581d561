//! A soak: a fleet under random faults while it merges, cancels, and is asked
//! twice, then the history checker, and a summary.
//!
//! Everything that is drawn comes from one seed, in [`Schedule`]: which fault
//! when, for how long and to whom, which jobs, and what is done to them. What no
//! seed decides is how far real processes are at such a moment. So the same seed
//! attacks the same places in the same order, and need not find the same defect.

mod attack;
mod fault;
mod jobs;
mod members;
mod merges;
mod report;
mod run;
mod schedule;
mod settled;

pub use fault::{Cut, Edge, Fault, Kind, Who};
pub use report::Report;
pub use run::Soak;
pub use schedule::{Planned, Schedule, Size, Submission, Target};
