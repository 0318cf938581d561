//! A minute of `make soak`, and what soaks have found.

mod found;

use std::time::Duration;

use chatvec_tests::random::any_seed;
use chatvec_tests::soak::Soak;

/// How long faults come.
const TIME: Duration = Duration::from_secs(60);

#[test]
fn a_fleet_under_random_faults_publishes_what_it_should_and_nothing_else() {
    let soak = Soak {
        seed: any_seed(),
        time: TIME,
    };
    println!("seed {}", soak.seed);
    let report = soak.run().expect("its folder can be written");
    println!("{report}");
    assert!(report.violations.is_empty(), "{report}");
    let came: u64 = report.faults.values().sum();
    assert!(came >= 10, "hardly a fault came: {report}");
    let succeeded = report.ends.get("SUCCEEDED").copied().unwrap_or(0);
    assert!(succeeded >= 5, "hardly a job came to its end: {report}");
}
