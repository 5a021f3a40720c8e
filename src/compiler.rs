//! The stages in order: import, passes, lowering, emission; and the options that steer them.
//!
//! ```text
//! model.onnx ─import─> Graph ─optimize─> Graph ─plan_memory─> MemoryPlan ─lower─> Program ─emit─> .so, .a, .o, .h, memory
//!             └──────────── once for each combination of the dimensions' values ───────────┘
//! ```

use crate::batch::of_size;
use crate::plan::Plan;
use crate::tune::{self, Tuning};
use crate::{Error, Model};
use nncc_codegen::backend::{MachineCode, cranelift, for_target};
pub use nncc_codegen::lower::WinogradUse;
pub use nncc_codegen::lower::bands::BandUse;
use nncc_codegen::lower::bands::Run;
use nncc_codegen::lower::{AlgorithmOptions, Algorithms, SetSource, bands, lower, lower_learning, tiles};
use nncc_codegen::program::Program;
use nncc_codegen::state::{Binding, StateSource};
use nncc_codegen::switches::Disabled;
pub use nncc_codegen::switches::Switch;
use nncc_codegen::target::Target;
use nncc_codegen::tunable::{Choices, Part};
use nncc_codegen::{cost, emit};
use nncc_frontend::ImportOptions;
use nncc_ir::{Dim, Graph, Op, Tensor, TypeError};
use nncc_passes::recompute::{self, Recompute, Trade};
use nncc_passes::{MemoryPlan, OptLevel, PassCx};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tracing::info;

/// What [`Compiled::write`] writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputKind {
    /// A shared library: `.so`.
    Shared,
    /// A static library: `.a`.
    Static,
    /// A relocatable object: `.o`.
    Object,
    /// The C header: `.h`.
    Header,
}

impl OutputKind {
    /// The kind that a file's extension asks for.
    pub fn of(path: &Path) -> Option<OutputKind> {
        match path.extension()?.to_str()? {
            "so" => Some(OutputKind::Shared),
            "a" => Some(OutputKind::Static),
            "o" => Some(OutputKind::Object),
            "h" => Some(OutputKind::Header),
            _ => None,
        }
    }
}

/// What [`Compiled::text`] shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    /// The graphs after all passes.
    Graph,
    /// The memory plans, the layers in bands, the algorithms of convolutions, and the predicted time of each step.
    Plan,
    /// The kernels in kernel IR.
    Kernels,
    /// The kernels in Cranelift's IR, those that Cranelift compiles.
    Clif,
    /// The kernels' machine code.
    Asm,
}

/// Options, and the way to a compiled model.
#[derive(Clone, Debug, Default)]
pub struct Compiler {
    dims: Vec<(String, Vec<i64>)>,
    batches: Vec<usize>,
    fixed: BTreeMap<String, Tensor>,
    shapes: BTreeMap<String, Vec<Dim>>,
    triple: Option<String>,
    cpu: Option<String>,
    opt_level: OptLevel,
    freestanding: bool,
    winograd: WinogradUse,
    bands: BandUse,
    disabled: Disabled,
    small: bool,
    tuning: Tuning,
    prefix: Option<String>,
}

impl Compiler {
    /// Default options: this machine, every CPU level, `-O2`.
    pub fn new() -> Compiler {
        Compiler::default()
    }

    /// Fixes a symbolic dimension. Several values make one library with a shape set for each.
    #[must_use]
    pub fn dim(mut self, name: &str, values: &[i64]) -> Compiler {
        self.dims.retain(|(n, _)| n != name);
        self.dims.push((name.to_string(), values.to_vec()));
        self
    }

    /// Compiles for batches of these sizes, whatever size the model was exported for: the first dimension of all inputs. Several
    /// sizes make one library with a shape set for each.
    #[must_use]
    pub fn batch(mut self, sizes: &[usize]) -> Compiler {
        self.batches = sizes.to_vec();
        self
    }

    /// Makes an input a constant, for an input that decides shapes. It is no input of the compiled model any more.
    #[must_use]
    pub fn fix(mut self, input: &str, value: Tensor) -> Compiler {
        self.fixed.insert(input.to_string(), value);
        self
    }

