//! What the lowering of one node sees and says: operands and outputs in, constants, kernels and steps out.
//!
//! ```text
//! let x = cx.input(0)?;                       // dtype, dims, layout, place
//! let y = cx.output(0);
//! let w = cx.packed(Packed::raw(constant));   // a constant, deduplicated
//! let kernel = cx.kernel(template(...));      // deduplicated by content
//! let args = [cx.arg(&x)?, w, cx.arg(&y)?];
//! cx.step(Call::new(kernel, &args, tasks));   // name, operator, bytes and traced values are filled in
//! ```
//!
//! A context is not tied to a node of the graph: an operator inside of another (the root of a fused node) is lowered in a
//! [nested](LowerCx::nested) one, with operands and outputs that the outer lowering chose.

use super::pools::Pools;
use super::{Algorithms, LowerError, SetSource};
use crate::cost::{self, Cost, count::Counts};
use crate::kernels::conv::Conv;
use crate::kernels::conv::depthwise::Depthwise;
use crate::kernels::conv::direct::{Direct, flattened};
use crate::kernels::conv::layer;
use crate::kir::Kernel;
use crate::pack::Packed;
use crate::program::{Arg, KernelId, LevelPlan, MAX_ALIGN, Step, StepResult};
use crate::switches::Switch;
use crate::target::Target;
use crate::tunable::{Choice, Tunable};
use nncc_ir::{Constant, DType, Graph, Layout, NodeId, Op, TensorType, ValueId};
use rustc_hash::FxHashMap;
use std::rc::Rc;
use std::sync::Arc;

/// A tensor that a node reads or writes.
#[derive(Clone, Debug)]
pub struct Operand {
    /// Element type.
    pub dtype: DType,
    /// Logical extents.
    pub dims: Vec<usize>,
    /// How the elements lie in memory; a constant's are row-major.
    pub layout: Layout,
    /// The value's name in the graph, for diagnostics and traces.
    pub name: Arc<str>,
    place: Place,
}

#[derive(Clone, Debug)]
enum Place {
    Memory(Arg),
    Constant(Constant),
    /// Never whole in memory.
    None,
}

impl Operand {
    /// A tensor in memory that no value of the graph stands for: an intermediate between two steps of a node.
    pub fn temporary(dtype: DType, dims: &[usize], layout: Layout, arg: Arg) -> Operand {
        Operand { dtype, dims: dims.to_vec(), layout, name: "".into(), place: Place::Memory(arg) }
    }

    /// A tensor that is never whole in memory: an intermediate inside of one step.
    pub fn passing(dtype: DType, dims: &[usize], layout: Layout) -> Operand {
        Operand { dtype, dims: dims.to_vec(), layout, name: "".into(), place: Place::None }
    }

    /// The constant that it is, if it is one.
    pub fn constant(&self) -> Option<&Constant> {
        match &self.place {
            Place::Constant(c) => Some(c),
            Place::Memory(_) | Place::None => None,
        }
    }

    /// Where it lies, unless it is a constant.
    pub fn memory(&self) -> Option<Arg> {
        match self.place {
            Place::Memory(arg) => Some(arg),
            Place::Constant(_) | Place::None => None,
        }
    }

    /// Number of axes.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// Logical elements.
    pub fn elems(&self) -> usize {
        self.dims.iter().product()
    }

    /// Elements in memory, padding lanes included.
    pub fn stored_elems(&self) -> usize {
        self.layout.stored_elems(&self.dims).expect("checked when the operand was made")
    }

    /// Bytes in memory, padding lanes included.
    pub fn stored_bytes(&self) -> usize {
        self.stored_elems() * self.dtype.bytes()
    }

    /// Its type.
    pub fn ty(&self) -> TensorType {
        TensorType::fixed(self.dtype, &self.dims)
    }

    /// The same memory seen with other extents of as many elements.
    pub fn reshaped(&self, dims: &[usize]) -> Operand {
        debug_assert_eq!(self.elems(), dims.iter().product::<usize>(), "as many elements");
        let place = match &self.place {
            Place::Constant(c) => Place::Constant(c.reshaped(dims).expect("as many elements")),
            Place::Memory(arg) => Place::Memory(*arg),
            Place::None => Place::None,
        };
        Operand { dims: dims.to_vec(), place, ..self.clone() }
    }
}

