//! The inputs of a piece: read into buffers from local files, or in place where
//! they were fetched.

use chatvec_core::kernel::{BLOCK_ELEMENTS, Delta, Operand};
use chatvec_core::task::{Piece, TaskSpec, Term};

use super::fetch::InHand;
use super::sources::OpenSources;
use crate::worker::failure::Stop;

/// Where the inputs of a piece are.
pub(super) struct Inputs<'a> {
    pub(super) spec: &'a TaskSpec,
    pub(super) open: &'a mut OpenSources,
    /// The stripe of the piece, where some of the sources are remote.
    pub(super) stripe: Option<InHand<'a>>,
}

impl<'a> Inputs<'a> {
    /// How many of the `wanted` elements from `first` on to merge at once: as
    /// many whole kernel blocks as every fetched input has in one chunk. Where
    /// not even the first block is in one, that block alone, to be copied.
    pub(super) fn at_once(&self, cp: &Piece, terms: &[Term], first: u64, wanted: usize) -> usize {
        let Some(stripe) = self.stripe else {
            return wanted;
        };
        let inputs = terms.iter().flat_map(|term| [&term.chat, &term.base]);
        let fetched = inputs.chain([cp]).filter(|piece| stripe.has(piece.source));
        fetched.fold(wanted, |wanted, piece| {
            let run = stripe.chunks.run(piece.source, offset_of(piece, first));
            match run.len() / piece.format.bytes() {
                elements if elements >= wanted => wanted,
                elements if elements < BLOCK_ELEMENTS => wanted.min(BLOCK_ELEMENTS),
                elements => elements / BLOCK_ELEMENTS * BLOCK_ELEMENTS,
            }
        })
    }

    /// The operands of `elements` elements from `first` on. What is not in
    /// place is read or copied into `buffer`.
    pub(super) fn operands<'b>(
        &mut self,
        cp: &Piece,
        terms: &[Term],
        first: u64,
        elements: usize,
        mut buffer: &'b mut [u8],
    ) -> Result<(Operand<'b>, Vec<Delta<'b>>), Stop>
    where
        'a: 'b,
    {
        let mut next = |piece: &Piece| {
            let (here, rest) =
                std::mem::take(&mut buffer).split_at_mut(elements * piece.format.bytes());
            buffer = rest;
            self.operand(piece, first, here)
        };
        let cp = next(cp)?;
        let delta = |term: &Term| {
            Ok(Delta {
                vector: term.vector,
                lambda: term.lambda,
                chat: next(&term.chat)?,
                base: next(&term.base)?,
            })
        };
        Ok((cp, terms.iter().map(delta).collect::<Result<_, _>>()?))
    }

    /// As many elements from `first` on as fill `buffer`, in it or in place.
    fn operand<'b>(
        &mut self,
        piece: &Piece,
        first: u64,
        buffer: &'b mut [u8],
    ) -> Result<Operand<'b>, Stop>
    where
        'a: 'b,
    {
        let offset = offset_of(piece, first);
        let bytes = match self.stripe.filter(|stripe| stripe.has(piece.source)) {
            Some(stripe) => match stripe.chunks.run(piece.source, offset).get(..buffer.len()) {
                Some(in_place) => in_place,
                None => {
                    stripe.chunks.copy(piece.source, offset, buffer);
                    buffer
                }
            },
            None => {
                self.read(piece.source, offset, buffer)?;
                buffer
            }
        };
        Ok(Operand {
            format: piece.format,
            bytes,
        })
    }

    /// Fills `out` with the bytes of a source from `offset` on.
    pub(super) fn read(&mut self, source: u32, offset: u64, out: &mut [u8]) -> Result<(), Stop> {
        if let Some(stripe) = self.stripe.filter(|stripe| stripe.has(source)) {
            stripe.chunks.copy(source, offset, out);
            return Ok(());
        }
        self.open
            .get(&self.spec.sources[source as usize])
            .and_then(|reader| reader.read_exact_at(out, offset))
            .map_err(|error| Stop::of_source(&error))
    }
}

/// Where the element begins in its source.
fn offset_of(piece: &Piece, element: u64) -> u64 {
    piece.offset + element * piece.format.bytes() as u64
}
