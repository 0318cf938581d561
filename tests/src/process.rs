//! The real `chatvec` as a process: started, waited for with a deadline,
//! signalled, and always reaped, also when a test panics.

mod stops;

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

pub use rustix::process::Signal;
pub use stops::{Stop, stops, wall_clock};

/// After which a process counts as hanging, and a condition as never met.
const DEADLINE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// The kernel's unit of CPU time in `/proc`, on every architecture that Rust knows.
pub(crate) const TICKS_PER_SECOND: f64 = 100.0;

/// The program under test, built by the same profile as the tests.
///
/// # Panics
/// If it is not there: a test that needs it must not pass without it.
pub fn chatvec() -> PathBuf {
    let test = std::env::current_exe().expect("the test's own file is known");
    let mut folders = test.ancestors().skip(1).take(2);
    let found =
        folders.find_map(|folder| Some(folder.join("chatvec")).filter(|file| file.is_file()));
    found.unwrap_or_else(|| {
        panic!(
            "no `chatvec` beside `{}`: run `cargo build -p chatvec` first, or `make test`",
            test.display()
        )
    })
}

/// The program under test with failpoints.
///
/// # Panics
/// If it is not there or older than its source: a test of faults must not pass
/// without the faults.
pub fn chatvec_faults() -> PathBuf {
    const BUILD: &str = "cargo build -p chatvec --features fault-testing --bin chatvec-faults";
    let program = chatvec().with_file_name("chatvec-faults");
    let changed = |path: &Path| std::fs::metadata(path)?.modified();
    let built = changed(&program).unwrap_or_else(|error| {
        panic!("no `{}` ({error}): run `{BUILD}`", program.display());
    });
    // Cargo lists here all that it was built from.
    let list = std::fs::read_to_string(program.with_extension("d")).expect("written by Cargo");
    let sources = list.split_whitespace().skip(1).map(Path::new);
    for source in sources {
        let is_newer = changed(source).is_ok_and(|changed| changed > built);
        assert!(
            !is_newer,
            "`{}` is newer than `{}`: run `{BUILD}`",
            source.display(),
            program.display()
        );
    }
    program
}

/// `chatvec` with these arguments, without the settings of the caller's shell.
pub fn command<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Command {
    command_of(&chatvec(), args)
}

/// The same of another build of it.
pub fn command_of<A: AsRef<OsStr>>(program: &Path, args: impl IntoIterator<Item = A>) -> Command {
    let mut command = Command::new(program);
    command
        .args(args)
        .env_remove("RUST_LOG")
        .env_remove("NO_COLOR")
        // Nobody but the test gives credentials, and no instance is asked.
        .env("AWS_EC2_METADATA_DISABLED", "true");
    for variable in [
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_ENDPOINT_URL",
    ] {
        command.env_remove(variable);
    }
    command
}

/// Runs `chatvec` to its end.
///
/// # Panics
/// If it does not end in time; then it is killed.
pub fn run<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Outcome {
    Process::start(command(args)).wait()
}

/// Waits until a condition holds.
///
/// # Panics
/// If it does not hold in time, naming `what` was waited for.
pub fn until(what: &str, condition: impl FnMut() -> bool) {
    until_every(LOOK_EVERY, what, condition);
}

/// The same for a condition that costs more than a look.
///
/// # Panics
/// As of [`until`].
pub fn until_every(period: Duration, what: &str, condition: impl FnMut() -> bool) {
    wait_until(DEADLINE, period, what, condition);
}

/// The same for what takes its time.
///
/// # Panics
/// If it does not hold within this time.
pub(crate) fn until_within(longest: Duration, what: &str, condition: impl FnMut() -> bool) {
    wait_until(longest, LOOK_EVERY, what, condition);
}

fn wait_until(
    longest: Duration,
    period: Duration,
    what: &str,
    mut condition: impl FnMut() -> bool,
) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < longest, "waited too long for {what}");
        pause(period);
    }
}

/// Lets a period pass between two looks.
pub(crate) fn pause(period: Duration) {
    wait_for(&mut [], period);
}

