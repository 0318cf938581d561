//! What happens in a soak, and when: a pure function of a seed and a time.

use std::time::Duration;

use chatvec::fault::Failpoint;

use super::fault::{COORDINATORS, Cut, DETOURED, Edge, Fault, Kind, WORKERS, Who};
use crate::cluster::LEASE;
use crate::emulator::{Action, Operation, Profile, Refusal};
use crate::family::mix;
use crate::proxy::Direction;
use crate::random::Random;

/// Most faults at once.
const AT_ONCE_MAX: usize = 3;
/// Draws after which a kind that does not fit now is left out.
const DRAWS_MAX: usize = 20;
/// Seconds between two faults.
const GAP_S: (f64, f64) = (0.3, 2.2);
/// After so many faults comes a time in which everything heals.
const QUIET_EVERY: usize = 12;
/// How long at most; work goes on from there.
const QUIET_S: (f64, f64) = (4.0, 7.0);
/// Seconds between two submissions.
const SUBMIT_S: (f64, f64) = (0.2, 2.5);
/// Outputs that are published again and again.
pub(super) const KEPT: usize = 3;
/// Who submits.
pub(super) const TENANTS: usize = 3;

/// Which merge a job is, among those that the soak knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// 10 MB.
    Small,
    /// 10 MB in many files.
    ManyFiles,
    /// 40 MB.
    Large,
}

impl Size {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Small, Self::ManyFiles, Self::Large];
}

/// Where a job publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Where nothing was before.
    Fresh,
    /// Where jobs before it have published, which it replaces.
    Kept(usize),
}

/// One job.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Submission {
    /// When it is submitted.
    pub at: Duration,
    /// What it merges.
    pub size: Size,
    /// Where it publishes.
    pub target: Target,
    /// Who submits it.
    pub tenant: usize,
    /// How urgent it is.
    pub priority: usize,
    /// Clients that submit it at once, by one request id.
    pub copies: usize,
    /// How long after it was accepted it is cancelled.
    pub cancelled_after: Option<Duration>,
    /// Whether another job for its output is submitted while it runs.
    pub has_rival: bool,
    /// Whether it is submitted once more after its end.
    pub is_repeated: bool,
}

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Planned {
    /// When it begins.
    pub at: Duration,
    /// When it heals.
    pub until: Duration,
    /// What it is.
    pub fault: Fault,
}

/// All that happens.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// The store.
    pub profile: Profile,
    /// By the time at which they begin.
    pub faults: Vec<Planned>,
    /// By time.
    pub submissions: Vec<Submission>,
}

impl Schedule {
    /// What a seed says of so long a time.
    pub fn draw(seed: u64, time: Duration) -> Self {
        let profiles = [Profile::Aws, Profile::Minio, Profile::R2, Profile::Kms];
        // Each has a chance of its own: a longer soak begins as a shorter one.
        let [mut store, mut faulty, mut busy] =
            [0, 1, 2].map(|stream| Random::new(mix(seed ^ mix(stream))));
        Self {
            profile: store.one_of(&profiles),
            faults: faults(&mut faulty, time),
            submissions: submissions(&mut busy, time),
        }
    }
}

/// Every kind comes once before any comes again.
fn faults(random: &mut Random, time: Duration) -> Vec<Planned> {
    let mut planned: Vec<Planned> = Vec::new();
    let mut kinds = Vec::new();
    // The fleet starts, and has something to do.
    let mut at = Duration::from_secs(2);
    while at < time {
        if kinds.is_empty() {
            kinds = Kind::ALL.to_vec();
            random.shuffle(&mut kinds);
        }
        let now: Vec<Planned> = planned
            .iter()
            .filter(|one| one.until > at)
            .copied()
            .collect();
        if now.len() < AT_ONCE_MAX {
            let kind = kinds.pop().expect("it was filled");
            let drawn = (0..DRAWS_MAX).map(|_| fault(random, kind));
            let fitting = drawn.into_iter().find(|fault| fits(fault, &now));
            match fitting {
                Some(fault) => planned.push(Planned {
                    at,
                    until: at + lasts(random, &fault),
                    fault,
                }),
                None => kinds.insert(0, kind),
            }
        }
        at += random.seconds(GAP_S.0, GAP_S.1);
        if planned.len() % QUIET_EVERY == QUIET_EVERY - 1 {
            let healed = planned.iter().map(|one| one.until).max();
            at = at.max(healed.unwrap_or(at)) + random.seconds(QUIET_S.0, QUIET_S.1);
        }
    }
    planned
}

