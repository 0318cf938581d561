//! Faults begin, heal, and are counted if they came.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::fault::{Cut, Edge, Fault, Kind, Who};
use super::members::{Armed, Members};
use super::schedule::Planned;
use crate::cluster::Cluster;
use crate::emulator::{Action, Fault as StoreFault, Refusal, Rule};
use crate::process::Signal;
use crate::proxy::{Counts, Direction, Path, Proxy, Traffic};

/// Faults of a schedule while it runs.
#[derive(Debug)]
pub(super) struct Attack {
    planned: Vec<Planned>,
    next: usize,
    active: Vec<Active>,
    /// By their place in the schedule, those that came.
    fired: BTreeMap<usize, Fired>,
}

/// A fault that came.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fired {
    /// What it was.
    pub(super) fault: Fault,
    /// When it began, and when it healed.
    pub(super) began: Instant,
    pub(super) healed: Option<Instant>,
}

#[derive(Debug)]
struct Active {
    ordinal: usize,
    planned: Planned,
    began: Instant,
    effect: Effect,
}

/// What there is to undo and to count.
#[derive(Debug)]
enum Effect {
    /// It came, or could not.
    Process(bool),
    /// The network's counts before it.
    Network(Vec<Counts>),
    /// The emulator's rule.
    Rule(Rule),
}

impl Attack {
    /// Nothing has begun.
    pub(super) fn new(planned: Vec<Planned>) -> Self {
        Self {
            planned,
            next: 0,
            active: Vec::new(),
            fired: BTreeMap::new(),
        }
    }

    /// Heals and begins what is due; whether the last fault has healed now.
    pub(super) fn look(
        &mut self,
        now: Duration,
        cluster: &mut Cluster,
        members: &mut Members,
    ) -> bool {
        let was_active = !self.active.is_empty();
        let (healed, active) = std::mem::take(&mut self.active)
            .into_iter()
            .partition(|active: &Active| active.planned.until <= now);
        self.active = active;
        for active in healed {
            self.heal(active, cluster, members);
        }
        while let Some(planned) = self.planned.get(self.next).filter(|next| next.at <= now) {
            let planned = *planned;
            let effect = begin(self.next, planned.fault, cluster, members);
            self.active.push(Active {
                ordinal: self.next,
                planned,
                began: Instant::now(),
                effect,
            });
            self.next += 1;
        }
        was_active && self.active.is_empty()
    }

    /// Heals everything, and begins nothing more.
    pub(super) fn end(&mut self, cluster: &mut Cluster, members: &mut Members) {
        self.next = self.planned.len();
        for active in std::mem::take(&mut self.active) {
            self.heal(active, cluster, members);
        }
    }

    /// Whether something happens now.
    pub(super) fn is_active(&self) -> bool {
        !self.active.is_empty()
    }

    /// A failpoint was hit.
    pub(super) fn came(&mut self, ordinal: usize) {
        let fired = Fired {
            fault: self.planned[ordinal].fault,
            began: Instant::now(),
            healed: None,
        };
        self.fired.entry(ordinal).or_insert(fired);
    }

    /// How many of each kind came.
    pub(super) fn counts(&self) -> BTreeMap<Kind, u64> {
        let mut counts: BTreeMap<Kind, u64> = Kind::ALL.map(|kind| (kind, 0)).into();
        for fired in self.fired.values() {
            *counts.entry(fired.fault.kind()).or_default() += 1;
        }
        counts
    }

    /// How many were to come.
    pub(super) fn begun(&self) -> usize {
        self.next
    }

    /// Those that came.
    pub(super) fn fired(&self) -> impl Iterator<Item = &Fired> {
        self.fired.values()
    }

    fn heal(&mut self, active: Active, cluster: &mut Cluster, members: &mut Members) {
        let fault = active.planned.fault;
        heal(fault, cluster, members);
        let has_come = match active.effect {
            Effect::Process(has_come) => has_come,
            Effect::Network(before) => before
                .iter()
                .zip(edge_of(fault, members))
                .any(|(before, proxy)| has_met(fault, *before, proxy.counts())),
            Effect::Rule(rule) => {
                rule.remove();
                rule.release();
                rule.fired() > 0
            }
        };
        if has_come {
            let fired = Fired {
                fault,
                began: active.began,
                healed: Some(Instant::now()),
            };
            self.fired.insert(active.ordinal, fired);
        }
    }
}

