//! What a task fetches from remote stores, and in which order.
//!
//! The output is cut into stripes whose inputs are of a bounded size. The
//! inputs of one stripe are fetched together, and stripe after stripe is merged
//! and forgotten, so a task's memory does not depend on the size of its tensors.

use std::ops::Range;

use chatvec_core::kernel::BLOCK_ELEMENTS;
use chatvec_core::task::{Operation, Piece, Segment, TaskSpec};

use crate::worker::execute::is_remote;

/// The sizes by which fetches are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::worker::execute) struct FetchSizes {
    /// Bytes that the inputs of a stripe have together, at most, unless a single
    /// kernel block has more.
    pub(super) stripe_bytes: u64,
    /// Bytes of one request, at most. Requests between half of it and all of it
    /// are large enough that their latency does not count, and small enough
    /// that several connections share the work.
    pub(super) get_bytes_max: u64,
    /// Neighbours that are no further apart are fetched in one request: the
    /// bytes between them cost less than another request.
    pub(super) gap_bytes_max: u64,
}

impl FetchSizes {
    /// 24 MiB: 8 MiB each of cp, chat and base.
    pub(super) const DEFAULT: Self = Self {
        stripe_bytes: 24 << 20,
        get_bytes_max: 16 << 20,
        gap_bytes_max: 256 << 10,
    };
}

/// Bytes of a source that are fetched by one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Get {
    /// Position in [`TaskSpec::sources`].
    pub(super) source: u32,
    pub(super) range: Range<u64>,
}

/// A run of output bytes and the requests that bring its inputs, in the order
/// of source and offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stripe {
    /// Where it ends in the output file. It begins where the one before ends.
    pub(super) end: u64,
    pub(super) gets: Vec<Get>,
}

impl Stripe {
    fn bytes(&self) -> u64 {
        self.gets.iter().map(Get::len).sum()
    }
}

impl Get {
    fn len(&self) -> u64 {
        self.range.end - self.range.start
    }
}

/// Cuts a task into stripes. Within a segment they end at multiples of a kernel
/// block, so that no block needs two of them. A task without remote sources has
/// no stripe.
pub(super) fn stripes(spec: &TaskSpec, sizes: FetchSizes) -> Vec<Stripe> {
    let mut builder = Builder {
        sizes,
        stripes: Vec::new(),
        needs: Vec::new(),
        bytes: 0,
        end: 0,
    };
    for segment in &spec.segments {
        builder.add(&remote_reads(spec, segment), segment);
    }
    builder.close();
    builder.stripes
}

/// The most bytes that `window` stripes in a row have.
pub(super) fn window_bytes(stripes: &[Stripe], window: usize) -> u64 {
    (0..stripes.len())
        .map(|first| {
            stripes[first..]
                .iter()
                .take(window)
                .map(Stripe::bytes)
                .sum()
        })
        .max()
        .unwrap_or(0)
}

/// One input of a segment that is fetched.
struct Read {
    source: u32,
    offset: u64,
    /// Bytes of an element.
    width: u64,
}

fn remote_reads(spec: &TaskSpec, segment: &Segment) -> Vec<Read> {
    let read = |piece: &Piece| Read {
        source: piece.source,
        offset: piece.offset,
        width: piece.format.bytes() as u64,
    };
    let all = match &segment.operation {
        Operation::Literal(_) => Vec::new(),
        Operation::Copy { source, offset } => vec![Read {
            source: *source,
            offset: *offset,
            width: 1,
        }],
        Operation::Merge { cp, terms, .. } => {
            let terms = terms.iter().flat_map(|term| [&term.chat, &term.base]);
            [cp].into_iter().chain(terms).map(read).collect()
        }
    };
    let is_remote = |read: &Read| is_remote(&spec.sources[read.source as usize].url);
    all.into_iter().filter(is_remote).collect()
}

struct Builder {
    sizes: FetchSizes,
    stripes: Vec<Stripe>,
    /// What the stripe under way needs, and how much that is.
    needs: Vec<Get>,
    bytes: u64,
    /// Where the stripe under way ends so far.
    end: u64,
}

impl Builder {
    fn add(&mut self, reads: &[Read], segment: &Segment) {
        let (out_width, grain) = match &segment.operation {
            Operation::Merge { format, .. } => (format.bytes() as u64, BLOCK_ELEMENTS as u64),
            Operation::Literal(_) | Operation::Copy { .. } => (1, 1),
        };
        let elements = segment.len / out_width;
        let per_element: u64 = reads.iter().map(|read| read.width).sum();
        let mut first = 0;
        while per_element > 0 && first < elements {
            let room = self.sizes.stripe_bytes.saturating_sub(self.bytes);
            let mut fitting = room / per_element / grain * grain;
            if fitting == 0 && self.needs.is_empty() {
                fitting = grain;
            }
            let taken = fitting.min(elements - first);
            if taken == 0 {
                self.close();
                continue;
            }
            self.needs.extend(reads.iter().map(|read| {
                let begin = read.offset + first * read.width;
                Get {
                    source: read.source,
                    range: begin..begin + taken * read.width,
                }
            }));
            self.bytes += taken * per_element;
            first += taken;
            self.end = segment.offset + first * out_width;
        }
        self.end = segment.offset + segment.len;
    }