/// Whether nothing of the kind happens already, to the same process or service.
fn fits(fault: &Fault, now: &[Planned]) -> bool {
    now.iter().all(|other| match fault.who() {
        Some(who) => other.fault.who() != Some(who),
        None => other.fault.kind() != fault.kind(),
    })
}

fn fault(random: &mut Random, kind: Kind) -> Fault {
    let worker = random.below(WORKERS);
    let coordinator = random.below(COORDINATORS);
    match kind {
        Kind::WorkerKilled => Fault::Kill(Who::Worker(worker)),
        Kind::CoordinatorKilled => Fault::Kill(Who::Coordinator(coordinator)),
        Kind::WorkerPaused => Fault::Pause(Who::Worker(worker)),
        Kind::CoordinatorPaused => Fault::Pause(Who::Coordinator(coordinator)),
        Kind::WorkerDrained => Fault::Drain(Who::Worker(worker)),
        Kind::CoordinatorDrained => Fault::Drain(Who::Coordinator(coordinator)),
        Kind::WorkerCrashes => crash(random, Who::Worker(worker)),
        Kind::CoordinatorCrashes => crash(random, Who::Coordinator(coordinator)),
        Kind::HeldUp => {
            let who = random.one_of(&[Who::Worker(worker), Who::Coordinator(coordinator)]);
            let delay_ms = random.between(50.0, 1500.0) as u32;
            Fault::Delay(who, point(random, who), delay_ms)
        }
        Kind::WorkerFromCoordinators => {
            Fault::Cut(Edge::WorkerToCoordinators(worker), cut(random, 40_000))
        }
        Kind::WorkerFromStore => {
            let edge = Edge::WorkerToStore(random.below(DETOURED));
            Fault::Cut(edge, cut(random, 20_000_000))
        }
        Kind::CoordinatorFromDatabase => {
            let edge = Edge::CoordinatorToDatabase(coordinator);
            Fault::Cut(edge, cut(random, 200_000))
        }
        Kind::CoordinatorFromStore => {
            let edge = Edge::CoordinatorToStore(coordinator);
            Fault::Cut(edge, cut(random, 100_000))
        }
        Kind::SlowNetwork => slow(random, worker, coordinator),
        Kind::DatabaseCrashes => Fault::DatabaseCrash,
        Kind::StoreStorm => Fault::Storm(random.between(0.3, 0.7)),
        Kind::StoreAnswerLost
        | Kind::StoreErrorInOk
        | Kind::StoreBodyStalls
        | Kind::StoreBodyEndsEarly
        | Kind::StoreBitFlips
        | Kind::StoreWriteHeld => store(random, kind),
    }
}

fn crash(random: &mut Random, who: Who) -> Fault {
    let hit = 1 + random.below(4) as u32;
    Fault::Crash(who, point(random, who), hit)
}

/// A failpoint that this process passes.
fn point(random: &mut Random, who: Who) -> Failpoint {
    let is_workers = |point: &&Failpoint| {
        matches!(
            point,
            Failpoint::TaskBegun
                | Failpoint::PutReady
                | Failpoint::PutDone
                | Failpoint::ReportReady
                | Failpoint::ReportAnswered
        )
    };
    let all = Failpoint::ALL.iter();
    let points: Vec<Failpoint> = match who {
        Who::Worker(_) => all.filter(is_workers).copied().collect(),
        Who::Coordinator(_) => all.filter(|point| !is_workers(point)).copied().collect(),
    };
    random.one_of(&points)
}

