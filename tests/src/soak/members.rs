//! The processes of a fleet under attack, and the networks around each: started
//! again whenever they end, as an orchestrator does it.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use chatvec::fault::Failpoint;

use super::fault::{COORDINATORS, DETOURED, Edge, Who};
use crate::cluster::{Cluster, database_through};
use crate::process::{Process, Signal};
use crate::proxy::Proxy;

/// How a process ends that a failpoint crashed.
const CRASHED: i32 = 137;
/// After which a process that ended by itself is started again.
const RESTARTS_AFTER: Duration = Duration::from_millis(500);
/// By when a process that got SIGTERM must have ended.
const DRAINS_WITHIN: Duration = Duration::from_secs(40);
/// Where a proxy leads whose coordinator is not there: nobody listens.
const NOWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 1);
/// Of each coordinator another one, so that a plan that is made again is another.
const PART_SIZES: [&str; COORDINATORS] = ["5MiB", "6MiB"];

/// All processes, and the clients' own networks.
#[derive(Debug)]
pub(super) struct Members {
    members: Vec<Member>,
    /// By which clients call each coordinator; nothing is done to them.
    doors: Vec<Proxy>,
    logs: PathBuf,
    /// What processes did that they must not.
    pub(super) violations: Vec<String>,
    /// Coordinators that ended before they listened, as the database was away.
    pub(super) failed_starts: u64,
}

#[derive(Debug)]
struct Member {
    who: Who,
    networks: Networks,
    process: Option<Process>,
    port_file: Option<PathBuf>,
    is_listening: bool,
    draining_since: Option<Instant>,
    /// Whether it is to be started when it has ended.
    is_wanted: bool,
    not_before: Instant,
    starts: u32,
    /// What the next start is armed with, and what this one is.
    next: Option<Armed>,
    armed: Option<Armed>,
    peak_bytes: u64,
}

/// A failpoint of a process.
#[derive(Debug, Clone)]
pub(super) struct Armed {
    /// Which.
    pub(super) point: Failpoint,
    /// What is done there, as the environment says it.
    pub(super) action: String,
    /// The fault that this is, by its place in the schedule.
    pub(super) ordinal: usize,
}

/// The proxies between a process and what it calls.
#[derive(Debug)]
struct Networks {
    /// Of a worker, one to each coordinator; of a coordinator, that to the database.
    calls: Vec<Proxy>,
    store: Proxy,
}

impl Members {
    /// Nothing is started yet.
    pub(super) fn new(cluster: &Cluster, logs: &Path) -> Self {
        let members = Who::all().map(|who| Member::new(cluster, who)).collect();
        Self {
            members,
            doors: (0..COORDINATORS).map(|_| Proxy::start(NOWHERE)).collect(),
            logs: logs.to_owned(),
            violations: Vec::new(),
            failed_starts: 0,
        }
    }

    /// The coordinators, as clients take them.
    pub(super) fn addresses(&self) -> String {
        list_of(&self.doors)
    }

    /// The proxies of an edge.
    pub(super) fn edge(&self, edge: Edge) -> &[Proxy] {
        let networks = &self.member(edge.who()).networks;
        match edge {
            Edge::WorkerToCoordinators(_) | Edge::CoordinatorToDatabase(_) => &networks.calls,
            Edge::WorkerToStore(_) | Edge::CoordinatorToStore(_) => {
                std::slice::from_ref(&networks.store)
            }
        }
    }

    /// Kills a process; whether it was there. It stays away until [`Members::want`].
    pub(super) fn kill(&mut self, who: Who) -> bool {
        let member = self.member_mut(who);
        member.is_wanted = false;
        // It may be on its way to an orderly end, which is asked of it no more.
        member.draining_since = None;
        let Some(process) = &member.process else {
            return false;
        };
        process.signal(Signal::KILL);
        true
    }

    /// Sends SIGTERM to a process; whether it was there.
    pub(super) fn drain(&mut self, who: Who, is_wanted_again: bool) -> bool {
        let member = self.member_mut(who);
        member.is_wanted = is_wanted_again;
        let Some(process) = &member.process else {
            return false;
        };
        // A second signal would end it at once.
        if member.draining_since.is_none() {
            process.signal(Signal::TERM);
            member.draining_since = Some(Instant::now());
        }
        true
    }

