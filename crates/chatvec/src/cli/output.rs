//! The only place that prints: results to stdout, everything else to stderr.

use std::io::{self, IsTerminal as _, Write};

use anyhow::Context as _;
use chatvec_core::problem::Problem;
use serde::Serialize;

use super::Failure;
use super::text::printable;

/// Problems that are shown; of more, only the number is told.
const PROBLEMS_SHOWN_MAX: usize = 50;

const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[1;33m";
const CYAN: &str = "\x1b[36m";
const RESET: &str = "\x1b[0m";

/// Prints a result. A reader that has seen enough and closed the pipe is no error.
pub(super) fn print(write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), Failure> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    match write(&mut out).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        printed => Ok(printed.context("stdout cannot be written")?),
    }
}

/// Prints one JSON object.
pub(super) fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    print(|out| {
        serde_json::to_writer_pretty(&mut *out, value).map_err(io::Error::from)?;
        writeln!(out)
    })
}

/// Prints one JSON object on a line of its own, for streams of them.
pub(super) fn print_json_line(value: &impl Serialize) -> Result<(), Failure> {
    print(|out| {
        serde_json::to_writer(&mut *out, value).map_err(io::Error::from)?;
        writeln!(out)
    })
}

/// Tells the user something that is no result.
pub(super) fn note(text: &str) {
    let line = format!("{}\n", printable(text));
    // Nobody is left to tell when stderr is closed.
    let _closed = io::stderr().lock().write_all(line.as_bytes());
}

/// Tells of what is odd and stops nothing.
pub(super) fn warnings(warnings: &[Problem]) {
    to_stderr("warning", YELLOW, warnings);
}

/// Writes warnings as part of a result.
pub(super) fn write_warnings(warnings: &[Problem], out: &mut dyn Write) -> io::Result<()> {
    write_problems("warning", YELLOW, warnings, Colour::Off, out)
}

/// Tells why the command failed.
pub fn failure(failure: &Failure) {
    match failure {
        Failure::Problems { problems, .. } => to_stderr("error", RED, problems),
        Failure::Interrupted(message) => note(message),
        Failure::Other(error) => {
            let colour = Colour::of_stderr();
            let line = format!(
                "{} {}\n",
                colour.paint(RED, "error:"),
                printable(&chain(error))
            );
            let _closed = io::stderr().lock().write_all(line.as_bytes());
        }
    }
}

/// The error and its causes on one line, without those that it tells itself.
fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn to_stderr(kind: &str, paint: &str, problems: &[Problem]) {
    let mut text = Vec::new();
    write_problems(kind, paint, problems, Colour::of_stderr(), &mut text)
        .expect("memory takes any text");
    let _closed = io::stderr().lock().write_all(&text);
}

/// Each problem on a line with its advice below.
fn write_problems(
    kind: &str,
    paint: &str,
    problems: &[Problem],
    colour: Colour,
    out: &mut dyn Write,
) -> io::Result<()> {
    for problem in problems.iter().take(PROBLEMS_SHOWN_MAX) {
        let kind = colour.paint(paint, &format!("{kind}:"));
        writeln!(out, "{kind} {}", printable(&problem.to_string()))?;
        if let Some(hint) = &problem.hint {
            writeln!(out, "  {} {}", colour.paint(CYAN, "hint:"), printable(hint))?;
        }
    }
    if problems.len() > PROBLEMS_SHOWN_MAX {
        writeln!(out, "and {} more", problems.len() - PROBLEMS_SHOWN_MAX)?;
    }
    Ok(())
}

/// Whether colours are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Colour {
    On,
    Off,
}

impl Colour {
    fn of_stderr() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        if io::stderr().is_terminal() && !refused {
            Self::On
        } else {
            Self::Off
        }
    }

    fn paint(self, paint: &str, text: &str) -> String {
        match self {
            Self::On => format!("{paint}{text}{RESET}"),
            Self::Off => text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(problems: &[Problem], colour: Colour) -> String {
        let mut out = Vec::new();
        write_problems("error", RED, problems, colour, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_problem_is_a_line_with_its_hint_below() {
        let problems = [
            Problem::new("cp", "no such folder").with_hint("give the folder"),
            Problem::new("a\u{1b}", "b"),
        ];
        let text = "error: cp: no such folder\n  hint: give the folder\nerror: a\\u{1b}: b\n";
        assert_eq!(written(&problems, Colour::Off), text);
    }

    #[test]
    fn a_cause_that_the_error_tells_itself_is_told_once() {
        let error = anyhow::anyhow!("no space").context("failed: no space");
        assert_eq!(
            chain(&error.context("cannot write")),
            "cannot write: failed: no space"
        );
    }

    #[test]
    fn colours_surround_the_kind_alone() {
        let text = written(&[Problem::new("a", "b")], Colour::On);
        assert_eq!(text, "\x1b[1;31merror:\x1b[0m a: b\n");
    }

    #[test]
    fn of_many_problems_the_first_fifty_are_shown() {
        let problems: Vec<_> = (0..52)
            .map(|i| Problem::new(format!("t{i}"), "bad"))
            .collect();
        let text = written(&problems, Colour::Off);
        assert!(text.contains("t49: bad") && !text.contains("t50: bad"));
        assert!(text.ends_with("\nand 2 more\n"));
        assert!(!written(&problems[..50], Colour::Off).contains("more"));
    }
}
