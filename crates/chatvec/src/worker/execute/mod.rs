//! Runs one task on one thread: reads pieces of the sources, merges them, and
//! writes the parts. Sources and target are files of this machine or objects in
//! remote stores, in any mix: what is remote is fetched and put by the I/O
//! runtime meanwhile.
//!
//! Two grids cut the work. Output is *written* in chunks that end at multiples
//! of the chunk size in the file, so that every write but a file's last is
//! whole disk blocks. Tensors are *merged* in pieces of whole kernel blocks
//! counted from the first element of the segment, so that the sums of a segment
//! do not depend on where chunks end. Where a chunk ends inside a kernel block
//! the piece runs over its end, by less than a block; the bytes beyond wait in
//! the buffer and become the head of the next chunk.

mod check;
mod fetch;
mod inputs;
mod nonfinite;
mod output;
mod sources;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use chatvec_core::dtype::FloatFormat;
use chatvec_core::ids::{Crc64, PartOrdinal, TensorOrdinal};
use chatvec_core::kernel::{self, BLOCK_ELEMENTS, Operand};
use chatvec_core::plan::PartSize;
use chatvec_core::stats::SliceSums;
use chatvec_core::task::{FailureKind, Operation, Piece, Segment, TaskSpec, Term};
use tokio::task::JoinError;

use self::fetch::Fetched;
use self::inputs::Inputs;
pub use self::output::ChunkPool;
use self::output::{FileOutput, Output, UploadOutput, UploadTarget};
use self::sources::OpenSources;
use super::failure::Stop;
use super::gate::LeaseGate;
use crate::storage::local::{ALIGNMENT, AlignedBytes, Direct, PartialWriter, aligned_zeroes};
use crate::storage::object::ObjectStorage;

/// Bytes of the widest element, F64.
const ELEMENT_BYTES_MAX: usize = 8;

/// How a slot works. No choice here changes a byte of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotOptions {
    /// The chat vectors of a merge for which there is room to read each input
    /// in full pieces. More vectors are merged in smaller pieces.
    pub vectors: usize,
    /// Bytes of output written at once, a multiple of 4096. Too small and each
    /// write waits for the disk; too large and it leaves the CPU's cache.
    pub chunk_bytes: usize,
    /// Bytes read at once of each input, at least a kernel block of F64. Too
    /// small and system calls cost; too large and the pieces leave the cache.
    pub piece_bytes: usize,
    /// Whether to write around the page cache.
    pub direct: Direct,
}

impl Default for SlotOptions {
    fn default() -> Self {
        Self {
            vectors: 2,
            chunk_bytes: 2 << 20,
            piece_bytes: 256 << 10,
            direct: Direct::WhereAccepted,
        }
    }
}

impl SlotOptions {
    /// What the buffers of a slot take, whatever the model.
    pub const fn memory_bytes(&self) -> usize {
        self.inputs_bytes() + self.output_bytes()
    }

    const fn inputs_bytes(&self) -> usize {
        (1 + 2 * self.vectors) * self.piece_bytes
    }

    const fn output_bytes(&self) -> usize {
        self.chunk_bytes + BLOCK_ELEMENTS * ELEMENT_BYTES_MAX
    }
}

/// What a task takes in memory beside its slot's buffers: the inputs that are
/// fetched ahead, and the parts that are put.
pub(super) fn memory_needed(spec: &TaskSpec) -> u64 {
    let target = match is_remote(&spec.target) {
        true => UploadTarget::memory_bytes(spec),
        false => 0,
    };
    fetch::memory_bytes(spec) + target
}

/// The same of a usual task between remote stores.
pub(super) fn memory_expected() -> u64 {
    fetch::MEMORY_EXPECTED + ChunkPool::bytes_of_part(PartSize::DEFAULT.bytes())
}

/// Whether a source or target is an object in a remote store; if not, it is the
/// absolute path of a file.
fn is_remote(url: &str) -> bool {
    !url.starts_with('/')
}

/// A task of the I/O runtime ended without a result.
fn died(error: &JoinError) -> Stop {
    Stop::failed(FailureKind::Internal, "I/O runtime", error.to_string())
}

/// The buffers and open files with which one thread runs one task after the
/// other.
#[derive(Debug)]
pub struct Slot {
    options: SlotOptions,
    storage: ObjectStorage,
    pool: ChunkPool,
    inputs: AlignedBytes,
    output: AlignedBytes,
    scratch: kernel::Scratch,
    sources: OpenSources,
}

/// A part that is written.
#[derive(Debug, Clone, PartialEq)]
pub struct FinishedPart {
    /// Which part.
    pub part: PartOrdinal,
    /// CRC-64/NVME of its bytes.
    pub crc: Crc64,
    /// Its length in bytes.
    pub len: u64,
    /// What the store names it by; empty on a filesystem.
    pub part_id: String,
    /// What was measured of each merged slice, in the order of the segments.
    pub sums: Vec<(TensorOrdinal, SliceSums)>,
}

