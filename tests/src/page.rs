//! Pages of the documentation whose figures a command writes: what it measured
//! stands between two marks, and everything else is a person's.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

/// Puts a text into a page, between the marks of this name, in place of what
/// stands there.
///
/// # Errors
/// If the page cannot be read or written, or has no such marks.
pub fn put(page: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let read = fs::read_to_string(page).with_context(|| page.display().to_string())?;
    let written = replaced(&read, name, text);
    let written = written.with_context(|| {
        format!(
            "`{}` has no marks for the figures of `{name}`",
            page.display()
        )
    })?;
    Ok(fs::write(page, written)?)
}

/// The page with this text between the marks; `None` where it has no such marks.
fn replaced(page: &str, name: &str, text: &str) -> Option<String> {
    let begin = format!("<!-- {name}: begin (generated, do not edit) -->\n");
    let end = format!("<!-- {name}: end -->");
    let (before, rest) = page.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n{}\n\n{end}{after}", text.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "a\n<!-- x: begin (generated, do not edit) -->\nold\n<!-- x: end -->\nb\n";

    #[test]
    fn a_text_takes_the_place_of_the_last_one_and_leaves_the_rest() {
        let once = replaced(PAGE, "x", "new\n").unwrap();
        assert_eq!(
            once,
            "a\n<!-- x: begin (generated, do not edit) -->\n\nnew\n\n<!-- x: end -->\nb\n"
        );
        assert_eq!(replaced(&once, "x", "new").unwrap(), once);
    }

    #[test]
    fn a_page_without_the_marks_is_an_error() {
        assert_eq!(replaced(PAGE, "y", "new"), None);
    }
}
