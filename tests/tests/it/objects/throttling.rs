//! A store without room: fewer requests at once, and more again, and nothing
//! fails.

use std::time::Duration;

use chatvec_tests::emulator::{Action, Fault, Operation, Profile, Refusal, Request};

use super::scene::{CONCURRENCY_MAX, Scene, bytes};

const KEY: &str = "models/weights.safetensors";
/// How long the store takes for an answer, so that requests meet.
const TAKES: Duration = Duration::from_millis(40);

#[test]
fn refusals_for_want_of_room_are_not_counted_as_failures() {
    let scene = Scene::of(Profile::Aws);
    let etag = scene.put(KEY, &bytes(1_000));
    let refuse = Action::Refuse(Refusal::SlowDown);
    let refuse = scene
        .emulator
        .add(Fault::new(refuse).by("chatvec").times(20));
    let client = &scene.client;
    let read = client.run(client.bucket.read_range(KEY, &etag, 10..20));
    assert_eq!(read.expect("read").concat(), bytes(1_000)[10..20]);
    assert_eq!(refuse.fired(), 20);
}

#[test]
fn a_storm_of_refusals_brings_fewer_requests_at_once_then_more_again_and_fails_nothing() {
    let scene = Scene::of(Profile::Aws);
    let etag = scene.put(KEY, &bytes(1_000));
    // The first rule that fits acts: the storm, while it lasts.
    let refuse = Action::Refuse(Refusal::SlowDown);
    let gets = |action| Fault::new(action).on(Operation::Get).by("chatvec");
    let busy = scene.emulator.add(
        gets(refuse)
            .after(u64::try_from(CONCURRENCY_MAX * 4).expect("small"))
            .times(60),
    );
    let slow = scene.emulator.add(gets(Action::StallAnswer(Some(TAKES))));
    let client = &scene.client;
    let reads = |count: usize| {
        let read = |_| client.bucket.read_range(KEY, &etag, 0..1_000);
        let reads = futures_util::future::join_all((0..count).map(read));
        for read in client.run(reads) {
            assert!(read.expect("nothing fails").concat() == bytes(1_000));
        }
    };
    reads(CONCURRENCY_MAX * 4);
    assert_eq!(
        most_at_once(&scene.requests(Operation::Get)),
        CONCURRENCY_MAX
    );
    assert_eq!(busy.fired(), 0);

    reads(100);
    assert_eq!(busy.fired(), 60);
    let after_storm = scene.requests(Operation::Get).len();
    reads(40);
    let calm = most_at_once(&scene.requests(Operation::Get)[after_storm..]);
    assert!(
        calm < CONCURRENCY_MAX * 3 / 4,
        "{calm} at once after the storm"
    );

    // One more every second.
    let mut grown = calm;
    let mut seen = scene.requests(Operation::Get).len();
    while grown < calm + 2 {
        reads(40);
        let gets = scene.requests(Operation::Get);
        grown = most_at_once(&gets[seen..]);
        seen = gets.len();
        assert!(gets.len() < 10_000, "{grown} at once after {calm}");
    }
    assert!(slow.fired() > 0);
}

/// The most requests that were under way at one moment.
fn most_at_once(requests: &[Request]) -> usize {
    let mut moments: Vec<(Duration, bool)> = requests
        .iter()
        .flat_map(|request| {
            let ended = request.ended.unwrap_or(Duration::MAX);
            [(request.arrived, true), (ended, false)]
        })
        .collect();
    // At one moment, ends come first.
    moments.sort();
    let mut now = 0;
    let mut most = 0;
    for (_, begins) in moments {
        if begins {
            now += 1;
            most = most.max(now);
        } else {
            now -= 1;
        }
    }
    most
}
