//! The `chatvec` program as the tests of faults run it: with failpoints and
//! planted defects, which the environment arms.

use std::io::{self, Write as _};
use std::process::ExitCode;

use chatvec::cli::{self, Exit};
use chatvec::fault;

fn main() -> ExitCode {
    if let Err(problem) = fault::check_environment() {
        // Nobody is left to tell when stderr is closed.
        let _closed = writeln!(io::stderr(), "error: {problem}");
        return Exit::BadInput.into();
    }
    cli::main()
}
