//! The command line: every flag, declared once. Help, parsing and checking follow from it (clap's derive).

use super::bundle::Kind;
use super::learning::Learning;
use clap::builder::TypedValueParser;
use clap::{Arg, ArgAction, Args, Parser, Subcommand, ValueEnum};
use nncc_train::picture::{Crop, Filter, Order, Preparation};
use nncc_train::recipe::Recipe;
use nncc_train::search::How;
use std::path::PathBuf;

/// Compiles an ONNX model into one self-contained native library
#[derive(Debug, Parser)]
#[command(name = "nncc", version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(disable_help_flag = true, disable_help_subcommand = true)]
#[command(after_help = "nncc model.onnx -o model.so && nncc run model.so --input image=cat.png --labels labels.txt")]
pub struct Cli {
    /// What to do instead of compiling.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Compiling.
    #[command(flatten)]
    pub compile: Compile,
    /// Print what is done; twice for more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,
    /// Print this; `nncc COMMAND --help` for a command's own
    // One line an option under either spelling, so that it fits a screen.
    #[arg(short, long, global = true, action = ArgAction::HelpShort)]
    pub help: Option<bool>,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a model or a library on files; print or save its outputs
    Run(Run),
    /// Print a model by layers: parameters, MACs, receptive fields
    Inspect(Inspect),
    /// Measure a library: load, first run, latency, memory
    Bench(Bench),
    /// Compare a library with the reference evaluator, node by node
    Verify(Verify),
    /// Write a network to be trained, with initialised weights
    New(New),
    /// Teach a model from data
    Train(Box<Train>),
    /// Measure a model on data
    Eval(Box<Eval>),
    /// Put several models into one that says what they say together
    Ensemble(Ensemble),
    /// What `--help` prints; not listed there, which would cost it a line
    #[command(hide = true)]
    Help,
}

/// Flags that say what a model is: shared by everything that reads an .onnx file.
#[derive(Clone, Debug, Default, Args)]
pub struct Importing {
    /// Fix a symbolic dimension; several sizes make several shape sets
    #[arg(long = "dim", value_name = "NAME=N,..", value_parser = parse_dim)]
    pub dims: Vec<(String, Vec<i64>)>,
    /// Compile for batches of this size; several make several shape sets
    #[arg(long = "batch", value_name = "N,..", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..))]
    pub batches: Vec<u32>,
    /// Say an input's shape: x=1x3x224x224
    #[arg(long = "shape", value_name = "NAME=SHAPE", value_parser = parse_shape)]
    pub shapes: Vec<(String, Vec<usize>)>,
    /// Make an input a constant, one that decides shapes
    #[arg(long = "fix", value_name = "NAME=NPY", value_parser = parse_named_file)]
    pub fixed: Vec<(String, PathBuf)>,
}

/// Flags that say how a model is compiled: shared by everything that compiles one.
#[derive(Clone, Debug, Default, Args)]
pub struct Compiling {
    /// Flags of importing.
    #[command(flatten)]
    pub importing: Importing,
    /// Such as x86-64-v3, neoverse-n1 or native [default: all levels]
    #[arg(long, value_name = "CPU")]
    pub target_cpu: Option<String>,
    /// Optimization level, 0 to 3
    #[arg(short = 'O', value_name = "LEVEL", default_value_t = DEFAULT_OPT_LEVEL, value_parser = clap::value_parser!(u8).range(0..=3))]
    pub opt_level: u8,
    /// Winograd's 3x3 convolutions: auto, off, aggressive
    #[arg(long, value_name = "WHEN", default_value = "auto", value_enum, hide_possible_values = true)]
    pub winograd: Winograd,
    /// Consecutive layers in bands of rows: auto, off, on
    #[arg(long, value_name = "WHEN", default_value = "auto", value_enum, hide_possible_values = true)]
    pub bands: Bands,
    /// Prefer a small library to a fast one
    #[arg(long)]
    pub size: bool,
    /// Leave algorithms out, to see what they are good for
    #[arg(long, value_name = "NAME,..", value_delimiter = ',', value_parser = switches(), hide_short_help = true)]
    pub disable: Vec<nncc::Switch>,
}