impl Slot {
    /// A slot with all its memory. The chunks of parts that it puts come from
    /// `pool`.
    ///
    /// # Panics
    /// If the options are not those that their documentation allows.
    pub fn new(options: SlotOptions, storage: ObjectStorage, pool: ChunkPool) -> Self {
        let chunk = options.chunk_bytes;
        assert!(chunk > 0 && chunk.is_multiple_of(ALIGNMENT));
        assert!(options.piece_bytes >= BLOCK_ELEMENTS * ELEMENT_BYTES_MAX);
        Self {
            options,
            storage,
            pool,
            inputs: aligned_zeroes(options.inputs_bytes()),
            output: aligned_zeroes(options.output_bytes()),
            scratch: kernel::Scratch::default(),
            sources: OpenSources::default(),
        }
    }

    /// Writes every part of a task: those of a remote target into the upload.
    /// When it returns the parts, all bytes that went into them came from the
    /// pinned sources. The bytes of a file are not synced. Adds the bytes written
    /// to `progress` as it goes, and asks `gate` before each part and each write.
    ///
    /// # Errors
    /// [`Stop`]. Parts may be written in part; nothing of them counts.
    pub fn execute(
        &mut self,
        spec: &TaskSpec,
        upload_id: &str,
        gate: &Arc<LeaseGate>,
        progress: &AtomicU64,
    ) -> Result<Vec<FinishedPart>, Stop> {
        let finished = self.execute_or_stop(spec, upload_id, gate, progress);
        if finished.is_err() {
            // Whatever it was, the next task begins with files newly opened.
            self.sources = OpenSources::default();
        }
        finished
    }

    fn execute_or_stop(
        &mut self,
        spec: &TaskSpec,
        upload_id: &str,
        gate: &Arc<LeaseGate>,
        progress: &AtomicU64,
    ) -> Result<Vec<FinishedPart>, Stop> {
        check::check(spec)?;
        gate.may_write()?;
        let fetched = Fetched::begin(spec, &self.storage)?;
        self.execute_fetched(spec, upload_id, gate, progress, fetched)
    }

    fn execute_fetched(
        &mut self,
        spec: &TaskSpec,
        upload_id: &str,
        gate: &Arc<LeaseGate>,
        progress: &AtomicU64,
        fetched: Option<Fetched>,
    ) -> Result<Vec<FinishedPart>, Stop> {
        let output = if is_remote(&spec.target) {
            let target = UploadTarget::open(spec, upload_id, &self.storage)?;
            Output::Upload(UploadOutput::new(target, &self.pool, gate, progress))
        } else {
            let target = Path::new(&spec.target);
            let writer = PartialWriter::open(target, spec.file_size, self.options.direct)
                .map_err(|error| Stop::of_target(&error))?;
            let chunk_bytes = self.options.chunk_bytes;
            let buffer = &mut self.output;
            Output::File(FileOutput::new(writer, buffer, chunk_bytes, gate, progress))
        };
        self.sources.begin_task(&spec.sources);
        let mut run = Run {
            spec,
            gate,
            piece_bytes: self.options.piece_bytes,
            inputs: &mut self.inputs,
            scratch: &mut self.scratch,
            sources: &mut self.sources,
            fetched,
            output,
        };
        let finished = run.all_parts()?;
        self.sources
            .verify_read()
            .map_err(|error| Stop::of_source(&error))?;
        Ok(finished)
    }
}

/// One execution of one task.
struct Run<'a> {
    spec: &'a TaskSpec,
    gate: &'a LeaseGate,
    piece_bytes: usize,
    inputs: &'a mut [u8],
    scratch: &'a mut kernel::Scratch,
    sources: &'a mut OpenSources,
    fetched: Option<Fetched>,
    output: Output<'a>,
}

