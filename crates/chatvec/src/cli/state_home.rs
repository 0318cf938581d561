//! The user's own folder for state that belongs beside no output.

use std::path::PathBuf;

use chatvec_core::problem::Problem;

use super::Failure;

/// The folder of this user.
pub(super) fn state_home() -> Result<PathBuf, Failure> {
    within(|name| std::env::var_os(name).map(PathBuf::from))
}

/// By the XDG base directory specification: a path that is not absolute is
/// ignored.
fn within(variable: impl Fn(&str) -> Option<PathBuf>) -> Result<PathBuf, Failure> {
    let absolute = |name| variable(name).filter(|path| path.is_absolute());
    let folder = absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    folder.map(|folder| folder.join("chatvec")).ok_or_else(|| {
        let problem = Problem::new(
            "$HOME",
            "expected the user's folder, found neither `$XDG_STATE_HOME` nor `$HOME`",
        );
        Failure::bad_input(vec![problem.with_hint(
            "set one of them to an absolute path; `serve` also takes --state",
        )])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_lies_where_the_desktop_keeps_state() {
        let state = |xdg: &'static str, home: &'static str| {
            let given =
                move |name: &str| Some(PathBuf::from(if name == "HOME" { home } else { xdg }));
            within(given).ok()
        };
        assert_eq!(state("/s", "/h"), Some("/s/chatvec".into()));
        assert_eq!(state("s", "/h"), Some("/h/.local/state/chatvec".into()));
        assert_eq!(state("", ""), None);
    }
}