fn cut(random: &mut Random, bytes_max: usize) -> Cut {
    let direction = random.one_of(&[Direction::ToServer, Direction::ToClient]);
    let bytes = random.below(bytes_max) as u64;
    random.one_of(&[
        Cut::Held,
        Cut::HeldOneWay(direction),
        Cut::Lost(direction),
        Cut::Reset(bytes),
    ])
}

fn slow(random: &mut Random, worker: usize, coordinator: usize) -> Fault {
    let edge = random.one_of(&[
        Edge::WorkerToCoordinators(worker),
        Edge::WorkerToStore(worker % DETOURED),
        Edge::CoordinatorToDatabase(coordinator),
        Edge::CoordinatorToStore(coordinator),
    ]);
    let (latency_ms, bytes_per_s) = match edge {
        Edge::WorkerToStore(_) => (random.between(1.0, 40.0), random.between(2e6, 2e7)),
        // Heartbeats must come through: a slow path is no cut.
        _ => (random.between(1.0, 30.0), random.between(5e5, 5e6)),
    };
    Fault::Slow(
        edge,
        Duration::from_secs_f64(latency_ms / 1000.0),
        bytes_per_s,
    )
}

/// Something that the store does to a few requests.
fn store(random: &mut Random, kind: Kind) -> Fault {
    let writes = [
        Operation::Put,
        Operation::PutPart,
        Operation::PutPart,
        Operation::CompleteUpload,
        Operation::CreateUpload,
    ];
    let byte = random.below(100_000) as u64;
    let (action, operation) = match kind {
        Kind::StoreErrorInOk => {
            let refusal = random.one_of(&[Refusal::InternalError, Refusal::SlowDown]);
            (Action::RefuseInOk(refusal), Operation::CompleteUpload)
        }
        Kind::StoreBodyStalls => (Action::StallBody(byte), Operation::Get),
        Kind::StoreBodyEndsEarly => (Action::TruncateBody(byte), Operation::Get),
        // One that the digests of what was sent tell: bytes that change on their
        // way out of the store are nobody's to find.
        Kind::StoreBitFlips => (Action::CorruptReceived(byte / 100), Operation::PutPart),
        Kind::StoreWriteHeld => {
            let held = [
                Operation::Put,
                Operation::PutPart,
                Operation::CompleteUpload,
            ];
            let longest = random.seconds(1.0, 12.0);
            (Action::Hold(Some(longest)), random.one_of(&held))
        }
        _ => (Action::DropAfter, random.one_of(&writes)),
    };
    Fault::Store {
        action,
        operation,
        spared: random.below(6) as u64,
        times: 1 + random.below(3) as u64,
    }
}

/// How long a fault lasts.
fn lasts(random: &mut Random, fault: &Fault) -> Duration {
    let lease_s = LEASE.as_secs_f64();
    match fault {
        Fault::Kill(_) | Fault::Drain(_) => random.seconds(0.1, 3.0),
        Fault::Pause(_) => random.seconds(0.3 * lease_s, 3.0 * lease_s),
        Fault::Crash(..) | Fault::Delay(..) => random.seconds(4.0, 8.0),
        Fault::Cut(..) => random.seconds(0.5, 4.0 * lease_s),
        Fault::Slow(..) => random.seconds(2.0, 8.0),
        Fault::DatabaseCrash => random.seconds(0.0, 2.0 * lease_s),
        Fault::Storm(_) => random.seconds(1.0, 6.0),
        Fault::Store { .. } => random.seconds(3.0, 8.0),
    }
}

fn submissions(random: &mut Random, time: Duration) -> Vec<Submission> {
    let mut at = Duration::ZERO;
    let mut submissions = Vec::new();
    while at < time {
        submissions.push(submission(random, at));
        at += random.seconds(SUBMIT_S.0, SUBMIT_S.1);
    }
    submissions
}

