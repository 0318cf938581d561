//! The tensors of a plan, as a blueprint keeps them: what most of them have in
//! common stands once. The largest models have a hundred thousand.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;

use chatvec_core::align::{Decision, Outcome};
use chatvec_core::dtype::Dtype;
use chatvec_core::plan::Plan;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A tensor of the output.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedTensor {
    /// Its name.
    pub name: String,
    /// Its type in the output.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<u64>,
    /// The position of its file among the weight files.
    #[serde(default)]
    pub file: u32,
    /// What happens to it, and why, for people.
    pub decision: String,
    /// Vector and λ × `lambda_scale` of each term; empty where cp's is kept.
    pub terms: Vec<(u32, f64)>,
}

impl PlannedTensor {
    /// Its bytes in the output.
    pub(super) fn bytes(&self) -> u64 {
        self.shape.iter().product::<u64>() * self.dtype.bitsize() as u64 / 8
    }
}

/// The tensors as they were read back, by ordinal.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PlannedTensors(pub Vec<PlannedTensor>);

/// The tensors of a plan that is there, to be written.
#[derive(Debug, Clone)]
pub struct Decided<'a> {
    decisions: &'a [Decision],
    /// By tensor, the position of its file.
    files: Vec<u32>,
}

/// What happens to a tensor, and the vector and λ of each term.
type What = (String, Vec<(u32, f64)>);

/// Name, type, shape, file, and the position of what happens to it.
type Row = (String, Dtype, Vec<u64>, u32, usize);

/// What is written, after the rows, of all that stands in them by position.
#[derive(Deserialize)]
struct Written {
    rows: Vec<Row>,
    whats: Vec<What>,
}

impl<'a> Decided<'a> {
    pub(super) fn of(plan: &'a Plan) -> Self {
        let mut files = vec![0; plan.decisions().len()];
        for (ordinal, file) in (0u32..).zip(&plan.files) {
            for placed in &file.tensors {
                files[placed.tensor.0 as usize] = ordinal;
            }
        }
        Self {
            decisions: plan.decisions(),
            files,
        }
    }
}

impl Serialize for Decided<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let whats = RefCell::default();
        let rows = Rows {
            tensors: self,
            whats: &whats,
        };
        let mut written = serializer.serialize_struct("tensors", 2)?;
        written.serialize_field("rows", &rows)?;
        written.serialize_field("whats", &whats.borrow().list)?;
        written.end()
    }
}

/// What was met, each once.
#[derive(Default)]
struct Whats {
    list: Vec<What>,
    /// By the text and the bits of the terms.
    positions: HashMap<(String, Vec<(u32, u64)>), usize>,
}

impl Whats {
    fn position(&mut self, decision: &Decision) -> usize {
        let text = decision.outcome.to_string();
        let terms = terms(decision);
        let bits = terms
            .iter()
            .map(|(vector, lambda)| (*vector, lambda.to_bits()));
        let next = self.list.len();
        let known = self.positions.entry((text.clone(), bits.collect()));
        let position = *known.or_insert(next);
        if position == next {
            self.list.push((text, terms));
        }
        position
    }
}

struct Rows<'a> {
    tensors: &'a Decided<'a>,
    whats: &'a RefCell<Whats>,
}

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let tensors = self.tensors.decisions.iter().zip(&self.tensors.files);
        serializer.collect_seq(tensors.map(|(decision, file)| {
            let what = self.whats.borrow_mut().position(decision);
            let Decision {
                name,
                output,
                shape,
                ..
            } = decision;
            (name, output, shape, file, what)
        }))
    }
}

fn terms(decision: &Decision) -> Vec<(u32, f64)> {
    match &decision.outcome {
        Outcome::Keep(_) => Vec::new(),
        Outcome::Merge(merge) => merge
            .terms
            .iter()
            .map(|term| (term.vector as u32, term.lambda))
            .collect(),
    }
}

impl<'de> Deserialize<'de> for PlannedTensors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TensorsVisitor)
    }
}

struct TensorsVisitor;

impl<'de> Visitor<'de> for TensorsVisitor {
    type Value = PlannedTensors;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the tensors of a plan")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<PlannedTensors, A::Error> {
        let Written { rows, whats } = Written::deserialize(MapAccessDeserializer::new(map))?;
        let tensor = |(name, dtype, shape, file, what): Row| {
            let what = whats.get(what);
            let (decision, terms) = what.ok_or_else(|| A::Error::custom("no such decision"))?;
            Ok(PlannedTensor {
                name,
                dtype,
                shape,
                file,
                decision: decision.clone(),
                terms: terms.clone(),
            })
        };
        let tensors = rows.into_iter().map(tensor);
        Ok(PlannedTensors(tensors.collect::<Result<_, _>>()?))
    }

    /// As an earlier version wrote them, which had the text of the index too.
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<PlannedTensors, A::Error> {
        let mut tensors = Vec::new();
        while let Some(tensor) = list.next_element()? {
            tensors.push(tensor);
        }
        Ok(PlannedTensors(tensors))
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    fn read(json: &serde_json::Value) -> Result<PlannedTensors, serde_json::Error> {
        serde_json::from_value(json.clone())
    }

    #[test]
    fn rows_are_read_back_and_so_is_the_list_of_an_earlier_version() {
        let compact = serde_json::json!({
            "rows": [["a", "BF16", [2, 3], 1, 0], ["b", "F32", [], 0, 1], ["c", "BF16", [4], 1, 0]],
            "whats": [["merged", [[0, 0.5]]], ["kept", []]],
        });
        let tensor = |name: &str, dtype, shape, file, decision: &str, terms| PlannedTensor {
            name: name.to_owned(),
            dtype,
            shape,
            file,
            decision: decision.to_owned(),
            terms,
        };
        let expected = [
            tensor("a", Dtype::BF16, vec![2, 3], 1, "merged", vec![(0, 0.5)]),
            tensor("b", Dtype::F32, vec![], 0, "kept", vec![]),
            tensor("c", Dtype::BF16, vec![4], 1, "merged", vec![(0, 0.5)]),
        ];
        let tensors = read(&compact).unwrap().0;
        assert_eq!(tensors, expected);
        let bytes: Vec<u64> = tensors.iter().map(PlannedTensor::bytes).collect();
        assert_eq!(bytes, [12, 4, 8]);
        let list = serde_json::to_value(&tensors).unwrap();
        assert_eq!(read(&list).unwrap().0, expected);
    }

    #[test]
    fn a_row_without_its_decision_is_an_error() {
        let broken = serde_json::json!({ "rows": [["a", "BF16", [1], 0, 1]], "whats": [] });
        let error = read(&broken).unwrap_err().to_string();
        assert!(error.contains("no such decision"), "{error}");
    }
}
