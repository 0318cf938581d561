//! What a client says about a job beside its recipe: the name of its request,
//! whom the job is accounted to, how urgent it is, and labels to find it again.
//! Each is valid by construction.

use std::collections::BTreeMap;
use std::fmt;

use crate::ids::RequestId;
use crate::problem::Problem;

/// Most characters of a request id.
const REQUEST_ID_CHARS_MAX: usize = 255;
/// Most characters of a tenant's name and of a label's name: those of a DNS label.
const NAME_CHARS_MAX: usize = 63;
/// Most labels of a job.
const LABELS_MAX: usize = 64;
/// Most characters of a label's value.
const LABEL_VALUE_CHARS_MAX: usize = 255;
/// A message repeats no more characters than this of what was given.
const SHOWN_CHARS_MAX: usize = 80;

/// The client's name for a submission: 1 to 255 characters without control
/// characters.
///
/// # Errors
/// What is wrong with the text.
pub fn request_id(text: &str) -> Result<RequestId, Problem> {
    if text.is_empty() || !is_plain(text, REQUEST_ID_CHARS_MAX) {
        let message = format!(
            "expected 1 to {REQUEST_ID_CHARS_MAX} printable characters, found `{}`",
            shown(text)
        );
        return Err(Problem::new("request_id", message));
    }
    Ok(RequestId(text.to_owned()))
}

/// Whom a job is accounted to: a name of lower-case letters, digits and dashes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant(String);