    fn close(&mut self) {
        let needs = std::mem::take(&mut self.needs);
        self.bytes = 0;
        match self.stripes.last_mut() {
            // What needs nothing rides along.
            Some(last) if needs.is_empty() => last.end = self.end,
            None if needs.is_empty() => {}
            _ => self.stripes.push(Stripe {
                end: self.end,
                gets: gets(needs, self.sizes),
            }),
        }
    }
}

/// The requests for what is needed: neighbours joined, what is large split. The
/// bytes between neighbours are never more than those that are needed.
fn gets(mut needs: Vec<Get>, sizes: FetchSizes) -> Vec<Get> {
    needs.sort_unstable_by_key(|need| (need.source, need.range.start));
    let mut joined: Vec<Get> = Vec::new();
    let mut surplus = 0;
    for need in needs {
        if let Some(last) = joined.last_mut()
            && last.source == need.source
        {
            let gap = need.range.start.saturating_sub(last.range.end);
            let end = last.range.end.max(need.range.end);
            let needed = end - last.range.start - surplus - gap;
            if gap <= sizes.gap_bytes_max && surplus + gap <= needed {
                last.range.end = end;
                surplus += gap;
                continue;
            }
        }
        surplus = 0;
        joined.push(need);
    }
    joined
        .into_iter()
        .flat_map(|get| split(&get, sizes.get_bytes_max))
        .collect()
}

/// Equal requests of at most `max` bytes.
fn split(get: &Get, max: u64) -> impl Iterator<Item = Get> + use<> {
    let (source, start) = (get.source, get.range.start);
    let (len, count) = (get.len(), get.len().div_ceil(max));
    (0..count).map(move |i| Get {
        source,
        range: start + len * i / count..start + len * (i + 1) / count,
    })
}

#[cfg(test)]
mod tests {
    use chatvec_core::dtype::FloatFormat;
    use chatvec_core::ids::{FileOrdinal, PartOrdinal, TensorOrdinal};
    use chatvec_core::task::{PartRange, SourceFile, Term};

    use super::*;

    const SIZES: FetchSizes = FetchSizes {
        stripe_bytes: 96 << 10,
        get_bytes_max: 40 << 10,
        gap_bytes_max: 1 << 10,
    };

    /// Copies and bf16 merges of the given lengths, one after the other. Each
    /// source holds them in the same order with `gap` bytes between.
    fn spec(segments: &[(&str, u64)], gap: u64, urls: [&str; 3]) -> TaskSpec {
        let (mut offset, mut from) = (0, 100);
        let piece = |source, offset| Piece {
            source,
            offset,
            format: FloatFormat::Bf16,
        };
        let segments: Vec<_> = segments
            .iter()
            .map(|&(kind, len)| {
                let operation = match kind {
                    "literal" => Operation::Literal(vec![0; len as usize]),
                    "copy" => Operation::Copy {
                        source: 0,
                        offset: from,
                    },
                    _ => Operation::Merge {
                        cp: piece(0, from),
                        terms: vec![Term {
                            vector: 0,
                            lambda: 1.0,
                            chat: piece(1, from),
                            base: piece(2, from),
                        }],
                        format: FloatFormat::Bf16,
                    },
                };
                let segment = Segment {
                    tensor: Some(TensorOrdinal(0)),
                    name: "w".to_owned(),
                    offset,
                    len,
                    operation,
                };
                offset += len;
                from += len + gap;
                segment
            })
            .collect();
        let source = |url: &str| SourceFile {
            url: url.to_owned(),
            size: from,
            pin: String::new(),
        };
        TaskSpec {
            file: FileOrdinal(0),
            target: "/out".to_owned(),
            file_size: offset,
            parts: vec![PartRange {
                part: PartOrdinal(0),
                offset: 0,
                len: offset,
            }],
            sources: urls.map(source).into(),
            segments,
            nonfinite_is_error: true,
        }
    }

    const REMOTE: [&str; 3] = ["s3://b/cp", "s3://b/chat", "s3://b/base"];

    fn ranges(stripe: &Stripe) -> Vec<(u32, u64, u64)> {
        let range = |get: &Get| (get.source, get.range.start, get.range.end);
        stripe.gets.iter().map(range).collect()
    }