impl Compiling {
    /// A flag that asks for something else than the default, if there is one: what is compiled already cannot heed it.
    pub fn given(&self) -> Option<&'static str> {
        let Self {
            importing: Importing { dims, batches, shapes, fixed },
            target_cpu,
            opt_level,
            winograd,
            bands,
            size,
            disable,
        } = self;
        [
            (!dims.is_empty(), "--dim"),
            (!batches.is_empty(), "--batch"),
            (!shapes.is_empty(), "--shape"),
            (!fixed.is_empty(), "--fix"),
            (target_cpu.is_some(), "--target-cpu"),
            (*opt_level != DEFAULT_OPT_LEVEL, "-O"),
            (*winograd != Winograd::default(), "--winograd"),
            (*bands != Bands::default(), "--bands"),
            (*size, "--size"),
            (!disable.is_empty(), "--disable"),
        ]
        .into_iter()
        .find_map(|(given, flag)| given.then_some(flag))
    }
}

/// `-O` when it is not given.
const DEFAULT_OPT_LEVEL: u8 = 2;

/// `--winograd`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Winograd {
    /// Within an error of 3e-6 of the output's range, root mean square, and 3 times that of the direct form
    #[default]
    Auto,
    /// Never
    Off,
    /// Within 3e-5
    Aggressive,
}

/// `--bands`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Bands {
    /// Where that is faster by the cost model
    #[default]
    Auto,
    /// Never
    Off,
    /// Wherever it can be done
    On,
}

/// `nncc MODEL.onnx -o OUT`.
#[derive(Debug, Args)]
pub struct Compile {
    /// The model
    #[arg(value_name = "MODEL.onnx", required = true)]
    pub model: Option<PathBuf>,
    /// .so, .a or .o, each with its C header; or .h [default: MODEL.so]
    #[arg(short, value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// This alone: so, obj, staticlib, header, graph, plan, kernels, clif, asm
    ///
    /// Text goes to standard output unless -o is given.
    #[arg(long, value_name = "KIND", value_enum, hide_possible_values = true)]
    pub emit: Option<Emit>,
    /// Flags shared with the other commands.
    #[command(flatten)]
    pub shared: Compiling,
    /// Such as aarch64-unknown-linux-gnu [default: this machine]
    #[arg(long, value_name = "TRIPLE")]
    pub target: Option<String>,
    /// Import nothing: no threads, all memory from the caller
    #[arg(long)]
    pub freestanding: bool,
    /// Flags of a library that learns.
    #[command(flatten)]
    pub learning: Learning,
    /// Measure candidates of each layer on this machine, keep the fastest
    #[arg(long, conflicts_with = "train")]
    pub tune: bool,
    /// How long to measure
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, requires = "tune", hide_short_help = true)]
    pub tune_seconds: f64,
    /// Use what a file knows of this machine; --tune adds to it
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub tune_cache: Option<PathBuf>,
    /// List what each pass, or the one named, refused to rewrite, and why
    #[arg(long, value_name = "PASS", num_args = 0..=1, default_missing_value = "", hide_short_help = true)]
    pub explain: Option<String>,
    /// Print the time that each pass took
    #[arg(long, hide_short_help = true)]
    pub time_passes: bool,
    /// Print this with every option
    #[arg(long, action = ArgAction::HelpLong)]
    pub help_all: Option<bool>,
}

/// `--emit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Emit {
    /// A shared library
    So,
    /// A relocatable object
    Obj,
    /// A static library
    Staticlib,
    /// The C header
    Header,
    /// The graph after all passes, as text
    Graph,
    /// The memory plan, as text
    Plan,
    /// The kernel IR, as text
    Kernels,
    /// Cranelift's IR of the kernels, as text
    Clif,
    /// The machine code, disassembled
    Asm,
}

