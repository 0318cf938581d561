//! The wire contract: generated messages and services, the only conversion
//! between them and core's types, and the status codes that clients see.

pub mod v1 {
    //! Generated from `proto/chatvec/v1`; the comments stand in the `.proto` files.
    #![expect(missing_docs, unused_qualifications, reason = "generated code")]
    #![expect(clippy::all, clippy::allow_attributes, reason = "generated code")]
    tonic::include_proto!("chatvec.v1");
}

pub mod convert;
pub mod status;

/// The descriptors of every message and service, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The version of `WorkerService` that this program speaks, as coordinator and
/// as worker. Raised when one of another version could do harm.
pub const PROTOCOL_VERSION: u32 = 2;

/// Largest message between a worker and its coordinator, in bytes: a task may
/// hold a file's header of up to 100 MB.
pub const MESSAGE_BYTES_MAX: usize = 128 << 20;

/// Largest message that a coordinator takes from a client, in bytes. Above the
/// largest recipe, so that one that is too large is told so in words.
pub const CLIENT_MESSAGE_BYTES_MAX: usize = 16 << 20;

/// Largest recipe of a job as a message, in bytes. Longer lists of rules are
/// better told by patterns.
pub const RECIPE_BYTES_MAX: usize = 1 << 20;
