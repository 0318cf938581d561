//! Chance in tests, which can be repeated.

use std::hash::{BuildHasher as _, RandomState};

/// Names the seed of a run that is to be repeated.
const SEED: &str = "CHATVEC_TEST_SEED";

/// SplitMix64, by Steele, Lea and Flood, 2014.
pub(crate) struct Random(u64);

impl Random {
    /// Another seed each time, which is printed, unless the environment names one.
    #[expect(clippy::print_stdout, reason = "a failure is repeated from the seed")]
    pub(crate) fn seeded() -> Self {
        let seed = match std::env::var(SEED) {
            Ok(seed) => seed.parse().expect("a seed is a number"),
            Err(_) => RandomState::new().hash_one(0),
        };
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
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}
