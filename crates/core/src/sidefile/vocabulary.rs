//! Which id a token has in a tokenizer's files, and which token an id is.
//! Vocabularies are large and few entries are asked for, so the files are
//! walked once and only what is wanted is kept.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::Source;
use crate::problem::Problem;

/// What is looked up.
pub(super) enum Wanted<'a> {
    /// The tokens of these ids.
    Ids(&'a [u64]),
    /// The ids of these tokens.
    Tokens(&'a BTreeSet<String>),
}

impl Wanted<'_> {
    fn contains(&self, token: &str, id: u64) -> bool {
        match self {
            Self::Ids(ids) => ids.contains(&id),
            Self::Tokens(tokens) => tokens.contains(token),
        }
    }
}

/// The pairs that were found.
#[derive(Default)]
pub(super) struct Found {
    ids: BTreeMap<String, u64>,
    tokens: BTreeMap<u64, String>,
    /// Whether a file with the whole vocabulary was read: what it lacks does
    /// not exist. `tokenizer.model` alone can't be read here.
    pub(super) complete: bool,
}

impl Found {
    /// The id of a token.
    pub(super) fn id(&self, token: &str) -> Option<u64> {
        self.ids.get(token).copied()
    }

    /// The token of an id.
    pub(super) fn token(&self, id: u64) -> Option<&str> {
        self.tokens.get(&id).map(String::as_str)
    }

    /// Keeps a pair; of contradicting files the one read first wins.
    fn keep(&mut self, token: &str, id: u64) {
        self.ids.entry(token.to_owned()).or_insert(id);
        self.tokens.entry(id).or_insert_with(|| token.to_owned());
    }
}

/// Looks up ids or tokens in all the files of a folder that say something of
/// its vocabulary: `tokenizer.json` (added tokens before the model's), the
/// `added_tokens_decoder` of `tokenizer_config.json`, `added_tokens.json` and,
/// where `tokenizer.json` has no vocabulary, `vocab.json`. A file that cannot
/// be read is an error.
pub(super) fn look_up(source: &Source<'_>, wanted: &Wanted<'_>) -> Result<Found, Problem> {
    let mut found = Found::default();
    if let Some(text) = source.text("tokenizer.json")? {
        read_tokenizer(text, wanted, &mut found)
            .map_err(|error| source.problem("tokenizer.json", format!("not readable: {error}")))?;
    }
    if let Some(config) = source.object("tokenizer_config.json")?
        && let Some(serde_json::Value::Object(decoder)) = config.value("added_tokens_decoder")
    {
        for (id, token) in &decoder {
            if let (Ok(id), Some(token)) = (id.parse(), super::chat::token_content(token))
                && wanted.contains(token, id)
            {
                found.keep(token, id);
            }
        }
    }
    read_map(source, "added_tokens.json", wanted, &mut found)?;
    if !found.complete {
        found.complete = read_map(source, "vocab.json", wanted, &mut found)?;
    }
    Ok(found)
}

/// Reads a file that is nothing but a vocabulary; false if there is none.
fn read_map(
    source: &Source<'_>,
    path: &str,
    wanted: &Wanted<'_>,
    found: &mut Found,
) -> Result<bool, Problem> {
    let Some(text) = source.text(path)? else {
        return Ok(false);
    };
    let mut reader = serde_json::Deserializer::from_slice(text);
    VocabularySeed { wanted, found }
        .deserialize(&mut reader)
        .and_then(|()| reader.end())
        .map_err(|error| source.problem(path, format!("not readable: {error}")))?;
    Ok(true)
}

/// The parts of `tokenizer.json` that are read; the rest is passed over.
#[derive(Deserialize)]
struct TokenizerFile<'a> {
    #[serde(default)]
    added_tokens: Vec<AddedToken<'a>>,
    #[serde(borrow)]
    model: Option<TokenizerModel<'a>>,
}

#[derive(Deserialize)]
struct AddedToken<'a> {
    id: u64,
    #[serde(borrow)]
    content: Cow<'a, str>,
}

#[derive(Deserialize)]
struct TokenizerModel<'a> {
    #[serde(borrow)]
    vocab: Option<&'a RawValue>,
}

fn read_tokenizer(
    text: &[u8],
    wanted: &Wanted<'_>,
    found: &mut Found,
) -> Result<(), serde_json::Error> {
    let file: TokenizerFile<'_> = serde_json::from_slice(text)?;
    for added in &file.added_tokens {
        if wanted.contains(&added.content, added.id) {
            found.keep(&added.content, added.id);
        }
    }
    if let Some(vocab) = file.model.and_then(|model| model.vocab) {
        let mut reader = serde_json::Deserializer::from_str(vocab.get());
        VocabularySeed { wanted, found }.deserialize(&mut reader)?;
        found.complete = true;
    }
    Ok(())
}

/// Reads `{token: id}` or, as unigram models have it, `[[token, score]]` in
/// which the id is the position.
struct VocabularySeed<'a, 'b> {
    wanted: &'a Wanted<'b>,
    found: &'a mut Found,
}

impl<'de> DeserializeSeed<'de> for VocabularySeed<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for VocabularySeed<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a vocabulary: an object of ids, or a list of tokens with scores")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((token, id)) = map.next_entry::<Text<'de>, u64>()? {
            if self.wanted.contains(&token.0, id) {
                self.found.keep(&token.0, id);
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut id = 0;
        while let Some((token, _score)) = seq.next_element::<(Text<'de>, IgnoredAny)>()? {
            if self.wanted.contains(&token.0, id) {
                self.found.keep(&token.0, id);
            }
            id += 1;
        }
        Ok(())
    }
}

/// A string that is borrowed from the file where it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
