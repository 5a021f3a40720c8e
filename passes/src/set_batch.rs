//! `set_batch`: a graph made for batches of one size, for batches of another.
//!
//! ```text
//! %x: f32[1,3,8,8]                                          %x: f32[16,3,8,8]
//! %c = conv %x, @w                          [1,4,1,1]       %c = conv %x, @w                          [16,4,1,1]
//! %f = reshape %c, shape=[1,4]                              %f = reshape %c, shape=[16,4]
//! return %f                                                 return %f
//! ```
//!
//! Exporters bake the size of the batch that they traced into shapes. The size changes here where every operator keeps the
//! samples of a batch apart ([`nncc_ir::batch`]), so that the result for N samples is that of N samples by themselves; the
//! first operator that does not is named. What all samples share and an operator needs for each (a class token that is
//! concatenated) is repeated.
//!
//! Needs: the first dimension of every input that has one is the batch, a number. Keeps: names, origins, everything but that
//! dimension. It runs right after import, where shape arithmetic is attributes already and no operator is fused.

use nncc_ir::batch::{BatchCx, Batched};
use nncc_ir::ops::expand::Tile;
use nncc_ir::{Dim, Graph, NodeId, Op, Operands, TensorType, TypeError, ValueId};
use rustc_hash::FxHashMap;

/// Why a graph has no batch of another size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// An input's first dimension is no number, or none that a batch can have.
    #[error("input \"{input}\" is {ty}: its first dimension is no batch of a known size")]
    Input {
        /// The input.
        input: String,
        /// Its type.
        ty: String,
    },
    /// Two inputs differ in their first dimension.
    #[error("input \"{first}\" has the first dimension {size}, input \"{second}\" has {other}: that is no one batch")]
    Inputs {
        /// An input.
        first: String,
        /// Its first dimension.
        size: usize,
        /// Another input.
        second: String,
        /// Its first dimension.
        other: usize,
    },
    /// No input has axes.
    #[error("no input has a batch")]
    NoInput,
    /// An operator mixes the samples of a batch, or has its size in a form that is not known.
    #[error(
        "the batch of {from} cannot become one of {to}: node \"{node}\" ({op} of {operands}) does not keep its samples apart"
    )]
    Node {
        /// The node, by the model's names.
        node: String,
        /// Its operator.
        op: &'static str,
        /// The types of its operands.
        operands: String,
        /// The present size.
        from: usize,
        /// The wanted size.
        to: usize,
    },
    /// An output has the samples elsewhere than on an axis of their own in front.
    #[error(
        "the batch of {from} cannot become one of {to}: output \"{output}\" is {ty}, with the samples not in front"
    )]
    Output {
        /// The output.
        output: String,
        /// Its type.
        ty: String,
        /// The present size.
        from: usize,
        /// The wanted size.
        to: usize,
    },
    /// An operator's rule contradicts its shape inference.
    #[error("bug in nncc: set_batch at node \"{node}\": {what}")]
    Bug {
        /// The node.
        node: String,
        /// The contradiction.
        what: String,
    },
}

/// The size of the batches that a graph is made for: the first dimension of every input that has one.
///
/// # Errors
/// When it is no number, or not the same for all.
pub fn batch_of(g: &Graph) -> Result<usize, BatchError> {
    let mut batch: Option<(&str, usize)> = None;
    for &input in g.inputs() {
        let value = g.value(ValueId { node: input, out: 0 });
        let Some(first) = value.ty.shape.first() else { continue };
        let size = first.size().filter(|&n| n > 0);
        let size = size.ok_or_else(|| BatchError::Input { input: value.name.to_string(), ty: value.ty.to_string() })?;
        match batch {
            Some((first, other)) if other != size => {
                let (first, second) = (first.to_string(), value.name.to_string());
                return Err(BatchError::Inputs { first, size: other, second, other: size });
            }
            _ => batch = Some((&value.name, size)),
        }
    }
    batch.map(|(_, size)| size).ok_or(BatchError::NoInput)
}

/// The graph for batches of `to` samples.
///
/// # Errors
/// When its inputs have no batch of one known size, or an operator does not keep the samples of a batch apart.
pub fn set_batch(g: &Graph, to: usize) -> Result<Graph, BatchError> {
    let from = batch_of(g)?;
    if from == to {
        return Ok(g.clone());
    }
    let mut change = Change { old: g, new: Graph::new(&g.name), samples: FxHashMap::default(), from, to };
    // Inputs in their order, and weights under their names.
    for &n in g.inputs() {
        change.input(n)?;
    }
    for n in g.topological_order().unwrap_or_default() {
        match g.op(n) {
            Op::Input => {}
            Op::Constant(c) => {
                let value = ValueId { node: n, out: 0 };
                let copy = change.new.add_constant(&g.value(value).name, c.clone());
                change.samples.insert(value, (copy, None));
            }
            _ => change.node(n)?,
        }
    }
    for (name, value) in g.outputs() {
        change.output(name, *value)?;
    }
    for &(input, output) in g.states() {
        change.new.add_state(input, output);
    }
    Ok(change.new)
}

/// Where samples stand: see [`nncc_ir::batch`].
#[derive(Clone, Copy)]
struct Samples {
    axis: usize,
    outer: usize,
}

