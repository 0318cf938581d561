//! One process, run to its end and measured from outside.

use std::fs;
use std::process::{Command, Stdio};
use std::sync::{Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::process::TICKS_PER_SECOND;

/// How often memory is looked at.
const SAMPLE_EVERY: Duration = Duration::from_millis(3);

/// What a process took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measured {
    pub(super) wall_s: f64,
    /// User and system time, of its children too, in steps of 10 ms.
    pub(super) cpu_s: f64,
    /// The most memory seen that is no file's: heap, stacks, anonymous maps.
    pub(super) anonymous_peak_mb: f64,
}

/// Runs the command to its end.
///
/// # Errors
/// If it cannot be started or does not end well; with what it wrote to stderr.
pub(super) fn measure(mut command: Command) -> anyhow::Result<Measured> {
    let cpu_before = children_cpu_s()?;
    let begin = Instant::now();
    let child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", command.get_program().display()))?;

    let status_file = format!("/proc/{}/status", child.id());
    let ended = (Mutex::new(false), Condvar::new());
    let (output, wall_s, peak_kb) = thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut peak_kb = 0;
            let mut has_ended = ended.0.lock().expect("nobody panics with it");
            while !*has_ended {
                peak_kb = peak_kb.max(anonymous_kb(&status_file));
                has_ended = ended
                    .1
                    .wait_timeout(has_ended, SAMPLE_EVERY)
                    .expect("nobody panics with it")
                    .0;
            }
            peak_kb
        });
        let output = child.wait_with_output();
        let wall_s = begin.elapsed().as_secs_f64();
        *ended.0.lock().expect("nobody panics with it") = true;
        ended.1.notify_all();
        (
            output,
            wall_s,
            sampler.join().expect("sampling does not panic"),
        )
    });
    let output = output?;
    ensure!(
        output.status.success(),
        "{} ended with {}:\n{}",
        command.get_program().display(),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(Measured {
        wall_s,
        cpu_s: children_cpu_s()? - cpu_before,
        anonymous_peak_mb: peak_kb as f64 * 1024.0 / 1e6,
    })
}

/// The middle value; of an even number of values, the mean of the middle two.
pub(super) fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.collect();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// Anonymous resident memory, or 0 once the process is gone.
fn anonymous_kb(status_file: &str) -> u64 {
    fs::read_to_string(status_file)
        .ok()
        .and_then(|status| {
            let line = status.lines().find(|line| line.starts_with("RssAnon:"))?;
            line.split_whitespace().nth(1)?.parse().ok()
        })
        .unwrap_or(0)
}

/// CPU time of all children that have ended and were waited for.
fn children_cpu_s() -> anyhow::Result<f64> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    // The program's name, in parentheses, may hold anything; fields 16 and 17 of
    // the line are 13 and 14 of what follows it.
    let fields = stat
        .rsplit_once(')')
        .context("`/proc/self/stat` has no parenthesis")?
        .1
        .split_whitespace()
        .skip(13)
        .take(2)
        .map(str::parse::<u64>)
        .collect::<Result<Vec<_>, _>>()?;
    ensure!(fields.len() == 2, "`/proc/self/stat` is too short");
    Ok((fields[0] + fields[1]) as f64 / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_works_takes_time_and_memory() {
        let mut command = Command::new("sh");
        command.args(["-c", "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done"]);
        let measured = measure(command).expect("measured");
        assert!(measured.wall_s > 0.0 && measured.cpu_s > 0.0);
        assert!(measured.anonymous_peak_mb > 0.0);
    }

    #[test]
    fn a_process_that_fails_is_an_error_with_its_words() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo broken >&2; exit 3"]);
        let error = measure(command).expect_err("it failed").to_string();
        assert!(error.contains("broken"), "{error}");
    }

    #[test]
    fn the_median_is_not_moved_by_one_bad_run() {
        assert_eq!(median([3.0, 1.0, 100.0].into_iter()), 3.0);
        assert_eq!(median([4.0, 1.0, 2.0, 100.0].into_iter()), 3.0);
    }
}