/// Inputs from files and how pictures are prepared.
#[derive(Clone, Debug, Args)]
pub struct Inputs {
    /// An input from a file: .npy, .png or .jpg
    #[arg(long = "input", value_name = "NAME=FILE", value_parser = parse_named_file)]
    pub inputs: Vec<(String, PathBuf)>,
    /// Subtracted from a picture's values (0..255): one number or one a channel
    #[arg(long, value_name = "M", value_delimiter = ',', default_value = "0", allow_hyphen_values = true)]
    pub image_mean: Vec<f32>,
    /// Then multiplied: one number or one a channel
    #[arg(long, value_name = "S", value_delimiter = ',', default_value = "1", allow_hyphen_values = true)]
    pub image_scale: Vec<f32>,
    /// The part of the picture that is used
    #[arg(long, value_name = "CROP", value_enum, default_value_t = Crop::Center)]
    pub image_crop: Crop,
    /// How it is resized, antialiased as Pillow does
    #[arg(long, value_name = "FILTER", value_enum, default_value_t = Filter::Bicubic)]
    pub image_resize: Filter,
    /// The order of its channels
    #[arg(long, value_name = "ORDER", value_enum, default_value_t = Order::Rgb)]
    pub image_order: Order,
}

impl Inputs {
    /// The picture flags as one value.
    pub fn preparation(&self) -> Preparation {
        Preparation {
            mean: self.image_mean.clone(),
            scale: self.image_scale.clone(),
            crop: self.image_crop,
            resize: self.image_resize,
            order: self.image_order,
        }
    }
}

/// `nncc run`.
#[derive(Debug, Args)]
pub struct Run {
    /// The model, or a library that nncc wrote
    #[arg(value_name = "MODEL.(onnx|so)")]
    pub model: PathBuf,
    /// Inputs.
    #[command(flatten)]
    pub inputs: Inputs,
    /// Save the outputs under their names
    #[arg(long, value_name = "FILE.npz")]
    pub output: Option<PathBuf>,
    /// Names of the classes, one a line: prints the five best
    #[arg(long, value_name = "FILE")]
    pub labels: Option<PathBuf>,
    /// Turn logits into probabilities before the five best are printed
    #[arg(long)]
    pub softmax: bool,
    /// Print each fused node's time, rates and the limit that holds it; measures the machine too
    #[arg(long)]
    pub profile: bool,
    /// Threads
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = threads())]
    pub threads: u32,
    /// Flags of compiling.
    #[command(flatten)]
    pub shared: Compiling,
}

/// `nncc inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// The model
    #[arg(value_name = "MODEL.onnx")]
    pub model: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Flags of importing.
    #[command(flatten)]
    pub importing: Importing,
}

/// `nncc bench`.
#[derive(Debug, Args)]
pub struct Bench {
    /// The model (compiled first, in a process of its own), or a library that nncc wrote
    #[arg(value_name = "MODEL.(onnx|so)")]
    pub model: PathBuf,
    /// Inputs.
    #[command(flatten)]
    pub inputs: Inputs,
    /// Print the largest difference from this output, relative to its range
    #[arg(long, value_name = "FILE.npy")]
    pub expect: Option<PathBuf>,
    /// Threads
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = threads())]
    pub threads: u32,
    /// Seconds to measure
    #[arg(long, value_name = "S", default_value_t = 1.0)]
    pub seconds: f64,
    /// Print JSON
    #[arg(long, conflicts_with = "worker")]
    pub json: bool,
    /// Measure the machine too; print each fused node's time, rates and the limit that holds it
    #[arg(long, conflicts_with = "worker")]
    pub roofline: bool,
    /// Write a page with the roofline plot, the layers and the memory plan; implies --roofline
    #[arg(long, value_name = "FILE.html", conflicts_with = "worker")]
    pub html: Option<PathBuf>,
    /// Answer timed windows on standard input, to be measured side by side with other engines
    #[arg(long)]
    pub worker: bool,
    /// Flags of compiling.
    #[command(flatten)]
    pub shared: Compiling,
}

