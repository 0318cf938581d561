//! Random small models on disk, cut into tasks, with what must come out.

use std::fs;
use std::path::{Path, PathBuf};

use chatvec_core::dtype::FloatFormat;
use chatvec_core::ids::{FileOrdinal, PartOrdinal, TensorOrdinal};
use chatvec_core::task::{Operation, PartRange, Piece, Segment, SourceFile, TaskSpec, Term};

use crate::storage::local::PartialFile;
use crate::storage::pin::pin_of;

/// λ of the two vectors: powers of two, so that small values merge exactly.
pub(super) const LAMBDAS: [f64; 2] = [0.5, -2.0];

const FORMATS: [FloatFormat; 4] = [
    FloatFormat::F64,
    FloatFormat::F32,
    FloatFormat::Bf16,
    FloatFormat::F16,
];

/// A generator of numbers that are the same in every run (SplitMix64).
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }
}

/// What the elements of a layout are like.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Values {
    /// Small halves: every merge of them is exact in every format.
    Exact,
    /// With as many digits as the format holds.
    Rough,
}

/// One output file, its sources on disk, and the bytes it must get.
pub(super) struct Layout {
    pub(super) dir: tempfile::TempDir,
    /// One segment for each tensor, whole, as if the file were one part.
    pub(super) whole: Vec<Segment>,
    pub(super) sources: Vec<SourceFile>,
    pub(super) expected: Vec<u8>,
}

impl Layout {
    /// A header, `tensors` tensors with up to 5,000 elements, some copied and
    /// some merged with none to two vectors, in any mix of formats.
    pub(super) fn random(seed: u64, tensors: usize, values: Values) -> Self {
        let mut dice = Dice(seed);
        // The widest first, as in a real file, so that no element crosses a part.
        let mut formats: Vec<_> = (0..tensors)
            .map(|_| FORMATS[dice.roll(4) as usize])
            .collect();
        formats.sort();
        // cp, chat and base of the first vector, chat and base of the second:
        // each begins with some bytes that belong to nobody.
        let mut files: [Vec<u8>; 5] = std::array::from_fn(|_| vec![0xff; dice.roll(50) as usize]);
        let header: Vec<u8> = (0..8 + 8 * dice.roll(700)).map(|i| i as u8).collect();
        let mut expected = header.clone();
        let mut whole = vec![Segment {
            tensor: None,
            name: String::new(),
            offset: 0,
            len: header.len() as u64,
            operation: Operation::Literal(header),
        }];
        for (ordinal, format) in formats.into_iter().enumerate() {
            let elements = 1 + dice.roll(5_000) as usize;
            let offset = expected.len() as u64;
            let operation = if dice.roll(4) == 0 {
                let from = files[0].len() as u64;
                let bytes: Vec<u8> = (0..elements * format.bytes())
                    .map(|_| dice.roll(256) as u8)
                    .collect();
                files[0].extend_from_slice(&bytes);
                expected.extend_from_slice(&bytes);
                Operation::Copy {
                    source: 0,
                    offset: from,
                }
            } else {
                let vectors = dice.roll(3) as usize;
                merge(
                    &mut dice,
                    &mut files,
                    &mut expected,
                    (elements, vectors, format, values),
                )
            };
            whole.push(Segment {
                tensor: Some(TensorOrdinal(ordinal as u32)),
                name: format!("tensor.{ordinal}"),
                offset,
                len: expected.len() as u64 - offset,
                operation,
            });
        }
        let dir = tempfile::tempdir().unwrap();
        let sources = files
            .iter()
            .enumerate()
            .map(|(i, bytes)| source(dir.path(), i, bytes))
            .collect();
        Self {
            dir,
            whole,
            sources,
            expected,
        }
    }

    /// The unfinished file, created and filled with `0xaa`.
    pub(super) fn target(&self) -> PathBuf {
        let path = self.dir.path().join("out.partial");
        fs::write(&path, vec![0xaa; self.expected.len()]).unwrap();
        PartialFile::create(&path, self.expected.len() as u64).unwrap();
        path
    }

    /// Tasks of `parts_per_task` parts of `part_size` bytes that write `target`.
    pub(super) fn tasks(
        &self,
        target: &Path,
        part_size: u64,
        parts_per_task: usize,
    ) -> Vec<TaskSpec> {
        let size = self.expected.len() as u64;
        let parts: Vec<_> = (0..size.div_ceil(part_size))
            .map(|part| PartRange {
                part: PartOrdinal(part as u32),
                offset: part * part_size,
                len: part_size.min(size - part * part_size),
            })
            .collect();
        parts
            .chunks(parts_per_task)
            .map(|parts| TaskSpec {
                file: FileOrdinal(0),
                target: target.to_str().unwrap().to_owned(),
                file_size: size,
                parts: parts.to_vec(),
                sources: self.sources.clone(),
                segments: parts.iter().flat_map(|part| self.cut(part)).collect(),
                nonfinite_is_error: true,
            })
            .collect()
    }

