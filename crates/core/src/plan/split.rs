//! Parts and tasks: how the output files are cut for the workers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{OutputFile, Plan};
use crate::align::{Decision, Outcome, TensorAt};
use crate::dtype::FloatFormat;
use crate::ids::{FileOrdinal, PartOrdinal, TaskOrdinal};
use crate::task::{Operation, PartRange, Piece, Segment, TaskSpec, Term};

/// Size of every part but the last of a file, in bytes. A multiple of 4096, so
/// that parts can be written with direct I/O and no element is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartSize(u64);

/// A part size that is no multiple of 4096 bytes, or zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a part size is a multiple of 4096 bytes, at least 4096; found {0}")]
pub struct BadPartSize(pub u64);

/// Most parts that S3-like stores take for one object.
const PARTS_MAX: u64 = 10_000;
/// Alignment of part sizes, in bytes.
const PART_GRAIN: u64 = 4096;
/// Up to here every part is a task of its own; beyond, tasks grow, so that the
/// job table stays small for the largest models.
const TASKS_AIM: u64 = 8192;

impl PartSize {
    /// 64 MiB: large enough for a store's throughput, small enough that a lost
    /// worker costs little.
    pub const DEFAULT: Self = Self(64 << 20);

    /// A part size.
    ///
    /// # Errors
    /// If it is not a positive multiple of 4096.
    pub fn new(bytes: u64) -> Result<Self, BadPartSize> {
        match bytes {
            0 => Err(BadPartSize(bytes)),
            _ if !bytes.is_multiple_of(PART_GRAIN) => Err(BadPartSize(bytes)),
            _ => Ok(Self(bytes)),
        }
    }

    /// In bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// This size, or the next larger one with which none of the files has more
    /// than 10,000 parts.
    pub(super) fn fitting(self, file_sizes: impl Iterator<Item = u64>) -> Self {
        let largest = file_sizes.max().unwrap_or(0);
        let least = largest.div_ceil(PARTS_MAX).next_multiple_of(PART_GRAIN);
        Self(self.0.max(least))
    }

    fn count(self, file_size: u64) -> u64 {
        file_size.div_ceil(self.0)
    }
}

/// A contiguous run of parts of one output file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskRange {
    /// The file.
    pub file: FileOrdinal,
    /// The first part.
    pub first_part: PartOrdinal,
    /// How many parts, at least one.
    pub part_count: u32,
    /// Bytes of output.
    pub bytes: u64,
}

pub(super) fn tasks(files: &[OutputFile], part_size: PartSize) -> Vec<TaskRange> {
    let parts: u64 = files.iter().map(|file| part_size.count(file.size)).sum();
    let run = parts.div_ceil(TASKS_AIM).max(1);
    let mut tasks = Vec::new();
    for (ordinal, file) in (0u32..).zip(files) {
        let count = part_size.count(file.size);
        let mut first = 0;
        while first < count {
            let end = (first + run).min(count);
            let bytes = (end * part_size.0).min(file.size) - first * part_size.0;
            tasks.push(TaskRange {
                file: FileOrdinal(ordinal),
                first_part: PartOrdinal(u32::try_from(first).expect("at most 10,000 parts a file")),
                part_count: u32::try_from(end - first).expect("at most 10,000 parts a file"),
                bytes,
            });
            first = end;
        }
    }
    tasks
}

