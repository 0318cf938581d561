//! What the environment asks for, and doing it.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Failpoint, Injected, Mutant};

/// The exit code of a process that was killed by SIGKILL, as a shell tells it.
const KILLED: i32 = 137;
/// How often a pause looks for the file that ends it.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// All that is armed.
#[derive(Debug, Default)]
pub(super) struct Armed {
    traps: Vec<Trap>,
    mutant: Option<Mutant>,
}

/// One action at one failpoint.
#[derive(Debug)]
struct Trap {
    point: Failpoint,
    action: Action,
    when: When,
    subject: String,
    hits: AtomicU64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Action {
    Crash,
    Error,
    Delay(Duration),
    Pause(PathBuf),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Nth(u64),
    Always,
}

impl Armed {
    /// Parses the two variables; an empty one arms nothing.
    ///
    /// # Errors
    /// What was expected and what was found instead.
    pub(super) fn parse(failpoints: &str, mutant: &str) -> Result<Self, String> {
        let traps = failpoints.split(';').filter(|text| !text.is_empty());
        let mutant = Some(mutant).filter(|name| !name.is_empty());
        Ok(Self {
            traps: traps.map(Trap::parse).collect::<Result<_, _>>()?,
            mutant: mutant
                .map(|name| named(Mutant::ALL, Mutant::name, name))
                .transpose()?,
        })
    }

    #[cfg_attr(not(feature = "fault-testing"), expect(dead_code))]
    pub(super) fn mutant(&self) -> Option<Mutant> {
        self.mutant
    }

    pub(super) async fn hit(&self, point: Failpoint, subject: &str) -> Result<(), Injected> {
        for trap in self.traps.iter().filter(|trap| trap.point == point) {
            if subject.contains(&trap.subject) && trap.is_sprung() {
                trap.act(subject).await?;
            }
        }
        Ok(())
    }
}

impl Trap {
    fn parse(text: &str) -> Result<Self, String> {
        let malformed = || format!("expected NAME:ACTION[:K][@SUBJECT], found `{text}`");
        let (rule, subject) = text.split_once('@').unwrap_or((text, ""));
        let mut fields = rule.split(':');
        let name = fields.next().ok_or_else(malformed)?;
        let action = fields.next().ok_or_else(malformed)?;
        let action = match action.split_once('=').unwrap_or((action, "")) {
            ("crash", "") => Action::Crash,
            ("error", "") => Action::Error,
            ("delay", ms) => {
                Action::Delay(Duration::from_millis(ms.parse().map_err(|_| malformed())?))
            }
            ("pause", file) if !file.is_empty() => Action::Pause(file.into()),
            _ => return Err(malformed()),
        };
        let when = match fields.next() {
            None => When::Nth(1),
            Some("*") => When::Always,
            Some(number) => When::Nth(number.parse().map_err(|_| malformed())?),
        };
        match fields.next() {
            Some(_) => Err(malformed()),
            None => Ok(Self {
                point: named(Failpoint::ALL, Failpoint::name, name)?,
                action,
                when,
                subject: subject.to_owned(),
                hits: AtomicU64::new(0),
            }),
        }
    }

    /// Counts a hit; whether it is the one.
    fn is_sprung(&self) -> bool {
        let hits = self.hits.fetch_add(1, Ordering::Relaxed) + 1;
        match self.when {
            When::Nth(nth) => hits == nth,
            When::Always => true,
        }
    }

