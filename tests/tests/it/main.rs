//! The tests of the workspace as a whole, in one binary.

mod scene;

mod bytes;
mod kill;
mod oracles;
mod reference;
mod resume;
mod tidy;
