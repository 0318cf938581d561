//! CPU time, as the kernel counts it: of the machine, of this process, and of a
//! server with its processes.

use std::fs;

use anyhow::Context as _;

use crate::process::TICKS_PER_SECOND;

/// CPU time of the whole machine since it started, in seconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct MachineTime {
    busy_s: f64,
    all_s: f64,
}

impl MachineTime {
    pub(super) fn now() -> anyhow::Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let line = stat.lines().next().context("`/proc/stat` is empty")?;
        // user nice system idle iowait irq softirq steal; guests are in user.
        let ticks: Vec<f64> = line
            .split_whitespace()
            .skip(1)
            .take(8)
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let all: f64 = ticks.iter().sum();
        let idle: f64 = ticks.iter().skip(3).take(2).sum();
        Ok(Self {
            busy_s: (all - idle) / TICKS_PER_SECOND,
            all_s: all / TICKS_PER_SECOND,
        })
    }

    /// The share of all cores that was busy since then, from 0 to 1.
    pub(super) fn busy_since(self, before: Self) -> f64 {
        (self.busy_s - before.busy_s) / (self.all_s - before.all_s).max(f64::MIN_POSITIVE)
    }
}

/// Cores of the machine.
pub(super) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// User and system time of this process so far, in seconds.
pub(super) fn own_cpu_s() -> anyhow::Result<f64> {
    let [own, _] = cpu_s("self")?;
    Ok(own)
}

/// The same of a server: of its first process, of those that this one started
/// and has waited for, and of those that run.
pub(super) fn server_cpu_s(pid: u32) -> anyhow::Result<f64> {
    let [own, ended] = cpu_s(&pid.to_string())?;
    let list = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(list)?;
    // A child may end meanwhile; then its time is its parent's.
    let running = children.split_whitespace().filter_map(|child| {
        let [own, _] = cpu_s(child).ok()?;
        Some(own)
    });
    Ok(own + ended + running.sum::<f64>())
}

/// User and system time of a process, and of its children that were waited for.
fn cpu_s(pid: &str) -> anyhow::Result<[f64; 2]> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The program's name, in parentheses, may hold anything; fields 14 to 17 of
    // the line are 11 to 14 of what follows it.
    let (_, fields) = stat
        .rsplit_once(')')
        .context("`/proc/PID/stat` has no parenthesis")?;
    let ticks: Vec<f64> = fields
        .split_whitespace()
        .skip(11)
        .take(4)
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    let seconds = |of: &[f64]| of.iter().sum::<f64>() / TICKS_PER_SECOND;
    let (own, children) = ticks.split_at_checked(2).context("a line that is short")?;
    Ok([seconds(own), seconds(children)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_counts_for_the_process_and_for_the_machine() {
        let (machine, own) = (MachineTime::now().unwrap(), own_cpu_s().unwrap());
        let mut sum = 0u64;
        while own_cpu_s().unwrap() < own + 0.05 {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        let busy = MachineTime::now().unwrap().busy_since(machine);
        assert!(busy > 0.0 && busy <= 1.0, "{busy}");
        assert!(server_cpu_s(std::process::id()).unwrap() >= own);
    }
}
