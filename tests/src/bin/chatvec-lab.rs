//! Makes model families, verifies merges and measures them.

#![expect(
    clippy::print_stdout,
    reason = "a tool of the workspace that talks to people"
)]

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use std::{fs, io};

use anyhow::Context as _;
use chatvec_tests::bench::{
    Bench, ClaimsBench, Figures, FleetBench, Floor, ObjectFloor, PlanBench, Projection, QueueBench,
    ScaleBench, floor, object_floor, summary,
};
use chatvec_tests::changes::greatest;
use chatvec_tests::cluster::{self, walk};
use chatvec_tests::component::{Access, BUCKET, Bucket, Identity, Postgres, SeaweedFs};
use chatvec_tests::family::{Family, FamilySpec, write_sparse};
use chatvec_tests::oracle::{Expectation, Rule, Vector, verify};
use chatvec_tests::page;
use chatvec_tests::python;
use chatvec_tests::random::any_seed;
use chatvec_tests::soak::Soak;
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
    /// Run a Postgres and a SeaweedFS of their own until stdin ends
    Services(ServicesArgs),
    /// Copy the files of a folder into the bucket that the environment names
    Upload(TransferArgs),
    /// Copy objects out of the bucket that the environment names
    Download(TransferArgs),
    /// Put the results of the crash matrix's last run into a page
    Matrix(MatrixArgs),
    /// Attack a fleet with random faults while it works, and check what happened
    Soak(SoakArgs),
    /// Crash, hold up and fail the program at every failpoint, on every store
    WalkFaults(WalkFaultsArgs),
    /// Fetch three checkpoints and put one: what no worker can be faster than
    ObjectFloor(ObjectFloorArgs),
    /// Measure a worker between buckets next to the floor, and an idle fleet
    BenchFleet(BenchFleetArgs),
    /// Measure the plan of 91,000 tensors a checkpoint in a bucket
    BenchPlan(BenchPlanArgs),
    /// Measure throughput by the number of workers, each behind a narrow network
    BenchScale(BenchScaleArgs),
    /// Measure how many tasks a second are claimed and completed on Postgres
    BenchClaims(BenchClaimsArgs),
    /// Measure fairness between tenants with long queues, and clients meanwhile
    BenchQueue(BenchQueueArgs),
    /// Compute from the last measurements what larger models and fleets take
    Projection(PageArgs),
    /// Show the aims of a fleet beside the last measurements
    BenchSummary(PageArgs),
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

