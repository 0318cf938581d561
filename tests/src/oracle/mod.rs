//! Computes every element of a merged checkpoint again, slowly and exactly, and
//! compares bit by bit.
//!
//! The numbers follow the contract: `t = λ₁(chat₁ − base₁); t += λ₂(…); …` in
//! binary64 and in this order, `cp + t` rounded once; where `t` is zero, cp's own
//! bits if the type is unchanged.

mod checkpoint;

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fmt, thread};

use anyhow::{Context as _, bail, ensure};
use safetensors::Dtype;

use crate::float::Format;
use checkpoint::{Checkpoint, Tensor};

/// Elements that are compared at a time.
const CHUNK_ELEMENTS: u64 = 1 << 18;

/// Float tensors that are computed from the configuration and never merged.
const BUFFERS: [&str; 5] = [
    "rotary_emb.inv_freq",
    ".cos_cached",
    ".sin_cached",
    "position_ids",
    "masked_bias",
];

/// One chat vector.
#[derive(Debug, Clone)]
pub struct Vector {
    /// θ_chat's folder.
    pub chat: PathBuf,
    /// θ_base's folder.
    pub base: PathBuf,
    /// λ.
    pub lambda: f64,
}

/// What becomes of one tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// cp and every vector, λ times `scale`.
    Merge {
        /// Multiplies each λ.
        scale: f64,
    },
    /// cp alone.
    KeepCp,
}

/// What the output ought to be.
pub struct Expectation<'a> {
    /// θ_cp's folder.
    pub cp: PathBuf,
    /// In the order of the recipe.
    pub vectors: Vec<Vector>,
    /// Type of every merged tensor, where it is not cp's.
    pub dtype: Option<Dtype>,
    /// Decides a tensor by its name.
    pub rule: &'a (dyn Fn(&str) -> Rule + Sync),
}

/// What was compared and what was found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Report {
    /// Tensors of the output.
    pub tensors: usize,
    /// Of these, copied from cp without looking at their numbers.
    pub copied: usize,
    /// Elements of all tensors.
    pub elements: u64,
    /// Elements that are not what they ought to be.
    pub differing: u64,
    /// The first of them, in the order of names and positions.
    pub first: Option<Difference>,
}