/// One call of a kernel, as a lowering states it.
#[derive(Clone, Debug)]
pub struct Call {
    /// The kernel.
    pub kernel: KernelId,
    /// Its operands.
    pub args: Vec<Arg>,
    /// How many independent tasks it splits into.
    pub tasks: usize,
    /// Multiply-accumulates; `None` leaves the operator's own number to the last step of the node that says nothing.
    pub macs: Option<u64>,
    /// What it does, for profiles; the operator's name if empty, of a fused one its root's.
    pub label: String,
    /// What it computes and in which way, if its template has more than one.
    pub tunable: Option<Arc<Tunable>>,
}

impl Call {
    /// A call with everything else left to the defaults.
    pub fn new(kernel: KernelId, args: &[Arg], tasks: usize) -> Call {
        Call { kernel, args: args.to_vec(), tasks, macs: None, label: String::new(), tunable: None }
    }

    /// With a label for profiles.
    pub fn labelled(self, label: impl Into<String>) -> Call {
        Call { label: label.into(), ..self }
    }

    /// With what it computes and in which way.
    pub fn tunable(self, tunable: impl Into<Arc<Tunable>>) -> Call {
        Call { tunable: Some(tunable.into()), ..self }
    }

    /// With its number of multiply-accumulates.
    pub fn with_macs(self, macs: u64) -> Call {
        Call { macs: Some(macs), ..self }
    }
}

/// What grows while one level of one shape set is lowered.
pub struct LevelState<'a> {
    set: SetSource<'a>,
    target: &'a Target,
    algorithms: &'a Algorithms,
    pools: &'a mut Pools,
    steps: Vec<Step>,
    scratch_bytes: usize,
    workspace_bytes: usize,
    /// Of the calls so far that differ in kernel, tasks or constants.
    counts: FxHashMap<(KernelId, u64, Vec<Arg>), Rc<Counts>>,
    /// Bytes that the steps so far left in each place of the workspace.
    handed_on: FxHashMap<Arg, u64>,
}

impl<'a> LevelState<'a> {
    pub(super) fn new(
        set: SetSource<'a>,
        target: &'a Target,
        algorithms: &'a Algorithms,
        pools: &'a mut Pools,
    ) -> LevelState<'a> {
        LevelState {
            set,
            target,
            algorithms,
            pools,
            steps: Vec::new(),
            scratch_bytes: 0,
            workspace_bytes: 0,
            counts: FxHashMap::default(),
            handed_on: FxHashMap::default(),
        }
    }

    /// What a call takes whose operands and results have `bytes` bytes besides its weights.
    fn cost(&mut self, kernel: KernelId, args: &[Arg], tasks: u64, bytes: u64) -> Cost {
        let constants: Vec<Arg> = args.iter().copied().filter(|a| matches!(a, Arg::Const(..))).collect();
        let (pools, target) = (&*self.pools, self.target);
        let counts = self.counts.entry((kernel, tasks, constants)).or_insert_with(|| {
            let constant = |i: usize| match args.get(i) {
                Some(&Arg::Const(id, at)) => pools.const_bytes(id).and_then(|bytes| bytes.get(at..)),
                _ => None,
            };
            Rc::new(cost::count::count(pools.kernel_ir(kernel), target, tasks, &constant))
        });
        let counts = counts.clone();
        let mut moved = bytes;
        let workspace = self.workspace_base();
        for (i, &arg) in args.iter().enumerate() {
            if !matches!(arg, Arg::Arena(at) if at >= workspace) {
                continue;
            }
            let stored = counts.stored.get(i).map_or(0, |&bytes| bytes as u64);
            if stored > 0 {
                self.handed_on.insert(arg, stored);
            }
            moved += self.handed_on.get(&arg).copied().unwrap_or(0);
        }
        Cost { cycles: cost::cycles(&counts, tasks), moved }
    }

    /// Where the workspace begins.
    fn workspace_base(&self) -> usize {
        self.set.plan.arena_bytes().next_multiple_of(MAX_ALIGN)
    }

    pub(super) fn finish(self) -> LevelPlan {
        let arena_bytes = if self.workspace_bytes == 0 {
            self.set.plan.arena_bytes()
        } else {
            self.workspace_base() + self.workspace_bytes
        };
        LevelPlan { level: self.target.level, steps: self.steps, arena_bytes, scratch_bytes: self.scratch_bytes }
    }
}

/// The lowering of one operator.
pub struct LowerCx<'s, 'a> {
    level: &'s mut LevelState<'a>,
    node: NodeId,
    operands: Vec<Option<Operand>>,
    outputs: Vec<Operand>,
    macs: u64,
    first_step: usize,
    workspace: usize,
}