impl Preset {
    /// What the family looks like; `None` where it is made of holes.
    fn spec(self, seed: u64) -> Option<FamilySpec> {
        match self {
            Self::Tiny => Some(FamilySpec::tiny(seed)),
            Self::Demo => Some(FamilySpec::demo(seed)),
            Self::Llama1b => Some(FamilySpec::llama_1b(seed)),
            Self::Llama4b => Some(FamilySpec::llama_4b(seed)),
            Self::Moe671b => None,
        }
    }
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

#[derive(Args)]
struct ServicesArgs {
    /// Gets the variables that clients need, for a shell to read, once all are ready
    #[arg(long)]
    environment: PathBuf,
}

#[derive(Args)]
struct MatrixArgs {
    /// The page, which has the marks between which the table goes
    page: PathBuf,
}

#[derive(Args)]
struct SoakArgs {
    /// How long faults come
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Decides everything that is drawn; another one each time unless it is given
    #[arg(long)]
    seed: Option<u64>,
}

#[derive(Args)]
struct WalkFaultsArgs {
    #[command(flatten)]
    chosen: walk::Chosen,
}

#[derive(Args)]
struct TransferArgs {
    /// The folder of the files
    #[arg(long)]
    folder: PathBuf,
    /// What the keys of the objects begin with, before a slash
    #[arg(long)]
    prefix: String,
}

#[derive(Args)]
struct ObjectFloorArgs {
    /// The prefix of cp, chat and base
    #[arg(long)]
    family: String,
    /// The prefix of the copy
    #[arg(long)]
    out: String,
    /// Parts at once
    #[arg(long)]
    slots: usize,
}

#[derive(Args)]
struct BenchFleetArgs {
    /// The size of the family
    #[arg(long, value_enum, default_value = "llama-1b")]
    preset: Preset,
    /// Rounds of the side-by-side comparison
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Parts at once
    #[arg(long, default_value_t = 4)]
    slots: u32,
    /// The worker's memory
    #[arg(long, default_value_t = 1024)]
    memory_mib: u64,
    /// How long the idle fleet is watched
    #[arg(long, default_value_t = 60)]
    idle_s: u64,
    /// Where the family lies before it is uploaded
    #[arg(long)]
    folder: Option<PathBuf>,
}

#[derive(Args)]
struct BenchPlanArgs {
    /// Jobs to plan
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Where the family lies before it is uploaded
    #[arg(long)]
    folder: Option<PathBuf>,
    #[command(flatten)]
    page: PageArgs,
}

#[derive(Args)]
struct BenchScaleArgs {
    /// How many workers, ascending
    #[arg(long, value_delimiter = ',', default_value = "1,2,4,8,16")]
    workers: Vec<u32>,
    /// Tasks of 8 MiB for each worker
    #[arg(long, default_value_t = 40)]
    tasks_per_worker: u32,
    /// What each worker's network lets through in a direction, in MB/s
    #[arg(long, default_value_t = 16.0)]
    rate_mb_s: f64,
    /// Tasks at once, of each worker
    #[arg(long, default_value_t = 2)]
    slots: u32,
    /// Each worker's memory
    #[arg(long, default_value_t = 192)]
    memory_mib: u64,
    /// Parts of 64 MiB of the runs without limits
    #[arg(long, default_value_t = 32)]
    large_parts: u32,
    /// The file that gets the plot
    #[arg(long)]
    plot: Option<PathBuf>,
    #[command(flatten)]
    page: PageArgs,
}

#[derive(Args)]
struct BenchClaimsArgs {
    /// Tasks of a job
    #[arg(long, default_value_t = 20_000)]
    tasks: usize,
    /// Simulated workers
    #[arg(long, default_value_t = 64)]
    workers: u32,
    /// Tasks that each claims, and completes, at once
    #[arg(long, default_value_t = 32)]
    batch: u32,
    /// How long a foreign transaction is open while jobs run
    #[arg(long, default_value_t = 120)]
    held_s: u64,
    #[command(flatten)]
    page: PageArgs,
}

#[derive(Args)]
struct BenchQueueArgs {
    /// Jobs of all tenants together
    #[arg(long, default_value_t = 1000)]
    jobs: usize,
    /// Tenants, of weights from 1 to 4 in turns
    #[arg(long, default_value_t = 20)]
    tenants: usize,
    /// Simulated workers
    #[arg(long, default_value_t = 20)]
    workers: u32,
    /// Tasks that each takes at once
    #[arg(long, default_value_t = 2)]
    batch: u32,
    /// How long it takes for them
    #[arg(long, default_value_t = 250)]
    work_ms: u64,
    #[command(flatten)]
    page: PageArgs,
}

/// Where figures go beside stdout.
#[derive(Args)]
struct PageArgs {
    /// The page that gets the tables, between the marks where they go
    #[arg(long)]
    page: Option<PathBuf>,
}

impl PageArgs {
    /// Prints figures, keeps them, and puts them into the page if there is one.
    fn publish(&self, figures: &impl Figures) -> anyhow::Result<()> {
        println!("{}", figures.markdown());
        figures.keep()?;
        match &self.page {
            Some(page) => figures.put_into(page),
            None => Ok(()),
        }
    }
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
        Command::Services(arguments) => run_services(&arguments),
        Command::Matrix(MatrixArgs { page }) => cluster::write_into(&page),
        Command::Soak(arguments) => return soak(&arguments),
        Command::WalkFaults(arguments) => {
            walk::walk_all(&arguments.chosen, |line| println!("{line}"))
        }
        Command::Upload(arguments) => {
            environment_bucket()?.upload(&arguments.folder, &arguments.prefix)
        }
        Command::Download(arguments) => {
            environment_bucket()?.download(&arguments.prefix, &arguments.folder)
        }
        Command::ObjectFloor(arguments) => object_floor(
            &ObjectFloor {
                bucket: BUCKET.to_owned(),
                family: arguments.family,
                out: arguments.out,
                slots: arguments.slots,
            },
            &Access::from_environment()?,
        ),
        Command::BenchFleet(arguments) => bench_fleet(arguments),
        Command::BenchPlan(BenchPlanArgs { runs, folder, page }) => {
            let folder = folder.unwrap_or_else(bench_folder);
            page.publish(&PlanBench { folder, runs }.run()?)
        }
        Command::Projection(PageArgs { page }) => {
            show(page, "projection", &Projection::of_kept()?.markdown())
        }
        Command::BenchSummary(PageArgs { page }) => show(page, "summary", &summary()?),
        Command::BenchScale(arguments) => bench_scale(arguments),
        Command::BenchClaims(arguments) => {
            let bench = ClaimsBench {
                tasks: arguments.tasks,
                workers: arguments.workers,
                batch: arguments.batch,
                held: Duration::from_secs(arguments.held_s),
            };
            arguments.page.publish(&bench.run()?)
        }
        Command::BenchQueue(arguments) => {
            let bench = QueueBench {
                jobs: arguments.jobs,
                tenants: arguments.tenants,
                workers: arguments.workers,
                batch: arguments.batch,
                work: Duration::from_millis(arguments.work_ms),
            };
            arguments.page.publish(&bench.run()?)
        }
    }?;
    Ok(ExitCode::SUCCESS)
}

