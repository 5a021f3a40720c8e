//! The training step: a forward graph and options in, a graph out that runs the model, measures the loss, and gives every
//! parameter, moment and statistic its next value.
//!
//! ```text
//! inputs    the model's .. | target | share: f32, if several batches make one update | learning_rate: f32 | seed_and_step: i64[2] | states ..
//! outputs   the model's .. | loss: f32 | gradient_norms: f32[..], if asked for   | the states' next values ..
//! ```
//!
//! Where several batches make one update (`accumulate`) the step adds its gradients to what *gather* steps have left in
//! accumulators, which are states too, and leaves them at zero. A gather step is the same up to the gradients, and moves
//! accumulators and statistics alone. Both are told the batch's share of the update's samples:
//!
//! ```text
//! gather    inputs: as the step (the learning rate is not used), states up to the accumulators
//!           outputs: the model's .. | loss | the next values of statistics and accumulators
//! ```
//!
//! A loss that is no number, or infinite, changes no state: what was learnt before is not lost, and the step can be run once more to
//! see where it came from.
//!
//! A state's next value has its type, and the node that makes it reads the state at the element that it writes only: it may
//! be written over the state by whoever runs that node behind the state's other readers. The number of the step counts from 0.
//!
//! What reads the states alone is made by itself, since a batch of one sample, which has no variance to learn with, can be
//! measured. In both graphs batch normalizations use their running statistics and nothing is dropped:
//!
//! ```text
//! evaluation   inputs: the model's .. | target | parameters and statistics, in the states' order
//!              outputs: the model's .. | loss
//! inference    inputs: the model's .. | parameters and statistics, in the states' order
//!              outputs: the model's ..
//! ```
//!
//! Order: constants become inputs, batch normalizations and what draws (dropout, RReLU) take their training form, then loss and penalties,
//! gradients, clipping (by value, then by the norm of all, as PyTorch's two functions one after the other), optimizer,
//! moving averages. Needs known shapes and a graph as the importer makes it for training, with dropouts in it and weights
//! that are not folded.
//!
//! The prediction is the model's first output. Where a model ends in the softmax (or sigmoid) that its loss has inside, the
//! loss takes that operator's operand.

mod lbfgs;
mod moments;
mod next;

use super::emit::{Built, Emit};
use super::optimizers::{Clock, Update};
use super::options::{Clip, TrainingOptions};
use super::parameters::{self, Role};
use super::{Loss, Optimizer, TrainingError};
use moments::Memory;
use nncc_ir::differentiate;
use nncc_ir::ops::activation::LeakyRelu;
use nncc_ir::ops::batch_norm::BatchNormTraining;
use nncc_ir::ops::concat::Concat;
use nncc_ir::ops::reduce::ReduceKind;
use nncc_ir::ops::slice::Slice;
use nncc_ir::pointwise::{BinaryFn, CompareFn, UnaryFn};
use nncc_ir::{Constant, DType, Dim, Graph, NodeId, Op, Tensor, TensorType, ValueId};
use rustc_hash::FxHashMap;

/// What a state is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateKind {
    /// A weight of the model.
    Parameter,
    /// A running mean or variance of the model.
    Statistic,
    /// The sum of a parameter's gradients since the last update: zero behind one.
    Gradient,
    /// What the optimizer remembers.
    Moment,
    /// The moving average of a parameter.
    Average,
}

/// A value that goes from one step to the next.
#[derive(Clone, Debug)]
pub struct State {
    /// Of parameters and statistics the initializer's; else with what it is in front: `exp_avg/fc.weight`.
    pub name: String,
    /// What it is.
    pub kind: StateKind,
    /// The parameter that a gradient, a moment or an average belongs to.
    pub of: Option<String>,
    /// Its place among the inputs of the step.
    pub input: usize,
    /// Its next value's place among the outputs of the step.
    pub output: usize,
    /// Its value before the first step.
    pub initial: Constant,
}

