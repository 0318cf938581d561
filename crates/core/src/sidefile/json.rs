//! JSON objects that are edited and otherwise keep their text: every value
//! stays the run of characters that it was, so `1e-05` never becomes
//! `0.00001` and a number that no float holds is not rounded.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// A JSON object: its members in the order of the text.
#[derive(Debug, Default)]
pub(super) struct Object {
    members: Vec<(String, Box<RawValue>)>,
    changed: bool,
}

impl Object {
    /// Reads an object. A key that stands twice in any object of the text is an
    /// error: readers differ in which of the two they take.
    pub(super) fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice::<UniqueKeys>(text)?;
        let Members(members) = serde_json::from_slice(text)?;
        Ok(Self {
            members,
            changed: false,
        })
    }

    /// Whether an edit changed a value, added a member or removed one.
    pub(super) fn is_changed(&self) -> bool {
        self.changed
    }

    /// The keys in the order of the text.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.members.iter().map(|(key, _)| key.as_str())
    }

    /// The text of a value; `None` where there is no such member.
    pub(super) fn raw(&self, key: &str) -> Option<&str> {
        self.members
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.get())
    }

    /// The value as a tree; `None` where it is absent or null.
    pub(super) fn value(&self, key: &str) -> Option<serde_json::Value> {
        let value = serde_json::from_str(self.raw(key)?).ok()?;
        (value != serde_json::Value::Null).then_some(value)
    }

    /// The value as an object of its own; `None` where it is absent or none.
    pub(super) fn object(&self, key: &str) -> Option<Self> {
        Self::parse(self.raw(key)?.as_bytes()).ok()
    }

    /// Gives a member the value that `text` spells, in place, or appends it.
    /// `text` is JSON, indented as the value of a top-level member.
    ///
    /// # Panics
    /// If `text` is not JSON.
    pub(super) fn set_raw(&mut self, key: &str, text: &str) {
        let raw = RawValue::from_string(text.to_owned()).expect("edits write JSON");
        match self.members.iter_mut().find(|(name, _)| name == key) {
            Some((_, value)) if value.get() == raw.get() => return,
            Some((_, value)) => *value = raw,
            None => self.members.push((key.to_owned(), raw)),
        }
        self.changed = true;
    }

    /// Removes a member; nothing happens where there is none.
    pub(super) fn remove(&mut self, key: &str) {
        let before = self.members.len();
        self.members.retain(|(name, _)| name != key);
        self.changed |= self.members.len() != before;
    }

    /// Edits the object that is the value of `key`, `depth` levels below the
    /// top of the file. Nothing happens where the value is no object.
    pub(super) fn edit_nested<E>(
        &mut self,
        key: &str,
        depth: usize,
        edit: impl FnOnce(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(mut nested) = self.object(key) else {
            return Ok(());
        };
        edit(&mut nested)?;
        if nested.changed {
            self.set_raw(key, &nested.render_at(depth));
        }
        Ok(())
    }

    /// The text of the whole file: two blanks a level and a newline at the end,
    /// as the libraries that read these files write them.
    pub(super) fn render(&self) -> Vec<u8> {
        let mut text = self.render_at(0);
        text.push('\n');
        text.into_bytes()
    }

    fn render_at(&self, depth: usize) -> String {
        if self.members.is_empty() {
            return "{}".to_owned();
        }
        let indent = "  ".repeat(depth);
        let lines: Vec<String> = self
            .members
            .iter()
            .map(|(key, value)| format!("{indent}  {}: {}", quote(key), value.get()))
            .collect();
        format!("{{\n{}\n{indent}}}", lines.join(",\n"))
    }
}

/// A string as JSON spells it.
pub(super) fn quote(text: &str) -> String {
    serde_json::to_string(text).expect("a string is always JSON")
}

/// The members of an object, in order.
struct Members(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
    }
}

/// Any JSON value in which no object has the same key twice; keeps nothing.
struct UniqueKeys;

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(UniqueKeys)
    }
}

impl<'de> Visitor<'de> for UniqueKeys {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_unit<E>(self) -> Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self, A::Error> {
        while seq.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut seen = BTreeSet::new();
        while let Some(key) = map.next_key::<String>()? {
            map.next_value::<Self>()?;
            if let Some(key) = seen.replace(key) {
                return Err(de::Error::custom(format!("duplicate key `{key}`")));
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::{btree_map, vec};
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    const CONFIG: &str = "{\n  \"rms_norm_eps\": 1e-05,\n  \"big\": 1000000000000000019884624838656,\n  \"name\": \"caf\\u00e9\",\n  \"list\": [1, 2],\n  \"inner\": {\n    \"a\": 1.0,\n    \"b\": null\n  }\n}\n";

    #[test]
    fn an_edit_keeps_every_other_byte() {
        let mut object = Object::parse(CONFIG.as_bytes()).unwrap();
        object.set_raw("list", "[3]");
        let expected = CONFIG.replace("[1, 2]", "[3]");
        assert_eq!(String::from_utf8(object.render()).unwrap(), expected);
        assert!(object.is_changed());
    }

    #[test]
    fn a_nested_edit_keeps_every_other_byte() {
        let mut object = Object::parse(CONFIG.as_bytes()).unwrap();
        object
            .edit_nested("inner", 1, |inner| {
                inner.set_raw("b", "2");
                Ok::<_, ()>(())
            })
            .unwrap();
        let expected = CONFIG.replace("\"b\": null", "\"b\": 2");
        assert_eq!(String::from_utf8(object.render()).unwrap(), expected);
    }

    proptest! {
        #[test]
        fn text_indented_by_two_is_rendered_as_it_was(
            members in btree_map(".{0,5}", json_value(), 0..6),
        ) {
            let value = Value::Object(members.into_iter().collect());
            let mut text = serde_json::to_vec_pretty(&value).unwrap();
            text.push(b'\n');
            prop_assert_eq!(Object::parse(&text).unwrap().render(), text);
        }
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,5}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 20, 4, |inner| {
            prop_oneof![
                vec(inner.clone(), 0..4).prop_map(Value::from),
                btree_map(".{0,5}", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    #[test]
    fn setting_what_is_there_changes_nothing() {
        let mut object = Object::parse(CONFIG.as_bytes()).unwrap();
        object.set_raw("rms_norm_eps", "1e-05");
        object.remove("absent");
        assert!(!object.is_changed());
    }

    #[test]
    fn a_duplicate_key_is_an_error_at_any_depth() {
        for text in [r#"{"a":1,"a":1}"#, r#"{"x":[{"a":1,"b":2,"a":3}]}"#] {
            let error = Object::parse(text.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("duplicate key `a`"), "{error}");
        }
    }

    #[test]
    fn what_is_no_object_is_an_error() {
        for text in ["", "[]", "{", "{} x", "\"\"", "{\"a\":1,}"] {
            assert!(Object::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(Object::parse(b"{\"a\":\"\xff\"}").is_err());
    }

    #[test]
    fn an_emptied_object_is_still_json() {
        let mut object = Object::parse(b"{\"a\": 1}").unwrap();
        object.remove("a");
        assert_eq!(object.render(), b"{}\n");
    }
}
