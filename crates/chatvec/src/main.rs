//! The chatvec binary.

fn main() {}
