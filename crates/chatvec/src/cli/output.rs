//! The only place that prints: results to stdout, everything else to stderr.

use std::io::{self, IsTerminal as _, Write};
use std::sync::OnceLock;

use anyhow::Context as _;
use chatvec_core::problem::Problem;
use serde::Serialize;

use super::text::printable;
use super::{Failure, OutputFormat};

/// Problems that are shown; of more, only the number is told.
const PROBLEMS_SHOWN_MAX: usize = 50;

const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[1;33m";
const CYAN: &str = "\x1b[36m";
const RESET: &str = "\x1b[0m";

/// How everything is told that is no result.
static TOLD_AS: OnceLock<OutputFormat> = OnceLock::new();

/// Sets, once in a process, how errors, warnings and notes are told: as text,
/// or as one JSON object a line.
pub(super) fn tell_as(format: OutputFormat) {
    let _told_before = TOLD_AS.set(format);
}

fn told_as() -> OutputFormat {
    TOLD_AS.get().copied().unwrap_or_default()
}

/// What a line of stderr is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Error,
    Warning,
    Note,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }

    fn paint(self) -> &'static str {
        match self {
            Self::Error => RED,
            Self::Warning => YELLOW,
            Self::Note => "",
        }
    }
}

/// A line of stderr in JSON.
#[derive(Debug, Serialize)]
struct LineJson<'a> {
    level: &'static str,
    /// The object that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    message: &'a str,
    /// What the user can do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
}

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
    tell(Level::Note, text);
}

/// Tells of what is odd and stops nothing.
pub(super) fn warnings(warnings: &[Problem]) {
    to_stderr(Level::Warning, warnings);
}

/// Writes warnings as part of a result.
pub(super) fn write_warnings(warnings: &[Problem], out: &mut dyn Write) -> io::Result<()> {
    write_problems(Level::Warning, warnings, Colour::Off, out)
}

/// Tells why the command failed.
pub fn failure(failure: &Failure) {
    match failure {
        Failure::Problems { problems, .. } => to_stderr(Level::Error, problems),
        Failure::Interrupted(message) => note(message),
        Failure::Other(error) => tell(Level::Error, &chain(error)),
    }
}

/// Tells something that is about no object.
fn tell(level: Level, message: &str) {
    let mut text = match (told_as(), level) {
        (OutputFormat::Json, _) => json_line(&LineJson {
            level: level.name(),
            subject: None,
            message,
            hint: None,
        }),
        (OutputFormat::Text, Level::Note) => printable(message),
        (OutputFormat::Text, _) => {
            let kind = format!("{}:", level.name());
            let kind = Colour::of_stderr().paint(level.paint(), &kind);
            format!("{kind} {}", printable(message))
        }
    };
    text.push('\n');
    // Nobody is left to tell when stderr is closed.
    let _closed = io::stderr().lock().write_all(text.as_bytes());
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

fn to_stderr(level: Level, problems: &[Problem]) {
    let mut text = Vec::new();
    match told_as() {
        OutputFormat::Text => write_problems(level, problems, Colour::of_stderr(), &mut text),
        OutputFormat::Json => write_problems_as_json(level, problems, &mut text),
    }
    .expect("memory takes any text");
    let _closed = io::stderr().lock().write_all(&text);
}

/// Each problem on a line with its advice below.
fn write_problems(
    level: Level,
    problems: &[Problem],
    colour: Colour,
    out: &mut dyn Write,
) -> io::Result<()> {
    for problem in problems.iter().take(PROBLEMS_SHOWN_MAX) {
        let kind = colour.paint(level.paint(), &format!("{}:", level.name()));
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

/// Each problem as an object on a line. A program reads them all.
fn write_problems_as_json(
    level: Level,
    problems: &[Problem],
    out: &mut dyn Write,
) -> io::Result<()> {
    for problem in problems {
        let line = json_line(&LineJson {
            level: level.name(),
            subject: Some(&problem.subject),
            message: &problem.message,
            hint: problem.hint.as_deref(),
        });
        writeln!(out, "{line}")?;
    }
    Ok(())
}

fn json_line(line: &LineJson<'_>) -> String {
    serde_json::to_string(line).expect("texts are JSON")
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
        write_problems(Level::Error, problems, colour, &mut out).unwrap();
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
    fn in_json_a_problem_is_an_object_on_a_line() {
        let problems = [
            Problem::new("cp", "no such folder").with_hint("give the folder"),
            Problem::new("a\u{1b}", "b"),
        ];
        let mut out = Vec::new();
        write_problems_as_json(Level::Warning, &problems, &mut out).unwrap();
        let text = concat!(
            r#"{"level":"warning","subject":"cp","message":"no such folder","hint":"give the folder"}"#,
            "\n",
            r#"{"level":"warning","subject":"a\u001b","message":"b"}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(out).unwrap(), text);
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