impl Run<'_> {
    fn all_parts(&mut self) -> Result<Vec<FinishedPart>, Stop> {
        let spec = self.spec;
        let mut finished = Vec::with_capacity(spec.parts.len());
        let mut segments = spec.segments.iter().peekable();
        for part in &spec.parts {
            self.gate.may_begin_part()?;
            let end = part.offset + part.len;
            let mut sums = Vec::new();
            self.output.begin_part(part);
            while let Some(segment) = segments.next_if(|segment| segment.offset < end) {
                match &segment.operation {
                    Operation::Literal(bytes) => self.literal(bytes)?,
                    Operation::Copy { source, offset } => {
                        self.copy(segment, *source, *offset)?;
                    }
                    Operation::Merge { cp, terms, format } => {
                        let tensor = segment.tensor.expect("checked before the first read");
                        sums.push((tensor, self.merge(segment, cp, terms, *format)?));
                    }
                }
            }
            finished.push(FinishedPart {
                part: part.part,
                crc: self.output.finish_part()?,
                len: part.len,
                part_id: String::new(),
                sums,
            });
        }
        for (part, part_id) in finished.iter_mut().zip(self.output.finish()?) {
            part.part_id = part_id;
        }
        Ok(finished)
    }

    fn literal(&mut self, mut bytes: &[u8]) -> Result<(), Stop> {
        while !bytes.is_empty() {
            let (piece, rest) = bytes.split_at(bytes.len().min(self.output.room()));
            self.output.space(piece.len()).copy_from_slice(piece);
            self.output.advance(piece.len())?;
            bytes = rest;
        }
        Ok(())
    }

    fn copy(&mut self, segment: &Segment, source: u32, offset: u64) -> Result<(), Stop> {
        let mut done = 0;
        while done < segment.len {
            let (mut inputs, end) = inputs_at(
                self.spec,
                self.sources,
                &mut self.fetched,
                segment.offset + done,
                self.gate,
            )?;
            let left = segment.len.min(end - segment.offset) - done;
            let piece = self.output.room().min(self.piece_bytes);
            let piece = piece.min(usize::try_from(left).unwrap_or(usize::MAX));
            inputs.read(source, offset + done, self.output.space(piece))?;
            self.output.advance(piece)?;
            done += piece as u64;
        }
        Ok(())
    }

    fn merge(
        &mut self,
        segment: &Segment,
        cp: &Piece,
        terms: &[Term],
        format: FloatFormat,
    ) -> Result<SliceSums, Stop> {
        let width = format.bytes();
        let total = segment.len / width as u64;
        let piece_max = self.piece_elements(segment, cp, terms, format)?;
        let mut sums = SliceSums::default();
        let mut first = 0;
        while first < total {
            let (mut inputs, end) = inputs_at(
                self.spec,
                self.sources,
                &mut self.fetched,
                segment.offset + first * width as u64,
                self.gate,
            )?;
            // Within a segment stripes end at multiples of a kernel block.
            let left = (end - segment.offset) / width as u64;
            let left = usize::try_from(total.min(left) - first).unwrap_or(usize::MAX);
            let room = self.output.room().div_ceil(width);
            let wanted = piece_max
                .min(room.next_multiple_of(BLOCK_ELEMENTS))
                .min(left);
            let elements = inputs.at_once(cp, terms, first, wanted);
            let (cp_operand, deltas) = inputs.operands(cp, terms, first, elements, self.inputs)?;
            let out = self.output.space(elements * width);
            kernel::merge(cp_operand, &deltas, format, out, self.scratch, &mut sums);
            if self.spec.nonfinite_is_error && (sums.nonfinite_inputs > 0 || sums.overflows > 0) {
                let merged = nonfinite::Merged {
                    segment,
                    first,
                    cp: cp_operand,
                    deltas: &deltas,
                    out: Operand { format, bytes: out },
                };
                let failure = nonfinite::failure(self.spec, &merged);
                // A file that is being overwritten holds any value: that is the news then.
                self.sources
                    .verify_read()
                    .map_err(|error| Stop::of_source(&error))?;
                return Err(failure);
            }
            self.output.advance(elements * width)?;
            first += elements as u64;
        }
        Ok(sums)
    }

    /// How many elements of a segment are merged at once, in whole kernel blocks.
    fn piece_elements(
        &self,
        segment: &Segment,
        cp: &Piece,
        terms: &[Term],
        format: FloatFormat,
    ) -> Result<usize, Stop> {
        let inputs = terms.iter().flat_map(|term| [&term.chat, &term.base]);
        let widths = || inputs.clone().chain([cp]).map(|piece| piece.format.bytes());
        let widest = widths().fold(format.bytes(), usize::max);
        let elements = (self.piece_bytes / widest).min(self.inputs.len() / widths().sum::<usize>());
        match elements / BLOCK_ELEMENTS {
            0 => Err(Stop::failed(
                FailureKind::Internal,
                &segment.name,
                format!(
                    "expected a merge that fits in {} bytes of buffers, found one of {} vectors",
                    self.inputs.len(),
                    terms.len(),
                ),
            )),
            blocks => Ok(blocks * BLOCK_ELEMENTS),
        }
    }
}

/// The inputs of the output byte at `offset`, and up to which byte of the output
/// they are at hand.
fn inputs_at<'a>(
    spec: &'a TaskSpec,
    open: &'a mut OpenSources,
    fetched: &'a mut Option<Fetched>,
    offset: u64,
    gate: &LeaseGate,
) -> Result<(Inputs<'a>, u64), Stop> {
    let stripe = match fetched {
        Some(fetched) => Some(fetched.at(offset, gate)?),
        None => None,
    };
    let end = stripe.map_or(u64::MAX, |stripe| stripe.end);
    Ok((Inputs { spec, open, stripe }, end))
}

#[cfg(test)]
mod tests;
