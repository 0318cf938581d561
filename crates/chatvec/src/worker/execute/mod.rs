//! Runs one task on one thread: reads pieces of the sources, merges them, and
//! writes the parts.
//!
//! Two grids cut the work. Output is *written* in chunks that end at multiples
//! of the chunk size in the file, so that every write but a file's last is
//! whole disk blocks. Tensors are *merged* in pieces of whole kernel blocks
//! counted from the first element of the segment, so that the sums of a segment
//! do not depend on where chunks end. Where a chunk ends inside a kernel block
//! the piece runs over its end, by less than a block; the bytes beyond wait in
//! the buffer and become the head of the next chunk.

mod check;
mod nonfinite;
mod output;
mod sources;

use std::path::Path;
use std::sync::atomic::AtomicU64;

use chatvec_core::dtype::FloatFormat;
use chatvec_core::ids::{Crc64, PartOrdinal, TensorOrdinal};
use chatvec_core::kernel::{self, BLOCK_ELEMENTS, Delta, Operand};
use chatvec_core::stats::SliceSums;
use chatvec_core::task::{FailureKind, Operation, Piece, Segment, TaskSpec, Term};

use self::output::Output;
use self::sources::OpenSources;
use super::failure::Stop;
use super::gate::LeaseGate;
use crate::storage::local::{ALIGNMENT, AlignedBytes, Direct, PartialWriter, aligned_zeroes};

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

/// The buffers and open files with which one thread runs one task after the
/// other.
#[derive(Debug)]
pub struct Slot {
    options: SlotOptions,
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
    /// What was measured of each merged slice, in the order of the segments.
    pub sums: Vec<(TensorOrdinal, SliceSums)>,
}

impl Slot {
    /// A slot with all its memory.
    ///
    /// # Panics
    /// If the options are not those that their documentation allows.
    pub fn new(options: SlotOptions) -> Self {
        let chunk = options.chunk_bytes;
        assert!(chunk > 0 && chunk.is_multiple_of(ALIGNMENT));
        assert!(options.piece_bytes >= BLOCK_ELEMENTS * ELEMENT_BYTES_MAX);
        Self {
            options,
            inputs: aligned_zeroes(options.inputs_bytes()),
            output: aligned_zeroes(options.output_bytes()),
            scratch: kernel::Scratch::default(),
            sources: OpenSources::default(),
        }
    }

    /// Writes every part of a task. When it returns the parts, all bytes that
    /// went into them came from the pinned sources. The bytes are not synced.
    /// Adds the bytes written to `progress` as it goes, and asks `gate` before
    /// each write.
    ///
    /// # Errors
    /// [`Stop`]. Parts may be written in part; nothing of them counts.
    pub fn execute(
        &mut self,
        spec: &TaskSpec,
        gate: &LeaseGate,
        progress: &AtomicU64,
    ) -> Result<Vec<FinishedPart>, Stop> {
        let finished = self.execute_or_stop(spec, gate, progress);
        if finished.is_err() {
            // Whatever it was, the next task begins with files newly opened.
            self.sources = OpenSources::default();
        }
        finished
    }

    fn execute_or_stop(
        &mut self,
        spec: &TaskSpec,
        gate: &LeaseGate,
        progress: &AtomicU64,
    ) -> Result<Vec<FinishedPart>, Stop> {
        check::check(spec)?;
        gate.may_write()?;
        let target = Path::new(&spec.target);
        let writer = PartialWriter::open(target, spec.file_size, self.options.direct)
            .map_err(|error| Stop::of_target(&error))?;
        self.sources.begin_task(&spec.sources);
        let chunk_bytes = self.options.chunk_bytes;
        let mut run = Run {
            spec,
            piece_bytes: self.options.piece_bytes,
            inputs: &mut self.inputs,
            scratch: &mut self.scratch,
            sources: &mut self.sources,
            output: Output::new(writer, &mut self.output, chunk_bytes, gate, progress),
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
    piece_bytes: usize,
    inputs: &'a mut [u8],
    scratch: &'a mut kernel::Scratch,
    sources: &'a mut OpenSources,
    output: Output<'a>,
}

impl Run<'_> {
    fn all_parts(&mut self) -> Result<Vec<FinishedPart>, Stop> {
        let spec = self.spec;
        let mut finished = Vec::with_capacity(spec.parts.len());
        let mut segments = spec.segments.iter().peekable();
        for part in &spec.parts {
            let end = part.offset + part.len;
            let mut sums = Vec::new();
            self.output.begin_part(part.offset);
            while let Some(segment) = segments.next_if(|segment| segment.offset < end) {
                match &segment.operation {
                    Operation::Literal(bytes) => self.literal(bytes)?,
                    Operation::Copy { source, offset } => {
                        self.copy(*source, *offset, segment.len)?;
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
                sums,
            });
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

    fn copy(&mut self, source: u32, offset: u64, len: u64) -> Result<(), Stop> {
        let mut done = 0;
        while done < len {
            let piece = self.output.room().min(self.piece_bytes);
            let piece = piece.min(usize::try_from(len - done).unwrap_or(usize::MAX));
            read(
                self.sources,
                self.spec,
                source,
                offset + done,
                self.output.space(piece),
            )?;
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
            let room = self.output.room().div_ceil(width);
            let elements = piece_max
                .min(room.next_multiple_of(BLOCK_ELEMENTS))
                .min(usize::try_from(total - first).unwrap_or(usize::MAX));
            let (cp_bytes, mut rest) = self.inputs.split_at_mut(elements * cp.format.bytes());
            read_piece(self.sources, self.spec, cp, first, cp_bytes)?;
            let cp_operand = operand(cp, cp_bytes);
            let mut deltas = Vec::with_capacity(terms.len());
            for term in terms {
                let (chat, after) = rest.split_at_mut(elements * term.chat.format.bytes());
                let (base, after) = after.split_at_mut(elements * term.base.format.bytes());
                rest = after;
                read_piece(self.sources, self.spec, &term.chat, first, chat)?;
                read_piece(self.sources, self.spec, &term.base, first, base)?;
                deltas.push(Delta {
                    vector: term.vector,
                    lambda: term.lambda,
                    chat: operand(&term.chat, chat),
                    base: operand(&term.base, base),
                });
            }
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

fn operand<'a>(piece: &Piece, bytes: &'a [u8]) -> Operand<'a> {
    Operand {
        format: piece.format,
        bytes,
    }
}

fn read_piece(
    sources: &mut OpenSources,
    spec: &TaskSpec,
    piece: &Piece,
    first: u64,
    out: &mut [u8],
) -> Result<(), Stop> {
    let offset = piece.offset + first * piece.format.bytes() as u64;
    read(sources, spec, piece.source, offset, out)
}

fn read(
    sources: &mut OpenSources,
    spec: &TaskSpec,
    source: u32,
    offset: u64,
    out: &mut [u8],
) -> Result<(), Stop> {
    sources
        .get(&spec.sources[source as usize])
        .and_then(|reader| reader.read_exact_at(out, offset))
        .map_err(|error| Stop::of_source(&error))
}

#[cfg(test)]
mod tests;
