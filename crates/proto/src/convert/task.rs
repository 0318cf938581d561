//! Leases, failures and task specs.

use chatvec_core::dtype::FloatFormat;
use chatvec_core::ids::{
    Attempt, Fence, FileOrdinal, JobId, PartOrdinal, TaskOrdinal, TensorOrdinal,
};
use chatvec_core::problem::Problem;
use chatvec_core::task::{
    FailureKind, Lease, Operation, PartRange, Piece, Segment, SourceFile, TaskFailure, TaskSpec,
    Term,
};
use prost::Message as _;

use super::{ConvertError, required};
use crate::v1;

/// The bytes that the job store keeps of a task.
pub fn encode_spec(spec: TaskSpec) -> Vec<u8> {
    v1::TaskSpec::from(spec).encode_to_vec()
}

/// Reads back what [`encode_spec`] wrote, as the message that workers get.
///
/// # Errors
/// If the bytes are no such message.
pub fn decode_spec(bytes: &[u8]) -> Result<v1::TaskSpec, ConvertError> {
    Ok(v1::TaskSpec::decode(bytes)?)
}

impl From<Lease> for v1::Lease {
    fn from(lease: Lease) -> Self {
        Self {
            job_id: lease.job.0,
            task: lease.task.0,
            fence: lease.fence.0,
            attempt: lease.attempt.0,
        }
    }
}

impl From<v1::Lease> for Lease {
    fn from(lease: v1::Lease) -> Self {
        Self {
            job: JobId(lease.job_id),
            task: TaskOrdinal(lease.task),
            fence: Fence(lease.fence),
            attempt: Attempt(lease.attempt),
        }
    }
}

impl From<Problem> for v1::Problem {
    fn from(problem: Problem) -> Self {
        Self {
            subject: problem.subject,
            message: problem.message,
            hint: problem.hint,
        }
    }
}

impl From<v1::Problem> for Problem {
    fn from(problem: v1::Problem) -> Self {
        Self {
            subject: problem.subject,
            message: problem.message,
            hint: problem.hint,
        }
    }
}

impl From<FailureKind> for v1::FailureKind {
    fn from(kind: FailureKind) -> Self {
        match kind {
            FailureKind::Transient => Self::Transient,
            FailureKind::ResourceExhausted => Self::ResourceExhausted,
            FailureKind::Preempted => Self::Preempted,
            FailureKind::SourceChanged => Self::SourceChanged,
            FailureKind::BadInput => Self::BadInput,
            FailureKind::PermissionDenied => Self::PermissionDenied,
            FailureKind::UploadGone => Self::UploadGone,
            FailureKind::Internal => Self::Internal,
            FailureKind::SuspectedPoison => Self::SuspectedPoison,
        }
    }
}

/// The class of failure behind its number on the wire.
pub(super) fn failure_kind(value: i32) -> Result<FailureKind, ConvertError> {
    use v1::FailureKind as Wire;
    let unknown = || ConvertError::UnknownValue {
        field: "kind",
        value,
    };
    Ok(match Wire::try_from(value).map_err(|_| unknown())? {
        Wire::Unspecified => return Err(unknown()),
        Wire::Transient => FailureKind::Transient,
        Wire::ResourceExhausted => FailureKind::ResourceExhausted,
        Wire::Preempted => FailureKind::Preempted,
        Wire::SourceChanged => FailureKind::SourceChanged,
        Wire::BadInput => FailureKind::BadInput,
        Wire::PermissionDenied => FailureKind::PermissionDenied,
        Wire::UploadGone => FailureKind::UploadGone,
        Wire::Internal => FailureKind::Internal,
        Wire::SuspectedPoison => FailureKind::SuspectedPoison,
    })
}

impl From<TaskFailure> for v1::TaskFailed {
    fn from(failure: TaskFailure) -> Self {
        Self {
            kind: v1::FailureKind::from(failure.kind).into(),
            problem: Some(failure.problem.into()),
        }
    }
}

impl TryFrom<v1::TaskFailed> for TaskFailure {
    type Error = ConvertError;

    fn try_from(failed: v1::TaskFailed) -> Result<Self, ConvertError> {
        Ok(Self {
            kind: failure_kind(failed.kind)?,
            problem: required(failed.problem, "problem")?.into(),
        })
    }
}

impl From<FloatFormat> for v1::FloatFormat {
    fn from(format: FloatFormat) -> Self {
        match format {
            FloatFormat::F64 => Self::F64,
            FloatFormat::F32 => Self::F32,
            FloatFormat::Bf16 => Self::Bf16,
            FloatFormat::F16 => Self::F16,
        }
    }
}