struct Change<'g> {
    old: &'g Graph,
    new: Graph,
    /// For each value that one in the new graph, and where the samples stand in it, if it has any.
    samples: FxHashMap<ValueId, (ValueId, Option<Samples>)>,
    from: usize,
    to: usize,
}

impl Change<'_> {
    fn input(&mut self, n: NodeId) -> Result<(), BatchError> {
        let value = ValueId { node: n, out: 0 };
        let mut ty = self.old.ty(value).clone();
        if let Some(first) = ty.shape.first_mut() {
            *first = Dim::from(self.to);
        }
        let samples = (ty.rank() > 0).then_some(Samples { axis: 0, outer: 1 });
        let copy = self.new.add_input(&self.old.value(value).name, ty);
        self.samples.insert(value, (copy, samples));
        Ok(())
    }

    fn node(&mut self, n: NodeId) -> Result<(), BatchError> {
        let old = self.old;
        let given = old.operands(n);
        let known: Vec<Option<(ValueId, Option<Samples>)>> =
            given.iter().map(|v| v.and_then(|v| self.samples.get(&v).copied())).collect();
        let samples: Vec<Option<Samples>> = known.iter().map(|k| k.and_then(|(_, samples)| samples)).collect();
        let axes: Vec<Option<usize>> = samples.iter().map(|s| s.map(|s| s.axis)).collect();
        let types: Vec<Option<&TensorType>> = given.iter().map(|v| v.map(|v| old.ty(v))).collect();
        let origin = &old.node(n).origin;
        let unchanged = Batched { op: None, operands: axes.clone(), results: Vec::new(), outer: 1 };
        let mut outers = samples.iter().flatten().map(|s| s.outer);
        let batched = match outers.next() {
            None => unchanged,
            Some(outer) => {
                let cx = BatchCx { types: &types, axes: &axes, outer, from: self.from, to: self.to };
                let alike = outers.all(|other| other == outer);
                let batched = old.op(n).batched(&cx).filter(|b| alike && b.results.len() == old.results(n).count());
                batched.ok_or_else(|| self.mixes(n))?
            }
        };
        let mut operands: Operands = known.iter().map(|k| k.map(|(v, _)| v)).collect();
        for (i, (own, wanted)) in axes.iter().zip(&batched.operands).enumerate() {
            if let (None, Some(axis), Some(Some(v))) = (own, wanted, operands.get(i).copied()) {
                // What is given for each of several samples may differ between them.
                if self.from != 1 || batched.outer != 1 {
                    return Err(self.mixes(n));
                }
                let mut repeats = vec![1; self.new.ty(v).rank()];
                repeats[*axis] = self.to;
                let repeated = self.new.add1(Tile { repeats }, &[v], origin.clone(), "");
                operands[i] = Some(repeated.map_err(|e| self.bug(n, &e.0))?);
            }
        }
        let names: Vec<&str> = old.node(n).outputs().iter().map(|o| &*o.name).collect();
        let op = batched.op.unwrap_or_else(|| old.op(n).clone());
        let made = self.new.add(op, &operands, origin.clone(), &names).map_err(|TypeError(e)| self.bug(n, &e))?;
        for (i, value) in old.results(n).enumerate() {
            let copy = ValueId { node: made, out: i as u32 };
            let samples = batched.results.get(i).map(|&axis| Samples { axis, outer: batched.outer });
            let expected = self.expected(old.ty(value), samples).ok_or_else(|| self.mixes(n))?;
            if *self.new.ty(copy) != expected {
                return Err(self.bug(n, &format!("its result is {}, not {expected}", self.new.ty(copy))));
            }
            self.samples.insert(value, (copy, samples));
        }
        Ok(())
    }

    /// The type with the wanted number of samples.
    fn expected(&self, ty: &TensorType, samples: Option<Samples>) -> Option<TensorType> {
        let Some(Samples { axis, outer }) = samples else { return Some(ty.clone()) };
        let cx = BatchCx { types: &[], axes: &[], outer, from: self.from, to: self.to };
        Some(TensorType { dtype: ty.dtype, shape: cx.scaled_at(&ty.shape, axis)? })
    }

    fn output(&mut self, name: &str, value: ValueId) -> Result<(), BatchError> {
        let ty = self.old.ty(value);
        let (copy, samples) = self.samples[&value];
        if samples.is_some_and(|s| s.axis != 0 || ty.shape.first() != Some(&Dim::from(self.from))) {
            let (output, ty) = (name.to_string(), ty.to_string());
            return Err(BatchError::Output { output, ty, from: self.from, to: self.to });
        }
        self.new.add_output(name, copy);
        Ok(())
    }

    fn mixes(&self, n: NodeId) -> BatchError {
        let operands = self.old.operands(n);
        let types: Vec<String> = operands.iter().flatten().map(|v| self.old.ty(*v).to_string()).collect();
        let (node, op) = (self.old.node_name(n), self.old.op(n).name());
        BatchError::Node { node, op, operands: types.join(", "), from: self.from, to: self.to }
    }

    fn bug(&self, n: NodeId, what: &str) -> BatchError {
        BatchError::Bug { node: self.old.node_name(n), what: what.to_string() }
    }
}