impl State {
    /// Whether it is one of the model's own, which evaluations and inferences read. These stand in front of all others.
    pub fn is_of_model(&self) -> bool {
        matches!(self.kind, StateKind::Parameter | StateKind::Statistic)
    }
}

/// A training step: see the module.
#[derive(Clone, Debug)]
pub struct TrainingGraph {
    /// The step.
    pub step: Graph,
    /// A step without an update, if they accumulate.
    pub gather: Option<Gather>,
    /// What goes from one step to the next, in the order of the inputs.
    pub states: Vec<State>,
    /// The place of the target among the inputs of the step, as of an evaluation.
    pub target: usize,
    /// The place of the loss among the outputs of the step, as of an evaluation.
    pub loss: usize,
    /// The parameters whose gradients' norms are the output behind the loss, in its order: empty if nobody asked.
    pub watched: Vec<String>,
    /// The results of ReLUs, by name: units among them may be dead.
    pub rectified: Vec<String>,
    /// What the user should know: one sentence each.
    pub notes: Vec<String>,
}

/// A step that only adds to the accumulators: see the module.
#[derive(Clone, Debug)]
pub struct Gather {
    /// The graph.
    pub graph: Graph,
    /// How many of the states it reads: the first.
    pub reads: usize,
    /// The states whose next values are its last outputs, in their order, with the places of these.
    pub writes: Vec<(usize, usize)>,
}

/// The graph that measures a model: see the module.
#[derive(Clone, Debug)]
pub struct EvaluationGraph {
    /// The graph.
    pub graph: Graph,
    /// The place of the target among its inputs.
    pub target: usize,
    /// The place of the loss among its outputs.
    pub loss: usize,
    /// What the user should know: one sentence each.
    pub notes: Vec<String>,
}

/// Makes the graph that measures a model as it is: its weights stay constants, and nothing of it need be learned.
pub fn evaluation_graph(forward: &Graph, options: &TrainingOptions) -> Result<EvaluationGraph, TrainingError> {
    evaluation(forward, options, &[])
}

/// Makes the graph that measures a model with what was learnt: see the module.
pub fn evaluation_of_states(forward: &Graph, options: &TrainingOptions) -> Result<EvaluationGraph, TrainingError> {
    evaluation(forward, options, &learned(forward, &in_order(forward)?, options)?)
}

/// The evaluation, with `kept` as inputs.
fn evaluation(
    forward: &Graph,
    options: &TrainingOptions,
    kept: &[(NodeId, Role)],
) -> Result<EvaluationGraph, TrainingError> {
    let (loss_operand, note) = loss_operand(forward, &options.loss)?;
    let mut graph = forward.clone();
    let target = graph.inputs().len();
    let measured = options.evaluation_loss.as_ref().unwrap_or(&options.loss);
    // The target has the step's type of element, as all sets of a library that learns have: classes where the step takes
    // probabilities are whole numbers in f32.
    let wanted = measured.target(forward.ty(loss_operand))?;
    let dtype = options.loss.target(forward.ty(loss_operand))?.dtype;
    let given = graph.add_input("target", TensorType { dtype, ..wanted.clone() });
    let target_value = Emit::new(&mut graph, "loss").cast(given, wanted.dtype)?;
    for &(n, _) in kept {
        become_input(&mut graph, n);
    }
    let evaluated = settle(&mut graph, loss_operand)?;
    let value = measured.build(&mut graph, evaluated, target_value)?;
    let loss = graph.outputs().len();
    graph.add_output("loss", value);
    Ok(EvaluationGraph { graph, target, loss, notes: note.into_iter().collect() })
}

/// The names of what ReLUs give.
fn rectified(g: &Graph, order: &[NodeId]) -> Vec<String> {
    order.iter().filter(|n| matches!(g.op(**n), Op::Relu(_))).map(|n| name_of(g, *n).to_string()).collect()
}

