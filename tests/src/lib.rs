//! Everything around the product that proves it: model families made from a
//! seed, an oracle that computes every output element again, and a benchmark
//! that runs chatvec next to what else could do the work.
//!
//! Nothing here uses chatvec's own code for numbers or for safetensors files:
//! a mistake there must not be able to hide behind itself.

pub mod float;
pub mod oracle;

pub mod family;

pub mod bench;
pub mod changes;
pub mod checker;
pub mod clock;
pub mod cluster;
pub mod component;
pub mod direct;
pub mod emulator;
pub mod fleet;
pub mod otlp;
pub mod page;
pub mod process;
pub mod proxy;
pub mod published;
pub mod python;
pub mod random;
pub mod soak;
mod table;
