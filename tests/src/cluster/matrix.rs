//! What a row of the crash matrix demands and what was measured, kept so that
//! the table in the documentation is made from a run and not by hand.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::python::repository;

/// One row, as one run of its test proved it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    number: u8,
    test: String,
    fault: String,
    claims: Vec<Claim>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Claim {
    what: String,
    bound: String,
    measured: String,
}

impl Row {
    /// The row of this number, for the test that calls. What an earlier run
    /// proved is forgotten.
    ///
    /// # Panics
    /// If the earlier result cannot be removed.
    pub fn new(number: u8, fault: &str) -> Self {
        match fs::remove_file(file(number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                panic!("an earlier result cannot be removed: {error}")
            }
            _ => {}
        }
        let thread = std::thread::current();
        let test = thread.name().unwrap_or_default();
        Self {
            number,
            test: test.rsplit("::").next().unwrap_or_default().to_owned(),
            fault: fault.to_owned(),
            claims: Vec::new(),
        }
    }

    /// Something took no longer than it may.
    ///
    /// # Panics
    /// If it did.
    #[track_caller]
    pub fn within(&mut self, what: &str, bound: Duration, measured: Duration) {
        let [bound_s, measured_s] = [bound, measured].map(|time| time.as_secs_f64());
        self.claim(
            what,
            format!("≤ {bound_s:.1} s"),
            format!("{measured_s:.1} s"),
        );
        assert!(measured <= bound, "{what}: {measured:?}, bound {bound:?}");
    }

    /// Something happened no more often than it may.
    ///
    /// # Panics
    /// If it did.
    #[track_caller]
    pub fn at_most(&mut self, what: &str, bound: u64, measured: u64) {
        let may = match bound {
            0 => "0".to_owned(),
            _ => format!("≤ {bound}"),
        };
        self.claim(what, may, measured.to_string());
        assert!(measured <= bound, "{what}: {measured}, bound {bound}");
    }

    /// Something that the test has demanded itself.
    pub fn holds(&mut self, what: &str) {
        self.claim(what, "always".to_owned(), "held".to_owned());
    }

    fn claim(&mut self, what: &str, bound: String, measured: String) {
        self.claims.push(Claim {
            what: what.to_owned(),
            bound,
            measured,
        });
    }

    /// Keeps the row for the table.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn record(self) {
        let file = file(self.number);
        let folder = file.parent().expect("it is in a folder");
        fs::create_dir_all(folder).expect("`target` can be written");
        let json = serde_json::to_vec_pretty(&self).expect("plain data");
        fs::write(file, json).expect("`target` can be written");
    }
}

fn file(number: u8) -> PathBuf {
    folder().join(format!("row_{number:02}.json"))
}

fn folder() -> PathBuf {
    repository().join("target/crash-matrix")
}

/// Puts the table into a page, between the marks where it goes.
///
/// # Errors
/// If there are no results, or the page has no marks.
pub fn write_into(page: &Path) -> anyhow::Result<()> {
    const MARKS: [&str; 2] = [
        "<!-- crash matrix: begin (generated, do not edit) -->\n",
        "<!-- crash matrix: end -->",
    ];
    let text = fs::read_to_string(page)?;
    let marked = text
        .split_once(MARKS[0])
        .and_then(|(before, rest)| Some((before, rest.split_once(MARKS[1])?.1)));
    let (before, after) = marked.context("the page has no marks for the table")?;
    let table = table(&results()?);
    let text = format!("{before}{}\n{table}\n{}{after}", MARKS[0], MARKS[1]);
    Ok(fs::write(page, text)?)
}

/// The rows of the last run of each test, in order.
fn results() -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for entry in fs::read_dir(folder())? {
        rows.push(serde_json::from_slice::<Row>(&fs::read(entry?.path())?)?);
    }
    rows.sort_by_key(|row| row.number);
    Ok(rows)
}

/// The rows as a table of Markdown.
fn table(rows: &[Row]) -> String {
    let mut table = String::from(
        "| # | fault | what was demanded | bound | measured | test |\n|--:|:--|:--|:--|:--|:--|\n",
    );
    for row in rows {
        for (ordinal, claim) in row.claims.iter().enumerate() {
            let only_first = |text: &str| match ordinal {
                0 => text.to_owned(),
                _ => String::new(),
            };
            let number = only_first(&row.number.to_string());
            let (fault, test) = (
                only_first(&row.fault),
                only_first(&format!("`{}`", row.test)),
            );
            let Claim {
                what,
                bound,
                measured,
            } = claim;
            writeln!(
                table,
                "| {number} | {fault} | {what} | {bound} | {measured} | {test} |"
            )
            .expect("a string takes all");
        }
    }
    table
}