impl TrainingGraph {
    /// The place of the learning rate among the inputs of the step.
    pub fn learning_rate(&self) -> usize {
        self.target + 1 + usize::from(self.gather.is_some())
    }

    /// The place of seed and number of the step among the inputs of the step.
    pub fn seed_and_step(&self) -> usize {
        self.learning_rate() + 1
    }
}

/// Makes the graph that infers with what was learnt: see the module.
pub fn inference(forward: &Graph, options: &TrainingOptions) -> Result<Graph, TrainingError> {
    let mut graph = forward.clone();
    for (n, _) in learned(forward, &in_order(forward)?, options)? {
        become_input(&mut graph, n);
    }
    if let Some(&(_, prediction)) = graph.outputs().first() {
        settle(&mut graph, prediction)?;
    }
    Ok(graph)
}

/// The constants that become states, in their order.
fn learned(forward: &Graph, order: &[NodeId], options: &TrainingOptions) -> Result<Vec<(NodeId, Role)>, TrainingError> {
    let roles = parameters::find(forward, order);
    if !roles.iter().any(|(_, role)| *role == Role::Parameter) {
        return Err(TrainingError::NoParameters("no weight of it is a constant that an operator learns by"));
    }
    let frozen = |n: NodeId| options.group(name_of(forward, n)).is_some_and(|g| g.frozen);
    let kept: Vec<(NodeId, Role)> = roles.iter().filter(|(n, _)| !frozen(*n)).copied().collect();
    match kept.iter().any(|(_, role)| *role == Role::Parameter) {
        true => Ok(kept),
        false => Err(TrainingError::NoParameters("every parameter is frozen")),
    }
}

/// Makes the training step of a model.
pub fn training_step(forward: &Graph, options: &TrainingOptions) -> Result<TrainingGraph, TrainingError> {
    options.check()?;
    let order = in_order(forward)?;
    let kept = learned(forward, &order, options)?;
    let (loss_operand, note) = loss_operand(forward, &options.loss)?;
    let notes = folded_norms(forward, &order).into_iter().chain(note).collect();

    let (target, loss) = (forward.inputs().len(), forward.outputs().len());
    let target_type = options.loss.target(forward.ty(loss_operand))?;
    let mut builder = StepBuilder::new(forward.clone(), target_type, loss_operand, options);
    kept.iter().for_each(|&(n, role)| builder.adopt(n, role));
    builder.train_batch_norms()?;
    builder.draw();
    builder.learn()?;
    for i in 0..builder.states.len() {
        builder.next[i] = builder.unless_not_finite(i, builder.next[i])?;
    }
    let StepBuilder { graph: mut step, mut states, next, gather, watched, .. } = builder;
    for (state, value) in states.iter_mut().zip(&next) {
        state.output = step.outputs().len();
        step.add_output(&format!("next/{}", state.name), *value);
    }
    let rectified = rectified(forward, &order);
    Ok(TrainingGraph { step, gather, states, target, loss, watched, rectified, notes })
}

fn in_order(g: &Graph) -> Result<Vec<NodeId>, TrainingError> {
    g.topological_order().ok_or_else(|| TrainingError::Bug("the graph has a cycle".into()))
}

fn name_of(g: &Graph, n: NodeId) -> &str {
    g.node(n).outputs().first().map_or("", |v| &v.name)
}

/// Makes a constant an input of the same name; gives its value.
fn become_input(g: &mut Graph, n: NodeId) -> (ValueId, Option<Constant>) {
    let old = ValueId { node: n, out: 0 };
    let (name, ty) = (g.value(old).name.to_string(), g.ty(old).clone());
    let value = g.constant(old).cloned();
    g.rename(old, ""); // the name is the input's now
    let new = g.add_input(&name, ty);
    g.replace_uses(old, new);
    g.remove(n);
    (new, value)
}

