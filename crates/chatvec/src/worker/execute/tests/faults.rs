//! Tasks that must not finish: lost leases, sources that change, bad values,
//! and filesystems that are full or take no direct I/O.

use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use chatvec_core::task::{SourceFile, TaskFailure};

use super::layout::encode;
use super::*;
use crate::storage::local::PartialFile;

/// A layout whose last tensor is merged with two vectors, its file, and one
/// task that writes all of it in parts of 8 KiB.
fn merged_layout() -> (Layout, PathBuf, TaskSpec) {
    let is_merge = |segment: &Segment| match &segment.operation {
        Operation::Merge { cp, terms, format } => {
            let narrow = |piece: &Piece| piece.format != FloatFormat::F64;
            terms.len() == 2 && *format != FloatFormat::F64 && narrow(cp)
        }
        _ => false,
    };
    let layout = (0..)
        .map(|seed| Layout::random(seed, 7, Values::Exact))
        .find(|layout| is_merge(&layout.whole[7]) && layout.expected.len() > 60_000)
        .unwrap();
    let target = layout.target();
    let task = one_task(&layout, &target);
    (layout, target, task)
}

fn one_task(layout: &Layout, target: &Path) -> TaskSpec {
    layout.tasks(target, 8192, usize::MAX).remove(0)
}

fn terms_of(segment: &Segment) -> (&Piece, &[Term]) {
    match &segment.operation {
        Operation::Merge { cp, terms, .. } => (cp, terms),
        other => panic!("expected a merge, found {other:?}"),
    }
}

fn execute(task: &TaskSpec, gate: &Arc<LeaseGate>) -> Result<Vec<FinishedPart>, Stop> {
    slot(SMALL).execute(task, "", gate, &AtomicU64::new(0))
}

fn probed(act: impl Fn(u64, &LeaseGate) + Send + Sync + 'static) -> Arc<LeaseGate> {
    Arc::new(LeaseGate::probed(act))
}

fn failure_of(task: &TaskSpec, gate: &Arc<LeaseGate>) -> TaskFailure {
    match execute(task, gate) {
        Err(Stop::Failed(failure)) => failure,
        other => panic!("expected a failure, found {other:?}"),
    }
}

#[test]
fn a_gate_that_closes_stops_before_the_next_write() {
    type Close = fn(&LeaseGate);
    let close: [(Close, Stop); 3] = [
        (LeaseGate::set_lost, Stop::LeaseLost),
        (LeaseGate::set_cancelled, Stop::Cancelled),
        (LeaseGate::set_given_up, Stop::Drained),
    ];
    for (close, stop) in close {
        let (layout, target, task) = merged_layout();
        // The first question is asked before the file is opened; each later
        // one is for a chunk of 4,096 bytes.
        let gate = probed(move |asked, gate| {
            if asked == 6 {
                close(gate);
            }
        });
        let progress = AtomicU64::new(0);
        let result = slot(SMALL).execute(&task, "", &gate, &progress);
        assert_eq!(result, Err(stop));
        assert_eq!(progress.load(Ordering::Relaxed), 5 * 4096);
        let found = fs::read(&target).unwrap();
        assert!(found[..5 * 4096] == layout.expected[..5 * 4096]);
        assert!(found[5 * 4096..].iter().all(|&byte| byte == 0xaa));
    }
}

#[test]
fn a_drain_finishes_the_part_and_begins_none() {
    let (layout, target, task) = merged_layout();
    // The second chunk of the second part of two is about to be written.
    let gate = probed(|asked, gate| {
        if asked == 4 {
            gate.set_draining();
        }
    });
    assert_eq!(execute(&task, &gate), Err(Stop::Drained));
    let found = fs::read(&target).unwrap();
    assert!(found[..2 * 8192] == layout.expected[..2 * 8192]);
    assert!(found[2 * 8192..].iter().all(|&byte| byte == 0xaa));
    // One that is at its last part is done.
    let (_layout, _target, mut task) = merged_layout();
    task.parts.truncate(1);
    task.segments.retain(|segment| segment.offset < 8192);
    let gate = probed(|asked, gate| {
        if asked == 1 {
            gate.set_draining();
        }
    });
    assert_eq!(execute(&task, &gate).unwrap().len(), 1);
}

#[test]
fn a_lease_that_ran_out_writes_nothing() {
    let (_layout, target, task) = merged_layout();
    let gate = Arc::new(LeaseGate::new(0, Duration::from_millis(1)));
    assert_eq!(execute(&task, &gate), Err(Stop::LeaseLost));
    assert!(fs::read(&target).unwrap().iter().all(|&byte| byte == 0xaa));
}

