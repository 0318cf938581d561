//! Tasks executed on small files.

mod faults;
mod layout;
mod remote;

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use chatvec_core::kernel::Delta;

use super::*;
use crate::storage::object::ObjectStorageOptions;
use crate::worker::gate::boottime_ms;
use layout::{Layout, Values};

const SMALL: SlotOptions = SlotOptions {
    vectors: 2,
    chunk_bytes: 4096,
    piece_bytes: 16 << 10,
    direct: Direct::WhereAccepted,
};

fn open_gate() -> Arc<LeaseGate> {
    Arc::new(LeaseGate::new(boottime_ms(), Duration::MAX))
}

fn slot(options: SlotOptions) -> Slot {
    let storage = ObjectStorage::new(ObjectStorageOptions::from_variables([]));
    Slot::new(options, storage, ChunkPool::default())
}

fn run(slot: &mut Slot, tasks: &[TaskSpec]) -> Vec<FinishedPart> {
    let progress = AtomicU64::new(0);
    let mut parts = Vec::new();
    for task in tasks {
        let before = progress.load(Ordering::Relaxed);
        parts.extend(slot.execute(task, "", &open_gate(), &progress).unwrap());
        assert_eq!(progress.load(Ordering::Relaxed) - before, task.bytes());
    }
    parts
}

fn operand(piece: Piece, bytes: &[u8]) -> Operand<'_> {
    Operand {
        format: piece.format,
        bytes,
    }
}

/// What the kernel says of a segment that it is given in one piece.
fn merged_at_once(layout: &Layout, segment: &Segment) -> Option<(Vec<u8>, SliceSums)> {
    let Operation::Merge { cp, terms, format } = &segment.operation else {
        return None;
    };
    let elements = segment.len / format.bytes() as u64;
    let bytes = |piece: &Piece| layout.source_bytes(piece, elements);
    let cp_bytes = bytes(cp);
    let term_bytes: Vec<_> = terms
        .iter()
        .map(|term| (bytes(&term.chat), bytes(&term.base)))
        .collect();
    let deltas: Vec<_> = terms
        .iter()
        .zip(&term_bytes)
        .map(|(term, (chat, base))| Delta {
            vector: term.vector,
            lambda: term.lambda,
            chat: operand(term.chat, chat),
            base: operand(term.base, base),
        })
        .collect();
    let mut out = vec![0; segment.len as usize];
    let mut sums = SliceSums::default();
    let mut scratch = kernel::Scratch::default();
    kernel::merge(
        operand(*cp, &cp_bytes),
        &deltas,
        *format,
        &mut out,
        &mut scratch,
        &mut sums,
    );
    Some((out, sums))
}

/// Checks the parts of all tasks of a layout against its bytes and the kernel.
fn assert_parts(layout: &Layout, tasks: &[TaskSpec], parts: &[FinishedPart]) {
    let ranges = tasks.iter().flat_map(|task| &task.parts);
    assert_eq!(parts.len(), ranges.clone().count());
    for (range, part) in ranges.zip(parts) {
        let bytes = &layout.expected[range.offset as usize..][..range.len as usize];
        assert_eq!((part.part, part.len), (range.part, range.len));
        assert_eq!(part.crc.0, crc_fast::crc64_nvme(bytes), "{range:?}");
        let sums: Vec<_> = layout
            .cut(range)
            .iter()
            .filter_map(|segment| Some((segment.tensor?, merged_at_once(layout, segment)?.1)))
            .collect();
        assert_eq!(part.sums, sums, "{range:?}");
    }
}

#[test]
fn every_operation_gives_the_bytes_of_a_naive_merge() {
    for seed in 0..12 {
        let layout = Layout::random(seed, 7, Values::Exact);
        for (part_size, parts_per_task) in [(4096, 1), (8192, 3), (65536, 2)] {
            for options in [SMALL, SlotOptions::default()] {
                let target = layout.target();
                let tasks = layout.tasks(&target, part_size, parts_per_task);
                let parts = run(&mut slot(options), &tasks);
                assert!(
                    fs::read(&target).unwrap() == layout.expected,
                    "seed {seed}, parts of {part_size}, {options:?}"
                );
                assert_parts(&layout, &tasks, &parts);
            }
        }
    }
}

#[test]
fn bytes_and_sums_do_not_depend_on_chunks_pieces_tasks_or_direct_io() {
    for seed in 100..104 {
        let mut layout = Layout::random(seed, 6, Values::Rough);
        let merged = layout
            .whole
            .iter()
            .filter_map(|segment| Some((segment, merged_at_once(&layout, segment)?.0)));
        let merged: Vec<_> = merged
            .map(|(segment, bytes)| (segment.offset as usize, bytes))
            .collect();
        for (offset, bytes) in merged {
            layout.expected[offset..][..bytes.len()].copy_from_slice(&bytes);
        }
        for chunk_bytes in [4096, 5 * 4096, 2 << 20] {
            for (vectors, piece_bytes) in
                [(0, 80 << 10), (2, 16 << 10), (2, 40_000), (2, 256 << 10)]
            {
                for direct in [Direct::WhereAccepted, Direct::Never] {
                    let options = SlotOptions {
                        vectors,
                        chunk_bytes,
                        piece_bytes,
                        direct,
                    };
                    let target = layout.target();
                    let tasks = layout.tasks(&target, 32 << 10, 1 + seed as usize % 3);
                    let parts = run(&mut slot(options), &tasks);
                    assert!(
                        fs::read(&target).unwrap() == layout.expected,
                        "seed {seed}, {options:?}"
                    );
                    assert_parts(&layout, &tasks, &parts);
                }
            }
        }
    }
}

#[test]
fn the_last_bytes_of_a_file_need_no_alignment() {
    let sizes: Vec<_> = (0..12)
        .map(|seed| Layout::random(seed, 7, Values::Exact).expected.len() % 4096)
        .collect();
    // The layouts of the tests above end anywhere in a block.
    assert!(
        sizes.iter().filter(|&&tail| tail != 0).count() >= 10,
        "{sizes:?}"
    );
}

#[test]
fn a_slot_takes_the_memory_that_it_says() {
    let options = SlotOptions::default();
    let slot = slot(options);
    assert_eq!(
        slot.inputs.len() + slot.output.len(),
        options.memory_bytes()
    );
    assert_eq!(
        options.memory_bytes(),
        (2 << 20) + (16 << 10) + 5 * (256 << 10)
    );
}

#[test]
fn more_vectors_than_fit_are_refused_by_name() {
    let layout = (0..)
        .map(|seed| Layout::random(seed, 1, Values::Exact))
        .find(|layout| matches!(&layout.whole[1].operation, Operation::Merge { terms, .. } if terms.len() == 2))
        .unwrap();
    let target = layout.target();
    let mut tasks = layout.tasks(&target, 1 << 20, 1);
    let Operation::Merge { terms, .. } = &mut tasks[0].segments[1].operation else {
        unreachable!("searched for above");
    };
    *terms = terms.repeat(20);
    let mut slot = slot(SlotOptions {
        vectors: 0,
        ..SMALL
    });
    let stop = slot
        .execute(&tasks[0], "", &open_gate(), &AtomicU64::new(0))
        .unwrap_err();
    let Stop::Failed(failure) = stop else {
        panic!("expected a failure, found {stop:?}");
    };
    assert_eq!(failure.kind, FailureKind::Internal);
    assert_eq!(
        failure.problem.to_string(),
        "tensor.0: expected a merge that fits in 16384 bytes of buffers, found one of 40 vectors"
    );
}