/// A constant of a type whose elements are all this number.
fn filled(ty: &TensorType, number: f64) -> Constant {
    let one = Tensor::from_f64(ty.dtype, &[], &[number]);
    let dims = ty.dims().unwrap_or_default();
    Constant::splat(&one, &dims).unwrap_or_else(|| Constant::from_tensor(&one)) // `one` is one element
}

/// Takes what draws out of the graph: a dropout is nothing in evaluation, an RReLU a leaky ReLU. Gives what `watched` is then.
fn settle(g: &mut Graph, watched: ValueId) -> Result<ValueId, TrainingError> {
    let mut watched = watched;
    for n in drawing(g) {
        let Some(x) = g.operand(n, 0) else { continue };
        let settled = match g.op(n) {
            Op::RRelu(r) => {
                let (op, origin) = (LeakyRelu { alpha: r.mean() }, g.node(n).origin.clone());
                g.add1(op, &[x], origin, "").map_err(|e| TrainingError::Bug(e.0))?
            }
            _ => x,
        };
        watched = if watched.node == n { settled } else { watched };
        g.replace_uses(ValueId { node: n, out: 0 }, settled);
        g.remove(n);
    }
    Ok(watched)
}

/// In reverse: one that draws for another's result stands before it.
fn drawing(g: &Graph) -> Vec<NodeId> {
    let mut order = g.topological_order().unwrap_or_default();
    order.retain(|n| g.op(*n).draws());
    order.reverse();
    order
}

/// What the loss should take: the prediction, or, with a note, what stands before the activation that the loss has inside.
fn loss_operand(g: &Graph, loss: &Loss) -> Result<(ValueId, Option<String>), TrainingError> {
    let prediction = g.outputs().first().ok_or(TrainingError::NoParameters("it has no output"))?.1;
    let inside = match g.op(prediction.node) {
        Op::Softmax(s) => loss.has_softmax() && s.axis == 1,
        Op::Unary(u) => loss.has_sigmoid() && u.function == UnaryFn::Sigmoid,
        _ => false,
    };
    Ok(match g.operand(prediction.node, 0) {
        Some(x) if inside => {
            let (op, node) = (g.op(prediction.node).name(), &g.value(prediction).name);
            let note = format!("the loss has the {op} of \"{node}\" inside: it is computed of that operator's operand");
            (x, Some(note))
        }
        _ => (prediction, None),
    })
}

/// A note where a model shows that its exporter has folded batch normalizations.
fn folded_norms(g: &Graph, order: &[NodeId]) -> Option<String> {
    let convs: Vec<NodeId> = order.iter().copied().filter(|n| matches!(g.op(*n), Op::Conv(_))).collect();
    // PyTorch's exporter names what it has computed itself after the operator that takes it.
    let folded = |n: &&NodeId| {
        let name = g.operand(**n, 1).map(|w| g.value(w).name.clone());
        name.is_some_and(|name| name.starts_with("onnx::Conv_"))
    };
    let count = convs.iter().filter(folded).count();
    (count > 0).then(|| {
        format!(
            "the exporter has folded the batch normalization behind {count} of {} convolutions into their weights: they train \
             without it; export with training=TrainingMode.PRESERVE and do_constant_folding=False to keep it",
            convs.len()
        )
    })
}

/// The step while it is built.
struct StepBuilder<'a> {
    graph: Graph,
    options: &'a TrainingOptions,
    target: ValueId,
    /// What the loss takes.
    loss_operand: ValueId,
    rate: ValueId,
    seed_and_step: ValueId,
    /// What the batch's gradients count, if they are accumulated.
    share: Option<ValueId>,
    /// 1 where the loss is a finite number, else 0.
    finite: Option<ValueId>,
    states: Vec<State>,
    /// The current value of each state's input, and its next value: the input itself until there is one.
    current: Vec<ValueId>,
    next: Vec<ValueId>,
    by_name: FxHashMap<String, usize>,
    gather: Option<Gather>,
    watched: Vec<String>,
}

