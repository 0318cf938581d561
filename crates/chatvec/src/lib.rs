//! The one program: coordinator, worker and command line.

pub mod identity;

pub mod storage;

pub mod coordinator;
pub mod worker;

pub mod channel;
mod deadline;
pub mod embedded;
pub mod server;

pub mod telemetry;

pub mod fault;

pub mod cli;
