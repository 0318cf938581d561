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

/// Largest message that either side takes, in bytes: a task may hold a file's
/// header of up to 100 MB.
pub const MESSAGE_BYTES_MAX: usize = 128 << 20;

/// The version of the workers' service that this build speaks. A coordinator
/// refuses workers of another one.
pub const PROTOCOL_VERSION: u32 = 2;
