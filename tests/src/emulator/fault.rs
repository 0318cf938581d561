//! Faults: which requests meet one, what it does, and how often it did.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;

use super::Operation;
use crate::family::mix;
use crate::process::until;

/// An answer that says no.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// 503 `SlowDown`.
    SlowDown,
    /// 500 `InternalError`.
    InternalError,
    /// 409 `ConditionalRequestConflict`.
    Conflict,
    /// 403 `AccessDenied`.
    AccessDenied,
    /// 403 `RequestTimeTooSkewed`.
    TimeTooSkewed,
}

/// What is done to a request instead of serving it as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Nothing is done, and the answer says so.
    Refuse(Refusal),
    /// Nothing is done, and the answer says so in a body below the status 200.
    RefuseInOk(Refusal),
    /// It is carried out, and the answer says that it was not.
    RefuseAfter(Refusal),
    /// The connection is closed at once; nothing is done.
    DropBefore,
    /// It is carried out, and the connection is closed instead of an answer.
    DropAfter,
    /// The body is read, and nothing more is done until the rule is released, or
    /// this time is over. What follows happens even if nobody waits any more.
    Hold(Option<Duration>),
    /// It is carried out, and the answer begins only when the rule is released,
    /// or this time is over.
    StallAnswer(Option<Duration>),
    /// The answer's body stands still after so many bytes until the rule is
    /// released.
    StallBody(u64),
    /// The connection is closed after so many bytes of the answer's body.
    TruncateBody(u64),
    /// The lowest bit of this byte of the answer's body is flipped.
    FlipBody(u64),
    /// A range is answered with the whole object, and 200.
    IgnoreRange,
    /// A write is carried out whatever it demands of what stands there.
    IgnoreCondition,
    /// The lowest bit of this byte of the request's body is flipped on the way.
    CorruptReceived(u64),
    /// An object or a part is kept with the lowest bit of this byte flipped, and with the
    /// ETag and the checksum of what was sent: the store itself breaks.
    CorruptStored(u64),
}

/// Which requests meet a fault, and which fault: every one that fits, unless
/// told otherwise.
#[derive(Debug, Clone)]
pub struct Fault {
    action: Action,
    operation: Option<Operation>,
    key: Keys,
    part_number: Option<u32>,
    access_key: Option<String>,
    spared: u64,
    times: u64,
    probability: Option<(f64, u64)>,
}

#[derive(Debug, Clone)]
enum Keys {
    All,
    Exactly(String),
    EndingIn(String),
}

impl Fault {
    /// This for every request.
    pub fn new(action: Action) -> Self {
        Self {
            action,
            operation: None,
            key: Keys::All,
            part_number: None,
            access_key: None,
            spared: 0,
            times: u64::MAX,
            probability: None,
        }
    }

    /// Only for this kind of request.
    #[must_use]
    pub fn on(self, operation: Operation) -> Self {
        let operation = Some(operation);
        Self { operation, ..self }
    }

    /// Only for this key.
    #[must_use]
    pub fn key(self, key: &str) -> Self {
        let key = Keys::Exactly(key.to_owned());
        Self { key, ..self }
    }

    /// Only for keys that end in this.
    #[must_use]
    pub fn key_ending_in(self, suffix: &str) -> Self {
        let key = Keys::EndingIn(suffix.to_owned());
        Self { key, ..self }
    }

    /// Only for the part of this number, counted from one.
    #[must_use]
    pub fn part(self, number: u32) -> Self {
        let part_number = Some(number);
        Self {
            part_number,
            ..self
        }
    }

    /// Only for who calls with this access key, or with one below it: `fleet`
    /// means `fleet.worker-1`, too.
    #[must_use]
    pub fn by(self, access_key: &str) -> Self {
        let access_key = Some(access_key.to_owned());
        Self { access_key, ..self }
    }

    /// Not for the first so many that fit.
    #[must_use]
    pub fn after(self, spared: u64) -> Self {
        Self { spared, ..self }
    }

    /// At most so often.
    #[must_use]
    pub fn times(self, times: u64) -> Self {
        Self { times, ..self }
    }

    /// For this share of those that fit, drawn from the seed.
    #[must_use]
    pub fn with_probability(self, share: f64, seed: u64) -> Self {
        let probability = Some((share, seed));
        Self {
            probability,
            ..self
        }
    }

    fn fits(&self, request: &super::Request) -> bool {
        let fits_key = match &self.key {
            Keys::All => true,
            Keys::Exactly(key) => request.key == *key,
            Keys::EndingIn(suffix) => request.key.ends_with(suffix),
        };
        fits_key
            && self.operation.is_none_or(|only| request.operation == only)
            && (self.part_number).is_none_or(|only| request.part_number == Some(only))
            && (self.access_key.as_ref()).is_none_or(|only| is_below(&request.access_key, only))
    }
}

fn is_below(access_key: &str, name: &str) -> bool {
    let rest = access_key.strip_prefix(name);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// A fault that was put into an emulator. It stays when this is dropped.
#[derive(Debug, Clone)]
pub struct Rule(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    fault: Fault,
    counts: Mutex<Counts>,
    released: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Counts {
    fitting: u64,
    fired: u64,
    is_removed: bool,
}

impl Rule {
    pub(super) fn new(fault: Fault) -> Self {
        Self(Arc::new(Shared {
            fault,
            counts: Mutex::default(),
            released: watch::Sender::new(false),
        }))
    }

    /// How many requests met the fault.
    pub fn fired(&self) -> u64 {
        self.counts().fired
    }

    /// Waits until so many requests have met the fault.
    ///
    /// # Panics
    /// If they do not in time.
    pub fn until_fired(&self, times: u64) {
        let what = format!("{:?} to happen", self.0.fault.action);
        until(&what, || self.fired() >= times);
    }

    /// Lets go what it holds, and what it will hold.
    pub fn release(&self) {
        self.0.released.send_replace(true);
    }

    /// No request meets the fault any more. What is held stays so.
    pub fn remove(&self) {
        self.counts().is_removed = true;
    }

    /// What is to be done to a request, and counts it.
    pub(super) fn meet(&self, request: &super::Request) -> Option<Action> {
        let fault = &self.0.fault;
        let mut counts = self.counts();
        if counts.is_removed || counts.fired >= fault.times || !fault.fits(request) {
            return None;
        }
        counts.fitting += 1;
        let is_drawn = fault.probability.is_none_or(|(share, seed)| {
            let drawn = mix(seed ^ mix(counts.fitting)) as f64 / u64::MAX as f64;
            drawn < share
        });
        if counts.fitting <= fault.spared || !is_drawn {
            return None;
        }
        counts.fired += 1;
        Some(fault.action)
    }

    /// Ends when the rule is released, or the time is over.
    pub(super) async fn wait(&self, longest: Option<Duration>) {
        let mut released = self.0.released.subscribe();
        let released = released.wait_for(|is_released| *is_released);
        match longest {
            // Of both ends, either is one.
            Some(longest) => drop(tokio::time::timeout(longest, released).await),
            None => drop(released.await),
        }
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0
            .counts
            .lock()
            .expect("nothing panics while it holds this")
    }
}
