//! The tests of the workspace as a whole, in one binary.

mod scene;

mod bytes;
mod oracles;
mod tidy;