    /// Sends a signal to a process; whether it was there.
    pub(super) fn signal(&self, who: Who, signal: Signal) -> bool {
        let process = self.member(who).process.as_ref();
        process.inspect(|process| process.signal(signal)).is_some()
    }

    /// A process is to be there.
    pub(super) fn want(&mut self, who: Who) {
        self.member_mut(who).is_wanted = true;
    }

    /// Arms the next start of a process, or does not.
    pub(super) fn arm(&mut self, who: Who, armed: Option<Armed>) {
        self.member_mut(who).next = armed;
    }

    /// Whether a process runs with a failpoint.
    pub(super) fn is_armed(&self, who: Who) -> bool {
        self.member(who).armed.is_some()
    }

    /// Whether every process is there, and every coordinator listens.
    pub(super) fn are_up(&self) -> bool {
        self.members.iter().all(|member| {
            member.process.is_some() && member.draining_since.is_none() && member.is_listening
        })
    }

    /// Whether no process is there.
    pub(super) fn are_gone(&self) -> bool {
        self.members.iter().all(|member| member.process.is_none())
    }

    /// The most memory that one worker and one coordinator had.
    pub(super) fn peaks(&self) -> [u64; 2] {
        let peak = |is_worker: bool| {
            let members = self.members.iter();
            let members =
                members.filter(|member| matches!(member.who, Who::Worker(_)) == is_worker);
            members.map(|member| member.peak_bytes).max().unwrap_or(0)
        };
        [peak(true), peak(false)]
    }

    /// Looks at every process; returns the faults whose failpoints were hit.
    pub(super) fn look(&mut self, cluster: &Cluster) -> Vec<usize> {
        let mut hit = Vec::new();
        for number in 0..self.members.len() {
            let member = &mut self.members[number];
            if member.has_ended() {
                hit.extend(member.hit());
                let ended = member.reap(&self.logs);
                self.failed_starts += u64::from(ended == Ended::NeverListened);
                if let Ended::Wrongly(how) = ended {
                    self.violations.push(how);
                }
                if let Who::Coordinator(number) = self.members[number].who {
                    self.lead_to(number, NOWHERE);
                }
            }
            let member = &mut self.members[number];
            if member.process.is_none() && member.is_wanted && Instant::now() >= member.not_before {
                member.start(cluster);
            }
            if let (Who::Coordinator(number), Some(address)) =
                (member.who, member.begins_to_listen())
            {
                self.lead_to(number, address);
            }
        }
        hit
    }

    /// The faults whose failpoints were hit in processes that still run.
    pub(super) fn hits(&self) -> impl Iterator<Item = usize> {
        self.members.iter().filter_map(Member::hit)
    }

    /// Measures every process.
    pub(super) fn measure(&mut self) {
        self.members.iter_mut().for_each(Member::measure);
    }

    /// Everybody finds this coordinator here.
    fn lead_to(&self, coordinator: usize, address: SocketAddr) {
        self.doors[coordinator].lead_to(address);
        for member in &self.members {
            if let Who::Worker(_) = member.who {
                member.networks.calls[coordinator].lead_to(address);
            }
        }
    }

    fn member(&self, who: Who) -> &Member {
        let member = self.members.iter().find(|member| member.who == who);
        member.expect("every process is a member")
    }

    fn member_mut(&mut self, who: Who) -> &mut Member {
        let member = self.members.iter_mut().find(|member| member.who == who);
        member.expect("every process is a member")
    }
}

impl Drop for Members {
    fn drop(&mut self) {
        // Whatever ends a soak, the logs tell how far it came.
        for member in &mut self.members {
            if let Some(process) = member.process.take() {
                write_log(&self.logs, member.who, member.starts, &process.stderr());
            }
        }
    }
}

/// How a process ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// As it was told to, or as its failpoint says.
    Rightly,
    /// A coordinator that could not begin: its database was away.
    NeverListened,
    /// In another way, with the end of its log.
    Wrongly(String),
}

impl Member {
    fn new(cluster: &Cluster, who: Who) -> Self {
        let calls = match who {
            Who::Worker(_) => (0..COORDINATORS).map(|_| Proxy::start(NOWHERE)).collect(),
            Who::Coordinator(_) => vec![cluster.database_proxy()],
        };
        Self {
            who,
            networks: Networks {
                calls,
                store: cluster.store_proxy(),
            },
            process: None,
            port_file: None,
            is_listening: false,
            draining_since: None,
            is_wanted: true,
            not_before: Instant::now(),
            starts: 0,
            next: None,
            armed: None,
            peak_bytes: 0,
        }
    }