impl<'s, 'a> LowerCx<'s, 'a> {
    /// The context of a node of the graph.
    pub(super) fn for_node(level: &'s mut LevelState<'a>, node: NodeId) -> Result<Self, LowerError> {
        let graph = level.set.graph;
        let operands = graph.operands(node).into_iter().map(|v| v.map(|v| operand_of(level.set, v)).transpose());
        let operands = operands.collect::<Result<Vec<Option<Operand>>, _>>()?;
        for operand in operands.iter().flatten() {
            let bytes = operand.elems() * operand.dtype.bytes();
            if bytes > super::MAX_EXPANDED && operand.constant().is_some_and(|c| c.splat_value().is_some()) {
                return Err(LowerError::TooMuchExpanded { node: graph.node_name(node), bytes });
            }
        }
        let outputs = graph.results(node).map(|v| operand_of(level.set, v)).collect::<Result<Vec<_>, _>>()?;
        let types: Vec<Option<TensorType>> = operands.iter().map(|o| o.as_ref().map(Operand::ty)).collect();
        let types: Vec<Option<&TensorType>> = types.iter().map(Option::as_ref).collect();
        let out_types: Vec<TensorType> = outputs.iter().map(Operand::ty).collect();
        let macs = graph.op(node).macs(&types, &out_types).unwrap_or(0);
        let first_step = level.steps.len();
        Ok(LowerCx { level, node, operands, outputs, macs, first_step, workspace: 0 })
    }

    /// The context of the copy of a value into an output of the graph.
    pub(super) fn for_output(level: &'s mut LevelState<'a>, v: ValueId, output: u32) -> Result<Self, LowerError> {
        let from = operand_of(level.set, v)?;
        let to = Operand { place: Place::Memory(Arg::Output(output, 0)), ..from.clone() };
        let first_step = level.steps.len();
        Ok(LowerCx {
            level,
            node: v.node,
            operands: vec![Some(from)],
            outputs: vec![to],
            macs: 0,
            first_step,
            workspace: 0,
        })
    }

    /// A context for an operator inside of this one. Its workspace lies behind what this one has taken so far.
    pub fn nested(&mut self, operands: Vec<Option<Operand>>, outputs: Vec<Operand>) -> LowerCx<'_, 'a> {
        let first_step = self.level.steps.len();
        LowerCx {
            node: self.node,
            operands,
            outputs,
            macs: 0,
            first_step,
            workspace: self.workspace,
            level: &mut *self.level,
        }
    }

    /// Completes the node: says which values of the graph its steps complete and gives the operator's multiply-accumulates to
    /// a step. Not called for nested contexts: the outer one does it.
    pub(super) fn finish(self) -> Result<(), LowerError> {
        let bytes = self.level.pools.expanded();
        if bytes > super::MAX_EXPANDED {
            return Err(LowerError::TooMuchExpanded { node: self.graph().node_name(self.node), bytes });
        }
        let steps = &mut self.level.steps[self.first_step..];
        if steps.iter().all(|s| s.macs == 0)
            && let Some(last) = steps.last_mut()
        {
            last.macs = self.macs;
        }
        for out in &self.outputs {
            let Place::Memory(place) = out.place else { continue };
            let bytes = out.layout.stored_elems(&out.dims).unwrap_or(0) * out.dtype.bytes();
            // The last step with a place in the value among its operands wrote it, for a node reads its own output in no
            // other. It may have written the end alone (a last block of channels): the value's own place then goes along as
            // an operand that its kernel does not look at.
            let last = steps.iter_mut().rev().find(|s| s.args.iter().any(|&a| place.holds(bytes, a)));
            let Some(step) = last else { continue };
            let arg = step.args.iter().rposition(|a| *a == place).unwrap_or_else(|| {
                step.args.push(place);
                step.args.len() - 1
            });
            let (name, dtype) = (out.name.to_string(), out.dtype);
            step.results.push(StepResult { arg, name, dtype, shape: out.dims.clone(), layout: out.layout });
        }
        Ok(())
    }

