//! Reads of a store that breaks off, stands still, and answers something else.

use chatvec::storage::object::ObjectError;
use chatvec_tests::emulator::{Action, Condition, Fault, Operation, Profile, Refusal, Rule};

use super::scene::{Scene, bytes};

const KEY: &str = "models/weights.safetensors";
const SIZE: usize = 300_000;
const RANGE: std::ops::Range<u64> = 1_000..201_000;

/// A store with an object that is read.
struct Reading {
    scene: Scene,
    etag: String,
}

impl Reading {
    fn begin() -> Self {
        let scene = Scene::of(Profile::Aws);
        let etag = scene.put(KEY, &bytes(SIZE));
        Self { scene, etag }
    }

    /// A fault for the GETs of the object.
    fn fault(&self, action: Action, times: u64) -> Rule {
        let fault = Fault::new(action).on(Operation::Get).key(KEY);
        self.scene.emulator.add(fault.times(times))
    }

    fn read(&self) -> Result<Vec<u8>, ObjectError> {
        let client = &self.scene.client;
        let read = client.bucket.read_range(KEY, &self.etag, RANGE);
        client.run(read).map(|chunks| chunks.concat())
    }

    #[track_caller]
    fn reads_the_range(&self) {
        let read = self.read().expect("read");
        assert!(read == bytes(SIZE)[1_000..201_000], "other bytes");
    }

    /// The first byte that each GET asked for.
    fn offsets(&self) -> Vec<u64> {
        let gets = self.scene.requests(Operation::Get);
        let ranges = gets.into_iter().map(|get| get.range.expect("a range"));
        ranges.map(|range| range.start).collect()
    }
}

#[test]
fn a_body_that_breaks_off_is_resumed_where_it_ended() {
    let reading = Reading::begin();
    let cut = reading.fault(Action::TruncateBody(70_000), 2);
    reading.reads_the_range();
    assert_eq!(cut.fired(), 2);
    assert_eq!(reading.offsets(), [1_000, 71_000, 141_000]);
    // None of them could have got the bytes of another object.
    let pinned = Condition::Match(reading.etag.trim_matches('"').to_owned());
    for get in reading.scene.requests(Operation::Get) {
        assert_eq!(get.condition.as_ref(), Some(&pinned));
    }
}

#[test]
fn a_body_that_stands_still_is_resumed_where_it_ended() {
    let reading = Reading::begin();
    let stall = reading.fault(Action::StallBody(70_000), 1);
    reading.reads_the_range();
    assert_eq!(stall.fired(), 1);
    assert_eq!(reading.offsets(), [1_000, 71_000]);
}

#[test]
fn an_answer_that_does_not_come_is_asked_for_again() {
    let reading = Reading::begin();
    let stall = reading.fault(Action::StallAnswer(None), 1);
    let reset = reading.fault(Action::DropBefore, 2);
    reading.reads_the_range();
    assert_eq!((stall.fired(), reset.fired()), (1, 2));
    assert_eq!(reading.offsets(), [1_000; 4]);
}

#[test]
fn an_object_that_is_replaced_between_two_pieces_of_a_body_is_not_mixed() {
    let reading = Reading::begin();
    let stall = reading.fault(Action::StallBody(70_000), 1);
    let error = std::thread::scope(|scope| {
        let read = scope.spawn(|| reading.read());
        stall.until_fired(1);
        reading.scene.put(KEY, &vec![7; SIZE]);
        read.join().expect("it does not panic").unwrap_err()
    });
    let expected = reading.etag.clone();
    assert!(
        matches!(&error, ObjectError::Changed { expected: found, .. } if *found == expected),
        "{error}"
    );
    assert_eq!(reading.offsets(), [1_000, 71_000]);
}

#[test]
fn a_store_that_fails_five_times_in_a_row_is_given_up_with_its_own_words() {
    let reading = Reading::begin();
    let failing = reading.fault(Action::Refuse(Refusal::InternalError), 4);
    reading.reads_the_range();
    assert_eq!(failing.fired(), 4);
    let failing = reading.fault(Action::Refuse(Refusal::InternalError), u64::MAX);
    let error = reading.read().unwrap_err();
    assert!(matches!(error, ObjectError::Transient { .. }), "{error}");
    assert!(
        error.to_string().contains("InternalError: We encountered"),
        "{error}"
    );
    assert_eq!(failing.fired(), 5);
}

#[test]
fn the_whole_object_for_a_range_of_it_is_refused_at_once() {
    let reading = Reading::begin();
    let ignore = reading.fault(Action::IgnoreRange, u64::MAX);
    let error = reading.read().unwrap_err();
    assert!(matches!(error, ObjectError::Defect { .. }), "{error}");
    let problem = error.problem();
    assert_eq!(
        problem.message,
        "the store is not fit for this: it ignores ranges: the whole object instead of a range of it"
    );
    assert!(problem.hint.expect("advice").contains("chatvec doctor"));
    assert_eq!(ignore.fired(), 1);
}

#[test]
fn who_may_not_read_is_told_so_at_once() {
    let reading = Reading::begin();
    let deny = reading.fault(Action::Refuse(Refusal::AccessDenied), u64::MAX);
    let error = reading.read().unwrap_err();
    assert!(matches!(error, ObjectError::Denied { .. }), "{error}");
    assert!(
        error.to_string().contains("AccessDenied: Access Denied"),
        "{error}"
    );
    // Keys that were given do not become others by asking again.
    assert_eq!(deny.fired(), 1);
}

#[test]
fn a_wrong_clock_is_named() {
    let reading = Reading::begin();
    let skewed = reading.fault(Action::Refuse(Refusal::TimeTooSkewed), u64::MAX);
    let error = reading.read().unwrap_err();
    let problem = error.problem();
    assert!(
        problem
            .message
            .starts_with("this machine's clock is wrong: RequestTimeTooSkewed"),
        "{error}"
    );
    assert_eq!(problem.hint.as_deref(), Some("set the clock"));
    assert_eq!(skewed.fired(), 1);
}

/// No store tells the checksum of a range, so there is nothing to compare with:
/// TLS, or the checksums of TCP, are what guards a read on its way. If this ever
/// fails, `docs/fleet.md` has to promise more.
#[test]
fn a_bit_that_flips_between_store_and_reader_goes_unnoticed() {
    let reading = Reading::begin();
    let flip = reading.fault(Action::FlipBody(5), 1);
    let mut expected = bytes(SIZE)[1_000..201_000].to_vec();
    expected[5] ^= 1;
    assert!(reading.read().expect("read") == expected);
    assert_eq!(flip.fired(), 1);
}