/// Waits for one of the descriptors, not longer than this.
fn wait_for(fds: &mut [PollFd<'_>], longest: Duration) {
    let longest = Timespec::try_from(longest).expect("a timeout of minutes fits");
    match poll(fds, Some(&longest)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => panic!("cannot poll: {error}"),
    }
}

/// How a process ended and what it wrote.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The exit code; `None` if a signal killed it.
    pub code: Option<i32>,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// All of its stdout.
    pub stdout: String,
    /// All of its stderr.
    pub stderr: String,
    /// From start to end.
    pub took: Duration,
}

impl Outcome {
    /// Itself, if it ended with this code.
    ///
    /// # Panics
    /// With everything that the process wrote, if it did not.
    #[track_caller]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// Its stdout as one JSON value.
    ///
    /// # Panics
    /// If it is anything else.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("stdout is not JSON: {error}\n{self:#?}"))
    }
}

/// A process that runs, or ended and was not waited for yet. Dropped, it is
/// killed and reaped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pidfd: OwnedFd,
    said: String,
    begin: Instant,
    // Files, not pipes: a process that nobody reads from never waits for it.
    stdout: File,
    stderr: File,
}

impl Process {
    /// Starts `command` without stdin.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(mut command: Command) -> Self {
        let [stdout, stderr] = [(); 2].map(|()| tempfile::tempfile().expect("a temporary file"));
        let handle = |file: &File| Stdio::from(file.try_clone().expect("a second handle"));
        let said = format!("{command:?}");
        let begin = Instant::now();
        let child = command
            .stdin(Stdio::null())
            .stdout(handle(&stdout))
            .stderr(handle(&stderr))
            .spawn();
        let mut child = child.unwrap_or_else(|error| panic!("cannot start {said}: {error}"));
        let pidfd =
            pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).unwrap_or_else(|error| {
                // The error to tell is the first one.
                let _ = (child.kill(), child.wait());
                panic!("cannot watch {said}: {error}")
            });
        Self {
            child,
            pidfd,
            said,
            begin,
            stdout,
            stderr,
        }
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to stderr so far.
    pub fn stderr(&self) -> String {
        content(&self.stderr)
    }

    /// Sends a signal. One that comes after the end changes nothing.
    ///
    /// # Panics
    /// If the kernel refuses.
    pub fn signal(&self, signal: Signal) {
        stops::note(self.id(), signal);
        // By the descriptor: the id of a reaped process may be another's.
        match pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => panic!("cannot signal {}: {error}", self.said),
        }
    }

    /// Stops it, and returns when no thread of it runs.
    ///
    /// # Panics
    /// If it has ended, or does not stop in time.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        until("the process to stand still", || match self.state() {
            'T' => true,
            'Z' | 'X' => panic!("{} ended before it could be stopped", self.said),
            _ => false,
        });
    }

    /// The letter of its state in `/proc`.
    fn state(&self) -> char {
        self.stat().chars().next().expect("a state follows")
    }

    /// Its line in `/proc` from the state on.
    fn stat(&self) -> String {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.id()))
            .expect("a child is in `/proc`");
        // The program's name, in parentheses, may hold anything.
        let (_, rest) = stat
            .rsplit_once(") ")
            .expect("`/proc/PID/stat` has a parenthesis");
        rest.to_owned()
    }

    /// User and system time that it took so far, in seconds and steps of 10 ms.
    pub fn cpu_s(&self) -> f64 {
        // What follows the name begins with field 3; the times are 14 and 15.
        let fields = self.stat();
        let ticks = fields.split_whitespace().skip(11).take(2);
        let ticks: u64 = ticks
            .map(|field| field.parse::<u64>().expect("a number of ticks"))
            .sum();
        ticks as f64 / TICKS_PER_SECOND
    }

    /// The most memory that it had so far, files' pages included.
    ///
    /// # Panics
    /// If it has ended.
    pub fn peak_resident_bytes(&self) -> u64 {
        self.peak_resident_bytes_if_alive()
            .expect("the process has not ended")
    }

    /// The same of one that may have ended.
    pub(crate) fn peak_resident_bytes_if_alive(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).ok()?;
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB"));
        let peak = peak?.trim().parse::<u64>();
        Some(peak.expect("a number of kB") << 10)
    }

    /// Whether it ends before this time is over; returns at its end.
    pub fn ends_within(&mut self, time: Duration) -> bool {
        let begin = Instant::now();
        loop {
            if self
                .child
                .try_wait()
                .expect("a child can be waited for")
                .is_some()
            {
                return true;
            }
            let left = time.saturating_sub(begin.elapsed());
            if left.is_zero() {
                return false;
            }
            wait_for(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], left);
        }
    }

    /// Waits until a condition holds; whether it did by the end of the process.
    ///
    /// # Panics
    /// If neither comes in time.
    pub fn runs_until(&mut self, what: &str, mut condition: impl FnMut() -> bool) -> bool {
        let begin = Instant::now();
        loop {
            if condition() {
                return true;
            }
            if self.ends_within(LOOK_EVERY) {
                // Its last deed may have met it.
                return condition();
            }
            assert!(
                begin.elapsed() < DEADLINE,
                "waited too long for {what}: {}: {}",
                self.said,
                self.stderr()
            );
        }
    }

    /// Waits until its stderr holds this text; whether it did before the end.
    ///
    /// # Panics
    /// If neither comes in time.
    pub fn says(&mut self, text: &str) -> bool {
        let stderr = self.stderr.try_clone().expect("a second handle");
        self.runs_until(text, || content(&stderr).contains(text))
    }

    /// Kills it, without mercy, and reaps it.
    pub fn kill(self) -> Outcome {
        self.signal(Signal::KILL);
        self.wait()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not end in time; then it is killed.
    pub fn wait(mut self) -> Outcome {
        if !self.ends_within(DEADLINE) {
            // What it said tells why it hangs.
            let hanging = self.outcome(None);
            panic!(
                "{} did not end within {DEADLINE:?}: {hanging:#?}",
                self.said
            );
        }
        let status = self.child.wait().expect("it ended");
        self.outcome(Some(status))
    }

    fn outcome(&self, status: Option<ExitStatus>) -> Outcome {
        Outcome {
            code: status.and_then(|status| status.code()),
            signal: status.and_then(|status| status.signal()),
            stdout: content(&self.stdout),
            stderr: content(&self.stderr),
            took: self.begin.elapsed(),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have been reaped already, and then both do nothing.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// The whole of a file, whatever its position.
fn content(file: &File) -> String {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes =
            vec![0; usize::try_from(file.metadata()?.len()).expect("it fits into memory")];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().expect("a temporary file can be read")).into_owned()
}

#[cfg(test)]
mod tests {
    use std::panic::catch_unwind;

    use super::*;

    fn shell(script: &str) -> Process {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::start(command)
    }

    #[test]
    fn an_end_is_told_with_everything_that_was_written() {
        let outcome = shell("echo result; echo words >&2; exit 3")
            .wait()
            .expect_code(3);
        assert_eq!(
            (outcome.stdout.as_str(), outcome.stderr.as_str()),
            ("result\n", "words\n")
        );
    }

    #[test]
    fn a_signal_is_no_exit_code() {
        let mut process = shell("echo ready; exec tail -f /dev/null");
        assert!(process.runs_until("the word", || true));
        assert!(!process.ends_within(Duration::from_millis(1)));
        process.freeze();
        let outcome = process.kill();
        assert_eq!(
            (outcome.code, outcome.signal),
            (None, Some(Signal::KILL.as_raw()))
        );
    }

    #[test]
    fn a_signal_after_the_end_changes_nothing() {
        let mut process = shell("exit 4");
        assert!(process.ends_within(DEADLINE));
        process.kill().expect_code(4);
    }

    #[test]
    fn a_condition_that_never_holds_ends_with_the_process() {
        assert!(!shell("true").runs_until("nothing", || false));
    }

    #[test]
    fn a_panic_leaves_no_process_behind() {
        let process = shell("exec tail -f /dev/null");
        let folder = format!("/proc/{}", process.id());
        catch_unwind(move || {
            let _process = process;
            panic!("on purpose");
        })
        .expect_err("it panicked");
        assert!(!Path::new(&folder).exists());
    }
}
