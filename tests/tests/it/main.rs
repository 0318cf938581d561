//! The tests of the workspace as a whole, in one binary.

mod oracles;
mod tidy;
