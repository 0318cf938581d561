//! `README.md`: the model card, with the front matter that the Hugging Face Hub
//! reads. The same merge gives the same bytes: no date, no name of a machine.

use serde::Deserialize;
use serde::de::IgnoredAny;

#[cfg(test)]
mod tests;

/// Everything that stands in a card.
#[derive(Debug, Clone, Copy)]
pub struct Card<'a> {
    /// The name of the output, for the title.
    pub title: &'a str,
    /// The inputs, in the order of the recipe: cp, then chat and base of each vector.
    pub inputs: &'a [CardInput],
    /// The recipe as YAML, shown as it is.
    pub recipe_yaml: &'a str,
    /// Tensors that a vector was added to.
    pub merged: u64,
    /// Tensors that were copied from the skeleton.
    pub copied: u64,
    /// The version of this program.
    pub chatvec_version: &'a str,
    /// The model card of cp, for its licence and languages.
    pub cp_readme: Option<&'a [u8]>,
}

/// One input as a row of the card's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CardInput {
    /// Its place in the recipe: `cp`, `vectors[0].chat`.
    pub role: String,
    /// Where it was read from; the card shows its Hub id or its last component.
    pub url: String,
    /// λ of its vector as the recipe has it, where it is part of one.
    pub lambda: Option<String>,
}

/// The `org/name` of a model whose files lie in a cache of the Hub:
/// `…/models--org--name/snapshots/<commit>`. `None` for any other path and for
/// what is no valid id.
pub fn hub_id_of(url: &str) -> Option<String> {
    let parts: Vec<&str> = url.split('/').filter(|part| !part.is_empty()).collect();
    parts.windows(3).find_map(|window| {
        let [repository, folder, commit] = window else {
            return None;
        };
        let is_commit = commit.bytes().all(|b| b.is_ascii_hexdigit());
        let (org, name) = repository.strip_prefix("models--")?.split_once("--")?;
        let id = format!("{org}/{name}");
        (*folder == "snapshots" && is_commit && is_hub_id(&id)).then_some(id)
    })
}

/// The longest id that the Hub takes, in bytes.
const HUB_ID_LEN_MAX: usize = 96;

/// Whether the text is an `org/name` that the Hub takes: letters, digits, `-`,
/// `_` and `.`, neither beginning nor ending in `-` or `.`, without `--` or `..`.
fn is_hub_id(id: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
            && !part.starts_with(['-', '.'])
            && !part.ends_with(['-', '.'])
    };
    id.len() <= HUB_ID_LEN_MAX
        && !id.contains("--")
        && !id.contains("..")
        && !id.ends_with(".git")
        && id
            .split_once('/')
            .is_some_and(|(org, name)| is_part(org) && is_part(name))
}

/// The card's bytes.
pub fn render(card: &Card<'_>) -> Vec<u8> {
    let mut text = front_matter(card);
    text.push_str(&format!("\n# {}\n\n", prose(card.title)));
    text.push_str(
        "This model was made by adding *chat vectors* to a continually pre-trained model, \
         without any training:\n\n\
         $$\\theta_{out} = \\theta_{cp} + \\sum_i \\lambda_i \
         (\\theta_{chat,i} - \\theta_{base,i})$$\n\n\
         The method is that of Huang et al., *Chat Vector: A Simple Approach to Equip LLMs with \
         Instruction Following and Model Alignment in New Languages*, \
         [arXiv 2310.04799](https://arxiv.org/abs/2310.04799).\n\n\
         ## Inputs\n\n\
         | role | model | λ |\n| --- | --- | --- |\n",
    );
    for input in card.inputs {
        let lambda = input.lambda.as_deref().unwrap_or("");
        text.push_str(&format!(
            "| {} | {} | {} |\n",
            prose(&input.role),
            prose(&shown_name(&input.url)),
            prose(lambda),
        ));
    }
    let fence = fence_for(card.recipe_yaml);
    text.push_str(&format!(
        "\n## Recipe\n\n{fence}yaml\n{}\n{fence}\n\n",
        card.recipe_yaml.trim_end_matches('\n'),
    ));
    text.push_str(&format!(
        "Tensors: {} merged, {} copied from the skeleton. Made with chatvec {}.\n",
        card.merged,
        card.copied,
        prose(card.chatvec_version),
    ));
    text.into_bytes()
}