impl Tenant {
    /// The tenant of that name.
    ///
    /// # Errors
    /// If the text is no name: 1 to 63 lower-case letters, digits and dashes,
    /// of which the first is no dash.
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let is_name = is_name(text, |c| matches!(c, 'a'..='z' | '0'..='9' | '-'));
        if !is_name {
            let message = format!(
                "expected 1 to {NAME_CHARS_MAX} lower-case letters, digits and dashes, \
                 the first no dash, found `{}`",
                shown(text)
            );
            return Err(Problem::new("tenant", message));
        }
        Ok(Self(text.to_owned()))
    }

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The tenant of whoever names none.
impl Default for Tenant {
    fn default() -> Self {
        Self("default".to_owned())
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What is to change of a tenant; `None` stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantChange {
    /// The tenant.
    pub tenant: Tenant,
    /// Its share of the workers, relative to the other tenants'.
    pub weight: Option<Weight>,
    /// Most tasks of it that are leased at once; 0 for no limit.
    pub leased_tasks_max: Option<u32>,
    /// Most jobs of it that have not ended; 0 for no limit.
    pub open_jobs_max: Option<u32>,
}

/// A tenant's share of the workers, relative to the other tenants': from 1 to
/// 1,000,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(u32);

impl Weight {
    /// The largest.
    pub const MAX: Self = Self(1_000_000);

    /// The weight of that number.
    ///
    /// # Errors
    /// If the number is 0 or above the largest.
    pub fn new(number: u32) -> Result<Self, Problem> {
        if (1..=Self::MAX.0).contains(&number) {
            return Ok(Self(number));
        }
        let message = format!("expected 1 to {}, found {number}", Self::MAX.0);
        Err(Problem::new("weight", message))
    }

    /// Its number.
    pub fn number(self) -> u32 {
        self.0
    }
}

/// How urgent a job is, from 0 to 99, higher first. Ten points double the
/// share of the workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Priority(u8);

impl Priority {
    /// The most urgent.
    pub const MAX: Self = Self(99);

    /// The priority of that number.
    ///
    /// # Errors
    /// If the number is above 99.
    pub fn new(number: u32) -> Result<Self, Problem> {
        match u8::try_from(number) {
            Ok(small) if small <= Self::MAX.0 => Ok(Self(small)),
            _ => Err(Problem::new(
                "priority",
                format!("expected 0 to {}, found {number}", Self::MAX.0),
            )),
        }
    }

    /// Its number.
    pub fn number(self) -> u8 {
        self.0
    }
}

/// The priority of whoever gives none: 50.
impl Default for Priority {
    fn default() -> Self {
        Self(50)
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What a client says about its job, to find it again: values by name, at most 64.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Labels(BTreeMap<String, String>);

impl Labels {
    /// Labels of these names and values; of a name that comes twice, the last
    /// value counts.
    ///
    /// # Errors
    /// All that is wrong with them. A name has 1 to 63 characters, lower-case
    /// letters, digits, `.`, `_`, `/` and `-`, and begins with a letter or
    /// digit; a value has at most 255, and no control character.
    pub fn parse(given: impl IntoIterator<Item = (String, String)>) -> Result<Self, Vec<Problem>> {
        let labels: BTreeMap<_, _> = given.into_iter().collect();
        if labels.len() > LABELS_MAX {
            let message = format!("expected at most {LABELS_MAX}, found {}", labels.len());
            return Err(vec![Problem::new("labels", message)]);
        }
        let problems: Vec<_> = labels
            .iter()
            .filter_map(|(name, value)| label_problem(name, value))
            .collect();
        if problems.is_empty() {
            Ok(Self(labels))
        } else {
            Err(problems)
        }
    }

    /// Names and values, in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

fn label_problem(name: &str, value: &str) -> Option<Problem> {
    let subject = || format!("labels[{}]", shown(name));
    let is_name = is_name(
        name,
        |c| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '/' | '-'),
    );
    if !is_name {
        let message = format!(
            "expected a name of 1 to {NAME_CHARS_MAX} lower-case letters, digits, `.`, `_`, `/` \
             and `-` that begins with a letter or digit"
        );
        return Some(Problem::new(subject(), message));
    }
    if !is_plain(value, LABEL_VALUE_CHARS_MAX) {
        let message = format!(
            "expected a value of at most {LABEL_VALUE_CHARS_MAX} printable characters, found `{}`",
            shown(value)
        );
        return Some(Problem::new(subject(), message));
    }
    None
}

fn is_name(text: &str, allowed: impl Fn(char) -> bool) -> bool {
    let begins_well = text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    begins_well && text.len() <= NAME_CHARS_MAX && text.chars().all(allowed)
}

fn is_plain(text: &str, chars_max: usize) -> bool {
    text.chars().count() <= chars_max && !text.chars().any(char::is_control)
}

/// The beginning of a text, for a message.
fn shown(text: &str) -> String {
    let mut start: String = text.chars().take(SHOWN_CHARS_MAX).collect();
    if start.len() < text.len() {
        start.push('…');
    }
    start.escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(given: &[(&str, &str)]) -> Result<Labels, Vec<Problem>> {
        Labels::parse(
            given
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        )
    }

    #[test]
    fn a_tenant_is_a_name_that_fits_a_url() {
        for good in ["default", "team-a", "7", &"x".repeat(63)] {
            assert_eq!(Tenant::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "-a", "A", "a_b", "a/b", "ü", &"x".repeat(64)] {
            let problem = Tenant::parse(bad).unwrap_err();
            assert_eq!(problem.subject, "tenant", "{bad}");
        }
        assert_eq!(Tenant::parse("default"), Ok(Tenant::default()));
    }

    #[test]
    fn a_weight_is_no_more_than_a_million_and_never_nothing() {
        assert_eq!(Weight::new(1).unwrap().number(), 1);
        assert_eq!(Weight::new(1_000_000), Ok(Weight::MAX));
        for bad in [0, 1_000_001] {
            let problem = Weight::new(bad).unwrap_err();
            assert_eq!(
                problem.message,
                format!("expected 1 to 1000000, found {bad}")
            );
        }
    }

    #[test]
    fn a_priority_has_two_digits() {
        assert_eq!(Priority::new(0).unwrap().number(), 0);
        assert_eq!(Priority::new(99), Ok(Priority::MAX));
        for bad in [100, 256 + 50, u32::MAX] {
            let message = Priority::new(bad).unwrap_err().message;
            assert_eq!(message, format!("expected 0 to 99, found {bad}"));
        }
    }

    #[test]
    fn a_request_id_is_printable_and_not_long() {
        assert!(request_id("nightly 2026-11-25/größe").is_ok());
        assert!(request_id(&"ü".repeat(255)).is_ok());
        for bad in ["", "a\n", "\0", &"x".repeat(256)] {
            assert!(request_id(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn every_bad_label_is_told_by_its_name() {
        let bad = labels(&[
            ("Model", "x"),
            ("", "x"),
            (".a", "x"),
            ("ok", "tab\t"),
            ("fine", ""),
        ]);
        let subjects: Vec<_> = bad
            .unwrap_err()
            .into_iter()
            .map(|one| one.subject)
            .collect();
        assert_eq!(
            subjects,
            ["labels[]", "labels[.a]", "labels[Model]", "labels[ok]"]
        );
        let long = labels(&[("a", &"x".repeat(256)), (&"n".repeat(64), "")]);
        assert_eq!(long.unwrap_err().len(), 2);
    }

    #[test]
    fn a_job_has_at_most_64_labels() {
        let many = |count: usize| {
            let all = (0..count).map(|i| (format!("l{i}"), "v".to_owned()));
            Labels::parse(all).map(|labels| labels.len())
        };
        assert_eq!(many(64), Ok(64));
        assert_eq!(
            many(65).unwrap_err()[0].message,
            "expected at most 64, found 65"
        );
    }

    #[test]
    fn a_message_repeats_little_of_what_was_given() {
        let problem = Tenant::parse(&"X".repeat(1 << 20)).unwrap_err();
        assert!(problem.message.len() < 300, "{}", problem.message.len());
    }
}
