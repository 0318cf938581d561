//! Whether a task's description agrees with itself. It comes over the wire; one
//! that does not would write garbage or panic half-way.

use chatvec_core::task::{FailureKind, Operation, PartRange, Piece, Segment, TaskSpec};

use crate::storage::local::ALIGNMENT;
use crate::worker::failure::Stop;

/// Checks every promise that the fields of [`TaskSpec`] make.
///
/// # Errors
/// [`FailureKind::Internal`]: the planner has a bug.
pub(super) fn check(spec: &TaskSpec) -> Result<(), Stop> {
    check_or_say(spec).map_err(|message| {
        Stop::failed(
            FailureKind::Internal,
            &spec.target,
            format!("impossible task: {message}"),
        )
    })
}

fn check_or_say(spec: &TaskSpec) -> Result<(), String> {
    let mut segments = spec.segments.iter().peekable();
    let mut offset = spec
        .parts
        .first()
        .ok_or("expected a part, found none")?
        .offset;
    for part in &spec.parts {
        let end = check_part(spec, part, offset)?;
        while let Some(segment) = segments.next_if(|segment| segment.offset < end) {
            let found = segment.offset;
            if found != offset {
                return Err(format!(
                    "expected a segment at {offset}, found one at {found}"
                ));
            }
            check_segment(spec, segment).map_err(|message| {
                format!("segment at {offset} of `{}`: {message}", segment.name)
            })?;
            offset = offset.saturating_add(segment.len);
        }
        if offset != end {
            return Err(format!(
                "part {}: expected segments up to {end}, found {offset}",
                part.part
            ));
        }
    }
    match segments.next() {
        Some(segment) => Err(format!(
            "expected no segment after the parts, found one at {}",
            segment.offset
        )),
        None => Ok(()),
    }
}

/// Gives the end of the part.
fn check_part(spec: &TaskSpec, part: &PartRange, offset: u64) -> Result<u64, String> {
    let PartRange {
        part,
        offset: found,
        len,
    } = *part;
    let end = found.saturating_add(len);
    let is_aligned = |position: u64| position.is_multiple_of(ALIGNMENT as u64);
    if found != offset || len == 0 {
        return Err(format!(
            "part {part}: expected bytes from {offset} on, found {len} at {found}"
        ));
    }
    if !is_aligned(found) || !(is_aligned(end) || end == spec.file_size) || end > spec.file_size {
        return Err(format!(
            "part {part}: expected multiples of {ALIGNMENT} or the end of the file at {}, found {found}..{end}",
            spec.file_size
        ));
    }
    Ok(end)
}

fn check_segment(spec: &TaskSpec, segment: &Segment) -> Result<(), String> {
    match &segment.operation {
        _ if segment.len == 0 => Err("expected bytes, found none".into()),
        Operation::Literal(bytes) if bytes.len() as u64 != segment.len => Err(format!(
            "expected {} literal bytes, found {}",
            segment.len,
            bytes.len()
        )),
        Operation::Literal(_) => Ok(()),
        Operation::Copy { source, offset } => check_range(spec, *source, *offset, segment.len),
        Operation::Merge { cp, terms, format } => {
            let width = format.bytes() as u64;
            if segment.tensor.is_none() {
                return Err("expected the tensor of a merge, found none".into());
            }
            if !segment.len.is_multiple_of(width) {
                return Err(format!(
                    "expected elements of {width} bytes, found {} bytes",
                    segment.len
                ));
            }
            let elements = segment.len / width;
            let inputs = terms.iter().flat_map(|term| [&term.chat, &term.base]);
            inputs
                .chain([cp])
                .try_for_each(|piece| check_piece(spec, piece, elements))
        }
    }
}

fn check_piece(spec: &TaskSpec, piece: &Piece, elements: u64) -> Result<(), String> {
    let len = elements.saturating_mul(piece.format.bytes() as u64);
    check_range(spec, piece.source, piece.offset, len)
}