    /// Says the shape of an input whose shape the model leaves open, or another batch than the model's.
    #[must_use]
    pub fn input_shape(mut self, input: &str, dims: &[usize]) -> Compiler {
        self.shapes.insert(input.to_string(), dims.iter().map(|&d| Dim::from(d)).collect());
        self
    }

    /// How much the optimizer does.
    #[must_use]
    pub fn opt_level(mut self, level: OptLevel) -> Compiler {
        self.opt_level = level;
        self
    }

    /// The machine to compile for, as a target triple; by default this one.
    #[must_use]
    pub fn target(mut self, triple: &str) -> Compiler {
        self.triple = Some(triple.to_string());
        self
    }

    /// Compiles for one CPU level only: `x86-64-v3`, `native`, `neoverse-n1`, ...; by default for all of the architecture.
    #[must_use]
    pub fn target_cpu(mut self, cpu: &str) -> Compiler {
        self.cpu = Some(cpu.to_string());
        self
    }

    /// A library that imports nothing: no threads, all memory from the caller.
    #[must_use]
    pub fn freestanding(mut self, yes: bool) -> Compiler {
        self.freestanding = yes;
        self
    }

    /// When convolutions may be computed by Winograd's algorithm.
    #[must_use]
    pub fn winograd(mut self, when: WinogradUse) -> Compiler {
        self.winograd = when;
        self
    }

    /// When consecutive layers may be computed in bands of rows.
    #[must_use]
    pub fn bands(mut self, when: BandUse) -> Compiler {
        self.bands = when;
        self
    }

    /// Leaves algorithms out, to see what they are good for: another way is taken, as where they do not apply.
    #[must_use]
    pub fn disable(mut self, switches: &[Switch]) -> Compiler {
        self.disabled = switches.iter().copied().collect();
        self
    }

    /// Prefers a small library to a fast one: weights take no more bytes than in the model.
    #[must_use]
    pub fn small(mut self, yes: bool) -> Compiler {
        self.small = yes;
        self
    }

    /// Measures candidates of each layer while compiling, or uses what was measured before.
    #[must_use]
    pub fn tuning(mut self, tuning: Tuning) -> Compiler {
        self.tuning = tuning;
        self
    }

    /// The prefix of exported symbols of objects and static libraries; by default the model's name.
    #[must_use]
    pub fn prefix(mut self, prefix: &str) -> Compiler {
        self.prefix = Some(prefix.to_string());
        self
    }

    /// The imported graph, before any pass, described by layers.
    ///
    /// # Errors
    /// When the model cannot be read or is not supported.
    pub fn inspect(&self, path: impl AsRef<Path>) -> Result<crate::inspect::Report, Error> {
        Ok(crate::inspect::report(&self.import(path)?))
    }

    /// The imported graph, before any pass, with the first value of each dimension.
    ///
    /// # Errors
    /// When the model cannot be read or is not supported.
    pub fn import(&self, path: impl AsRef<Path>) -> Result<Graph, Error> {
        let model = nncc_frontend::Model::open(path.as_ref())?;
        let set = self.shape_sets().swap_remove(0);
        Ok(self.imported(&model, set, &|_| None)?.0)
    }

    /// Imports one shape set. Gives the names of the inputs too that became constants.
    fn imported(
        &self,
        model: &nncc_frontend::Model,
        set: ShapeSet,
        data: &dyn Fn(&str) -> Option<Tensor>,
    ) -> Result<(Graph, Vec<String>), Error> {
        let (options, size) = self.batched_import(model, self.import_options(set.dims), set.batch)?;
        let (import, fixed) = model.import_for(&options, data)?;
        let graph = match size {
            Some(size) => of_size(model, &import.graph, size)?,
            None => import.graph,
        };
        Ok((graph, fixed))
    }