    /// What is compiled for.
    pub fn target(&self) -> &'a Target {
        self.level.target
    }

    /// Which convolutions take which algorithm.
    pub fn algorithms(&self) -> &'a Algorithms {
        self.level.algorithms
    }

    /// What was chosen elsewhere for a signature, if something was.
    pub(super) fn chosen<T: TryFrom<Choice>>(&self, signature: &str) -> Option<T> {
        self.algorithms().choices().of(signature)
    }

    /// The direct template for a convolution or matrix product, with the schedule chosen for it.
    pub(super) fn direct(&self, conv: &Conv, in_place: bool) -> (Direct<'a>, Tunable) {
        let signature = layer::signature("direct", self.target(), conv, in_place);
        let conv = match self.algorithms().without(Switch::FlatPixels) {
            true => conv.clone(),
            false => flattened(self.target(), conv),
        };
        let direct = Direct::scheduled(self.target(), &conv, in_place, self.chosen(&signature));
        let tunable = layer::tunable(signature, conv, in_place, &direct);
        (direct, tunable)
    }

    /// The template for narrow groups for a convolution, with the strip chosen for it.
    pub(super) fn depthwise(&self, conv: &Conv) -> (Depthwise<'a>, Tunable) {
        // Whether an operand lies in the output's memory makes no difference.
        let signature = layer::signature("depthwise", self.target(), conv, false);
        let depthwise = Depthwise::with_strip(self.target(), conv, self.chosen(&signature));
        let tunable = depthwise.tunable(signature);
        (depthwise, tunable)
    }

    /// The operator's multiply-accumulates.
    pub fn macs(&self) -> u64 {
        self.macs
    }

    /// The graph.
    pub fn graph(&self) -> &'a Graph {
        self.level.set.graph
    }

    /// The node.
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// How many operand positions there are, absent ones counted.
    pub fn operand_count(&self) -> usize {
        self.operands.len()
    }

    /// How many outputs there are.
    pub fn output_count(&self) -> usize {
        self.outputs.len()
    }

    /// An operand that may be absent.
    pub fn optional(&self, i: usize) -> Option<Operand> {
        self.operands.get(i).cloned().flatten()
    }

    /// An operand that the operator's type rule demands.
    ///
    /// # Errors
    /// When it is absent: the graph was not verified.
    pub fn input(&self, i: usize) -> Result<Operand, LowerError> {
        self.optional(i).ok_or_else(|| self.internal(format!("operand {i} is absent")))
    }

    /// All operands.
    pub fn operands(&self) -> &[Option<Operand>] {
        &self.operands
    }

    /// An output.
    ///
    /// # Panics
    /// When the operator has not so many: a bug of its lowering.
    pub fn output(&self, i: usize) -> Operand {
        self.outputs[i].clone()
    }

    /// All outputs.
    pub fn outputs(&self) -> &[Operand] {
        &self.outputs
    }

    /// Where an operand lies. A constant is put into the program as it is, row-major.
    ///
    /// # Errors
    /// When the constant does not fit in memory.
    pub fn arg(&mut self, operand: &Operand) -> Result<Arg, LowerError> {
        match &operand.place {
            Place::Memory(arg) => Ok(*arg),
            Place::Constant(c) => Ok(self.packed(Packed::raw(c.clone()))),
            Place::None => Err(self.internal("an intermediate inside of a step has no place")),
        }
    }

    /// A constant of these bytes, 64-byte aligned; equal bytes are stored once.
    pub fn constant(&mut self, bytes: Vec<u8>) -> Arg {
        Arg::Const(self.level.pools.bytes(bytes), 0)
    }

    /// A constant of these numbers, 64-byte aligned; equal ones are stored once.
    pub fn constant_f32(&mut self, numbers: &[f32]) -> Arg {
        self.constant(numbers.iter().flat_map(|x| x.to_le_bytes()).collect())
    }

    /// A constant made from weights when the program is written, 64-byte aligned; stored once for all sets and levels.
    pub fn packed(&mut self, packed: Packed) -> Arg {
        Arg::Const(self.level.pools.packed(packed), 0)
    }

    /// Adds a kernel of this level, or finds the equal one that is there.
    pub fn kernel(&mut self, kernel: Kernel) -> KernelId {
        self.level.pools.kernel(self.level.target.level, kernel)
    }

    /// Asks for scratch memory: at least `bytes` for each thread, aligned to 64.
    pub fn scratch(&mut self, bytes: usize) {
        self.level.scratch_bytes = self.level.scratch_bytes.max(bytes.next_multiple_of(MAX_ALIGN));
    }

    /// Takes `bytes` of memory that all threads share, aligned to 64, for this node: its contents hold between the node's
    /// steps and not beyond.
    pub fn workspace(&mut self, bytes: usize) -> Arg {
        let at = self.workspace;
        self.workspace += bytes.next_multiple_of(MAX_ALIGN);
        self.level.workspace_bytes = self.level.workspace_bytes.max(self.workspace);
        Arg::Arena(self.level.workspace_base() + at)
    }

    /// A tensor in [`workspace`](LowerCx::workspace) memory.
    ///
    /// # Errors
    /// When it does not fit in memory.
    pub fn temporary(&mut self, dtype: DType, dims: &[usize], layout: Layout) -> Result<Operand, LowerError> {
        let bytes = layout.stored_elems(dims).and_then(|n| n.checked_mul(dtype.bytes()));
        let Some(bytes) = bytes.filter(|&b| b <= MAX_BYTES) else {
            let (node, ty) = (self.graph().node_name(self.node), TensorType::fixed(dtype, dims).to_string());
            return Err(LowerError::TooLarge { node, value: "an intermediate".into(), ty });
        };
        let arg = self.workspace(bytes);
        Ok(Operand::temporary(dtype, dims, layout, arg))
    }

    /// Appends a step.
    pub fn step(&mut self, call: Call) {
        let op = match self.graph().op(self.node) {
            _ if !call.label.is_empty() => call.label,
            // What it is fused with stands in the step's name.
            Op::Fused(fused) => fused.root.as_ref().map_or("fused", |root| root.name()).into(),
            op => op.name().into(),
        };
        // Each operand is counted once, whole; temporaries of the workspace are not known here and stay uncounted.
        let mut seen: Vec<Arg> = Vec::with_capacity(call.args.len());
        let (mut bytes, mut weight_bytes) = (0, 0);
        for &arg in &call.args {
            if seen.contains(&arg) {
                continue;
            }
            seen.push(arg);
            let len = match arg {
                Arg::Const(id, offset) => self.level.pools.const_len(id).saturating_sub(offset),
                place => self
                    .operands
                    .iter()
                    .flatten()
                    .chain(&self.outputs)
                    .find(|o| o.memory() == Some(place))
                    .map_or(0, Operand::stored_bytes),
            } as u64;
            bytes += len;
            if matches!(arg, Arg::Const(..)) {
                weight_bytes += len;
            }
        }
        let name = self.graph().node_name(self.node);
        let (kernel, args, tasks, macs) = (call.kernel, call.args, call.tasks as u64, call.macs.unwrap_or(0));
        let cost = self.level.cost(kernel, &args, tasks, bytes - weight_bytes);
        let results = Vec::new();
        let tunable = call.tunable;
        let step = Step { name, op, kernel, args, tasks, macs, bytes, weight_bytes, cost, tunable, results };
        self.level.steps.push(step);
    }

    /// The error for what has no kernel; `what` completes the sentence "unsupported: OPERATOR: ...".
    pub fn unsupported(&self, what: impl Into<String>) -> LowerError {
        let op = self.graph().op(self.node).name().to_string();
        LowerError::Unsupported { node: self.graph().node_name(self.node), op, what: what.into() }
    }

    /// The error for a broken promise of an earlier pass.
    pub fn internal(&self, what: impl Into<String>) -> LowerError {
        LowerError::Internal { node: self.graph().node_name(self.node), what: what.into() }
    }
}

