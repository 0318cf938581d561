//! The one program: coordinator, worker and command line.

pub mod coordinator;
pub mod storage;
pub mod worker;