/// `nncc verify`.
#[derive(Debug, Args)]
pub struct Verify {
    /// The model
    #[arg(value_name = "MODEL.onnx")]
    pub model: PathBuf,
    /// The library compiled from it
    #[arg(value_name = "LIB.so")]
    pub library: PathBuf,
    /// Random input sets to try, besides the edge values
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub rounds: u32,
    /// Seed of the random inputs
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Largest difference, as a share of a value's range or magnitude
    #[arg(long, value_name = "T", default_value_t = nncc::verify::TOLERANCE)]
    pub tolerance: f64,
    /// Flags of importing.
    #[command(flatten)]
    pub importing: Importing,
}

/// `nncc new`.
#[derive(Debug, Args)]
#[command(after_help = architectures())]
pub struct New {
    /// The architecture, one of those below
    #[arg(value_name = "ARCH")]
    pub arch: String,
    /// How many classes it tells apart
    #[arg(long, value_name = "N")]
    pub classes: usize,
    /// Channels, height and width of its input
    #[arg(long, value_name = "CxHxW", value_parser = parse_picture)]
    pub input: [usize; 3],
    /// The model [default: the architecture's name with .onnx]
    #[arg(short, value_name = "M.onnx")]
    pub output: Option<PathBuf>,
    /// Seed of the weights
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// Begin the weights of these names so: 'fc.*=xavier-uniform:gain=tanh', '*.weight=he-normal', '*.bias=zeros'
    #[arg(long, value_name = "PATTERN=INIT")]
    pub init: Vec<nncc_ir::init::InitRule>,
}

/// The architectures of `nncc new`, one a line.
fn architectures() -> String {
    let lines = nncc_zoo::ARCHITECTURES.iter().map(|a| format!("\n  {:<14}{}", a.name, a.about));
    format!("Architectures:{}", lines.collect::<String>())
}

/// `nncc train`.
#[derive(Debug, Args)]
#[command(mut_args(without_rare_keys))]
pub struct Train {
    /// What is learnt, from what, and how.
    #[command(flatten)]
    pub recipe: Recipe,
    /// A file with these keys; flags stand over it
    #[arg(long = "recipe", value_name = "FILE.toml")]
    pub recipe_file: Option<PathBuf>,
    /// Write the epochs and the figures as JSON
    #[arg(long, value_name = "FILE.json")]
    pub json: Option<PathBuf>,
    /// Train K times, each time with another K-th of the data held out
    #[arg(long, value_name = "K", group = "several")]
    pub k_fold: Option<usize>,
    /// Try several values: lr=1e-3|3e-3|1e-2,batch-size=32|64
    #[arg(long, value_name = "KEY=V|V,..", group = "several")]
    pub search: Option<String>,
    /// Which of the combinations: grid, random:COUNT or halving
    #[arg(long, value_name = "HOW", default_value = "grid", requires = "search")]
    pub search_by: How,
    /// Train several models and put them into one: snapshot:N, bag:N, boost:N or stack:N
    #[arg(long, value_name = "KIND:N", group = "several")]
    pub ensemble: Option<Kind>,
    /// Print the loss against a learning rate that grows from step to step; nothing is written
    #[arg(long, value_name = "FROM..TO", num_args = 0..=1, default_missing_value = "1e-7..10", value_parser = parse_range)]
    #[arg(group = "several")]
    pub range_test: Option<(f64, f64)>,
    /// Print where the time of a step goes, by fused node; nothing is learnt
    #[arg(long, group = "several")]
    pub profile: bool,
    /// Print this with every option
    #[arg(long, action = ArgAction::HelpLong)]
    pub help_all: Option<bool>,
}