impl Plan {
    /// The self-contained description of a task. `target` is where the
    /// unfinished file is written.
    ///
    /// # Panics
    /// If the plan has no such task.
    pub fn task_spec(&self, task: TaskOrdinal, target: String) -> TaskSpec {
        let range = self.tasks[task.0 as usize];
        let file = &self.files[range.file.0 as usize];
        let mut builder = SpecBuilder {
            plan: self,
            sources: BTreeMap::new(),
            order: Vec::new(),
        };
        let mut parts = Vec::with_capacity(range.part_count as usize);
        let mut segments = Vec::new();
        for part in range.first_part.0..range.first_part.0 + range.part_count {
            let offset = u64::from(part) * self.part_size.0;
            let len = self.part_size.0.min(file.size - offset);
            parts.push(PartRange {
                part: PartOrdinal(part),
                offset,
                len,
            });
            builder.segments_of_part(file, offset, offset + len, &mut segments);
        }
        TaskSpec {
            file: range.file,
            target,
            file_size: file.size,
            parts,
            sources: builder
                .order
                .into_iter()
                .map(|source| self.sources[source].clone())
                .collect(),
            segments,
            nonfinite_is_error: self.nonfinite_is_error,
        }
    }
}

/// Collects the sources that a task names, each once, in order of first use.
struct SpecBuilder<'a> {
    plan: &'a Plan,
    sources: BTreeMap<usize, u32>,
    order: Vec<usize>,
}

impl SpecBuilder<'_> {
    fn segments_of_part(
        &mut self,
        file: &OutputFile,
        begin: u64,
        end: u64,
        segments: &mut Vec<Segment>,
    ) {
        let header_len = file.header.len() as u64;
        if begin < header_len {
            let to = end.min(header_len);
            let literal = file.header[begin as usize..to as usize].to_vec();
            segments.push(Segment {
                tensor: None,
                name: String::new(),
                offset: begin,
                len: to - begin,
                operation: Operation::Literal(literal),
            });
        }
        let first = file.tensors.partition_point(|placed| placed.end <= begin);
        for placed in file.tensors[first..]
            .iter()
            .take_while(|placed| placed.begin < end)
        {
            let from = placed.begin.max(begin);
            let to = placed.end.min(end);
            if from == to {
                continue; // An empty tensor has no bytes.
            }
            let decision = &self.plan.decisions()[placed.tensor.0 as usize];
            segments.push(Segment {
                tensor: Some(placed.tensor),
                name: decision.name.clone(),
                offset: from,
                len: to - from,
                operation: self.operation(decision, from - placed.begin),
            });
        }
    }

    /// The operation on a tensor's bytes from `skipped` output bytes on.
    fn operation(&mut self, decision: &Decision, skipped: u64) -> Operation {
        let converts = decision.output != decision.dtype;
        let format = FloatFormat::of(decision.output);
        match (&decision.outcome, format) {
            (Outcome::Merge(merge), Some(format)) => {
                let element = skipped / format.bytes() as u64;
                let terms = merge.terms.iter().map(|term| Term {
                    vector: u32::try_from(term.vector)
                        .expect("a recipe of 10 MB has fewer than 2^32 vectors"),
                    lambda: term.lambda,
                    chat: self.piece(&term.chat, element),
                    base: self.piece(&term.base, element),
                });
                let terms = terms.collect();
                Operation::Merge {
                    cp: self.piece(&decision.cp, element),
                    terms,
                    format,
                }
            }
            (Outcome::Keep(_), Some(format)) if converts => {
                let element = skipped / format.bytes() as u64;
                Operation::Merge {
                    cp: self.piece(&decision.cp, element),
                    terms: Vec::new(),
                    format,
                }
            }
            _ => Operation::Copy {
                source: self.source(decision.cp.source),
                offset: decision.cp.offset + skipped,
            },
        }
    }

    fn piece(&mut self, at: &TensorAt, element: u64) -> Piece {
        let format =
            FloatFormat::of(at.dtype).expect("only floating-point tensors are aligned for a merge");
        Piece {
            source: self.source(at.source),
            offset: at.offset + element * format.bytes() as u64,
            format,
        }
    }

    fn source(&mut self, source: usize) -> u32 {
        let next = u32::try_from(self.order.len()).expect("fewer than 2^32 source files");
        *self.sources.entry(source).or_insert_with(|| {
            self.order.push(source);
            next
        })
    }
}
