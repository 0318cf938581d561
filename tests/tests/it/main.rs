//! The tests of the workspace as a whole, in one binary.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "all of this binary is tests: a panic is how they fail, and seeds are printed"
)]

mod scene;

mod bytes;
mod kill;
mod manifest;
mod reference;
mod resume;

mod bad_input;

mod oracles;
mod service;
mod tidy;