/// What an input is called: its id on the Hub, or the last part of its path.
fn shown_name(url: &str) -> String {
    hub_id_of(url).unwrap_or_else(|| {
        let last = url.trim_end_matches('/').rsplit('/').next();
        last.unwrap_or_default().to_owned()
    })
}

fn front_matter(card: &Card<'_>) -> String {
    let inherited = card.cp_readme.map(Inherited::of).unwrap_or_default();
    let mut models: Vec<String> = Vec::new();
    for id in card.inputs.iter().filter_map(|input| hub_id_of(&input.url)) {
        if !models.contains(&id) {
            models.push(id);
        }
    }
    let mut text = "---\n".to_owned();
    if !models.is_empty() {
        text.push_str(&list("base_model", &models));
        text.push_str("base_model_relation: merge\n");
    }
    text.push_str("library_name: transformers\n");
    text.push_str("tags:\n- chatvec\n- chat-vector\n- merge\n- task-arithmetic\n");
    for (key, value) in [
        ("license", inherited.license),
        ("license_name", inherited.license_name),
        ("license_link", inherited.license_link),
        ("language", inherited.language),
    ] {
        match value {
            Some(OneOrMany::One(one)) => text.push_str(&format!("{key}: {}\n", quoted(&one))),
            Some(OneOrMany::Many(many)) if !many.is_empty() => text.push_str(&list(key, &many)),
            Some(OneOrMany::Many(_) | OneOrMany::Other(_)) | None => {}
        }
    }
    text.push_str("---\n");
    text
}

fn list(key: &str, values: &[String]) -> String {
    let rows: String = values
        .iter()
        .map(|v| format!("- {}\n", quoted(v)))
        .collect();
    format!("{key}:\n{rows}")
}

/// What the output takes over from cp's card.
#[derive(Debug, Default, Deserialize)]
struct Inherited {
    #[serde(default)]
    license: Option<OneOrMany>,
    #[serde(default)]
    license_name: Option<OneOrMany>,
    #[serde(default)]
    license_link: Option<OneOrMany>,
    #[serde(default)]
    language: Option<OneOrMany>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
    Other(IgnoredAny),
}

impl Inherited {
    /// Reads the front matter of a card. A card without one, or with one that
    /// is not readable, gives nothing: it is no part of the model.
    fn of(readme: &[u8]) -> Self {
        let Ok(text) = str::from_utf8(readme) else {
            return Self::default();
        };
        let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n");
        let Some(rest) = text.strip_prefix("---\n") else {
            return Self::default();
        };
        let mut matter = String::new();
        for line in rest.lines() {
            if line.trim_end() == "---" {
                // As YAML 1.2 has it: `no` is Norwegian, and no boolean.
                let options = serde_saphyr::options! { strict_booleans: true };
                return serde_saphyr::from_str_with_options(&matter, options).unwrap_or_default();
            }
            matter.push_str(line);
            matter.push('\n');
        }
        Self::default()
    }
}

/// A string as a double-quoted YAML scalar, which no content can leave: JSON's
/// spelling, and escapes for the characters that YAML does not print.
fn quoted(text: &str) -> String {
    let json = serde_json::to_string(text).expect("a string is always JSON");
    let mut scalar = String::with_capacity(json.len());
    for c in json.chars() {
        let is_unprintable = c.is_control()
            || matches!(
                c,
                '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
            );
        if is_unprintable {
            scalar.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            scalar.push(c);
        }
    }
    scalar
}

/// Text that Markdown shows as it is, on one line, in a table too.
fn prose(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '<' => shown.push_str("&lt;"),
            '>' => shown.push_str("&gt;"),
            '&' => shown.push_str("&amp;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '#' | '!' | '$' => {
                shown.push('\\');
                shown.push(c);
            }
            c if c.is_control() => shown.push(' '),
            c => shown.push(c),
        }
    }
    shown
}

/// A fence longer than any run of backticks in the text.
fn fence_for(text: &str) -> String {
    let longest = text
        .split(|c| c != '`')
        .map(str::len)
        .max()
        .unwrap_or_default();
    "`".repeat((longest + 1).max(3))
}
