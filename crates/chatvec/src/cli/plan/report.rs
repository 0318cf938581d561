//! What is shown of a plan.

use std::collections::HashMap;

use chatvec_core::align::{Decision, IgnoredTensor};
use chatvec_core::plan::INDEX_NAME;
use chatvec_core::problem::Problem;
use chatvec_core::recipe::Recipe;
use chatvec_core::sidefile::{Content, SidePlan};
use chatvec_core::{manifest, stats};
use serde::Serialize;

use crate::coordinator::planner::Draft;

/// Everything that is shown of a plan: the JSON output is this object. Sizes
/// are bytes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Report {
    /// The output folder.
    pub(super) output: String,
    /// cp, then chat and base of each vector.
    pub(super) inputs: Vec<InputLine>,
    pub(super) tensor_count: usize,
    pub(super) merged_count: usize,
    /// What happens to how many tensors, in the order of the first of each.
    pub(super) decisions: Vec<DecisionLine>,
    /// Every tensor in the order of the output, if asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tensors: Option<Vec<TensorLine>>,
    /// Tensors that cp lacks.
    pub(super) ignored: Vec<IgnoredLine>,
    /// The weight files of the output.
    pub(super) files: Vec<FileLine>,
    /// Bytes of weights that are read.
    pub(super) bytes_read: u64,
    /// Bytes of weight files that are written.
    pub(super) bytes_written: u64,
    pub(super) part_bytes: u64,
    pub(super) part_count: u64,
    pub(super) task_count: usize,
    pub(super) side_files: SideFiles,
    /// Of recipe, inputs and output.
    pub(super) warnings: Vec<Problem>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct InputLine {
    pub(super) role: String,
    pub(super) path: String,
    pub(super) tensor_count: usize,
    pub(super) bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct DecisionLine {
    /// `merged …`, `kept: …` or `copied: …`.
    pub(super) decision: String,
    pub(super) tensor_count: usize,
    /// Of these in the output.
    pub(super) bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct TensorLine {
    pub(super) name: String,
    /// In the output.
    pub(super) dtype: String,
    pub(super) shape: Vec<u64>,
    pub(super) decision: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct IgnoredLine {
    pub(super) role: String,
    pub(super) name: String,
    pub(super) dtype: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct FileLine {
    pub(super) name: String,
    pub(super) bytes: u64,
}

/// The small files of the output, by where they come from.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(super) struct SideFiles {
    /// cp's, byte for byte.
    pub(super) from_cp: Vec<String>,
    /// The first chat's, byte for byte.
    pub(super) from_chat: Vec<String>,
    /// cp's with changes, or new.
    pub(super) rewritten: Vec<String>,
    /// Made by the merge.
    pub(super) generated: Vec<String>,
    /// Files of cp that stay behind.
    pub(super) skipped: Vec<SkippedLine>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct SkippedLine {
    pub(super) path: String,
    pub(super) why: String,
}

impl Report {
    /// The report of a draft, with every tensor if asked for.
    pub(super) fn new(
        recipe: &Recipe,
        draft: &Draft,
        warnings: Vec<Problem>,
        list_tensors: bool,
    ) -> Self {
        let plan = &draft.plan;
        let inputs = draft.inputs.all().map(|(role, surveyed)| InputLine {
            role: role.to_string(),
            path: surveyed.location.to_string(),
            tensor_count: surveyed.checkpoint.len(),
            bytes: surveyed.checkpoint.bytes(),
        });
        let files = plan.files.iter().map(|file| FileLine {
            name: file.name.clone(),
            bytes: file.size,
        });
        Self {
            output: recipe.output.url.clone(),
            inputs: inputs.collect(),
            tensor_count: plan.decisions().len(),
            merged_count: plan.merged(),
            decisions: grouped(plan.decisions()),
            tensors: list_tensors.then(|| plan.decisions().iter().map(tensor_line).collect()),
            ignored: plan.alignment.ignored.iter().map(ignored_line).collect(),
            files: files.collect(),
            bytes_read: plan.bytes_read(),
            bytes_written: plan.bytes_written(),
            part_bytes: plan.part_size.bytes(),
            part_count: plan
                .tasks
                .iter()
                .map(|task| u64::from(task.part_count))
                .sum(),
            task_count: plan.tasks.len(),
            side_files: side_files(&draft.sides, plan.files.len()),
            warnings,
        }
    }
}

fn grouped(decisions: &[Decision]) -> Vec<DecisionLine> {
    let mut lines: Vec<DecisionLine> = Vec::new();
    let mut known = HashMap::new();
    for one in decisions {
        let decision = one.outcome.to_string();
        let line = *known.entry(decision.clone()).or_insert_with(|| {
            lines.push(DecisionLine {
                decision,
                tensor_count: 0,
                bytes: 0,
            });
            lines.len() - 1
        });
        lines[line].tensor_count += 1;
        lines[line].bytes += one.output_bytes();
    }
    lines
}

fn tensor_line(decision: &Decision) -> TensorLine {
    TensorLine {
        name: decision.name.clone(),
        dtype: decision.output.to_string(),
        shape: decision.shape.clone(),
        decision: decision.outcome.to_string(),
    }
}

fn ignored_line(tensor: &IgnoredTensor) -> IgnoredLine {
    IgnoredLine {
        role: tensor.role.to_string(),
        name: tensor.name.clone(),
        dtype: tensor.dtype.to_string(),
    }
}

fn side_files(sides: &SidePlan, weight_files: usize) -> SideFiles {
    let mut files = SideFiles::default();
    for file in &sides.files {
        let list = match &file.content {
            Content::Copy => &mut files.from_cp,
            Content::CopyFromChat { .. } => &mut files.from_chat,
            Content::Bytes(_) => &mut files.rewritten,
        };
        list.push(file.path.clone());
    }
    files.generated = ["README.md", stats::report::FILE_NAME, manifest::FILE_NAME]
        .map(str::to_owned)
        .to_vec();
    if weight_files > 1 {
        files.generated.push(INDEX_NAME.to_owned());
    }
    let skipped = sides.skipped.iter();
    files.skipped = skipped
        .map(|(path, why)| SkippedLine {
            path: path.clone(),
            why: why.clone(),
        })
        .collect();
    files
}

#[cfg(test)]
mod tests {
    use chatvec_core::align::{Keep, Outcome, TensorAt};
    use chatvec_core::dtype::Dtype;
    use chatvec_core::sidefile::SideFile;

    use super::*;

    fn kept(name: &str, keep: Keep) -> Decision {
        Decision {
            name: name.to_owned(),
            dtype: Dtype::BF16,
            shape: vec![4],
            cp: TensorAt {
                source: 0,
                offset: 0,
                len: 8,
                dtype: Dtype::BF16,
            },
            output: Dtype::BF16,
            outcome: Outcome::Keep(keep),
        }
    }

    #[test]
    fn tensors_are_grouped_by_what_happens_to_them() {
        let decisions = [
            kept("a", Keep::Rule(0)),
            kept("b", Keep::Buffer),
            kept("c", Keep::Rule(0)),
        ];
        let lines = grouped(&decisions);
        let counts: Vec<_> = lines
            .iter()
            .map(|line| (line.decision.as_str(), line.tensor_count, line.bytes))
            .collect();
        assert_eq!(
            counts,
            [
                ("kept: rules[0]", 2, 16),
                ("copied: a buffer that the model computes", 1, 8)
            ]
        );
    }

    #[test]
    fn side_files_stand_under_where_they_come_from() {
        let file = |path: &str, content| SideFile {
            path: path.to_owned(),
            content,
        };
        let sides = SidePlan {
            files: vec![
                file("LICENSE", Content::Copy),
                file(
                    "chat_template.jinja",
                    Content::CopyFromChat {
                        path: "chat_template.jinja".to_owned(),
                    },
                ),
                file("config.json", Content::Bytes(vec![])),
            ],
            skipped: vec![("log.txt".to_owned(), "not needed".to_owned())],
            warnings: vec![],
        };
        let files = side_files(&sides, 2);
        assert_eq!(files.from_cp, ["LICENSE"]);
        assert_eq!(files.from_chat, ["chat_template.jinja"]);
        assert_eq!(files.rewritten, ["config.json"]);
        assert_eq!(files.skipped[0].path, "log.txt");
        assert!(files.generated.iter().any(|name| name == INDEX_NAME));
        assert!(
            !side_files(&sides, 1)
                .generated
                .iter()
                .any(|name| name == INDEX_NAME)
        );
    }
}
