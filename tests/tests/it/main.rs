//! The tests of the workspace as a whole, in one binary.

mod bad_input;
mod oracles;
mod service;
mod tidy;
