//! The tests of the workspace as a whole, in one binary.

mod scene;

mod bytes;
mod cli;
mod kill;
mod manifest;
mod model;
mod reference;
mod resume;

mod bad_input;

mod crash;

mod fleet;
mod objects;
mod oracles;
mod service;
mod soak;
mod telemetry;
mod tidy;