#[test]
fn a_missing_target_is_a_lost_lease_and_stays_missing() {
    let (_layout, target, task) = merged_layout();
    fs::remove_file(&target).unwrap();
    assert_eq!(execute(&task, &open_gate()), Err(Stop::LeaseLost));
    assert!(!target.exists());
}

#[test]
fn a_target_of_another_size_is_refused_untouched() {
    let (_layout, target, task) = merged_layout();
    fs::write(&target, b"something else").unwrap();
    assert_eq!(failure_of(&task, &open_gate()).kind, FailureKind::Internal);
    assert_eq!(fs::read(&target).unwrap(), b"something else");
}

/// Runs a task during which `change` happens to the source of cp.
fn change_while_running(change: fn(&SourceFile)) -> TaskFailure {
    let (_layout, _target, task) = merged_layout();
    let source = task.sources[0].clone();
    let gate = probed(move |asked, _| {
        if asked == 3 {
            change(&source);
        }
    });
    failure_of(&task, &gate)
}

#[test]
fn a_source_that_is_replaced_while_it_is_read_fails_the_task() {
    let failure = change_while_running(|source| {
        let twin = format!("{}.twin", source.url);
        fs::copy(&source.url, &twin).unwrap();
        fs::rename(&twin, &source.url).unwrap();
    });
    assert_eq!(failure.kind, FailureKind::SourceChanged);
    assert!(
        failure
            .problem
            .to_string()
            .contains("source-0: changed: expected ino=")
    );
}

#[test]
fn a_source_that_is_written_to_while_it_is_read_fails_the_task() {
    let failure = change_while_running(|source| {
        let bytes = fs::read(&source.url).unwrap();
        fs::write(&source.url, bytes).unwrap();
    });
    assert_eq!(failure.kind, FailureKind::SourceChanged);
    assert!(
        failure
            .problem
            .to_string()
            .contains("source-0: changed: expected ino=")
    );
}

#[test]
fn a_source_that_is_truncated_while_it_is_read_fails_the_task() {
    let failure = change_while_running(|source| {
        let file = fs::File::options().write(true).open(&source.url).unwrap();
        file.set_len(100).unwrap();
    });
    assert_eq!(failure.kind, FailureKind::SourceChanged);
    assert!(
        failure
            .problem
            .to_string()
            .contains("source-0: truncated: expected")
    );
}

#[test]
fn a_source_that_is_removed_while_it_is_read_fails_the_task() {
    let failure = change_while_running(|source| fs::remove_file(&source.url).unwrap());
    assert_eq!(failure.kind, FailureKind::SourceChanged);
    assert!(failure.problem.to_string().contains("expected a file"));
}

#[test]
fn a_source_that_changes_between_two_tasks_of_a_slot_fails_the_second() {
    let (_layout, _target, task) = merged_layout();
    let mut slot = slot(SMALL);
    let progress = AtomicU64::new(0);
    slot.execute(&task, "", &open_gate(), &progress).unwrap();
    let bytes = fs::read(&task.sources[2].url).unwrap();
    fs::write(&task.sources[2].url, bytes).unwrap();
    let Err(Stop::Failed(failure)) = slot.execute(&task, "", &open_gate(), &progress) else {
        panic!("the source has another time of modification");
    };
    assert_eq!(failure.kind, FailureKind::SourceChanged);
}

#[test]
fn a_nan_in_an_input_is_named_with_its_file_and_place() {
    let (mut layout, target, _) = merged_layout();
    let segment = layout.whole[7].clone();
    let base = terms_of(&segment).1[1].base;
    let at = base.offset + 3 * base.format.bytes() as u64;
    layout.patch(base.source, at, &vec![0xff; base.format.bytes()]);
    let mut task = one_task(&layout, &target);
    let first = &segment.offset;
    let failure = failure_of(&task, &open_gate());
    assert_eq!(failure.kind, FailureKind::BadInput);
    assert_eq!(
        failure.problem.to_string(),
        format!(
            "tensor.6: expected finite values, found NaN in `vectors[1].base`, `{}` at byte {at} (element 3 of the slice at output byte {first})",
            task.sources[base.source as usize].url
        )
    );
    let hint = failure.problem.hint.unwrap();
    assert!(hint.contains("`nonfinite: allow`"), "{hint}");

    task.nonfinite_is_error = false;
    let parts = execute(&task, &open_gate()).unwrap();
    let counted: u64 = parts
        .iter()
        .flat_map(|part| &part.sums)
        .map(|(_, sums)| sums.nonfinite_inputs)
        .sum();
    assert_eq!(counted, 1);
}

