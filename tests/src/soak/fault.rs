//! What may happen to a fleet.

use std::fmt;
use std::time::Duration;

use chatvec::fault::Failpoint;

use crate::emulator::{Action, Operation};
use crate::proxy::Direction;

/// Coordinators of a fleet under attack.
pub(super) const COORDINATORS: usize = 2;
/// Its workers.
pub(super) const WORKERS: usize = 4;
/// The first so many of them call the store through a proxy. The checker cannot
/// tell when such a worker sent what comes late; of the others it demands that no
/// put begins too late.
pub(super) const DETOURED: usize = 2;

/// A process, by its number from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    /// A coordinator.
    Coordinator(usize),
    /// A worker.
    Worker(usize),
}

impl Who {
    /// Every process of a fleet.
    pub fn all() -> impl Iterator<Item = Self> {
        let coordinators = (0..COORDINATORS).map(Self::Coordinator);
        coordinators.chain((0..WORKERS).map(Self::Worker))
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Coordinator(number) => write!(f, "coordinator-{number}"),
            Self::Worker(number) => write!(f, "worker-{number}"),
        }
    }
}

/// The network between a process and what it calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Edge {
    /// From a worker to every coordinator.
    WorkerToCoordinators(usize),
    /// From a worker to the store, one of the first `DETOURED`.
    WorkerToStore(usize),
    /// From a coordinator to the database.
    CoordinatorToDatabase(usize),
    /// From a coordinator to the store.
    CoordinatorToStore(usize),
}

impl Edge {
    /// Whose connections they are.
    pub fn who(self) -> Who {
        match self {
            Self::WorkerToCoordinators(number) | Self::WorkerToStore(number) => Who::Worker(number),
            Self::CoordinatorToDatabase(number) | Self::CoordinatorToStore(number) => {
                Who::Coordinator(number)
            }
        }
    }
}

/// How a network is cut.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Cut {
    /// Nothing arrives, nobody is told, and all of it arrives later.
    Held,
    /// The same of one direction.
    HeldOneWay(Direction),
    /// What is sent in one direction is lost, and connections are reset when the
    /// path is back.
    Lost(Direction),
    /// Connections are reset at the beginning, and new ones after so many bytes.
    Reset(u64),
}

/// One thing that happens, and ends again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// `kill -9`; it is started again at the end.
    Kill(Who),
    /// It stands still.
    Pause(Who),
    /// SIGTERM; it is started again at the end.
    Drain(Who),
    /// It is drained, started with a failpoint that ends it at this hit, and
    /// started again when that has happened.
    Crash(Who, Failpoint, u32),
    /// It is drained and started with a failpoint that holds it up for so many
    /// milliseconds at every hit, and without it at the end.
    Delay(Who, Failpoint, u32),
    /// A network is cut.
    Cut(Edge, Cut),
    /// A network is slow: by so much for each byte, and with so many bytes a second.
    Slow(Edge, Duration, f64),
    /// The database crashes; it recovers at the end.
    DatabaseCrash,
    /// The store refuses this share of all requests.
    Storm(f64),
    /// The store does this to a few requests of this kind, after sparing some.
    Store {
        /// What it does.
        action: Action,
        /// To which requests.
        operation: Operation,
        /// To none of the first so many.
        spared: u64,
        /// To so many.
        times: u64,
    },
}