fn write_family(arguments: &FamilyArgs) -> anyhow::Result<()> {
    match arguments.preset.spec(arguments.seed) {
        Some(spec) => spec.write(&arguments.out)?,
        None => write_sparse(&arguments.out)?,
    };
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

fn run_services(arguments: &ServicesArgs) -> anyhow::Result<()> {
    let (postgres, seaweedfs) = (Postgres::start(), SeaweedFs::start());
    let access = seaweedfs.access(Identity::Owner);
    let mut text = format!("export CHATVEC_DATABASE_URL='{}'\n", postgres.url());
    for (name, value) in access.environment() {
        writeln!(text, "export {name}='{value}'")?;
    }
    // Whoever waits for the file reads all of it.
    let unfinished = arguments.environment.with_extension("tmp");
    fs::write(&unfinished, text)?;
    fs::rename(&unfinished, &arguments.environment)?;
    io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn soak(arguments: &SoakArgs) -> anyhow::Result<ExitCode> {
    let soak = Soak {
        seed: arguments.seed.unwrap_or_else(any_seed),
        time: Duration::from_secs(arguments.seconds),
    };
    println!("seed {}", soak.seed);
    let report = soak.run()?;
    println!("{report}");
    Ok(match report.violations.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn environment_bucket() -> anyhow::Result<Bucket> {
    Ok(Bucket::new(BUCKET, Access::from_environment()?))
}

/// Where families and outputs of measurements lie unless told otherwise.
fn bench_folder() -> PathBuf {
    python::repository().join("target/bench")
}

/// Prints a text, and puts it into the page if there is one.
fn show(page: Option<PathBuf>, name: &str, text: &str) -> anyhow::Result<()> {
    println!("{text}");
    page.map_or(Ok(()), |page| page::put(&page, name, text))
}

fn own_path() -> anyhow::Result<PathBuf> {
    std::env::current_exe().context("cannot find this tool's own path")
}

fn bench_scale(arguments: BenchScaleArgs) -> anyhow::Result<()> {
    let bench = ScaleBench {
        lab: own_path()?,
        workers: arguments.workers,
        tasks_per_worker: arguments.tasks_per_worker,
        rate_mb_s: arguments.rate_mb_s,
        slots: arguments.slots,
        memory_mib: arguments.memory_mib,
        large_parts: arguments.large_parts,
    };
    let figures = bench.run()?;
    if let Some(plot) = arguments.plot {
        figures.draw(&plot)?;
    }
    arguments.page.publish(&figures)
}

fn bench_fleet(arguments: BenchFleetArgs) -> anyhow::Result<()> {
    let spec = arguments.preset.spec(1);
    let bench = FleetBench {
        lab: own_path()?,
        folder: arguments.folder.unwrap_or_else(bench_folder),
        family: spec.context("holes are not uploaded")?,
        runs: arguments.runs,
        slots: arguments.slots,
        memory_mib: arguments.memory_mib,
        idle: Duration::from_secs(arguments.idle_s),
    };
    println!("{}", bench.run()?);
    Ok(())
}

fn run_bench(arguments: BenchArgs) -> anyhow::Result<()> {
    let lab = own_path()?;
    let chatvec = arguments
        .chatvec
        .unwrap_or_else(|| lab.with_file_name("chatvec"));
    let folder = arguments.folder.unwrap_or_else(bench_folder);
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