fn check_range(spec: &TaskSpec, source: u32, offset: u64, len: u64) -> Result<(), String> {
    let file = spec.sources.get(source as usize).ok_or_else(|| {
        format!(
            "expected one of {} sources, found source {source}",
            spec.sources.len()
        )
    })?;
    let end = offset.saturating_add(len);
    if end > file.size {
        return Err(format!(
            "expected bytes within the {} of `{}`, found {offset}..{end}",
            file.size, file.url
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use chatvec_core::dtype::FloatFormat;
    use chatvec_core::ids::{FileOrdinal, PartOrdinal, TensorOrdinal};
    use chatvec_core::task::{SourceFile, Term};

    use super::*;

    const SIZE: u64 = 4096 + 100;

    fn good() -> TaskSpec {
        let piece = |offset| Piece {
            source: 0,
            offset,
            format: FloatFormat::F32,
        };
        let segment = |offset, len, operation| Segment {
            tensor: Some(TensorOrdinal(0)),
            name: "w".into(),
            offset,
            len,
            operation,
        };
        let merge = Operation::Merge {
            cp: piece(0),
            terms: vec![Term {
                vector: 0,
                lambda: 1.0,
                chat: piece(1),
                base: piece(2),
            }],
            format: FloatFormat::F32,
        };
        TaskSpec {
            file: FileOrdinal(0),
            target: "/out".into(),
            file_size: SIZE,
            parts: [(0, 0, 4096), (1, 4096, 100)]
                .map(|(part, offset, len)| PartRange {
                    part: PartOrdinal(part),
                    offset,
                    len,
                })
                .into(),
            sources: vec![SourceFile {
                url: "/in".into(),
                size: 4096,
                pin: String::new(),
            }],
            segments: vec![
                segment(0, 16, Operation::Literal(vec![0; 16])),
                segment(16, 4080, merge),
                segment(
                    4096,
                    100,
                    Operation::Copy {
                        source: 0,
                        offset: 0,
                    },
                ),
            ],
            nonfinite_is_error: true,
        }
    }

    fn message_of(change: impl FnOnce(&mut TaskSpec)) -> String {
        let mut spec = good();
        change(&mut spec);
        match check(&spec) {
            Err(Stop::Failed(failure)) if failure.kind == FailureKind::Internal => {
                failure.problem.message
            }
            other => panic!("expected an internal failure, found {other:?}"),
        }
    }

    #[test]
    fn a_description_that_agrees_with_itself_passes() {
        assert_eq!(check(&good()), Ok(()));
    }

    #[test]
    fn parts_must_be_there_aligned_and_contiguous() {
        assert!(message_of(|spec| spec.parts.clear()).ends_with("expected a part, found none"));
        assert!(message_of(|spec| spec.parts[1].offset += 1).contains("part 1: "));
        assert!(message_of(|spec| spec.file_size += 1).contains("or the end of the file at 4197"));
        assert!(message_of(|spec| spec.parts[1].len = u64::MAX).contains("found 4096.."));
        assert!(message_of(|spec| spec.parts[0].len = 0).contains("found 0 at 0"));
    }

    #[test]
    fn segments_must_cover_the_parts_without_gap_overlap_or_crossing() {
        let gap = message_of(|spec| spec.segments[1].offset = 20);
        assert!(
            gap.ends_with("expected a segment at 16, found one at 20"),
            "{gap}"
        );
        let short = message_of(|spec| spec.segments[1].len = 4076);
        assert!(short.ends_with("part 0: expected segments up to 4096, found 4092"));
        let crossing = message_of(|spec| spec.segments[2].len = 101);
        assert!(crossing.ends_with("part 1: expected segments up to 4196, found 4197"));
        let missing = message_of(|spec| drop(spec.segments.pop()));
        assert!(missing.ends_with("part 1: expected segments up to 4196, found 4096"));
        let extra = message_of(|spec| spec.parts.truncate(1));
        assert!(extra.ends_with("expected no segment after the parts, found one at 4096"));
        let empty = message_of(|spec| spec.segments[1].len = 0);
        assert!(empty.ends_with("expected bytes, found none"));
    }

    #[test]
    fn operations_must_fit_their_segment_and_their_sources() {
        let literal = message_of(|spec| {
            spec.segments[0].operation = Operation::Literal(vec![0; 15]);
        });
        assert!(literal.ends_with("expected 16 literal bytes, found 15"));
        let nameless = message_of(|spec| spec.segments[1].tensor = None);
        assert!(nameless.ends_with("expected the tensor of a merge, found none"));
        let beyond = message_of(|spec| spec.sources[0].size = 4081);
        assert!(
            beyond.ends_with("within the 4081 of `/in`, found 2..4082"),
            "{beyond}"
        );
        let unknown = message_of(|spec| {
            spec.segments[2].operation = Operation::Copy {
                source: 1,
                offset: 0,
            };
        });
        assert!(unknown.ends_with("expected one of 1 sources, found source 1"));
        let odd = message_of(|spec| {
            spec.segments[0].len = 15;
            spec.segments[0].operation = Operation::Literal(vec![0; 15]);
            spec.segments[1].offset = 15;
            spec.segments[1].len = 4081;
        });
        assert!(odd.ends_with("expected elements of 4 bytes, found 4081 bytes"));
    }
}
