//! Newtypes for every id and number that could be mistaken for another.
//!
//! A [`Fence`] is not an [`Attempt`], and a task's ordinal is not a file's; the
//! compiler keeps them apart:
//!
//! ```compile_fail
//! use chatvec_core::ids::{FileOrdinal, TaskOrdinal};
//! let file: FileOrdinal = TaskOrdinal(3);
//! ```

use std::fmt;

use serde::{Deserialize, Serialize};

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
    };
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident($repr:ty)) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $repr);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

text_id! {
    /// A merge job. Opaque text, unique for ever.
    JobId
}
text_id! {
    /// A worker process: a fresh id at every start, so a restarted worker is
    /// never taken for the one that crashed.
    WorkerId
}
text_id! {
    /// The client's name for one `CreateJob` call; a repeat returns the first job.
    RequestId
}
text_id! {
    /// SHA-256 in lower-case hex, of a recipe or of a recipe with its pinned inputs.
    Digest
}

number_id! {
    /// Position of an output file among the files of its job, from 0.
    FileOrdinal(u32)
}
number_id! {
    /// Position of a part inside its output file, from 0.
    PartOrdinal(u32)
}
number_id! {
    /// Position of a task among the tasks of its job, from 0.
    TaskOrdinal(u32)
}
number_id! {
    /// Position of a tensor among the output tensors of its job, from 0.
    TensorOrdinal(u32)
}
number_id! {
    /// The per-task number that every claim and every reap raises and nothing
    /// lowers. A report with an old fence changes nothing.
    Fence(u64)
}
number_id! {
    /// A coordinator's turn at planning or publishing one job: every turn has a
    /// higher one, the first is 1, and nothing lowers it.
    Epoch(u64)
}
number_id! {
    /// How many leases of a task have been given so far; the first is 1.
    Attempt(u32)
}
number_id! {
    /// CRC-64/NVME of some bytes, as S3 calls it `CRC64NVME`.
    Crc64(u64)
}

impl Digest {
    /// Of a list of texts; the same texts cut elsewhere give another digest.
    pub fn of_parts(parts: impl IntoIterator<Item = String>) -> Self {
        use sha2::Digest as _;
        let mut sha = sha2::Sha256::new();
        for part in parts {
            sha.update((part.len() as u64).to_le_bytes());
            sha.update(part.as_bytes());
        }
        Self(
            sha.finalize()
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect(),
        )
    }
}

impl Epoch {
    /// Whether nobody had a turn before.
    pub fn is_first(self) -> bool {
        self.0 == 1
    }
}

impl Fence {
    /// The one that the next change of holder brings.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl Crc64 {
    /// The checksum as 16 lower-case hexadecimal digits.
    pub fn to_hex(self) -> String {
        format!("{:016x}", self.0)
    }
}
