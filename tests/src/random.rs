//! Chance in tests, which can be repeated.

use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

/// Names the seed of a run that is to be repeated.
const SEED: &str = "CHATVEC_TEST_SEED";

/// SplitMix64, by Steele, Lea and Flood, 2014.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// What follows from this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Another seed each time, which is printed, unless the environment names one.
    ///
    /// # Panics
    /// If the environment names something else.
    #[expect(clippy::print_stdout, reason = "a failure is repeated from the seed")]
    pub fn seeded() -> Self {
        let seed = any_seed();
        println!("repeat the chances with {SEED}={seed}");
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Evenly from 0 to 1.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Evenly between two numbers.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// The same of seconds.
    pub fn seconds(&mut self, low: f64, high: f64) -> Duration {
        Duration::from_secs_f64(self.between(low, high))
    }

    /// Evenly one of the numbers below this one.
    ///
    /// # Panics
    /// If there is none.
    pub fn below(&mut self, end: usize) -> usize {
        assert!(end > 0, "there is no number below 0");
        ((self.unit() * end as f64) as usize).min(end - 1)
    }

    /// One of them, each as likely as any other.
    ///
    /// # Panics
    /// If there is none.
    pub fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }

    /// Whether something happens that is so likely.
    pub fn happens(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Changes the order, into each as likely as any other.
    pub fn shuffle<T>(&mut self, all: &mut [T]) {
        for last in (1..all.len()).rev() {
            all.swap(last, self.below(last + 1));
        }
    }
}

/// The seed that the environment names, or else another one each time.
///
/// # Panics
/// If the environment names something else.
pub fn any_seed() -> u64 {
    match std::env::var(SEED) {
        Ok(seed) => seed.parse().expect("a seed is a number"),
        Err(_) => RandomState::new().hash_one(0),
    }
}
