//! The soak itself: one loop over everything that happens.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::attack::Attack;
use super::fault::Who;
use super::jobs::Jobs;
use super::members::Members;
use super::merges::Merges;
use super::report::Report;
use super::schedule::Schedule;
use super::settled;
use crate::cluster::Cluster;
use crate::process::pause;
use crate::python::repository;

/// Between two looks at everything.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Between two measurements of memory.
const MEASURE_EVERY: Duration = Duration::from_secs(1);
/// By when every job must have ended after the last fault.
const SETTLES_WITHIN: Duration = Duration::from_secs(150);
/// By when every process must have ended that was told to drain.
const ENDS_WITHIN: Duration = Duration::from_secs(60);
/// After which a task must have been finished when everything has healed.
const RECOVERS_WITHIN: Duration = Duration::from_secs(60);

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Soak {
    /// Decides everything that is drawn.
    pub seed: u64,
    /// How long faults come.
    pub time: Duration,
}

impl Soak {
    /// Where its logs and what was planned lie.
    pub fn folder(&self) -> PathBuf {
        repository().join("target/soak").join(self.seed.to_string())
    }

    /// Runs it to its end. The logs of all processes stay if something was found.
    ///
    /// # Errors
    /// If its folder cannot be written.
    ///
    /// # Panics
    /// If a service cannot be had.
    pub fn run(&self) -> anyhow::Result<Report> {
        let folder = self.folder();
        let logs = folder.join("logs");
        // What an earlier soak of this seed has left is not this one's.
        let _nothing_there = fs::remove_dir_all(&folder);
        fs::create_dir_all(&logs).context("cannot make the folder of the soak")?;
        let schedule = Schedule::draw(self.seed, self.time);
        fs::write(folder.join("schedule.txt"), format!("{schedule:#?}\n"))?;
        let mut cluster = Cluster::tiny_on(schedule.profile);
        let mut running = Running {
            begin: Instant::now(),
            merges: Merges::new(&cluster),
            members: Members::new(&cluster, &logs),
            attack: Attack::new(schedule.faults),
            jobs: Jobs::new(schedule.submissions),
            recovery: Recovery::default(),
            measured: Instant::now(),
        };
        running.begin = Instant::now();
        let mut violations = running.attack_for(self.time, &mut cluster);
        violations.extend(running.settle(&mut cluster));
        let settled_in = running.recovery.settled_in;
        violations.extend(running.drain(&mut cluster));
        let checked = settled::check(&cluster, &running.jobs, &running.attack, &running.merges);
        violations.extend(checked.violations);
        violations.append(&mut running.members.violations);
        violations.append(&mut running.jobs.violations);
        let report = Report {
            seed: self.seed,
            time: self.time,
            profile: schedule.profile,
            begun: running.attack.begun(),
            faults: running.attack.counts(),
            ends: running.jobs.ends(),
            duplicates: running.jobs.duplicates,
            refused: running.jobs.refused,
            late_cancels: running.jobs.late_cancels,
            failed_starts: running.members.failed_starts,
            explained: checked.explained,
            bytes: checked.bytes,
            redone: checked.redone,
            requests: checked.requests,
            longest_recovery: running.recovery.longest,
            longest_standstill: running.recovery.longest_standstill,
            settled_in,
            peaks: running.members.peaks(),
            violations,
            folder: folder.clone(),
        };
        fs::write(folder.join("summary.md"), report.to_string())?;
        if report.violations.is_empty() {
            drop(running);
            fs::remove_dir_all(&logs)?;
        } else {
            settled::keep(&cluster, &folder)?;
        }
        Ok(report)
    }
}

/// A soak under way.
struct Running {
    begin: Instant,
    merges: Merges,
    members: Members,
    attack: Attack,
    jobs: Jobs,
    recovery: Recovery,
    measured: Instant,
}

/// How long it takes from the end of the last fault to the next finished task.
#[derive(Debug, Default)]
struct Recovery {
    /// When everything had healed, and how many tasks were done then.
    healed: Option<(Instant, u64)>,
    longest: Duration,
    /// Since when there is work and none was finished, and how much was by then.
    stands: Option<(Instant, u64)>,
    longest_standstill: Duration,
    /// From the last fault's end to the last job's.
    settled_in: Duration,
}

