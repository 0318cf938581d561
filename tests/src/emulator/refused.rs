//! What the store says when it says no.

use super::fault::Refusal;

/// An error of S3: its code, its status, and words for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) status: u16,
    pub(super) code: &'static str,
    pub(super) message: &'static str,
}

const fn refused(status: u16, code: &'static str, message: &'static str) -> Refused {
    Refused {
        status,
        code,
        message,
    }
}

pub(super) const NO_SUCH_BUCKET: Refused =
    refused(404, "NoSuchBucket", "The specified bucket does not exist");
pub(super) const NO_SUCH_KEY: Refused =
    refused(404, "NoSuchKey", "The specified key does not exist.");
pub(super) const NO_SUCH_UPLOAD: Refused = refused(
    404,
    "NoSuchUpload",
    "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed.",
);
pub(super) const PRECONDITION_FAILED: Refused = refused(
    412,
    "PreconditionFailed",
    "At least one of the pre-conditions you specified did not hold",
);
pub(super) const INVALID_RANGE: Refused = refused(
    416,
    "InvalidRange",
    "The requested range is not satisfiable",
);
pub(super) const INVALID_PART: Refused = refused(
    400,
    "InvalidPart",
    "One or more of the specified parts could not be found. The part may not have been uploaded, or the specified entity tag may not match the part's entity tag.",
);
pub(super) const UNEQUAL_PARTS: Refused = refused(
    400,
    "InvalidPart",
    "All non-trailing parts must have the same length.",
);
pub(super) const INVALID_PART_ORDER: Refused = refused(
    400,
    "InvalidPartOrder",
    "The list of parts was not in ascending order.",
);
pub(super) const ENTITY_TOO_SMALL: Refused = refused(
    400,
    "EntityTooSmall",
    "Your proposed upload is smaller than the minimum allowed size",
);
pub(super) const NOT_CONSECUTIVE: Refused = refused(
    500,
    "InternalError",
    "Parts with additional checksums are numbered from one, without gaps.",
);
pub(super) const BAD_DIGEST: Refused = refused(
    400,
    "BadDigest",
    "The CRC64NVME you specified did not match the calculated checksum.",
);
pub(super) const INVALID_ARGUMENT: Refused =
    refused(400, "InvalidArgument", "An argument is not one.");
pub(super) const MALFORMED_XML: Refused = refused(
    400,
    "MalformedXML",
    "The XML you provided was not well-formed or did not validate against our published schema",
);
pub(super) const NOT_IMPLEMENTED: Refused = refused(
    501,
    "NotImplemented",
    "A header or query you provided implies functionality that is not implemented.",
);
pub(super) const UNKNOWN_KEY: Refused = refused(
    403,
    "InvalidAccessKeyId",
    "The AWS Access Key Id you provided does not exist in our records.",
);
const ACCESS_DENIED: Refused = refused(403, "AccessDenied", "Access Denied");
const SLOW_DOWN: Refused = refused(503, "SlowDown", "Please reduce your request rate.");
const INTERNAL_ERROR: Refused = refused(
    500,
    "InternalError",
    "We encountered an internal error. Please try again.",
);
const CONFLICT: Refused = refused(
    409,
    "ConditionalRequestConflict",
    "The conditional request cannot succeed due to a conflicting operation against this resource.",
);
pub(super) const TIME_TOO_SKEWED: Refused = refused(
    403,
    "RequestTimeTooSkewed",
    "The difference between the request time and the current time is too large.",
);

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::SlowDown => SLOW_DOWN,
            Refusal::InternalError => INTERNAL_ERROR,
            Refusal::Conflict => CONFLICT,
            Refusal::AccessDenied => ACCESS_DENIED,
            Refusal::TimeTooSkewed => TIME_TOO_SKEWED,
        }
    }
}
