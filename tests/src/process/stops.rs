//! When processes stood still: what they had under way then goes on late.

use std::sync::Mutex;
use std::time::Duration;

use rustix::process::Signal;
use rustix::time::{ClockId, clock_gettime};

/// A process that was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// Its id.
    pub process: u32,
    /// When, by [`wall_clock`].
    pub from: Duration,
    /// When it was let go on; `None` if it was not.
    pub to: Option<Duration>,
}

static STOPS: Mutex<Vec<Stop>> = Mutex::new(Vec::new());

/// All stops of processes of this one, in order.
///
/// # Panics
/// Never.
pub fn stops() -> Vec<Stop> {
    STOPS.lock().expect("nothing panics with it").clone()
}

/// The machine's clock, since 1970.
pub fn wall_clock() -> Duration {
    let now = clock_gettime(ClockId::Realtime);
    Duration::new(
        now.tv_sec.unsigned_abs(),
        u32::try_from(now.tv_nsec).expect("nanoseconds of a time are below 10⁹"),
    )
}

pub(super) fn note(process: u32, signal: Signal) {
    let mut stops = STOPS.lock().expect("nothing panics with it");
    let now = wall_clock();
    match signal {
        Signal::STOP => stops.push(Stop {
            process,
            from: now,
            to: None,
        }),
        Signal::CONT => {
            let open = |stop: &&mut Stop| stop.process == process && stop.to.is_none();
            stops
                .iter_mut()
                .filter(open)
                .for_each(|stop| stop.to = Some(now));
        }
        _ => {}
    }
}