    /// The slices of the segments that lie in a part.
    pub(super) fn cut(&self, part: &PartRange) -> Vec<Segment> {
        let end = part.offset + part.len;
        let overlaps = |s: &&Segment| s.offset < end && s.offset + s.len > part.offset;
        self.whole
            .iter()
            .filter(overlaps)
            .map(|segment| {
                let skipped = part.offset.saturating_sub(segment.offset);
                let offset = segment.offset + skipped;
                let len = (segment.offset + segment.len).min(end) - offset;
                Segment {
                    offset,
                    len,
                    operation: skip(&segment.operation, skipped, len),
                    ..segment.clone()
                }
            })
            .collect()
    }

    /// The bytes of a source that an operand begins at.
    pub(super) fn source_bytes(&self, piece: &Piece, elements: u64) -> Vec<u8> {
        let bytes = fs::read(&self.sources[piece.source as usize].url).unwrap();
        let len = elements * piece.format.bytes() as u64;
        bytes[piece.offset as usize..(piece.offset + len) as usize].to_vec()
    }

    /// Overwrites bytes of a source and plans it anew.
    pub(super) fn patch(&mut self, source_ordinal: u32, offset: u64, bytes: &[u8]) {
        let ordinal = source_ordinal as usize;
        let mut all = fs::read(&self.sources[ordinal].url).unwrap();
        all[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        self.sources[ordinal] = source(self.dir.path(), ordinal, &all);
    }
}

fn skip(operation: &Operation, skipped: u64, len: u64) -> Operation {
    match operation {
        Operation::Literal(bytes) => {
            Operation::Literal(bytes[skipped as usize..(skipped + len) as usize].to_vec())
        }
        Operation::Copy { source, offset } => Operation::Copy {
            source: *source,
            offset: offset + skipped,
        },
        Operation::Merge { cp, terms, format } => {
            assert!(skipped.is_multiple_of(format.bytes() as u64));
            let elements = skipped / format.bytes() as u64;
            let later = |piece: &Piece| Piece {
                offset: piece.offset + elements * piece.format.bytes() as u64,
                ..*piece
            };
            Operation::Merge {
                cp: later(cp),
                terms: terms
                    .iter()
                    .map(|term| Term {
                        chat: later(&term.chat),
                        base: later(&term.base),
                        ..*term
                    })
                    .collect(),
                format: *format,
            }
        }
    }
}

/// A source whose modification lies long ago, so that any write to it shows.
fn source(dir: &Path, ordinal: usize, bytes: &[u8]) -> SourceFile {
    let path = dir.join(format!("source-{ordinal}"));
    fs::write(&path, bytes).unwrap();
    let long_ago = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    fs::File::options()
        .write(true)
        .open(&path)
        .unwrap()
        .set_modified(long_ago)
        .unwrap();
    let metadata = fs::metadata(&path).unwrap();
    SourceFile {
        url: path.to_str().unwrap().to_owned(),
        size: metadata.len(),
        pin: pin_of(&metadata),
    }
}

fn merge(
    dice: &mut Dice,
    files: &mut [Vec<u8>; 5],
    expected: &mut Vec<u8>,
    (elements, vectors, format, values): (usize, usize, FloatFormat, Values),
) -> Operation {
    let mut results = vec![0.0; elements];
    let mut input = |file: usize, scale: f64| {
        let piece_format = FORMATS[dice.roll(4) as usize];
        let bytes = &mut files[file];
        bytes.extend(std::iter::repeat_n(0xff, dice.roll(9) as usize));
        let offset = bytes.len() as u64;
        for result in &mut results {
            let value = match values {
                Values::Exact => dice.roll(17) as f64 / 2.0 - 4.0,
                Values::Rough => dice.roll(1 << 40) as f64 / (1u64 << 39) as f64 - 1.0,
            };
            bytes.extend(encode(value, piece_format));
            *result += scale * value;
        }
        Piece {
            source: file as u32,
            offset,
            format: piece_format,
        }
    };
    let cp = input(0, 1.0);
    let terms = (0..vectors)
        .map(|vector| Term {
            vector: vector as u32,
            lambda: LAMBDAS[vector],
            chat: input(1 + 2 * vector, LAMBDAS[vector]),
            base: input(2 + 2 * vector, -LAMBDAS[vector]),
        })
        .collect();
    expected.extend(results.iter().flat_map(|&result| encode(result, format)));
    Operation::Merge { cp, terms, format }
}

/// The bytes of a value of moderate size, cut to the format's precision.
pub(super) fn encode(value: f64, format: FloatFormat) -> Vec<u8> {
    match format {
        FloatFormat::F64 => value.to_le_bytes().to_vec(),
        FloatFormat::F32 => (value as f32).to_le_bytes().to_vec(),
        FloatFormat::Bf16 => (value as f32).to_le_bytes()[2..].to_vec(),
        FloatFormat::F16 => {
            let bits = value.to_bits();
            let exponent = (bits >> 52 & 0x7ff) as i64 - 1023 + 15;
            let sign = (bits >> 63 << 15) as u16;
            let magnitude = match exponent {
                1..31 => (exponent as u16) << 10 | (bits >> 42 & 0x3ff) as u16,
                _ => 0,
            };
            (sign | magnitude).to_le_bytes().to_vec()
        }
    }
}