    fn start(&mut self, cluster: &Cluster) {
        self.starts += 1;
        let name = self.who.to_string();
        let mut setup = cluster.named(&name);
        if let Who::Coordinator(_) | Who::Worker(..DETOURED) = self.who {
            setup = setup.store_through(&self.networks.store);
        }
        self.armed = self.next.take();
        if let Some(armed) = &self.armed {
            setup = setup.at(armed.point, &armed.action);
        }
        self.draining_since = None;
        self.is_listening = false;
        self.process = Some(match self.who {
            Who::Worker(_) => {
                self.is_listening = true;
                cluster.worker(&list_of(&self.networks.calls), &setup)
            }
            Who::Coordinator(number) => {
                let database = database_through(&self.networks.calls[0]);
                let setup = setup.database(&database);
                let setup = setup.args(&["--part-size", PART_SIZES[number]]);
                let (process, port_file) = cluster.begin_serving(&setup);
                self.port_file = Some(port_file);
                process
            }
        });
    }

    /// Where it listens, once.
    fn begins_to_listen(&mut self) -> Option<SocketAddr> {
        let address = fs::read_to_string(self.port_file.as_ref()?).ok()?;
        self.port_file = None;
        self.is_listening = true;
        Some(address.trim().parse().expect("it is an address"))
    }

    fn has_ended(&mut self) -> bool {
        let Some(process) = &mut self.process else {
            return false;
        };
        let has_ended = process.ends_within(Duration::ZERO);
        let is_late = self
            .draining_since
            .is_some_and(|since| since.elapsed() > DRAINS_WITHIN);
        if is_late && !has_ended {
            // Told as its way to end, below.
            process.signal(Signal::KILL);
            return process.ends_within(DRAINS_WITHIN);
        }
        has_ended
    }

    /// Takes note of its end.
    fn reap(&mut self, logs: &Path) -> Ended {
        let process = self.process.take().expect("it has ended");
        let outcome = process.wait();
        write_log(logs, self.who, self.starts, &outcome.stderr);
        self.not_before = Instant::now() + RESTARTS_AFTER;
        let was_drained = self.draining_since.take().is_some();
        let is_crash = self.armed.take().is_some() && outcome.code == Some(CRASHED);
        let is_killed = outcome.signal == Some(Signal::KILL.as_raw()) && !was_drained;
        let never_listened = !self.is_listening;
        if is_killed || is_crash || (was_drained && outcome.code == Some(0)) {
            return Ended::Rightly;
        }
        // A signal may come before the program has learned to drain.
        let is_young = was_drained && outcome.signal == Some(Signal::TERM.as_raw());
        if never_listened || is_young {
            return Ended::NeverListened;
        }
        let last: Vec<&str> = outcome.stderr.lines().rev().take(5).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        Ended::Wrongly(format!(
            "{} ended by itself, or did not drain in time: code {:?}, signal {:?}, log {}: {}",
            self.who,
            outcome.code,
            outcome.signal,
            log_name(self.who, self.starts),
            last.join(" / ")
        ))
    }

    /// The fault that is its failpoint, if that was hit.
    fn hit(&self) -> Option<usize> {
        let (armed, process) = (self.armed.as_ref()?, self.process.as_ref()?);
        let told = format!("failpoint {}:", armed.point.name());
        process.stderr().contains(&told).then_some(armed.ordinal)
    }

    fn measure(&mut self) {
        let peak = self
            .process
            .as_ref()
            .and_then(Process::peak_resident_bytes_if_alive);
        self.peak_bytes = self.peak_bytes.max(peak.unwrap_or(0));
    }
}

/// As programs take a list of coordinators.
fn list_of(proxies: &[Proxy]) -> String {
    let urls: Vec<String> = proxies
        .iter()
        .map(|proxy| format!("http://{}", proxy.address()))
        .collect();
    urls.join(",")
}

fn log_name(who: Who, start: u32) -> String {
    format!("{who}.{start:03}.log")
}

fn write_log(logs: &Path, who: Who, start: u32, text: &str) {
    // A log that cannot be written fails no soak.
    let _unwritten = fs::write(logs.join(log_name(who, start)), text);
}