fn submission(random: &mut Random, at: Duration) -> Submission {
    let target = match random.happens(0.25) {
        true => Target::Kept(random.below(KEPT)),
        false => Target::Fresh,
    };
    let copies = match random.happens(0.2) {
        true => 2 + random.below(3),
        false => 1,
    };
    let cancelled_after = random.seconds(0.0, 4.0);
    let cancelled_after = random.happens(0.2).then_some(cancelled_after);
    Submission {
        at,
        size: random.one_of(&[Size::Small, Size::Small, Size::ManyFiles, Size::Large]),
        target,
        tenant: random.below(TENANTS),
        priority: random.below(100),
        copies,
        cancelled_after,
        has_rival: random.happens(0.15),
        is_repeated: random.happens(0.1),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_seed_says_all_and_another_seed_something_else() {
        assert_eq!(Schedule::draw(7, MINUTE), Schedule::draw(7, MINUTE));
        assert_ne!(Schedule::draw(7, MINUTE), Schedule::draw(8, MINUTE));
        let (shorter, longer) = (Schedule::draw(7, MINUTE), Schedule::draw(7, MINUTE * 2));
        assert_eq!(longer.profile, shorter.profile);
        assert!(longer.faults.starts_with(&shorter.faults));
        assert!(longer.submissions.starts_with(&shorter.submissions));
    }

    #[test]
    fn every_kind_of_fault_comes_in_every_two_minutes() {
        for seed in 0..50 {
            let schedule = Schedule::draw(seed, MINUTE * 2);
            let kinds: BTreeSet<Kind> = schedule
                .faults
                .iter()
                .map(|planned| planned.fault.kind())
                .collect();
            let missing: Vec<&Kind> = Kind::ALL
                .iter()
                .filter(|kind| !kinds.contains(kind))
                .collect();
            assert!(missing.is_empty(), "seed {seed}: {missing:?}");
        }
    }

    #[test]
    fn every_failpoint_every_cut_and_every_process_come_over_some_seeds() {
        let mut points = BTreeSet::new();
        let mut others = BTreeSet::new();
        for seed in 0..50 {
            for planned in Schedule::draw(seed, MINUTE * 5).faults {
                match planned.fault {
                    Fault::Crash(_, point, _) => drop(points.insert(point.name())),
                    Fault::Cut(edge, cut) => {
                        let cut = match cut {
                            Cut::Reset(_) => "Reset".to_owned(),
                            other => format!("{other:?}"),
                        };
                        others.insert(format!("{cut} of {edge:?}"));
                    }
                    Fault::Kill(who) => drop(others.insert(who.to_string())),
                    _ => {}
                }
            }
        }
        let all: BTreeSet<_> = Failpoint::ALL.iter().map(|point| point.name()).collect();
        assert_eq!(points, all);
        // Six ways to cut each edge.
        let (processes, ways) = (COORDINATORS + WORKERS, 6);
        let expected = processes + ways * (processes + COORDINATORS + DETOURED);
        assert_eq!(others.len(), expected, "{others:#?}");
    }

    #[test]
    fn few_faults_overlap_and_none_of_one_process() {
        for seed in 0..50 {
            let faults = Schedule::draw(seed, MINUTE * 3).faults;
            for (ordinal, planned) in faults.iter().enumerate() {
                let now: Vec<_> = faults[..ordinal]
                    .iter()
                    .filter(|before| before.until > planned.at)
                    .copied()
                    .collect();
                assert!(now.len() < AT_ONCE_MAX, "seed {seed}, {}", now.len());
                assert!(fits(&planned.fault, &now), "seed {seed}: {planned:?}");
                assert!(planned.until >= planned.at);
            }
        }
    }

    #[test]
    fn submissions_are_of_every_kind() {
        let submissions = Schedule::draw(7, MINUTE * 5).submissions;
        let has = |what: &dyn Fn(&Submission) -> bool| submissions.iter().any(what);
        for size in Size::ALL {
            assert!(has(&|submission| submission.size == size), "{size:?}");
        }
        assert!(has(&|submission| submission.target == Target::Fresh));
        assert!(has(
            &|submission| submission.target == Target::Kept(KEPT - 1)
        ));
        assert!(has(&|submission| submission.copies > 1));
        assert!(has(&|submission| submission.cancelled_after.is_some()));
        assert!(has(&|submission| submission.has_rival));
        assert!(has(&|submission| submission.is_repeated));
    }
}