fn float_format(value: i32) -> Result<FloatFormat, ConvertError> {
    let unknown = || ConvertError::UnknownValue {
        field: "format",
        value,
    };
    Ok(
        match v1::FloatFormat::try_from(value).map_err(|_| unknown())? {
            v1::FloatFormat::Unspecified => return Err(unknown()),
            v1::FloatFormat::F64 => FloatFormat::F64,
            v1::FloatFormat::F32 => FloatFormat::F32,
            v1::FloatFormat::Bf16 => FloatFormat::Bf16,
            v1::FloatFormat::F16 => FloatFormat::F16,
        },
    )
}

impl From<Piece> for v1::Piece {
    fn from(piece: Piece) -> Self {
        Self {
            source: piece.source,
            offset: piece.offset,
            format: v1::FloatFormat::from(piece.format).into(),
        }
    }
}

fn piece(piece: Option<v1::Piece>, field: &'static str) -> Result<Piece, ConvertError> {
    let piece = required(piece, field)?;
    Ok(Piece {
        source: piece.source,
        offset: piece.offset,
        format: float_format(piece.format)?,
    })
}

impl From<Term> for v1::Term {
    fn from(term: Term) -> Self {
        Self {
            vector: term.vector,
            weight: term.lambda,
            chat: Some(term.chat.into()),
            base: Some(term.base.into()),
        }
    }
}

impl TryFrom<v1::Term> for Term {
    type Error = ConvertError;

    fn try_from(term: v1::Term) -> Result<Self, ConvertError> {
        Ok(Self {
            vector: term.vector,
            lambda: term.weight,
            chat: piece(term.chat, "chat")?,
            base: piece(term.base, "base")?,
        })
    }
}

impl From<Segment> for v1::Segment {
    fn from(segment: Segment) -> Self {
        use v1::segment::Operation as Wire;
        let operation = match segment.operation {
            Operation::Literal(bytes) => Wire::Literal(bytes),
            Operation::Copy { source, offset } => Wire::Copy(v1::CopyBytes { source, offset }),
            Operation::Merge { cp, terms, format } => Wire::Merge(v1::MergeElements {
                cp: Some(cp.into()),
                terms: terms.into_iter().map(Into::into).collect(),
                format: v1::FloatFormat::from(format).into(),
            }),
        };
        Self {
            tensor: segment.tensor.map(|tensor| tensor.0),
            name: segment.name,
            offset: segment.offset,
            length: segment.len,
            operation: Some(operation),
        }
    }
}

impl TryFrom<v1::Segment> for Segment {
    type Error = ConvertError;

    fn try_from(segment: v1::Segment) -> Result<Self, ConvertError> {
        use v1::segment::Operation as Wire;
        let operation = match required(segment.operation, "operation")? {
            Wire::Literal(bytes) => Operation::Literal(bytes),
            Wire::Copy(copy) => Operation::Copy {
                source: copy.source,
                offset: copy.offset,
            },
            Wire::Merge(merge) => Operation::Merge {
                cp: piece(merge.cp, "cp")?,
                terms: merge
                    .terms
                    .into_iter()
                    .map(TryInto::try_into)
                    .collect::<Result<_, _>>()?,
                format: float_format(merge.format)?,
            },
        };
        Ok(Self {
            tensor: segment.tensor.map(TensorOrdinal),
            name: segment.name,
            offset: segment.offset,
            len: segment.length,
            operation,
        })
    }
}

impl From<TaskSpec> for v1::TaskSpec {
    fn from(spec: TaskSpec) -> Self {
        let part = |part: PartRange| v1::PartRange {
            part: part.part.0,
            offset: part.offset,
            length: part.len,
        };
        let source = |file: SourceFile| v1::SourceFile {
            url: file.url,
            size: file.size,
            pin: file.pin,
        };
        Self {
            file: spec.file.0,
            target: spec.target,
            file_size: spec.file_size,
            parts: spec.parts.into_iter().map(part).collect(),
            sources: spec.sources.into_iter().map(source).collect(),
            segments: spec.segments.into_iter().map(Into::into).collect(),
            nonfinite_is_error: spec.nonfinite_is_error,
        }
    }
}

impl TryFrom<v1::TaskSpec> for TaskSpec {
    type Error = ConvertError;

    fn try_from(spec: v1::TaskSpec) -> Result<Self, ConvertError> {
        let part = |part: v1::PartRange| PartRange {
            part: PartOrdinal(part.part),
            offset: part.offset,
            len: part.length,
        };
        let source = |file: v1::SourceFile| SourceFile {
            url: file.url,
            size: file.size,
            pin: file.pin,
        };
        Ok(Self {
            file: FileOrdinal(spec.file),
            target: spec.target,
            file_size: spec.file_size,
            parts: spec.parts.into_iter().map(part).collect(),
            sources: spec.sources.into_iter().map(source).collect(),
            segments: spec
                .segments
                .into_iter()
                .map(TryInto::try_into)
                .collect::<Result<_, _>>()?,
            nonfinite_is_error: spec.nonfinite_is_error,
        })
    }
}