impl<'a> StepBuilder<'a> {
    fn new(
        mut graph: Graph,
        target: TensorType,
        loss_operand: ValueId,
        options: &'a TrainingOptions,
    ) -> StepBuilder<'a> {
        let target = graph.add_input("target", target);
        let share = options.accumulate.then(|| graph.add_input("share", TensorType::fixed(DType::F32, &[])));
        let rate = graph.add_input("learning_rate", TensorType::fixed(DType::F32, &[]));
        let seed_and_step = graph.add_input("seed_and_step", TensorType::fixed(DType::I64, &[2]));
        StepBuilder {
            graph,
            options,
            target,
            loss_operand,
            rate,
            seed_and_step,
            share,
            finite: None,
            states: Vec::new(),
            current: Vec::new(),
            next: Vec::new(),
            by_name: FxHashMap::default(),
            gather: None,
            watched: Vec::new(),
        }
    }

    /// Makes a constant of the model a state.
    fn adopt(&mut self, n: NodeId, role: Role) {
        let name = name_of(&self.graph, n).to_string();
        let (input, initial) = become_input(&mut self.graph, n);
        let kind = match role {
            Role::Parameter => StateKind::Parameter,
            Role::Statistic => StateKind::Statistic,
        };
        let initial = initial.unwrap_or_else(|| Constant::from_tensor(&Tensor::zeros(DType::F32, &[])));
        self.register(name, kind, None, input, initial);
    }

    fn register(&mut self, name: String, kind: StateKind, of: Option<String>, value: ValueId, initial: Constant) {
        // outputs are added when all states are known
        let (input, output) = (self.graph.inputs().len() - 1, 0);
        self.by_name.insert(name.clone(), self.states.len());
        self.states.push(State { name, kind, of, input, output, initial });
        self.current.push(value);
        self.next.push(value);
    }

    /// The state that a value is the input of.
    fn state_of(&self, v: ValueId) -> Option<usize> {
        self.current.iter().position(|c| *c == v)
    }

    /// Batch normalizations whose statistics are states compute their own; several that share statistics move them one
    /// after the other.
    fn train_batch_norms(&mut self) -> Result<(), TrainingError> {
        for n in in_order(&self.graph)? {
            let Op::BatchNorm(norm) = self.graph.op(n) else { continue };
            let epsilon = norm.epsilon;
            let operands = self.graph.operands(n);
            let of = |i: usize| operands.get(i).copied().flatten();
            let (Some(mean), Some(var)) = (of(3), of(4)) else { continue };
            let (Some(mean), Some(var)) = (self.state_of(mean), self.state_of(var)) else { continue };
            let op = BatchNormTraining { epsilon, momentum: 1.0 - self.options.batch_norm_momentum, unbiased: true };
            let (origin, name) = (self.graph.node(n).origin.clone(), name_of(&self.graph, n).to_string());
            let x = of(0).map(|x| self.graph.ty(x).clone());
            let elements = x.and_then(|ty| Some((ty.elems()?, ty.shape.get(1).map_or(Some(1), Dim::size)?)));
            if elements.is_some_and(|(all, channels)| all <= channels) {
                return Err(TrainingError::OneElement(self.graph.node_name(n)));
            }
            let operands = [of(0), of(1), of(2), Some(self.next[mean]), Some(self.next[var])];
            // What a search for the first number that is none may have to name.
            let names = ["train", "next_mean", "next_var", "mean", "inverse"].map(|what| format!("{name}.{what}"));
            let added = self.graph.add(op, &operands, origin, &names.each_ref().map(String::as_str));
            let trained = added.map_err(|e| TrainingError::Bug(e.0))?;
            let (old, new) = (ValueId { node: n, out: 0 }, ValueId { node: trained, out: 0 });
            self.loss_operand = if self.loss_operand == old { new } else { self.loss_operand };
            self.graph.replace_uses(old, new);
            self.graph.remove(n);
            self.graph.rename(new, &name);
            self.next[mean] = ValueId { node: trained, out: 1 };
            self.next[var] = ValueId { node: trained, out: 2 };
        }
        Ok(())
    }

    /// What draws draws by the seed and the step.
    fn draw(&mut self) {
        for n in drawing(&self.graph) {
            self.graph.set_operand(n, 1, Some(self.seed_and_step));
        }
    }

    /// Loss, gradients, optimizer.
    fn learn(&mut self) -> Result<(), TrainingError> {
        let data_loss = self.options.loss.build(&mut self.graph, self.loss_operand, self.target)?;
        let parameters: Vec<usize> =
            (0..self.states.len()).filter(|&i| self.states[i].kind == StateKind::Parameter).collect();
        let values: Vec<ValueId> = parameters.iter().map(|&i| self.current[i]).collect();
        let loss = self.penalised(data_loss, &values)?;
        let gradients = differentiate(&mut self.graph, loss, &values)?;
        self.graph.add_output("loss", loss);
        self.finite = Some(Emit::new(&mut self.graph, "finite").map(&[loss], |p, v| {
            let size = p.unary(UnaryFn::Abs, v[0]);
            let [infinite, one, zero] = [f64::INFINITY, 1.0, 0.0].map(|x| p.constant(p.type_of(size), x));
            let finite = p.compare(CompareFn::Lt, size, infinite);
            p.select(finite, one, zero)
        })?);
        let mut learned: Vec<(usize, ValueId)> =
            parameters.iter().zip(gradients).filter_map(|(&i, g)| Some((i, g?))).collect();
        if learned.is_empty() {
            return Err(TrainingError::NoParameters("the loss depends on no parameter"));
        }
        if let Some(share) = self.share {
            self.accumulate(&mut learned, share)?;
        }
        if self.options.watch {
            self.watch(&learned)?;
        }
        self.clip(&mut learned)?;
        let time = self.time()?;
        if let Optimizer::Lbfgs { history_size } = self.options.optimizer {
            let new = self.lbfgs(&learned, time, history_size as usize)?;
            return learned.iter().zip(new).try_for_each(|(&(i, _), new)| self.moved(i, new));
        }
        for (i, gradient) in learned {
            self.update(i, gradient, time)?;
        }
        Ok(())
    }

    fn penalised(&mut self, loss: ValueId, parameters: &[ValueId]) -> Built {
        let (l1, l2) = (self.options.l1, self.options.l2);
        let mut emit = Emit::new(&mut self.graph, "penalty");
        let mut sum = loss;
        for (factor, kind) in [(l1, ReduceKind::L1), (l2, ReduceKind::SumSquare)] {
            for &p in parameters {
                if factor == 0.0 || emit.ty(p).rank() < 2 {
                    continue;
                }
                let norm = emit.reduce_all(kind, p)?;
                let penalty = emit.scale(norm, factor)?;
                let penalty = emit.cast(penalty, emit.dtype(loss))?;
                sum = emit.add(sum, penalty)?;
            }
        }
        Ok(sum)
    }

    fn watch(&mut self, gradients: &[(usize, ValueId)]) -> Result<(), TrainingError> {
        self.watched = gradients.iter().map(|(i, _)| self.states[*i].name.clone()).collect();
        let mut emit = Emit::new(&mut self.graph, "watch");
        let mut norms = Vec::new();
        for &(_, g) in gradients {
            let norm = emit.reduce_all(ReduceKind::L2, g)?;
            let norm = emit.cast(norm, DType::F32)?;
            norms.push(emit.reshape(norm, vec![Dim::Known(1)])?);
        }
        let norms = emit.op(Concat { axis: 0 }, &norms)?;
        self.graph.add_output("gradient_norms", norms);
        Ok(())
    }

    fn clip(&mut self, gradients: &mut [(usize, ValueId)]) -> Result<(), TrainingError> {
        let Clip { value, norm } = self.options.clip;
        let mut emit = Emit::new(&mut self.graph, "clip");
        if let Some(bound) = value {
            for (_, g) in gradients.iter_mut() {
                *g = emit.map(&[*g], |p, v| {
                    let low = p.binary_const(BinaryFn::Max, v[0], -bound);
                    p.binary_const(BinaryFn::Min, low, bound)
                })?;
            }
        }
        let Some(bound) = norm else { return Ok(()) };
        let mut squares = None;
        for &(_, g) in gradients.iter() {
            let square = emit.reduce_all(ReduceKind::SumSquare, g)?;
            let square = emit.cast(square, DType::F32)?;
            squares = Some(match squares {
                Some(sum) => emit.add(sum, square)?,
                None => square,
            });
        }
        let Some(squares) = squares else { return Ok(()) };
        let factor = emit.map(&[squares], |p, v| {
            let norm = p.unary(UnaryFn::Sqrt, v[0]);
            let norm = p.binary_const(BinaryFn::Add, norm, 1e-6); // PyTorch's guard against a norm of 0
            let bound = p.constant(p.type_of(norm), bound);
            let factor = p.binary(BinaryFn::Div, bound, norm);
            p.binary_const(BinaryFn::Min, factor, 1.0)
        })?;
        for (_, g) in gradients.iter_mut() {
            let factor = emit.cast(factor, emit.dtype(*g))?;
            *g = emit.mul(*g, factor)?;
        }
        Ok(())
    }

    /// The number of the step from 1, as f32.
    fn time(&mut self) -> Built {
        let seed_and_step = self.seed_and_step;
        let mut emit = Emit::new(&mut self.graph, "clock");
        let slice = Slice { starts: vec![Dim::Known(1)], lens: vec![Dim::Known(1)], steps: vec![1] };
        let step = emit.op(slice, &[seed_and_step])?;
        let step = emit.reshape(step, Vec::new())?;
        let step = emit.cast(step, DType::F32)?;
        emit.with(BinaryFn::Add, step, 1.0)
    }

    fn update(&mut self, i: usize, gradient: ValueId, time: ValueId) -> Result<(), TrainingError> {
        let (options, name, rate) = (self.options, self.states[i].name.clone(), self.rate);
        let group = options.group(&name);
        let weight_decay = group.and_then(|g| g.weight_decay).unwrap_or(options.weight_decay);
        let parameter = self.current[i];
        let mut graph = std::mem::take(&mut self.graph);
        let mut emit = Emit::new(&mut graph, &format!("optimizer/{name}"));
        let dtype = emit.dtype(parameter);
        let rate = emit.scale(rate, group.map_or(1.0, |g| g.rate))?;
        let clock = Clock { rate: emit.cast(rate, dtype)?, time: emit.cast(time, dtype)? };
        let mut memory = Memory { builder: self, parameter: name.clone(), value: parameter };
        let update = Update { emit: &mut emit, states: &mut memory, parameter, gradient, clock, weight_decay };
        let new = update.build(&options.optimizer)?;
        self.graph = graph;
        self.moved(i, new)
    }

    /// Takes a parameter's new value, and moves its average.
    fn moved(&mut self, i: usize, new: ValueId) -> Result<(), TrainingError> {
        self.next[i] = new;
        let Some(share) = self.options.average else { return Ok(()) };
        let (name, initial) = (self.states[i].name.clone(), self.states[i].initial.clone());
        let state = format!("average/{name}");
        let mut emit = Emit::new(&mut self.graph, &format!("optimizer/{name}"));
        let old = emit.graph.add_input(&state, emit.ty(new));
        let average = emit.map(&[old, new], |p, v| {
            let (old, new) =
                (p.binary_const(BinaryFn::Mul, v[0], share), p.binary_const(BinaryFn::Mul, v[1], 1.0 - share));
            p.binary(BinaryFn::Add, old, new)
        })?;
        self.register(state, StateKind::Average, Some(name), old, initial);
        if let Some(last) = self.next.last_mut() {
            *last = average;
        }
        Ok(())
    }
}
