//! Patterns over tensor names: `*` stands for any run of characters, dots and
//! the empty run included; every other character stands for itself.

use std::fmt;

/// A pattern, checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Glob(String);

/// Why a text is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// It would match no tensor at all.
    #[error("the pattern is empty")]
    Empty,
    /// The character is special in other pattern languages and is in no tensor's
    /// name: taken for itself it would silently match nothing.
    #[error("the pattern contains `{0}`, but only `*` is special in it")]
    Special(char),
}

/// What other pattern languages give a meaning to.
const FOREIGN: [char; 12] = ['?', '[', ']', '{', '}', '(', ')', '|', '^', '$', '\\', '+'];

impl Glob {
    /// Checks a pattern.
    ///
    /// # Errors
    /// An empty pattern, or one written in another pattern language.
    pub fn new(pattern: &str) -> Result<Self, GlobError> {
        if pattern.is_empty() {
            return Err(GlobError::Empty);
        }
        match pattern.chars().find(|c| FOREIGN.contains(c)) {
            Some(special) => Err(GlobError::Special(special)),
            None => Ok(Self(pattern.to_owned())),
        }
    }

    /// Whether the whole name matches.
    pub fn matches(&self, name: &str) -> bool {
        matches(&self.0, name)
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether the whole of `name` matches `pattern`.
///
/// The text between two stars may as well sit at its leftmost place, since the
/// star after it takes whatever is left: so one pass without backtracking
/// suffices, and the time is linear in the lengths.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, pattern)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut rest) = name.strip_prefix(head) else {
        return false;
    };
    let (middle, tail) = pattern.rsplit_once('*').unwrap_or(("", pattern));
    for piece in middle.split('*') {
        match rest.find(piece) {
            Some(at) => rest = &rest[at + piece.len()..],
            None => return false,
        }
    }
    rest.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, word for word; exponential, so for short texts only.
    fn naive(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => {
                naive(rest, name) || (!name.is_empty() && naive(pattern, &name[1..]))
            }
            ([p, pattern @ ..], [n, name @ ..]) if p == n => naive(pattern, name),
            _ => false,
        }
    }

    #[test]
    fn a_star_matches_any_run_with_dots_and_the_empty_one() {
        let layer = "model.layers.10.input_layernorm.weight";
        assert!(matches("model.layers.*.input_layernorm.weight", layer));
        assert!(matches("*layernorm*", layer));
        assert!(matches("*", ""));
        assert!(matches("model*.layers.*", layer));
        assert!(matches("a**b", "ab"));
    }

    #[test]
    fn a_pattern_matches_the_whole_name_and_each_part_once() {
        assert!(!matches("layers", "model.layers"));
        assert!(!matches("model.*.weight", "model.weight"));
        assert!(!matches("ab*ba", "aba"));
        assert!(!matches("*aa*aa", "aaa"));
        assert!(!matches("", "a"));
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let name = "a".repeat(10_000);
        assert!(!matches(&format!("{}b", "a*".repeat(500)), &name));
    }

    #[test]
    fn other_pattern_languages_are_rejected() {
        assert_eq!(Glob::new(""), Err(GlobError::Empty));
        assert_eq!(Glob::new("layers.[0-9].*"), Err(GlobError::Special('[')),);
        assert_eq!(Glob::new(r"model\.norm"), Err(GlobError::Special('\\')));
    }

    proptest! {
        #[test]
        fn the_matcher_agrees_with_the_definition(
            pattern in "[ab*]{0,10}", name in "[ab]{0,12}",
        ) {
            prop_assert_eq!(
                matches(&pattern, &name),
                naive(pattern.as_bytes(), name.as_bytes())
            );
        }

        #[test]
        fn cutting_pieces_out_of_a_name_leaves_a_pattern_that_matches(
            name in "[aäb.]{0,16}", cuts in proptest::collection::vec(0..17_usize, 0..4),
        ) {
            let mut pattern: Vec<char> = name.chars().collect();
            for cut in cuts {
                if cut < pattern.len() {
                    pattern[cut] = '*';
                }
            }
            prop_assert!(matches(&String::from_iter(pattern), &name));
        }
    }
}