/// An element that is not what it ought to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Difference {
    /// The tensor.
    pub tensor: String,
    /// Position in the tensor, row by row.
    pub element: u64,
    /// The bits found.
    pub found: u64,
    /// The bits expected.
    pub expected: u64,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` element {}: expected bits {:#x}, found {:#x}",
            self.tensor, self.element, self.expected, self.found
        )
    }
}

/// Compares the checkpoint in `out` with what it ought to be, element by element.
///
/// # Errors
/// A file that cannot be read or is malformed, an index that contradicts the
/// files, a tensor that is missing, superfluous, or of a wrong shape or type.
/// Wrong elements are no error: they are counted in the report.
pub fn verify(out: &Path, expected: &Expectation<'_>) -> anyhow::Result<Report> {
    let inputs = Inputs {
        out: Checkpoint::open(out)?,
        cp: Checkpoint::open(&expected.cp)?,
        vectors: expected
            .vectors
            .iter()
            .map(|vector| {
                Ok((
                    vector.lambda,
                    Checkpoint::open(&vector.chat)?,
                    Checkpoint::open(&vector.base)?,
                ))
            })
            .collect::<anyhow::Result<_>>()?,
    };
    let beyond = |these: &Checkpoint, those: &Checkpoint| {
        let mut names = these.tensors.keys();
        names
            .find(|name| !those.tensors.contains_key(*name))
            .cloned()
    };
    if let Some(name) = beyond(&inputs.out, &inputs.cp) {
        bail!("`{name}` is in the output and not in cp");
    }
    if let Some(name) = beyond(&inputs.cp, &inputs.out) {
        bail!("`{name}` is in cp and not in the output");
    }

    let mut jobs = Vec::new();
    let mut report = Report::default();
    for name in inputs.out.tensors.keys() {
        let job = inputs
            .comparison(name, expected)
            .with_context(|| format!("tensor `{name}`"))?;
        report.tensors += 1;
        report.copied += usize::from(matches!(job.kind, Kind::Copy { .. }));
        report.elements += job.elements;
        jobs.push(job);
    }
    let total = compare_all(&jobs)?;
    report.differing = total.differing;
    report.first = total.first;
    Ok(report)
}

struct Inputs {
    out: Checkpoint,
    cp: Checkpoint,
    vectors: Vec<(f64, Checkpoint, Checkpoint)>,
}

/// One tensor to compare.
struct Comparison<'a> {
    name: &'a str,
    elements: u64,
    out: &'a Tensor,
    cp: &'a Tensor,
    kind: Kind<'a>,
}

enum Kind<'a> {
    Copy {
        width: usize,
    },
    Merge {
        out: Format,
        cp: Format,
        terms: Vec<Term<'a>>,
    },
}

struct Term<'a> {
    lambda: f64,
    chat: (&'a Tensor, Format),
    base: (&'a Tensor, Format),
}

impl Inputs {
    fn comparison<'a>(
        &'a self,
        name: &'a str,
        expected: &Expectation<'_>,
    ) -> anyhow::Result<Comparison<'a>> {
        let (out, cp) = (&self.out.tensors[name], &self.cp.tensors[name]);
        ensure!(
            out.shape == cp.shape,
            "expected cp's shape {:?}, found {:?}",
            cp.shape,
            out.shape
        );
        let elements = cp.shape.iter().map(|extent| *extent as u64).product();
        let format = Format::of(cp.dtype).filter(|_| !is_buffer(name, &cp.shape));
        let Some(cp_format) = format else {
            ensure_dtype(out, cp.dtype)?;
            let kind = Kind::Copy {
                width: cp.dtype.bitsize() / 8,
            };
            return Ok(Comparison {
                name,
                elements,
                out,
                cp,
                kind,
            });
        };

        let dtype = expected.dtype.unwrap_or(cp.dtype);
        ensure_dtype(out, dtype)?;
        let mut terms = Vec::new();
        if let Rule::Merge { scale } = (expected.rule)(name) {
            for (lambda, chat, base) in &self.vectors {
                let lambda = lambda * scale;
                if lambda != 0.0 {
                    terms.push(Term {
                        lambda,
                        chat: operand(chat, name, cp).context("in chat")?,
                        base: operand(base, name, cp).context("in base")?,
                    });
                }
            }
        }
        let kind = Kind::Merge {
            out: Format::of(dtype).context("the output type is no floating-point type")?,
            cp: cp_format,
            terms,
        };
        Ok(Comparison {
            name,
            elements,
            out,
            cp,
            kind,
        })
    }
}

/// Whether a float tensor is copied: a known buffer, or a causal mask that is
/// stored under the name of a bias.
fn is_buffer(name: &str, shape: &[usize]) -> bool {
    let is_bias = name.ends_with("attn.bias") || name.ends_with("attention.bias");
    let is_mask = matches!(shape, [1, 1, rows, columns] if rows == columns);
    BUFFERS.iter().any(|suffix| name.ends_with(suffix)) || (is_bias && is_mask)
}

fn ensure_dtype(out: &Tensor, dtype: Dtype) -> anyhow::Result<()> {
    ensure!(
        out.dtype == dtype,
        "expected type {dtype}, found {}",
        out.dtype
    );
    Ok(())
}

fn operand<'a>(
    checkpoint: &'a Checkpoint,
    name: &str,
    cp: &Tensor,
) -> anyhow::Result<(&'a Tensor, Format)> {
    let tensor = checkpoint.tensors.get(name).context("no such tensor")?;
    ensure!(
        tensor.shape == cp.shape,
        "expected cp's shape {:?}, found {:?}",
        cp.shape,
        tensor.shape
    );
    let format = Format::of(tensor.dtype).context("not of a floating-point type")?;
    Ok((tensor, format))
}

/// What one thread, or all of them, found.
#[derive(Default)]
struct Findings {
    differing: u64,
    first: Option<Difference>,
}

impl Findings {
    fn absorb(&mut self, other: Self) {
        self.differing += other.differing;
        if let Some(difference) = other.first {
            self.keep_first(difference);
        }
    }

    fn keep_first(&mut self, difference: Difference) {
        let place = |d: &Difference| (d.tensor.clone(), d.element);
        if self
            .first
            .as_ref()
            .is_none_or(|first| place(&difference) < place(first))
        {
            self.first = Some(difference);
        }
    }
}

/// Spreads the chunks of all tensors over the processors.
fn compare_all(jobs: &[Comparison<'_>]) -> anyhow::Result<Findings> {
    let chunks: Vec<(&Comparison<'_>, u64)> = jobs
        .iter()
        .flat_map(|job| {
            (0..job.elements.div_ceil(CHUNK_ELEMENTS)).map(move |n| (job, n * CHUNK_ELEMENTS))
        })
        .collect();
    let next = AtomicUsize::new(0);
    let total = Mutex::new(Findings::default());
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let run = || -> anyhow::Result<()> {
            let mut mine = Findings::default();
            while let Some((job, first)) = chunks.get(next.fetch_add(1, Ordering::Relaxed)) {
                job.compare(*first, &mut mine)
                    .with_context(|| format!("cannot compare `{}`", job.name))?;
            }
            total.lock().expect("no thread panics with it").absorb(mine);
            Ok(())
        };
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().expect("workers do not panic"))
    })?;
    Ok(total.into_inner().expect("no thread panicked with it"))
}

impl Comparison<'_> {
    fn compare(&self, first: u64, findings: &mut Findings) -> anyhow::Result<()> {
        let count = CHUNK_ELEMENTS.min(self.elements - first) as usize;
        let differences = match &self.kind {
            Kind::Copy { width } => self.compare_copy(*width, first, count)?,
            Kind::Merge { out, cp, terms } => self.compare_merge(*out, *cp, terms, first, count)?,
        };
        findings.differing += differences.len() as u64;
        if let Some((position, expected, found)) = differences.into_iter().next() {
            findings.keep_first(Difference {
                tensor: self.name.to_owned(),
                element: first + position as u64,
                found,
                expected,
            });
        }
        Ok(())
    }

    fn compare_copy(
        &self,
        width: usize,
        first: u64,
        count: usize,
    ) -> anyhow::Result<Vec<(usize, u64, u64)>> {
        let found = self.out.read(first, count)?;
        let expected = self.cp.read(first, count)?;
        let pattern = |bytes: &[u8]| {
            bytes
                .iter()
                .rev()
                .fold(0, |sum, byte| (sum << 8) | u64::from(*byte))
        };
        Ok(found
            .chunks(width)
            .zip(expected.chunks(width))
            .enumerate()
            .filter(|(_, (found, expected))| found != expected)
            .map(|(position, (found, expected))| (position, pattern(expected), pattern(found)))
            .collect())
    }

    fn compare_merge(
        &self,
        out_format: Format,
        cp_format: Format,
        terms: &[Term<'_>],
        first: u64,
        count: usize,
    ) -> anyhow::Result<Vec<(usize, u64, u64)>> {
        let found = self.out.read(first, count)?;
        let cp = self.cp.read(first, count)?;
        let operands: Vec<_> = terms
            .iter()
            .map(|term| {
                let chat = term.chat.0.read(first, count)?;
                let base = term.base.0.read(first, count)?;
                Ok((term, chat, base))
            })
            .collect::<anyhow::Result<_>>()?;

        let mut differences = Vec::new();
        for position in 0..count {
            let mut sum: Option<f64> = None;
            for (term, chat, base) in &operands {
                let value = |(_, format): (&Tensor, Format), bytes| {
                    format.decode(format.load(bytes, position))
                };
                let share = term.lambda * (value(term.chat, chat) - value(term.base, base));
                sum = Some(sum.map_or(share, |sum| sum + share));
            }
            let pattern = cp_format.load(&cp, position);
            let expected = match sum {
                Some(sum) if sum != 0.0 => out_format.round(cp_format.decode(pattern) + sum),
                _ if out_format == cp_format => pattern,
                _ => out_format.round(cp_format.decode(pattern)),
            };
            let got = out_format.load(&found, position);
            let are_nan = out_format.decode(expected).is_nan() && out_format.decode(got).is_nan();
            // A computed NaN has no bits of its own; one that cp had must be kept.
            let is_free = sum.is_some_and(|sum| sum != 0.0) || out_format != cp_format;
            if got != expected && !(are_nan && is_free) {
                differences.push((position, expected, got));
            }
        }
        Ok(differences)
    }
}

#[cfg(test)]
mod tests;
