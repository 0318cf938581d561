//! The `chatvec` program: parses the command line and dispatches.

use std::process::ExitCode;

fn main() -> ExitCode {
    chatvec::cli::main()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        chatvec::cli::Cli::command().debug_assert();
    }
}
