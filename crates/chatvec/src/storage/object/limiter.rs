//! How many requests a bucket bears: learnt from its refusals.
//!
//! Additive increase, multiplicative decrease, as TCP does. A store that says
//! 503 is asked by half as many at once, and by one more every second after.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

/// Refusals of one storm count once.
const HALVING_PAUSE: Duration = Duration::from_secs(1);

/// The gate of a bucket. Waiters pass in the order in which they came.
#[derive(Debug)]
pub(super) struct Limiter {
    window: Mutex<Window>,
    freed: Notify,
}

/// A request under way. Dropping it frees the place.
pub(super) struct Place<'a>(&'a Limiter);

#[derive(Debug)]
struct Window {
    ceiling: f64,
    limit: f64,
    under_way: usize,
    grown: Instant,
    halved: Option<Instant>,
}

impl Limiter {
    /// At most `ceiling` requests at once, until the store says otherwise.
    pub(super) fn new(ceiling: usize) -> Self {
        Self {
            window: Mutex::new(Window::new(ceiling, Instant::now())),
            freed: Notify::new(),
        }
    }

    /// Waits for a place.
    pub(super) async fn place(&self) -> Place<'_> {
        loop {
            let freed = self.freed.notified();
            if self.window().start(Instant::now()) {
                // More than one may have become free.
                self.freed.notify_one();
                return Place(self);
            }
            freed.await;
        }
    }

    fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place<'_> {
    /// The store refused for want of room.
    pub(super) fn refused(&self) {
        self.0.window().halve(Instant::now());
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.window().under_way -= 1;
        self.0.freed.notify_one();
    }
}

impl Window {
    fn new(ceiling: usize, now: Instant) -> Self {
        Self {
            ceiling: ceiling as f64,
            limit: ceiling as f64,
            under_way: 0,
            grown: now,
            halved: None,
        }
    }

    /// Takes a place if there is one.
    fn start(&mut self, now: Instant) -> bool {
        let seconds = now.saturating_duration_since(self.grown).as_secs_f64();
        self.limit = (self.limit + seconds).min(self.ceiling);
        self.grown = now;
        let has_room = self.under_way < self.limit as usize;
        self.under_way += usize::from(has_room);
        has_room
    }

    /// Halves what was tried, not what would have been allowed.
    fn halve(&mut self, now: Instant) {
        let paused = |halved: Instant| now.saturating_duration_since(halved) >= HALVING_PAUSE;
        if self.halved.is_none_or(paused) {
            self.limit = (self.limit.min(self.under_way as f64) / 2.0).max(1.0);
            self.halved = Some(now);
            self.grown = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn fill(window: &mut Window, now: Instant) -> usize {
        while window.start(now) {}
        window.under_way
    }

    #[test]
    fn a_refusal_halves_once_a_second_and_each_second_adds_one() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut window = Window::new(64, start);
        assert_eq!(fill(&mut window, start), 64);
        window.halve(start);
        window.halve(at(900));
        window.under_way = 0;
        assert_eq!(fill(&mut window, start), 32);
        window.halve(at(1_000));
        window.under_way = 0;
        assert_eq!(fill(&mut window, at(1_000)), 16);
        assert_eq!(fill(&mut window, at(4_000)), 19);
        assert_eq!(fill(&mut window, at(1_000_000)), 64);
    }

    #[test]
    fn one_request_is_always_let_through() {
        let start = Instant::now();
        let mut window = Window::new(2, start);
        for second in 0..10 {
            let now = start + Duration::from_secs(second);
            window.halve(now);
            assert!(window.limit >= 1.0);
        }
        assert!(window.start(start));
    }

    #[test]
    fn what_was_not_tried_is_not_halved() {
        let start = Instant::now();
        let mut window = Window::new(64, start);
        for _ in 0..8 {
            assert!(window.start(start));
        }
        window.halve(start);
        window.under_way = 0;
        assert_eq!(fill(&mut window, start), 4);
    }

    #[tokio::test]
    async fn a_freed_place_wakes_who_waits() {
        let limiter = Arc::new(Limiter::new(1));
        let first = limiter.place().await;
        let waiting = tokio::spawn({
            let limiter = Arc::clone(&limiter);
            async move {
                for _ in 0..3 {
                    drop(limiter.place().await);
                }
            }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(first);
        waiting.await.unwrap();
    }
}
