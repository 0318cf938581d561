//! Tasks whose sources are fetched: whatever the chunks in which they come, the
//! bytes and sums are those of local files.

use std::ops::Range;

use bytes::Bytes;

use super::layout::Dice;
use super::*;
use crate::worker::execute::fetch::Fetched;

/// The task with the sources of which `is_remote` says so in a remote store.
fn with_remote(task: &TaskSpec, is_remote: impl Fn(usize) -> bool) -> TaskSpec {
    let mut task = task.clone();
    for (i, source) in task.sources.iter_mut().enumerate() {
        if is_remote(i) {
            source.url = format!("s3://bucket/{i}");
        }
    }
    task
}

/// Runs tasks whose remote sources come in chunks of up to `chunk_max` bytes.
fn run_fetched(
    layout: &Layout,
    tasks: &[TaskSpec],
    options: SlotOptions,
    (seed, chunk_max): (u64, u64),
) -> Vec<FinishedPart> {
    let mut slot = slot(options);
    let mut parts = Vec::new();
    for task in tasks {
        let files: Vec<_> = layout
            .sources
            .iter()
            .map(|source| Bytes::from(fs::read(&source.url).unwrap()))
            .collect();
        let answer = move |source: u32, range: Range<u64>| {
            let mut dice = Dice(seed ^ range.start);
            let mut rest = files[source as usize].slice(range.start as usize..range.end as usize);
            let mut chunks = Vec::new();
            while !rest.is_empty() {
                let len = rest.len().min(1 + dice.roll(chunk_max) as usize);
                chunks.push(rest.split_to(len));
            }
            chunks
        };
        let fetched = Fetched::answered(task, answer);
        let progress = AtomicU64::new(0);
        let finished = slot.execute_fetched(task, "", &open_gate(), &progress, fetched);
        parts.extend(finished.unwrap());
    }
    parts
}

#[test]
fn bytes_and_sums_do_not_depend_on_the_chunks_that_come() {
    for seed in 200..206 {
        let mut layout = Layout::random(seed, 6, Values::Rough);
        let merged: Vec<_> = layout
            .whole
            .iter()
            .filter_map(|segment| {
                Some((segment.offset as usize, merged_at_once(&layout, segment)?.0))
            })
            .collect();
        for (offset, bytes) in merged {
            layout.expected[offset..][..bytes.len()].copy_from_slice(&bytes);
        }
        for chunk_max in [1, 700, 5_000, 60_000] {
            for remote in [0b1_1111, 0b0_0001, 0b1_0110] {
                let target = layout.target();
                let tasks: Vec<_> = layout
                    .tasks(&target, 32 << 10, 1 + seed as usize % 3)
                    .iter()
                    .map(|task| with_remote(task, |i| remote >> i & 1 == 1))
                    .collect();
                let parts = run_fetched(&layout, &tasks, SMALL, (seed, chunk_max));
                assert!(
                    fs::read(&target).unwrap() == layout.expected,
                    "seed {seed}, chunks of {chunk_max}, sources {remote:b}"
                );
                assert_parts(&layout, &tasks, &parts);
            }
        }
    }
}