fn begin(ordinal: usize, fault: Fault, cluster: &mut Cluster, members: &mut Members) -> Effect {
    match fault {
        Fault::Kill(who) => Effect::Process(members.kill(who)),
        Fault::Pause(who) => Effect::Process(members.signal(who, Signal::STOP)),
        Fault::Drain(who) => Effect::Process(members.drain(who, false)),
        Fault::Crash(who, point, hit) => {
            let action = format!("crash:{hit}");
            arm(
                members,
                who,
                Armed {
                    point,
                    action,
                    ordinal,
                },
            )
        }
        Fault::Delay(who, point, ms) => {
            let action = format!("delay={ms}:*");
            arm(
                members,
                who,
                Armed {
                    point,
                    action,
                    ordinal,
                },
            )
        }
        Fault::Cut(edge, cut) => {
            let proxies = members.edge(edge);
            let before = proxies.iter().map(Proxy::counts).collect();
            proxies.iter().for_each(|proxy| cut_off(proxy, cut));
            Effect::Network(before)
        }
        Fault::Slow(edge, latency, bytes_per_s) => {
            let path = Path {
                latency,
                bytes_per_s: Some(bytes_per_s),
                traffic: Traffic::Flows,
            };
            set(members.edge(edge), path);
            Effect::Network(members.edge(edge).iter().map(Proxy::counts).collect())
        }
        Fault::DatabaseCrash => {
            cluster.fleet.postgres.crash();
            Effect::Process(true)
        }
        Fault::Storm(share) => {
            let storm = StoreFault::new(Action::Refuse(Refusal::SlowDown));
            let storm = storm.with_probability(share, ordinal as u64);
            Effect::Rule(cluster.store().add(storm))
        }
        Fault::Store {
            action,
            operation,
            spared,
            times,
        } => {
            let fault = StoreFault::new(action).on(operation);
            Effect::Rule(cluster.store().add(fault.after(spared).times(times)))
        }
    }
}

/// Starts a process anew with a failpoint; whether that was hit is told later.
fn arm(members: &mut Members, who: Who, armed: Armed) -> Effect {
    members.arm(who, Some(armed));
    members.drain(who, true);
    Effect::Process(false)
}

fn heal(fault: Fault, cluster: &mut Cluster, members: &mut Members) {
    match fault {
        Fault::Kill(who) | Fault::Drain(who) => members.want(who),
        Fault::Pause(who) => drop(members.signal(who, Signal::CONT)),
        // If it was not hit, it may still be: a crash heals by itself.
        Fault::Crash(who, ..) => members.arm(who, None),
        Fault::Delay(who, ..) => {
            members.arm(who, None);
            if members.is_armed(who) {
                members.drain(who, true);
            }
        }
        Fault::Cut(edge, cut) => {
            let proxies = members.edge(edge);
            set(proxies, Path::default());
            if let Cut::Lost(_) = cut {
                // A connection that lost some is of no use any more.
                proxies.iter().for_each(Proxy::reset_all);
            }
        }
        Fault::Slow(edge, ..) => set(members.edge(edge), Path::default()),
        Fault::DatabaseCrash => cluster.fleet.postgres.start_again(),
        // Their rules are removed by who counts them.
        Fault::Storm(_) | Fault::Store { .. } => {}
    }
}

fn cut_off(proxy: &Proxy, cut: Cut) {
    match cut {
        Cut::Held => proxy.set_traffic(Traffic::Held),
        Cut::HeldOneWay(direction) => proxy.set_traffic_of(direction, Traffic::Held),
        Cut::Lost(direction) => proxy.set_traffic_of(direction, Traffic::Swallowed),
        Cut::Reset(bytes) => {
            proxy.reset_all();
            proxy.set_traffic_of(Direction::ToClient, Traffic::ResetAfter(bytes));
        }
    }
}

fn set(proxies: &[Proxy], path: Path) {
    for proxy in proxies {
        for direction in [Direction::ToServer, Direction::ToClient] {
            proxy.set(direction, path);
        }
    }
}

fn edge_of(fault: Fault, members: &Members) -> &[Proxy] {
    let edge: Edge = match fault {
        Fault::Cut(edge, _) | Fault::Slow(edge, ..) => edge,
        _ => unreachable!("no other fault is of a network"),
    };
    members.edge(edge)
}

/// Whether bytes met the fault.
fn has_met(fault: Fault, before: Counts, after: Counts) -> bool {
    match fault {
        Fault::Slow(..) => after.bytes != before.bytes,
        _ => {
            after.held > before.held
                || after.swallowed > before.swallowed
                || after.resets > before.resets
        }
    }
}
