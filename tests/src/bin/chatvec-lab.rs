//! Makes model families, verifies merges and measures them.

#![expect(
    clippy::print_stdout,
    reason = "a tool of the workspace that talks to people"
)]

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use chatvec_tests::bench::{Bench, Floor, floor};
use chatvec_tests::changes::greatest;
use chatvec_tests::family::{Family, FamilySpec, write_sparse};
use chatvec_tests::oracle::{Expectation, Rule, Vector, verify};
use chatvec_tests::python;
use clap::{Args, Parser, Subcommand, ValueEnum};
use safetensors::Dtype;

#[derive(Parser)]
#[command(about = "Makes model families, verifies merges and measures them")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write the checkpoints cp, chat and base, made from a seed
    Family(FamilyArgs),
    /// Compute every element of a merge again and compare it bit by bit
    Verify(VerifyArgs),
    /// Show which tensors a merge changed most
    Changes(ChangesArgs),
    /// Read three checkpoints and copy one: what no merge can be faster than
    Floor(FloorArgs),
    /// Measure chatvec next to the floor and to a numpy loop
    Bench(BenchArgs),
}

#[derive(Clone, Copy, ValueEnum)]
enum Preset {
    /// 10 MB a checkpoint
    Tiny,
    /// 150 MB a checkpoint
    Demo,
    /// 2.2 GB a checkpoint
    #[value(name = "llama-1b")]
    Llama1b,
    /// 8.8 GB a checkpoint
    #[value(name = "llama-4b")]
    Llama4b,
    /// 163 files with 91,000 tensors a checkpoint; the weights are holes
    #[value(name = "moe-671b")]
    Moe671b,
}

#[derive(Args)]
struct FamilyArgs {
    /// Its size
    #[arg(long, value_enum)]
    preset: Preset,
    /// The seed of every weight
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// The folder that gets cp, chat and base
    #[arg(long)]
    out: PathBuf,
}

#[derive(Args)]
struct VerifyArgs {
    /// θ_cp's folder
    #[arg(long)]
    cp: PathBuf,
    /// θ_chat's folder; once for each vector
    #[arg(long, required = true)]
    chat: Vec<PathBuf>,
    /// θ_base's folder; once for each vector
    #[arg(long, required = true)]
    base: Vec<PathBuf>,
    /// λ; once for each vector
    #[arg(long, required = true, allow_negative_numbers = true)]
    lambda: Vec<f64>,
    /// Tensors whose name holds this text are cp's own; may be repeated
    #[arg(long)]
    keep: Vec<String>,
    /// The type of every merged tensor, where it is not cp's
    #[arg(long, value_enum)]
    dtype: Option<OutputType>,
    /// The merged checkpoint
    #[arg(long)]
    out: PathBuf,
}

#[derive(Clone, Copy, ValueEnum)]
enum OutputType {
    Bf16,
    F16,
    F32,
}

impl From<OutputType> for Dtype {
    fn from(output: OutputType) -> Self {
        match output {
            OutputType::Bf16 => Self::BF16,
            OutputType::F16 => Self::F16,
            OutputType::F32 => Self::F32,
        }
    }
}

#[derive(Args)]
struct ChangesArgs {
    /// The merged checkpoint
    #[arg(long)]
    out: PathBuf,
    /// How many tensors
    #[arg(long, default_value_t = 5)]
    top: usize,
}

#[derive(Args)]
struct FloorArgs {
    /// The folder with cp, chat and base
    #[arg(long)]
    family: PathBuf,
    /// The folder that gets the copy
    #[arg(long)]
    out: PathBuf,
}

#[derive(Args)]
struct BenchArgs {
    /// Rounds of the side-by-side comparison
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Merge the family of four times the size too (35 GB of disk)
    #[arg(long)]
    large: bool,
    /// The binary to measure; by default the one beside this tool
    #[arg(long)]
    chatvec: Option<PathBuf>,
    /// Where families and outputs lie
    #[arg(long)]
    folder: Option<PathBuf>,
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Family(arguments) => write_family(&arguments),
        Command::Verify(arguments) => return verify_merge(arguments),
        Command::Changes(ChangesArgs { out, top }) => {
            greatest(&out, top).map(|table| print!("{table}"))
        }
        Command::Floor(arguments) => floor(&Floor {
            family: Family {
                root: arguments.family,
            },
            out: arguments.out,
        })
        .context("cannot copy"),
        Command::Bench(arguments) => run_bench(arguments),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn write_family(arguments: &FamilyArgs) -> anyhow::Result<()> {
    let seed = arguments.seed;
    let spec = match arguments.preset {
        Preset::Tiny => FamilySpec::tiny(seed),
        Preset::Demo => FamilySpec::demo(seed),
        Preset::Llama1b => FamilySpec::llama_1b(seed),
        Preset::Llama4b => FamilySpec::llama_4b(seed),
        Preset::Moe671b => {
            write_sparse(&arguments.out)?;
            return Ok(());
        }
    };
    spec.write(&arguments.out)?;
    Ok(())
}

fn verify_merge(arguments: VerifyArgs) -> anyhow::Result<ExitCode> {
    let VerifyArgs {
        cp,
        chat,
        base,
        lambda,
        keep,
        dtype,
        out,
    } = arguments;
    anyhow::ensure!(
        chat.len() == base.len() && chat.len() == lambda.len(),
        "expected as many --chat as --base as --lambda, found {}, {} and {}",
        chat.len(),
        base.len(),
        lambda.len()
    );
    let vectors = chat
        .into_iter()
        .zip(base)
        .zip(lambda)
        .map(|((chat, base), lambda)| Vector { chat, base, lambda })
        .collect();
    let rule = |name: &str| match keep.iter().any(|part| name.contains(part)) {
        true => Rule::KeepCp,
        false => Rule::Merge { scale: 1.0 },
    };
    let report = verify(
        &out,
        &Expectation {
            cp,
            vectors,
            dtype: dtype.map(Dtype::from),
            rule: &rule,
        },
    )?;
    println!(
        "{} tensors, {} elements compared bit by bit: {} differ",
        report.tensors, report.elements, report.differing
    );
    Ok(match report.first {
        Some(difference) => {
            println!("first difference: {difference}");
            ExitCode::FAILURE
        }
        None => ExitCode::SUCCESS,
    })
}

fn run_bench(arguments: BenchArgs) -> anyhow::Result<()> {
    let lab = std::env::current_exe().context("cannot find this tool's own path")?;
    let chatvec = arguments
        .chatvec
        .unwrap_or_else(|| lab.with_file_name("chatvec"));
    let folder = arguments
        .folder
        .unwrap_or_else(|| python::repository().join("target/bench"));
    let bench = Bench {
        chatvec,
        lab,
        folder,
        runs: arguments.runs,
        large: arguments.large,
    };
    println!("{}", bench.run()?);
    Ok(())
}