    /// Every combination of sizes that the caller wants, the first one always.
    fn shape_sets(&self) -> Vec<ShapeSet> {
        let batches =
            if self.batches.is_empty() { vec![None] } else { self.batches.iter().copied().map(Some).collect() };
        let with =
            |batch: Option<usize>| combinations(&self.dims).into_iter().map(move |dims| ShapeSet { batch, dims });
        batches.into_iter().flat_map(with).collect()
    }

    /// The first value of each dimension.
    pub(crate) fn first_dims(&self) -> BTreeMap<String, i64> {
        self.dims.iter().filter_map(|(n, v)| Some((n.clone(), *v.first()?))).collect()
    }

    /// What a model takes and gives, without importing it.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn describe(path: impl AsRef<Path>) -> Result<nncc_frontend::Description, Error> {
        Ok(nncc_frontend::describe(path.as_ref())?)
    }

    /// Imports, optimizes and lowers a model.
    ///
    /// # Errors
    /// When the model cannot be read, is not supported, or has dimensions that are not fixed.
    pub fn load(&self, path: impl AsRef<Path>) -> Result<Compiled, Error> {
        self.load_observed(path, &mut |_| {})
    }

    /// The same, naming each stage as it begins.
    ///
    /// # Errors
    /// As [`Compiler::load`].
    pub fn load_observed(&self, path: impl AsRef<Path>, stage: &mut dyn FnMut(&str)) -> Result<Compiled, Error> {
        self.load_with(path.as_ref(), &|_| None, stage).map(|(compiled, _)| compiled)
    }

    /// Compiles for the data of one run: inputs whose numbers must be known to the compiler become constants with the value
    /// that `data` gives them. Returns their names too; they are no inputs of the compiled model.
    ///
    /// # Errors
    /// As [`Compiler::load`].
    pub fn load_for(
        &self,
        path: impl AsRef<Path>,
        data: &dyn Fn(&str) -> Option<Tensor>,
    ) -> Result<(Compiled, Vec<String>), Error> {
        self.load_with(path.as_ref(), data, &mut |_| {})
    }

    fn load_with(
        &self,
        path: &Path,
        data: &dyn Fn(&str) -> Option<Tensor>,
        stage: &mut dyn FnMut(&str),
    ) -> Result<(Compiled, Vec<String>), Error> {
        self.targets()?; // a wrong one is told before the model is read
        let mut times = Vec::new();
        stage("reading the model");
        let start = Instant::now();
        let model = nncc_frontend::Model::open(path)?;
        times.push(("read", start.elapsed()));
        info!("read {}", path.display());
        let (mut sets, mut fixed) = (Vec::new(), Vec::new());
        for set in self.shape_sets() {
            let (set, names) = self.optimized(&model, set, data, &mut times, stage)?;
            sets.push(set);
            fixed = names;
        }
        Ok((self.generate(&model_name(path), sets, None, times, stage)?, fixed))
    }

    /// Lowers optimized graphs, one shape set each, to one program, and compiles its kernels.
    pub(crate) fn generate(
        &self,
        name: &str,
        mut sets: Vec<SetGraph>,
        learning: Option<&Learning>,
        mut times: Vec<(&'static str, Duration)>,
        stage: &mut dyn FnMut(&str),
    ) -> Result<Compiled, Error> {
        let targets = self.targets()?;
        stage("lowering");
        let mut start = Instant::now();
        let sources: Vec<SetSource<'_>> = sets.iter().map(SetGraph::source).collect();
        let mut algorithms = Algorithms::choose(&sources, &targets, self.algorithms());
        if self.tuning != Tuning::default() {
            let mut progress =
                |what: &str, done, of| stage(&format!("tuning {what} {} {done} of {of}", tune::bar(done, of)));
            let recut = |choices: &Choices| sets.iter().map(|set| self.recut(set, choices)).collect();
            let network = tune::Network { sets: &recut, targets: &targets, algorithms: &algorithms };
            let choices = tune::tune(&self.tuning, &network, &mut progress)?;
            sets = recut(&choices)?;
            algorithms = algorithms.with_choices(choices);
            times.push(("tune", start.elapsed()));
            start = Instant::now();
        }
        let sources: Vec<SetSource<'_>> = sets.iter().map(SetGraph::source).collect();
        let program = match learning {
            Some(Learning { bindings, states }) => {
                lower_learning(name, &sources, bindings, states, &targets, &algorithms)?
            }
            None => lower(name, &sources, &targets, &algorithms)?,
        };
        times.push(("lower", start.elapsed()));
        for target in &targets {
            let kernels = program.kernels.iter().filter(|k| k.level == target.level).count();
            info!("lowered for {}: {kernels} kernels", target.level.name());
        }
        stage("generating machine code");
        let start = Instant::now();
        let code = emit::compile_kernels(&program)?;
        times.push(("kernels", start.elapsed()));
        info!("generated {} bytes of machine code", code.iter().map(|c| c.bytes.len()).sum::<usize>());
        let options = emit::EmitOptions { freestanding: self.freestanding, prefix: self.prefix.clone() };
        Ok(Compiled { program, algorithms, code, sets, times, options })
    }

    /// One shape set up to its memory plan, and the names of the inputs that became constants.
    fn optimized(
        &self,
        model: &nncc_frontend::Model,
        set: ShapeSet,
        data: &dyn Fn(&str) -> Option<Tensor>,
        times: &mut Vec<(&'static str, Duration)>,
        stage: &mut dyn FnMut(&str),
    ) -> Result<(SetGraph, Vec<String>), Error> {
        stage("importing");
        let start = Instant::now();
        let said = set.to_string();
        let (graph, fixed) = self.imported(model, set, data)?;
        times.push(("import", start.elapsed()));
        info!("imported{said}: {} operators", operators(&graph));
        require_known_inputs(&graph)?;
        stage("optimizing");
        Ok((self.optimize(graph, times)?, fixed))
    }

    /// Passes and memory plan of one graph whose shapes are known.
    pub(crate) fn optimize(&self, graph: Graph, times: &mut Vec<(&'static str, Duration)>) -> Result<SetGraph, Error> {
        self.optimize_step(graph, Recompute::None, times)
    }

    /// The same for a step of training, of which values may be computed again.
    pub(crate) fn optimize_step(
        &self,
        mut graph: Graph,
        how: Recompute,
        times: &mut Vec<(&'static str, Duration)>,
    ) -> Result<SetGraph, Error> {
        let mut cx = self.passes();
        nncc_passes::optimize(&mut graph, &mut cx)?;
        let start = Instant::now();
        let targets = self.targets()?;
        let internal = |e: TypeError| Error::Internal(e.to_string());
        if !self.disabled.has(Switch::PoolingInTiles) {
            tiles::join(&mut graph, &targets, self.algorithms().winograd).map_err(internal)?;
        }
        let before = (self.tuning != Tuning::default()).then(|| Arc::new((graph.clone(), how)));
        let runs = bands::join(&mut graph, &targets, self.in_bands(), &Choices::default()).map_err(internal)?;
        times.push(("join", start.elapsed()));
        let (plan, trade) = recompute::plan(&mut graph, how, &mut cx)?;
        times.extend(cx.reports.iter().map(|r| (r.pass, r.time)));
        info!("optimized: {} operators, an arena of {} bytes", operators(&graph), plan.arena_bytes);
        let before = before.filter(|_| !runs.is_empty());
        let refusals = cx.refusals.iter().map(ToString::to_string).collect();
        Ok(SetGraph { graph, plan, runs, before, trade, refusals })
    }

    /// The same set with its runs of layers cut as `choices` say.
    fn recut(&self, set: &SetGraph, choices: &Choices) -> Result<SetGraph, Error> {
        let Some(before) = &set.before else { return Ok(set.clone()) };
        let (mut graph, how) = (before.0.clone(), before.1);
        let runs = bands::join(&mut graph, &self.targets()?, self.in_bands(), choices);
        let runs = runs.map_err(|e| Error::Internal(e.to_string()))?;
        let (plan, trade) = recompute::plan(&mut graph, how, &mut self.passes())?;
        Ok(SetGraph { graph, plan, runs, before: set.before.clone(), trade, refusals: set.refusals.clone() })
    }

    fn passes(&self) -> PassCx {
        let without = self.disabled.parts();
        PassCx::new(nncc_passes::Options { level: self.opt_level, without, ..Default::default() })
    }

    /// The memory plan of the first shape set, without code.
    ///
    /// # Errors
    /// As [`Compiler::load`].
    pub fn memory_plan(&self, path: impl AsRef<Path>) -> Result<Plan, Error> {
        let model = nncc_frontend::Model::open(path.as_ref())?;
        let set = self.shape_sets().swap_remove(0);
        let (set, _) = self.optimized(&model, set, &|_| None, &mut Vec::new(), &mut |_| {})?;
        Ok(Plan::new(&set.graph, &set.plan))
    }

    /// The optimizer's levels 0 and 1 leave convolutions as they are.
    fn algorithms(&self) -> AlgorithmOptions {
        let plain = self.small || matches!(self.opt_level, OptLevel::O0 | OptLevel::O1);
        let is_off = plain || self.disabled.has(Switch::Winograd);
        let winograd = if is_off { WinogradUse::Off } else { self.winograd };
        AlgorithmOptions { winograd, disabled: self.disabled.clone(), ..AlgorithmOptions::default() }
    }

    /// Inputs that are constants.
    pub(crate) fn fixed_inputs(&self) -> BTreeSet<&str> {
        self.fixed.keys().map(String::as_str).collect()
    }

    /// Nor do they join layers.
    fn in_bands(&self) -> BandUse {
        let is_off = matches!(self.opt_level, OptLevel::O0 | OptLevel::O1) || self.disabled.has(Switch::Bands);
        if is_off { BandUse::Off } else { self.bands }
    }

    pub(crate) fn import_options(&self, dims: BTreeMap<String, i64>) -> ImportOptions {
        ImportOptions { dims, fixed: self.fixed.clone(), shapes: self.shapes.clone(), training: false }
    }

    /// One target for each CPU level that the library shall carry.
    pub(crate) fn targets(&self) -> Result<Vec<Target>, Error> {
        let usage = |e: &dyn std::fmt::Display| Error::Usage(e.to_string());
        let triple: target_lexicon::Triple = match &self.triple {
            Some(t) => t.parse().map_err(|e| Error::Usage(format!("--target {t}: {e}")))?,
            None => target_lexicon::Triple::host(),
        };
        let mut targets = match &self.cpu {
            Some(cpu) => vec![Target::parse(&triple, cpu).map_err(|e| usage(&e))?],
            None => {
                let levels = Target::levels(&triple).map_err(|e| usage(&e))?;
                levels.iter().map(|&l| Target::of_level(triple.clone(), l)).collect()
            }
        };
        if self.disabled.has(Switch::AskingAhead) {
            targets.iter_mut().for_each(|target| target.prefetches = false);
        }
        Ok(targets)
    }
}

/// The nodes that compute: neither inputs nor constants.
fn operators(g: &Graph) -> usize {
    g.topological_order()
        .unwrap_or_default()
        .into_iter()
        .filter(|&n| !matches!(g.op(n), Op::Input | Op::Constant(_)))
        .count()
}

/// The sizes that one shape set is compiled for.
struct ShapeSet {
    batch: Option<usize>,
    dims: BTreeMap<String, i64>,
}

impl std::fmt::Display for ShapeSet {
    /// ` batch 8 H=32`, with a space in front of each; nothing where nothing was asked for.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.batch.iter().try_for_each(|n| write!(f, " batch {n}"))?;
        self.dims.iter().try_for_each(|(name, size)| write!(f, " {name}={size}"))
    }
}

/// Every combination of the dimensions' values, the first dimension slowest.
fn combinations(dims: &[(String, Vec<i64>)]) -> Vec<BTreeMap<String, i64>> {
    dims.iter().fold(vec![BTreeMap::new()], |sets, (name, values)| {
        let with = |set: &BTreeMap<String, i64>, &v: &i64| {
            let mut set = set.clone();
            set.insert(name.clone(), v);
            set
        };
        sets.iter().flat_map(|s| values.iter().map(move |v| with(s, v))).collect()
    })
}

/// Code is generated for known shapes: says which dimensions of which inputs are missing, and the flag that fixes them.
fn require_known_inputs(g: &Graph) -> Result<(), Error> {
    let mut lines = Vec::new();
    let (mut flags, mut shapes) = (Vec::new(), Vec::new());
    for v in g.inputs().iter().flat_map(|&n| g.results(n)) {
        let symbols = g.ty(v).symbols();
        if !symbols.is_empty() {
            let name = &g.value(v).name;
            lines.push(format!("  --> input \"{name}\": {}", g.ty(v)));
            flags.extend(symbols.iter().map(|s| format!("--dim {s}=NUMBER")));
            let extents: Vec<String> =
                g.ty(v).shape.iter().map(|d| d.size().map_or("?".into(), |n| n.to_string())).collect();
            shapes.push(format!("--shape {name}={}", extents.join("x")));
        }
    }
    if lines.is_empty() {
        return Ok(());
    }
    flags.sort();
    flags.dedup();
    Err(Error::Unknown(format!(
        "the model has dimensions that are not fixed\n{}\n  help: {}, or {} with numbers for `?`",
        lines.join("\n"),
        flags.join(" "),
        shapes.join(" ")
    )))
}

/// The model's name for symbols and listings: the file's stem.
pub(crate) fn model_name(path: &Path) -> String {
    path.file_stem().map_or("model".into(), |s| s.to_string_lossy().into_owned())
}

/// One shape set up to its memory plan.
#[derive(Clone)]
pub(crate) struct SetGraph {
    graph: Graph,
    plan: MemoryPlan,
    /// The runs of layers that may be joined to chains.
    runs: Vec<Run>,
    /// The graph before they were, and how it is planned, if a tuner may join them otherwise.
    before: Option<Arc<(Graph, Recompute)>>,
    /// Work for memory, if that was asked for.
    trade: Option<Trade>,
    refusals: Vec<String>,
}

impl SetGraph {
    /// What lowering reads of it.
    pub(crate) fn source(&self) -> SetSource<'_> {
        SetSource { graph: &self.graph, plan: &self.plan }
    }

    /// What a tuner sees of its runs of layers, where it is shape set `set`.
    pub(crate) fn parts(&self, set: usize) -> impl Iterator<Item = Part> {
        self.runs.iter().map(move |run| run.part(set))
    }
}

/// The states of a model that learns, and what of each set's graph they are.
pub(crate) struct Learning {
    pub(crate) bindings: Vec<Binding>,
    pub(crate) states: Vec<StateSource>,
}

/// A lowered model, ready to be written or run.
pub struct Compiled {
    program: Program,
    algorithms: Algorithms,
    code: Vec<MachineCode>,
    sets: Vec<SetGraph>,
    times: Vec<(&'static str, Duration)>,
    options: emit::EmitOptions,
}

impl Compiled {
    /// The lowered program.
    pub fn program(&self) -> &Program {
        &self.program
    }

    /// The optimized graph of each shape set.
    pub fn graphs(&self) -> impl Iterator<Item = &Graph> {
        self.sets.iter().map(|s| &s.graph)
    }

    /// What each pass took, in order.
    pub fn times(&self) -> &[(&'static str, Duration)] {
        &self.times
    }

    /// Why rewrites were refused: one line each, beginning with the pass's name.
    pub fn refusals(&self) -> impl Iterator<Item = &str> {
        self.sets.iter().flat_map(|s| s.refusals.iter().map(String::as_str))
    }

    /// Writes a library, an object or a header. A header describes the shared library of the same options.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, path: impl AsRef<Path>, kind: OutputKind) -> Result<(), Error> {
        self.write_file(path.as_ref(), kind).map(drop)
    }

    /// Writes a library or an object, and its C header beside it: the same name with the extension `.h`.
    ///
    /// # Errors
    /// When one of the files cannot be written.
    pub fn write_with_header(&self, path: impl AsRef<Path>, kind: OutputKind) -> Result<(), Error> {
        let path = path.as_ref();
        let Some(emitted) = self.write_file(path, kind)? else { return Ok(()) };
        let header = path.with_extension("h");
        std::fs::write(&header, emit::header(&self.program, &self.options, &emitted)).map_err(|e| Error::io(&header, e))
    }

    /// Writes one file; what was emitted, unless it is the header itself.
    fn write_file(&self, path: &Path, kind: OutputKind) -> Result<Option<emit::Emitted>, Error> {
        let emit = match kind {
            OutputKind::Shared => emit::emit_shared,
            OutputKind::Static => emit::emit_archive,
            OutputKind::Object => emit::emit_object,
            OutputKind::Header => {
                let text = emit::emit_header(&self.program, &self.code, &self.options)?;
                return std::fs::write(path, text).map(|()| None).map_err(|e| Error::io(path, e));
            }
        };
        let emitted = emit(&self.program, &self.code, &self.options, path)?;
        info!("wrote {}: {} bytes of weights", path.display(), emitted.weight_bytes);
        Ok(Some(emitted))
    }

    /// The model in this process's memory, ready to run.
    ///
    /// # Errors
    /// When it was compiled for another machine.
    pub fn jit(&self) -> Result<Model, Error> {
        Model::from_jit(emit::jit(&self.program, &self.code, &self.options)?)
    }

    /// A stage's result as text.
    ///
    /// # Errors
    /// [`Text::Clif`] when Cranelift compiles none of the kernels.
    pub fn text(&self, what: Text) -> Result<String, Error> {
        let mut out = String::new();
        match what {
            Text::Graph => {
                for s in &self.sets {
                    out += &format!("{}\n", s.graph);
                }
            }
            Text::Plan => {
                for s in &self.sets {
                    out += &format!("{}\n", s.plan.to_text(&s.graph));
                    out.extend(s.trade.iter().map(Trade::to_text));
                    out.extend(s.runs.iter().map(Run::to_text));
                }
                out += &self.algorithms.to_text();
                out += &cost::to_text(&self.program);
            }
            Text::Kernels => {
                for k in &self.program.kernels {
                    out += &format!("; {}\n{}\n", k.level.name(), k.ir);
                }
            }
            Text::Clif | Text::Asm => {
                for k in &self.program.kernels {
                    let target = self.program.targets.iter().find(|t| t.level == k.level);
                    let target = target.ok_or_else(|| Error::Internal(format!("no target for {}", k.level.name())))?;
                    let listing = match what {
                        Text::Clif if !cranelift::compiles(target) => continue,
                        Text::Clif => cranelift::clif(&k.ir, target),
                        _ => for_target(target).and_then(|b| b.listing(&k.ir, target)),
                    };
                    let listing = listing.map_err(|e| Error::Internal(e.to_string()))?;
                    out += &format!("; {} {}\n{listing}\n", k.level.name(), k.ir.name);
                }
                if out.is_empty() && !self.program.kernels.is_empty() {
                    let levels: Vec<&str> = self.program.targets.iter().map(|t| t.level.name()).collect();
                    let levels = levels.join(", ");
                    return Err(Error::Usage(format!(
                        "Cranelift compiles no kernel for {levels}\n  help: it does for x86-64 (--target-cpu x86-64) and aarch64"
                    )));
                }
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimensions_combine() {
        let dims = [("N".to_string(), vec![1, 8]), ("H".to_string(), vec![32])];
        let sets = combinations(&dims);
        assert_eq!(sets.len(), 2);
        assert_eq!(sets[1], BTreeMap::from([("N".to_string(), 8), ("H".to_string(), 32)]));
        assert_eq!(combinations(&[]).len(), 1);
    }

    #[test]
    fn the_extension_tells_the_kind() {
        assert_eq!(OutputKind::of(Path::new("a/b.so")), Some(OutputKind::Shared));
        assert_eq!(OutputKind::of(Path::new("b.exe")), None);
    }
}