/// No tensor is larger: kernels compute addresses in i64 and offsets within a row in i32.
const MAX_BYTES: usize = 1 << 46;

/// The extents of a value.
pub(super) fn known_dims(graph: &Graph, v: ValueId) -> Result<Vec<usize>, LowerError> {
    let (ty, node, value) = (graph.ty(v), graph.node_name(v.node), graph.value(v).name.to_string());
    let Some(dims) = ty.dims() else {
        let dim = ty.symbols().first().map_or(String::new(), ToString::to_string);
        return Err(LowerError::Symbolic { node, value, dim });
    };
    let stored = graph.value(v).layout.stored_elems(&dims).and_then(|n| n.checked_mul(ty.dtype.bytes()));
    match stored {
        Some(bytes) if bytes <= MAX_BYTES => Ok(dims),
        _ => Err(LowerError::TooLarge { node, value, ty: ty.to_string() }),
    }
}

fn operand_of(set: SetSource<'_>, v: ValueId) -> Result<Operand, LowerError> {
    let value = set.graph.value(v);
    let dims = known_dims(set.graph, v)?;
    let (layout, place) = match (set.graph.constant(v), set.plan.place(v)) {
        (Some(c), _) => (Layout::RowMajor, Place::Constant(c.clone())),
        (None, Some(arg)) => (value.layout, Place::Memory(arg)),
        (None, None) => {
            let node = set.graph.node_name(v.node);
            return Err(LowerError::Internal { node, what: format!("the plan has no place for {}", value.name) });
        }
    };
    Ok(Operand { dtype: value.ty.dtype, dims, layout, name: value.name.clone(), place })
}