/// The kinds of faults, as a summary counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// [`Fault::Kill`] of a worker.
    WorkerKilled,
    /// The same of a coordinator.
    CoordinatorKilled,
    /// [`Fault::Pause`] of a worker.
    WorkerPaused,
    /// The same of a coordinator.
    CoordinatorPaused,
    /// [`Fault::Drain`] of a worker.
    WorkerDrained,
    /// The same of a coordinator.
    CoordinatorDrained,
    /// [`Fault::Crash`] of a worker.
    WorkerCrashes,
    /// The same of a coordinator.
    CoordinatorCrashes,
    /// [`Fault::Delay`] of any process.
    HeldUp,
    /// [`Fault::Cut`] of [`Edge::WorkerToCoordinators`].
    WorkerFromCoordinators,
    /// [`Fault::Cut`] of [`Edge::WorkerToStore`].
    WorkerFromStore,
    /// [`Fault::Cut`] of [`Edge::CoordinatorToDatabase`].
    CoordinatorFromDatabase,
    /// [`Fault::Cut`] of [`Edge::CoordinatorToStore`].
    CoordinatorFromStore,
    /// [`Fault::Slow`].
    SlowNetwork,
    /// [`Fault::DatabaseCrash`].
    DatabaseCrashes,
    /// [`Fault::Storm`].
    StoreStorm,
    /// The store carries a request out and does not answer.
    StoreAnswerLost,
    /// The store answers 200 with an error in the body.
    StoreErrorInOk,
    /// An answer's body stands still.
    StoreBodyStalls,
    /// An answer's body ends early.
    StoreBodyEndsEarly,
    /// A bit of a request's body flips on its way.
    StoreBitFlips,
    /// A write is carried out much later than it was sent.
    StoreWriteHeld,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::WorkerKilled,
        Self::CoordinatorKilled,
        Self::WorkerPaused,
        Self::CoordinatorPaused,
        Self::WorkerDrained,
        Self::CoordinatorDrained,
        Self::WorkerCrashes,
        Self::CoordinatorCrashes,
        Self::HeldUp,
        Self::WorkerFromCoordinators,
        Self::WorkerFromStore,
        Self::CoordinatorFromDatabase,
        Self::CoordinatorFromStore,
        Self::SlowNetwork,
        Self::DatabaseCrashes,
        Self::StoreStorm,
        Self::StoreAnswerLost,
        Self::StoreErrorInOk,
        Self::StoreBodyStalls,
        Self::StoreBodyEndsEarly,
        Self::StoreBitFlips,
        Self::StoreWriteHeld,
    ];

    /// As a summary calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::WorkerKilled => "worker killed",
            Self::CoordinatorKilled => "coordinator killed",
            Self::WorkerPaused => "worker stands still",
            Self::CoordinatorPaused => "coordinator stands still",
            Self::WorkerDrained => "worker drained",
            Self::CoordinatorDrained => "coordinator drained",
            Self::WorkerCrashes => "worker crashes at a failpoint",
            Self::CoordinatorCrashes => "coordinator crashes at a failpoint",
            Self::HeldUp => "process held up at a failpoint",
            Self::WorkerFromCoordinators => "worker cut off from the coordinators",
            Self::WorkerFromStore => "worker cut off from the store",
            Self::CoordinatorFromDatabase => "coordinator cut off from the database",
            Self::CoordinatorFromStore => "coordinator cut off from the store",
            Self::SlowNetwork => "slow network",
            Self::DatabaseCrashes => "database crashes",
            Self::StoreStorm => "storm of 503",
            Self::StoreAnswerLost => "store: answer lost",
            Self::StoreErrorInOk => "store: error in a 200",
            Self::StoreBodyStalls => "store: body stands still",
            Self::StoreBodyEndsEarly => "store: body ends early",
            Self::StoreBitFlips => "store: bit flips on the way in",
            Self::StoreWriteHeld => "store: write held",
        }
    }
}

impl Fault {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        let of = |who: &Who, worker, coordinator| match who {
            Who::Worker(_) => worker,
            Who::Coordinator(_) => coordinator,
        };
        match self {
            Self::Kill(who) => of(who, Kind::WorkerKilled, Kind::CoordinatorKilled),
            Self::Pause(who) => of(who, Kind::WorkerPaused, Kind::CoordinatorPaused),
            Self::Drain(who) => of(who, Kind::WorkerDrained, Kind::CoordinatorDrained),
            Self::Crash(who, ..) => of(who, Kind::WorkerCrashes, Kind::CoordinatorCrashes),
            Self::Delay(..) => Kind::HeldUp,
            Self::Cut(Edge::WorkerToCoordinators(_), _) => Kind::WorkerFromCoordinators,
            Self::Cut(Edge::WorkerToStore(_), _) => Kind::WorkerFromStore,
            Self::Cut(Edge::CoordinatorToDatabase(_), _) => Kind::CoordinatorFromDatabase,
            Self::Cut(Edge::CoordinatorToStore(_), _) => Kind::CoordinatorFromStore,
            Self::Slow(..) => Kind::SlowNetwork,
            Self::DatabaseCrash => Kind::DatabaseCrashes,
            Self::Storm(_) => Kind::StoreStorm,
            Self::Store { action, .. } => match action {
                Action::RefuseInOk(_) => Kind::StoreErrorInOk,
                Action::StallBody(_) => Kind::StoreBodyStalls,
                Action::TruncateBody(_) => Kind::StoreBodyEndsEarly,
                Action::CorruptReceived(_) => Kind::StoreBitFlips,
                Action::Hold(_) => Kind::StoreWriteHeld,
                _ => Kind::StoreAnswerLost,
            },
        }
    }

    /// The process that it happens to; `None` if it happens to a service.
    pub fn who(&self) -> Option<Who> {
        match self {
            Self::Kill(who)
            | Self::Pause(who)
            | Self::Drain(who)
            | Self::Crash(who, ..)
            | Self::Delay(who, ..) => Some(*who),
            Self::Cut(edge, _) | Self::Slow(edge, ..) => Some(edge.who()),
            Self::DatabaseCrash | Self::Storm(_) | Self::Store { .. } => None,
        }
    }

    /// Whether leases of a worker may expire by it.
    pub fn may_cost_leases(&self) -> bool {
        match self {
            Self::Kill(who) | Self::Pause(who) | Self::Crash(who, ..) => {
                matches!(who, Who::Worker(_))
            }
            Self::Cut(edge, _) | Self::Slow(edge, ..) => {
                matches!(edge, Edge::WorkerToCoordinators(_))
            }
            Self::Drain(_) | Self::Delay(..) => false,
            Self::DatabaseCrash | Self::Storm(_) | Self::Store { .. } => false,
        }
    }
}