    async fn act(&self, subject: &str) -> Result<(), Injected> {
        let name = self.point.name();
        let told = format!("failpoint {name}: {:?} of `{subject}`\n", self.action);
        // Nobody is left to tell when stderr is closed.
        let _closed = io::stderr().lock().write_all(told.as_bytes());
        match &self.action {
            Action::Crash => std::process::exit(KILLED),
            Action::Error => return Err(Injected::Error),
            Action::Delay(time) => tokio::time::sleep(*time).await,
            Action::Pause(file) => {
                while !file.exists() {
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            }
        }
        Ok(())
    }
}

/// The one of a list that has this name.
fn named<T: Copy>(all: &[T], name_of: fn(T) -> &'static str, name: &str) -> Result<T, String> {
    let found = all.iter().copied().find(|one| name_of(*one) == name);
    found.ok_or_else(|| {
        let known: Vec<_> = all.iter().copied().map(name_of).collect();
        format!("expected one of {}, found `{name}`", known.join(", "))
    })
}

#[cfg(feature = "fault-testing")]
mod environment {
    use std::sync::LazyLock;

    use super::Armed;

    static ARMED: LazyLock<Result<Armed, String>> = LazyLock::new(|| {
        let [failpoints, mutant] = ["CHATVEC_FAILPOINT", "CHATVEC_MUTANT"]
            .map(|name| std::env::var(name).unwrap_or_default());
        Armed::parse(&failpoints, &mutant)
    });

    /// What this process's environment asks for.
    pub(in crate::fault) fn of_environment() -> &'static Armed {
        ARMED.as_ref().expect("`main` has checked it")
    }

    /// Reads the environment.
    ///
    /// # Errors
    /// What it asks for that does not exist: a test with a slip of the pen must
    /// not pass.
    pub fn check_environment() -> Result<(), String> {
        ARMED.as_ref().map(drop).map_err(Clone::clone)
    }
}

#[cfg(feature = "fault-testing")]
pub(super) use environment::of_environment;

#[cfg(feature = "fault-testing")]
pub use environment::check_environment;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_parsed_whole_or_refused() {
        let armed = Armed::parse(
            "PutDone:crash;ReportReady:pause=/tmp/go:3@s3://m/out;ReapRead:delay=20:*",
            "NoSelfFence",
        );
        let armed = armed.unwrap();
        let actions: Vec<_> = armed
            .traps
            .iter()
            .map(|trap| (&trap.action, trap.when, trap.subject.as_str()))
            .collect();
        assert_eq!(
            actions,
            [
                (&Action::Crash, When::Nth(1), ""),
                (&Action::Pause("/tmp/go".into()), When::Nth(3), "s3://m/out"),
                (&Action::Delay(Duration::from_millis(20)), When::Always, ""),
            ]
        );
        assert_eq!(armed.mutant, Some(Mutant::NoSelfFence));
        for bad in [
            "PutDone",
            "Nowhere:crash",
            "PutDone:explode",
            "PutDone:crash=1",
            "PutDone:delay=soon",
            "PutDone:pause",
            "PutDone:crash:first",
            "PutDone:crash:1:2",
        ] {
            assert!(Armed::parse(bad, "").is_err(), "{bad}");
        }
        assert!(Armed::parse("", "NoSuchDefect").is_err());
    }

    #[tokio::test]
    async fn the_nth_hit_counts_and_only_of_its_subject() {
        let armed = Armed::parse("PutDone:error:2@out-7", "").unwrap();
        for (point, subject, expected) in [
            (Failpoint::PutDone, "out-7/a", Ok(())),
            (Failpoint::PutDone, "out-8/a", Ok(())),
            (Failpoint::PutReady, "out-7/a", Ok(())),
            (Failpoint::PutDone, "out-7/b", Err(Injected::Error)),
            (Failpoint::PutDone, "out-7/c", Ok(())),
        ] {
            assert_eq!(armed.hit(point, subject).await, expected, "{subject}");
        }
    }

    #[tokio::test]
    async fn a_pause_ends_with_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let go = folder.path().join("go");
        let armed = Armed::parse(&format!("TaskBegun:pause={}", go.display()), "").unwrap();
        let mut paused = std::pin::pin!(armed.hit(Failpoint::TaskBegun, ""));
        assert!(futures_util::poll!(paused.as_mut()).is_pending());
        std::fs::write(&go, "").unwrap();
        paused.await.unwrap();
    }
}
