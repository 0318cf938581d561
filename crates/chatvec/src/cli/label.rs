//! Labels and tenants as flags give them.

use chatvec_core::problem::Problem;
use chatvec_core::submission::{Labels, Tenant};

use super::Failure;

/// A label: its name and its value.
pub(super) type Label = (String, String);

/// A label in a text such as `model=m1`.
pub(super) fn parse(text: &str) -> Result<Label, String> {
    let (name, value) = text
        .split_once('=')
        .ok_or("expected a name and a value such as `model=m1`")?;
    let label = (name.to_owned(), value.to_owned());
    match Labels::parse([label.clone()]) {
        Ok(_) => Ok(label),
        Err(problems) => Err(problems[0].message.clone()),
    }
}

/// All labels of a command.
pub(super) fn all(labels: &[Label]) -> Result<Labels, Failure> {
    Labels::parse(labels.iter().cloned()).map_err(|problems| {
        let in_flag = |problem| Problem {
            subject: "--label".to_owned(),
            ..problem
        };
        Failure::bad_input(problems.into_iter().map(in_flag).collect())
    })
}

/// A tenant by its name.
pub(super) fn tenant(text: &str) -> Result<Tenant, String> {
    Tenant::parse(text).map_err(|problem| problem.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_has_a_name_and_a_value() {
        let label = |name: &str, value: &str| Ok((name.to_owned(), value.to_owned()));
        assert_eq!(parse("model=m1"), label("model", "m1"));
        assert_eq!(parse("a/b=x=y"), label("a/b", "x=y"));
        assert_eq!(parse("empty="), label("empty", ""));
        for bad in ["model", "=x", "Model=x"] {
            assert!(
                parse(bad).unwrap_err().starts_with("expected a name"),
                "{bad}"
            );
        }
    }

    #[test]
    fn too_many_labels_are_told_of_the_flag() {
        let many: Vec<_> = (0..65).map(|i| (format!("l{i}"), String::new())).collect();
        assert!(all(&many[..64]).is_ok());
        let Err(Failure::Problems { problems, .. }) = all(&many) else {
            panic!("65 are too many")
        };
        assert_eq!(problems[0].subject, "--label");
    }
}