#[test]
fn a_nan_that_is_written_while_the_task_runs_is_a_changed_source() {
    let failure = change_while_running(|source| {
        let len = usize::try_from(source.size).unwrap();
        let file = fs::File::options().write(true).open(&source.url).unwrap();
        file.write_all_at(&vec![0xff; len], 0).unwrap();
    });
    assert_eq!(
        failure.kind,
        FailureKind::SourceChanged,
        "{}",
        failure.problem
    );
}

#[test]
fn an_infinity_in_cp_is_named() {
    let (mut layout, target, _) = merged_layout();
    let cp = *terms_of(&layout.whole[7]).0;
    // Double the greatest finite value: an exponent of all ones, no mantissa.
    let bits = match cp.format {
        FloatFormat::F32 => 0xff80_0000_u64,
        FloatFormat::Bf16 => 0xff80,
        FloatFormat::F16 => 0xfc00,
        FloatFormat::F64 => unreachable!("the layout has a narrow cp"),
    };
    layout.patch(
        cp.source,
        cp.offset,
        &bits.to_le_bytes()[..cp.format.bytes()],
    );
    let failure = failure_of(&one_task(&layout, &target), &open_gate());
    assert!(
        failure
            .problem
            .to_string()
            .contains("found -inf in `cp`, `"),
        "{}",
        failure.problem
    );
}

#[test]
fn a_result_that_does_not_fit_the_output_type_is_named() {
    let (mut layout, target, _) = merged_layout();
    let chat = terms_of(&layout.whole[7]).1[0].chat;
    let Operation::Merge { format, terms, .. } = &mut layout.whole[7].operation else {
        unreachable!("the last tensor is merged");
    };
    // Only the scale can leave the range whatever the formats are.
    terms[0].lambda = 1e300;
    let dtype = format.dtype();
    layout.patch(chat.source, chat.offset, &encode(7.5, chat.format));
    let failure = failure_of(&one_task(&layout, &target), &open_gate());
    assert_eq!(failure.kind, FailureKind::BadInput);
    let wanted = format!("tensor.6: expected a result within the range of {dtype}, found ");
    assert!(
        failure.problem.to_string().starts_with(&wanted),
        "{}",
        failure.problem.to_string()
    );
}

/// Runs a test of this binary again where `fs` of 64 KiB is mounted on a folder
/// that only it sees. `None` in the outer run, when the inner one has passed.
fn inside_a_mounted(fs: &str, test: &str) -> Option<PathBuf> {
    const FOLDER: &str = "CHATVEC_TEST_MOUNTED";
    if let Some(folder) = std::env::var_os(FOLDER) {
        return Some(folder.into());
    }
    let folder = tempfile::tempdir().unwrap();
    let script = format!("mount -t {fs} -o size=64k none \"$1\" && exec \"$2\" --exact \"$3\"");
    let output = Command::new("unshare")
        .args([
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            &script,
            "sh",
        ])
        .arg(folder.path())
        .arg(std::env::current_exe().unwrap())
        .arg(format!("worker::execute::tests::faults::{test}"))
        .env(FOLDER, folder.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
    None
}

#[test]
fn a_full_disk_is_told_at_creation_and_at_writing() {
    let name = "a_full_disk_is_told_at_creation_and_at_writing";
    let Some(folder) = inside_a_mounted("tmpfs", name) else {
        return;
    };
    let (layout, _, _) = merged_layout();
    let target = folder.join("out.partial");
    let error = PartialFile::create(&target, 100_000).unwrap_err();
    assert_eq!(error.io_kind(), Some(std::io::ErrorKind::StorageFull));
    assert!(!target.exists());

    // A file without reserved space, on a disk that another file fills.
    fs::write(folder.join("other"), vec![1; 48 << 10]).unwrap();
    let sparse = fs::File::create(&target).unwrap();
    sparse.set_len(layout.expected.len() as u64).unwrap();
    let failure = failure_of(&one_task(&layout, &target), &open_gate());
    assert_eq!(failure.kind, FailureKind::ResourceExhausted);
    assert!(
        failure.problem.to_string().contains("failed to write"),
        "{}",
        failure.problem
    );
    assert!(failure.problem.hint.unwrap().contains("free some space"));
}

#[test]
fn a_filesystem_without_direct_io_gets_the_same_bytes() {
    let name = "a_filesystem_without_direct_io_gets_the_same_bytes";
    let Some(folder) = inside_a_mounted("ramfs", name) else {
        return;
    };
    let (layout, _, _) = merged_layout();
    let target = folder.join("out.partial");
    // It can't reserve space either.
    let size = layout.expected.len() as u64;
    PartialFile::create(&target, size).unwrap();
    let writer = PartialWriter::open(&target, size, Direct::WhereAccepted).unwrap();
    assert!(!writer.is_direct());
    execute(&one_task(&layout, &target), &open_gate()).unwrap();
    assert!(fs::read(&target).unwrap() == layout.expected);
}