/// Keys that `--help` leaves to `--help-all`, so that it fits a screen.
fn without_rare_keys(arg: Arg) -> Arg {
    const RARE: [&str; 26] = [
        "ensemble",
        "json",
        "k_fold",
        "search",
        "search_by",
        "range_test",
        "smote",
        "lr_scale",
        "replace_head",
        "image_crop",
        "image_resize",
        "image_order",
        "dim",
        "sampling",
        "clip_value",
        "l1",
        "l2",
        "average",
        "schedule_per",
        "warmup_start",
        "plateau",
        "accumulate",
        "recompute",
        "monitor",
        "watch",
        "checkpoint_updates",
    ];
    let rare = RARE.contains(&arg.get_id().as_str());
    arg.hide_short_help(rare)
}

/// `nncc eval`.
#[derive(Debug, Args)]
#[command(mut_args(measuring_keys))]
pub struct Eval {
    /// Of `nncc train`: what is measured, and on what.
    #[command(flatten)]
    pub recipe: Recipe,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Hides the keys of learning, which `eval` refuses.
fn measuring_keys(arg: Arg) -> Arg {
    const HEEDED: [&str; 13] = [
        "json",
        "model",
        "data",
        "target",
        "mean",
        "scale",
        "image_crop",
        "image_resize",
        "image_order",
        "dim",
        "loss",
        "batch_size",
        "threads",
    ];
    let heeded = HEEDED.contains(&arg.get_id().as_str());
    arg.hide(!heeded)
}

/// `nncc ensemble`.
#[derive(Debug, Args)]
pub struct Ensemble {
    /// The models, of one input and like outputs
    #[arg(value_name = "MODEL.onnx", required = true, num_args = 1..)]
    pub models: Vec<PathBuf>,
    /// How their outputs become one
    #[arg(long, value_name = "HOW", value_enum, default_value = "probability")]
    pub by: Together,
    /// What `--by stack` learns from: samples that none of the models has learnt from
    #[arg(long, value_name = "PATH")]
    pub data: Option<PathBuf>,
    /// The recipe of one of the models, for how data are read
    #[arg(long, value_name = "FILE.toml")]
    pub recipe: Option<PathBuf>,
    /// The model that is written
    #[arg(short, value_name = "OUT.onnx")]
    pub output: PathBuf,
}

/// `--by`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Together {
    /// The mean of the outputs
    Mean,
    /// The mean of the probabilities of models that give logits
    Probability,
    /// The share of models that vote for a class
    Vote,
    /// What a combiner makes of the probabilities, which learns from --data
    Stack,
}

/// As many threads as a context may have.
fn threads() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=i64::from(nncc_codegen::emit::abi::MAX_THREADS))
}

/// The algorithms that can be left out, each with what is done instead.
fn switches() -> impl clap::builder::TypedValueParser<Value = nncc::Switch> {
    let values = nncc::Switch::ALL.iter().map(|s| clap::builder::PossibleValue::new(s.name()).help(s.about()));
    clap::builder::PossibleValuesParser::new(values).try_map(|name| name.parse::<nncc::Switch>())
}

fn split_named(text: &str) -> Result<(&str, &str), String> {
    match text.split_once('=') {
        Some((name, rest)) if !name.is_empty() && !rest.is_empty() => Ok((name, rest)),
        _ => Err("NAME=VALUE is expected".into()),
    }
}

pub fn parse_dim(text: &str) -> Result<(String, Vec<i64>), String> {
    let (name, numbers) = split_named(text)?;
    let number = |n: &str| match n.trim().parse::<i64>() {
        Ok(n) if n >= 0 => Ok(n),
        _ => Err(format!("`{n}` is not a size")),
    };
    Ok((name.to_string(), numbers.split(',').map(number).collect::<Result<_, _>>()?))
}