    #[test]
    fn a_stripe_has_an_equal_share_of_every_input_and_ends_at_a_kernel_block() {
        let spec = spec(&[("merge", 80 << 10)], 0, REMOTE);
        let stripes = stripes(&spec, SIZES);
        // 32 KiB of each input, of which a kernel block has 4 KiB.
        let ends: Vec<_> = stripes.iter().map(|stripe| stripe.end).collect();
        assert_eq!(ends, [32 << 10, 64 << 10, 80 << 10]);
        let at = |kib: u64| 100 + (kib << 10);
        assert_eq!(
            ranges(&stripes[1]),
            [0, 1, 2].map(|source| (source, at(32), at(64)))
        );
        assert_eq!(window_bytes(&stripes, 2), 2 * (96 << 10));
    }

    #[test]
    fn neighbours_within_the_gap_are_one_request_and_others_are_not() {
        let two = [("merge", 10 << 10), ("merge", 8 << 10)];
        let near = stripes(&spec(&two, 1 << 10, REMOTE), SIZES);
        assert_eq!(
            ranges(&near[0]),
            [0, 1, 2].map(|source| (source, 100, 100 + (19 << 10)))
        );
        let far = stripes(&spec(&two, 2 << 10, REMOTE), SIZES);
        assert_eq!(near.len() + far.len(), 2);
        assert_eq!(far[0].gets.len(), 6);
    }

    #[test]
    fn gaps_are_never_more_than_what_is_needed() {
        let sparse = vec![("copy", 16); 40];
        let stripes = stripes(&spec(&sparse, 512, REMOTE), SIZES);
        assert_eq!(stripes.len(), 1);
        assert!(stripes[0].bytes() <= 2 * 16 * 40);
    }

    #[test]
    fn large_ranges_are_split_into_equal_requests() {
        let stripes = stripes(&spec(&[("copy", 90 << 10)], 0, REMOTE), SIZES);
        assert_eq!(stripes.len(), 1);
        let lens: Vec<_> = stripes[0].gets.iter().map(Get::len).collect();
        assert_eq!(lens, [30 << 10; 3]);
    }

    #[test]
    fn local_sources_and_literals_are_not_fetched() {
        let segments = [("literal", 100), ("merge", 8 << 10), ("literal", 50)];
        let local = spec(&segments, 0, ["/cp", "/chat", "/base"]);
        assert_eq!(stripes(&local, SIZES), []);
        let mixed = stripes(&spec(&segments, 0, ["/cp", "s3://b/chat", "/base"]), SIZES);
        assert_eq!(mixed.len(), 1);
        assert_eq!(mixed[0].end, 150 + (8 << 10));
        assert_eq!(ranges(&mixed[0]), [(1, 200, 200 + (8 << 10))]);
    }

    #[test]
    fn a_stripe_has_one_kernel_block_at_least() {
        let tiny = FetchSizes {
            stripe_bytes: 100,
            ..SIZES
        };
        let stripes = stripes(&spec(&[("merge", 9 << 10)], 0, REMOTE), tiny);
        let ends: Vec<_> = stripes.iter().map(|stripe| stripe.end).collect();
        assert_eq!(ends, [4 << 10, 8 << 10, 9 << 10]);
    }

    #[test]
    fn every_byte_is_fetched_once_and_by_the_stripe_that_needs_it() {
        let segments: Vec<_> = (0..60u64)
            .map(|i| match i % 4 {
                0 => ("copy", 1 + i * 977),
                1 => ("literal", 1 + i),
                _ => ("merge", 2 * (1 + i * 1_003)),
            })
            .collect();
        for gap in [0, 1, 700, 5_000] {
            let spec = spec(&segments, gap, REMOTE);
            let stripes = stripes(&spec, SIZES);
            let mut fetched: Vec<_> = stripes.iter().flat_map(ranges).collect();
            fetched.sort_unstable();
            for pair in fetched.windows(2) {
                let ((source, _, end), (next, begin, _)) = (pair[0], pair[1]);
                assert!(source != next || end <= begin, "gap {gap}: {pair:?}");
            }
            let mut begin = 0;
            for stripe in &stripes {
                let is_there = |read: &Read, from: u64, to: u64| {
                    let covers = |get: &&Get| get.source == read.source && get.range.end > from;
                    let of_source = stripe.gets.iter().filter(covers);
                    let mut at = from;
                    for get in of_source {
                        if get.range.start > at || at >= to {
                            break;
                        }
                        at = get.range.end;
                    }
                    at >= to
                };
                for segment in &spec.segments {
                    let from = segment.offset.max(begin);
                    let to = (segment.offset + segment.len).min(stripe.end);
                    for read in remote_reads(&spec, segment).iter().filter(|_| from < to) {
                        let at = |position: u64| read.offset + position - segment.offset;
                        assert!(is_there(read, at(from), at(to)), "gap {gap}: {segment:?}");
                    }
                }
                begin = stripe.end;
            }
            assert_eq!(begin, spec.file_size, "gap {gap}");
        }
    }
}