impl Running {
    fn attack_for(&mut self, time: Duration, cluster: &mut Cluster) -> Vec<String> {
        let mut violations = Vec::new();
        while self.begin.elapsed() < time {
            let now = self.begin.elapsed();
            let has_healed = self.attack.look(now, cluster, &mut self.members);
            self.look(now, cluster);
            self.stand_still();
            violations.extend(self.recover(has_healed));
            pause(LOOK_EVERY);
        }
        violations
    }

    /// One look at everything but faults.
    fn look(&mut self, now: Duration, cluster: &Cluster) {
        for ordinal in self.members.look(cluster) {
            self.attack.came(ordinal);
        }
        let coordinators = self.members.addresses();
        self.jobs.look(now, cluster, &coordinators, &self.merges);
        if self.measured.elapsed() > MEASURE_EVERY {
            self.measured = Instant::now();
            self.members.measure();
            let hits: Vec<usize> = self.members.hits().collect();
            hits.into_iter()
                .for_each(|ordinal| self.attack.came(ordinal));
        }
    }

    /// Measures how long nothing was finished, whatever happened meanwhile.
    fn stand_still(&mut self) {
        let recovery = &mut self.recovery;
        let (since, done) = *(recovery.stands).get_or_insert((Instant::now(), self.jobs.done));
        recovery.longest_standstill = recovery.longest_standstill.max(since.elapsed());
        if self.jobs.done > done || self.jobs.open_tasks == 0 {
            recovery.stands = None;
        }
    }

    /// Measures how long a fleet takes that has work and whose faults have healed.
    fn recover(&mut self, has_healed: bool) -> Option<String> {
        if self.attack.is_active() {
            self.recovery.healed = None;
        } else if has_healed && self.jobs.open_tasks > 0 {
            self.recovery.healed = Some((Instant::now(), self.jobs.done));
        }
        let (since, done) = self.recovery.healed?;
        let took = since.elapsed();
        if self.jobs.done > done || self.jobs.open_tasks == 0 {
            self.recovery.healed = None;
            self.recovery.longest = self.recovery.longest.max(took);
        } else if took > RECOVERS_WITHIN {
            self.recovery.healed = None;
            return Some(format!(
                "no task was finished for {took:?} after all faults had healed"
            ));
        }
        None
    }

    /// Heals everything and waits for every job's end.
    fn settle(&mut self, cluster: &mut Cluster) -> Vec<String> {
        self.attack.end(cluster, &mut self.members);
        self.jobs.end();
        for who in Who::all() {
            self.members.want(who);
            if self.members.is_armed(who) {
                self.members.drain(who, true);
            }
        }
        let healed = Instant::now();
        while healed.elapsed() < SETTLES_WITHIN {
            self.look(self.begin.elapsed(), cluster);
            if self.jobs.are_settled() && self.members.are_up() && settled::is_clean(cluster) {
                self.recovery.settled_in = healed.elapsed();
                return Vec::new();
            }
            pause(LOOK_EVERY);
        }
        self.recovery.settled_in = healed.elapsed();
        let mut left = self.jobs.unsettled();
        if !self.members.are_up() {
            left.push("a process that is not up".to_owned());
        }
        vec![format!(
            "{SETTLES_WITHIN:?} after the last fault there is still something to do: {}",
            left.join(", ")
        )]
    }

    /// Ends every process in order.
    fn drain(&mut self, cluster: &mut Cluster) -> Vec<String> {
        for who in Who::all() {
            self.members.drain(who, false);
        }
        let begin = Instant::now();
        while !self.members.are_gone() && begin.elapsed() < ENDS_WITHIN {
            self.members.look(cluster);
            pause(LOOK_EVERY);
        }
        match self.members.are_gone() {
            true => Vec::new(),
            false => vec!["not every process ends when it is told to".to_owned()],
        }
    }
}