/// Extents with an `x` between them, or a comma; `NAME=` alone is a scalar. An input's name may contain `=`.
fn parse_shape(text: &str) -> Result<(String, Vec<usize>), String> {
    let (name, extents) =
        text.rsplit_once('=').filter(|(name, _)| !name.is_empty()).ok_or("NAME=1x3x224x224 is expected")?;
    let extent = |n: &str| n.trim().parse().map_err(|_| format!("`{n}` is not a size"));
    let extents = if extents.is_empty() {
        Vec::new()
    } else {
        extents.split(['x', ',']).map(extent).collect::<Result<_, _>>()?
    };
    Ok((name.to_string(), extents))
}

fn parse_range(text: &str) -> Result<(f64, f64), String> {
    let ends = text.split_once("..").and_then(|(from, to)| Some((from.parse().ok()?, to.parse().ok()?)));
    ends.ok_or_else(|| "FROM..TO is expected, such as 1e-6..1".into())
}

fn parse_picture(text: &str) -> Result<[usize; 3], String> {
    let extents: Option<Vec<usize>> = text.split('x').map(|n| n.parse().ok()).collect();
    extents.and_then(|e| e.try_into().ok()).ok_or_else(|| "CxHxW is expected, such as 3x224x224".into())
}

/// An input's name may contain `=`, a file's path hardly does: the last one separates.
fn parse_named_file(text: &str) -> Result<(String, PathBuf), String> {
    match text.rsplit_once('=') {
        Some((name, file)) if !name.is_empty() && !file.is_empty() => Ok((name.to_string(), file.into())),
        _ => Err("NAME=FILE is expected".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_declaration_is_consistent() {
        Cli::command().debug_assert();
    }

    /// 40 lines of 100 columns, `--help` of every command.
    #[test]
    fn help_fits_a_screen() {
        let mut cli = Cli::command().term_width(100);
        cli.build();
        for command in std::iter::once(&mut cli.clone()).chain(cli.get_subcommands_mut()) {
            let help = command.clone().term_width(100).render_help().to_string();
            assert!(help.lines().count() <= 40, "{} lines\n{help}", help.lines().count());
            assert!(help.lines().all(|line| line.chars().count() <= 100), "{help}");
        }
    }

    #[test]
    fn compiling_is_the_default() {
        let cli = Cli::try_parse_from(["nncc", "m.onnx", "-o", "m.so", "--dim", "N=1,8", "-O3"]).unwrap();
        assert!(cli.command.is_none());
        assert_eq!(cli.compile.shared.importing.dims, [("N".to_string(), vec![1, 8])]);
        assert_eq!(cli.compile.shared.opt_level, 3);
        assert!(matches!(Cli::try_parse_from(["nncc", "run", "m.so"]).unwrap().command, Some(Command::Run(_))));
        assert_eq!(Cli::try_parse_from(["nncc", "inspect", "m.onnx", "-vv"]).unwrap().verbose, 2);
        assert!(Cli::try_parse_from(["nncc"]).is_err());
        assert!(Cli::try_parse_from(["nncc", "m.onnx", "--dim", "N=x"]).is_err());
        let cli = Cli::try_parse_from(["nncc", "m.onnx", "--shape", "in:0=1x3x224x224", "--shape", "s="]).unwrap();
        let shapes = [("in:0".to_string(), vec![1, 3, 224, 224]), ("s".to_string(), vec![])];
        assert_eq!(cli.compile.shared.importing.shapes, shapes);
        assert!(Cli::try_parse_from(["nncc", "m.onnx", "--shape", "x=1x-3"]).is_err());
        let new = ["nncc", "new", "mlp", "--classes", "10", "--input"];
        let Some(Command::New(a)) = Cli::try_parse_from([&new[..], &["1x28x28"]].concat()).unwrap().command else {
            panic!("no `new`")
        };
        assert_eq!((a.input, a.seed), ([1, 28, 28], 1));
        assert!(Cli::try_parse_from([&new[..], &["28x28"]].concat()).is_err());
        assert!(Cli::try_parse_from([&new[..], &["1x28x28", "--init", "*=he"]].concat()).is_err());
    }
}
