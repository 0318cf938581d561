//! What can happen, by name: a counterexample is a list of these.

use std::fmt;

/// One thing that happens. Workers, finalizers and tasks are numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Claim(usize, usize),
    ClaimUnheard(usize, usize),
    BeginPut(usize),
    PutArrives(usize),
    PutUnheard(usize),
    PutLost(usize),
    Report(usize),
    ReportArrives(usize),
    ReportUnheard(usize),
    ReportLost(usize),
    Beat(usize),
    BeatWithout(usize, usize),
    ShutGate(usize),
    GiveBack(usize),
    GiveUp(usize),
    WorkerDies(usize),
    LeaseEnds(usize),
    ReadExpired(usize),
    TakeBack,
    Steal(usize),
    LosePart(usize),
    Cancel,
    Sweep,
    Begin(usize),
    Freeze(usize),
    ClaimOutput(usize),
    Complete(usize),
    Repair(usize),
    Seal(usize),
    Finish(usize),
    FinalizerDies(usize),
    EpochEnds,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(w, t) => write!(f, "worker {w} claims task {t}"),
            Self::ClaimUnheard(w, t) => write!(f, "worker {w} claims task {t} and never hears it"),
            Self::BeginPut(w) => write!(f, "worker {w} begins to put its part"),
            Self::PutArrives(w) => write!(f, "the put of worker {w} arrives"),
            Self::PutUnheard(w) => write!(f, "the put of worker {w} arrives, its answer is lost"),
            Self::PutLost(w) => write!(f, "the put of worker {w} is lost"),
            Self::Report(w) => write!(f, "worker {w} reports"),
            Self::ReportArrives(w) => write!(f, "the report of worker {w} arrives"),
            Self::ReportUnheard(w) => {
                write!(f, "the report of worker {w} arrives, its answer is lost")
            }
            Self::ReportLost(w) => write!(f, "the report of worker {w} is lost"),
            Self::Beat(w) => write!(f, "worker {w} beats"),
            Self::BeatWithout(w, t) => write!(f, "worker {w} beats without task {t}"),
            Self::ShutGate(w) => write!(f, "two thirds of the lease of worker {w} are over"),
            Self::GiveBack(w) => write!(f, "worker {w} gives its task back"),
            Self::GiveUp(w) => write!(f, "worker {w} finds that its task cannot be done"),
            Self::WorkerDies(w) => write!(f, "worker {w} dies, another takes its place"),
            Self::LeaseEnds(t) => write!(f, "the lease of task {t} runs out"),
            Self::ReadExpired(t) => write!(f, "the reaper reads that task {t} has expired"),
            Self::TakeBack => write!(f, "the reaper takes back what it has read"),
            Self::Steal(t) => write!(f, "task {t} is stolen"),
            Self::LosePart(t) => write!(f, "the store loses the part of task {t}"),
            Self::Cancel => write!(f, "the user cancels the job"),
            Self::Sweep => write!(f, "the reaper sweeps"),
            Self::Begin(p) => write!(f, "finalizer {p} begins its turn"),
            Self::Freeze(p) => write!(f, "finalizer {p} passes the point of no return"),
            Self::ClaimOutput(p) => write!(f, "finalizer {p} puts the manifest as a claim"),
            Self::Complete(p) => write!(f, "finalizer {p} completes the upload"),
            Self::Repair(p) => write!(f, "finalizer {p} has the damaged parts put again"),
            Self::Seal(p) => write!(f, "finalizer {p} writes the final manifest"),
            Self::Finish(p) => write!(f, "finalizer {p} ends the commit"),
            Self::FinalizerDies(p) => write!(f, "finalizer {p} dies"),
            Self::EpochEnds => write!(f, "the lease of the epoch runs out"),
        }
    }
}
