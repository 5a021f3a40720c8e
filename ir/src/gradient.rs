//! How an operator's gradient is built: the context in which [`Operator::gradient`](crate::Operator::gradient) adds nodes.
//!
//! ```text
//! forward     x0, x1, ..  --op-->  y0, y1, ..                       a node of the graph
//! upstream    dy0, dy1, ..         the gradient of the loss with respect to each result; absent where it is 0
//! built here  dxi = sum_j dyj * (d yj / d xi)                       for each operand whose gradient is wanted
//! ```
//!
//! An operator's home says what its gradient *is*; the pass that differentiates a graph decides for which nodes and sums what
//! arrives at a value from several users. A gradient has its value's type, which [`GradientCx::give`] checks, and is made of
//! the same operators as everything else, so that every pass and kernel serves it. It reads the node's operands and results as
//! it likes: what it reads lives until the backward pass, so it reads the result where there is a choice.
//!
//! Shapes must be known: sums over broadcast axes and paddings depend on them.

use crate::derivative::derivative;
use crate::graph::{Graph, NodeId, Operands, Origin, ValueId};
use crate::ops::elementwise::{Binary, Cast, Unary};
use crate::ops::expand::Expand;
use crate::ops::fused::Fused;
use crate::ops::pad::{Pad, PadMode};
use crate::ops::reduce::{Reduce, ReduceKind};
use crate::ops::reshape::Reshape;
use crate::ops::slice::Slice;
use crate::ops::transpose::Transpose;
use crate::pointwise::{BinaryFn, Inst, Ref, Scalar, UnaryFn};
use crate::{Constant, DType, Dim, Op, Pointwise, Tensor, TensorType, TypeError};

/// Why a node has no gradient. The caller names the node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GradientError {
    /// The operator has none, or not with these attributes.
    #[error("has no gradient{}", .0.map(|way| format!(": {way}")).unwrap_or_default())]
    Unsupported(Option<&'static str>),
    /// A shape with symbols.
    #[error("the shape of {0} is not known; fix its symbols (--dim NAME=NUMBER)")]
    UnknownShape(TensorType),
    /// A gradient was built wrongly.
    #[error("bug in nncc: the gradient does not fit: {0}")]
    Bug(String),
}

impl From<TypeError> for GradientError {
    fn from(e: TypeError) -> GradientError {
        GradientError::Bug(e.0)
    }
}

/// The gradients of a node's operands, where they are wanted and not 0. `upstream` are those of its results; at least one is
/// given.
pub fn node_gradients(
    graph: &mut Graph,
    node: NodeId,
    upstream: &[Option<ValueId>],
    wanted: &[bool],
) -> Result<Vec<Option<ValueId>>, GradientError> {
    let operands = graph.operands(node);
    let results: Vec<ValueId> = graph.results(node).collect();
    let upstream: Vec<Option<ValueId>> =
        upstream.iter().map(|d| d.filter(|d| graph.ty(*d).elems() != Some(0))).collect();
    if upstream.iter().all(Option::is_none) {
        return Ok(vec![None; operands.len()]); // nothing depends on results without elements
    }
    for v in operands.iter().flatten().chain(&results) {
        if graph.ty(*v).dims().is_none() {
            return Err(GradientError::UnknownShape(graph.ty(*v).clone()));
        }
    }
    let (op, origin) = (graph.op(node).clone(), graph.node(node).origin.clone());
    let name = graph.value(results[0]).name.to_string();
    let given = vec![None; operands.len()];
    let mut cx = GradientCx { graph, operands, results, upstream, wanted: wanted.to_vec(), given, origin, name };
    op.gradient(&mut cx)?;
    Ok(cx.given)
}

/// One node during differentiation: what it reads and gives, and the means to add nodes.
#[derive(Debug)]
pub struct GradientCx<'g> {
    graph: &'g mut Graph,
    operands: Operands,
    results: Vec<ValueId>,
    upstream: Vec<Option<ValueId>>,
    wanted: Vec<bool>,
    given: Vec<Option<ValueId>>,
    origin: Origin,
    name: String,
}

type Built = Result<ValueId, GradientError>;

impl GradientCx<'_> {
    // ---- the node ---------------------------------------------------------------------------------------------------

    /// Operand `i`, which must be given.
    pub fn operand(&self, i: usize) -> Built {
        self.optional(i).ok_or_else(|| GradientError::Bug(format!("operand {i} is missing")))
    }

    /// Operand `i`, if it is given.
    pub fn optional(&self, i: usize) -> Option<ValueId> {
        self.operands.get(i).copied().flatten()
    }

    /// The number of operands, absent ones included.
    pub fn operand_count(&self) -> usize {
        self.operands.len()
    }

    /// Result `i`.
    pub fn result(&self, i: usize) -> ValueId {
        self.results[i]
    }

    /// The number of results.
    pub fn result_count(&self) -> usize {
        self.results.len()
    }

    /// The gradient of result `i`, `None` if it is 0.
    pub fn upstream(&self, i: usize) -> Option<ValueId> {
        self.upstream.get(i).copied().flatten()
    }

    /// The gradient of result `i`, zeros if there is none.
    pub fn upstream_or_zeros(&mut self, i: usize) -> Built {
        match self.upstream(i) {
            Some(dy) => Ok(dy),
            None => {
                let ty = self.ty(self.result(i)).clone();
                Ok(self.zeros(&ty))
            }
        }
    }

    /// The gradient of the first result: of the only one, for most operators.
    pub fn dy(&mut self) -> Built {
        self.upstream_or_zeros(0)
    }

    /// Whether the gradient of operand `i` is wanted.
    pub fn wants(&self, i: usize) -> bool {
        self.optional(i).is_some() && self.wanted.get(i).copied().unwrap_or(false)
    }

    /// Gives the gradient of operand `i`, which `build` makes if it is wanted. A tensor without elements gets an empty one.
    pub fn give(&mut self, i: usize, build: impl FnOnce(&mut Self) -> Built) -> Result<(), GradientError> {
        self.give_some(i, |cx| build(cx).map(Some))
    }

    /// [`GradientCx::give`] where the gradient may turn out to be 0.
    pub fn give_some(
        &mut self,
        i: usize,
        build: impl FnOnce(&mut Self) -> Result<Option<ValueId>, GradientError>,
    ) -> Result<(), GradientError> {
        if !self.wants(i) {
            return Ok(());
        }
        let ty = self.ty(self.operand(i)?).clone();
        let gradient = if ty.elems() == Some(0) { Some(self.zeros(&ty)) } else { build(self)? };
        if let Some(v) = gradient.filter(|v| *self.ty(*v) != ty) {
            return Err(GradientError::Bug(format!("operand {i} of type {ty} gets a gradient of type {}", self.ty(v))));
        }
        self.given[i] = gradient;
        Ok(())
    }

    // ---- values -----------------------------------------------------------------------------------------------------

    /// The type of a value.
    pub fn ty(&self, v: ValueId) -> &TensorType {
        self.graph.ty(v)
    }

    /// The dimensions of a value, all of which are known here.
    pub fn dims(&self, v: ValueId) -> Vec<usize> {
        self.ty(v).dims().unwrap_or_default()
    }

    /// The constant that a value is, if it is one.
    pub fn constant_of(&self, v: ValueId) -> Option<&Constant> {
        self.graph.constant(v)
    }

    /// A constant.
    pub fn constant(&mut self, t: &Tensor) -> ValueId {
        self.graph.add_constant("", Constant::from_tensor(t))
    }

    /// One number for all elements.
    pub fn splat(&mut self, ty: &TensorType, x: f64) -> ValueId {
        let one = Tensor::from_f64(ty.dtype, &[], &[x]);
        let dims = ty.dims().unwrap_or_default();
        let c = Constant::splat(&one, &dims).unwrap_or_else(|| Constant::from_tensor(&one)); // `one` is one element
        self.graph.add_constant("", c)
    }

    /// Zeros.
    pub fn zeros(&mut self, ty: &TensorType) -> ValueId {
        self.splat(ty, 0.0)
    }

    // ---- nodes ------------------------------------------------------------------------------------------------------

    /// Adds an operator of which some operands may be absent.
    pub fn node(&mut self, op: impl Into<Op>, operands: &[Option<ValueId>]) -> Result<NodeId, GradientError> {
        let name = format!("{}.backward", self.name);
        Ok(self.graph.add(op, operands, self.origin.clone(), &[&name])?)
    }

    /// Adds an operator with one result.
    pub fn add(&mut self, op: impl Into<Op>, operands: &[ValueId]) -> Built {
        let operands: Vec<Option<ValueId>> = operands.iter().copied().map(Some).collect();
        Ok(ValueId { node: self.node(op, &operands)?, out: 0 })
    }

    /// `f(a, b)`, broadcast.
    pub fn binary(&mut self, function: BinaryFn, a: ValueId, b: ValueId) -> Built {
        self.add(Binary { function }, &[a, b])
    }

    /// `a * b`, broadcast.
    pub fn mul(&mut self, a: ValueId, b: ValueId) -> Built {
        self.binary(BinaryFn::Mul, a, b)
    }

    /// `f(x)`.
    pub fn unary(&mut self, function: UnaryFn, x: ValueId) -> Built {
        self.add(Unary { function }, &[x])
    }

    /// `x * c`.
    pub fn scale(&mut self, x: ValueId, c: f64) -> Built {
        if c == 1.0 {
            return Ok(x);
        }
        self.pointwise(&[x], |p, x| p.binary_const(BinaryFn::Mul, x[0], c))
    }

    /// An elementwise function of several values, built by `body` from the references to them; they broadcast.
    pub fn pointwise(&mut self, values: &[ValueId], body: impl FnOnce(&mut Pointwise, &[Ref]) -> Ref) -> Built {
        let types: Vec<DType> = values.iter().map(|v| self.ty(*v).dtype).collect();
        self.apply(&Pointwise::build(&types, body), values)
    }

    /// A program applied to values: as the one operator that it is, or as one node of several instructions.
    pub fn apply(&mut self, program: &Pointwise, values: &[ValueId]) -> Built {
        let (program, read) = program.pruned();
        let values: Vec<ValueId> = read.into_iter().map(|n| values[n]).collect();
        let inputs = program.inputs().len();
        match *program.insts() {
            [(Inst::Input(_), _)] => return Ok(values[0]),
            [.., (last, ty)] if program.insts().len() == inputs + 1 && program.result().0 as usize == inputs => {
                let at = |r: Ref| match program.insts()[r.0 as usize].0 {
                    Inst::Input(n) => Some(values[n as usize]),
                    _ => None,
                };
                match last {
                    Inst::Unary(function, a) => {
                        if let Some(a) = at(a) {
                            return self.unary(function, a);
                        }
                    }
                    Inst::Binary(function, a, b) => {
                        if let (Some(a), Some(b)) = (at(a), at(b)) {
                            return self.binary(function, a, b);
                        }
                    }
                    Inst::Cast(a) => {
                        if let Some(a) = at(a) {
                            return self.add(Cast { to: ty }, &[a]);
                        }
                    }
                    _ => {}
                }
            }
            _ => {}
        }
        self.add(Fused { root: None, program, root_operands: 0 }, &values)
    }

    /// The same elements under other dimensions.
    pub fn reshape(&mut self, x: ValueId, dims: &[usize]) -> Built {
        if self.dims(x) == dims {
            return Ok(x);
        }
        self.add(Reshape { shape: known(dims) }, &[x])
    }

    /// Axis `a` of the result is axis `perm[a]` of `x`.
    pub fn transpose(&mut self, x: ValueId, perm: &[usize]) -> Built {
        if perm.is_sorted() { Ok(x) } else { self.add(Transpose { perm: perm.to_vec() }, &[x]) }
    }

    /// `x` broadcast to these dimensions.
    pub fn expand(&mut self, x: ValueId, dims: &[usize]) -> Built {
        if self.dims(x) == dims { Ok(x) } else { self.add(Expand { shape: known(dims) }, &[x]) }
    }

    /// One number for all elements along the axes.
    pub fn reduce(&mut self, kind: ReduceKind, x: ValueId, axes: &[usize], keepdims: bool) -> Built {
        self.add(Reduce { kind, axes: axes.to_vec(), keepdims }, &[x])
    }

    /// The sum over all axes along which a tensor of `dims` was broadcast to x's shape: the gradient of broadcasting.
    pub fn sum_to(&mut self, x: ValueId, dims: &[usize]) -> Built {
        let from = self.dims(x);
        let skip = from.len().saturating_sub(dims.len());
        let summed = |a: &usize| *a < skip || (dims[a - skip] == 1 && from[*a] != 1);
        let axes: Vec<usize> = (0..from.len()).filter(summed).collect();
        let sum = if axes.is_empty() { x } else { self.reduce(ReduceKind::Sum, x, &axes, false)? };
        self.reshape(sum, dims)
    }

    /// Zeros added around `x`, or elements cropped where an amount is negative.
    pub fn pad(&mut self, x: ValueId, before: &[i64], after: &[i64]) -> Built {
        if before.iter().chain(after).all(|&p| p == 0) {
            return Ok(x);
        }
        let (before, after) = (before.to_vec(), after.to_vec());
        self.add(Pad { before, after, mode: PadMode::Constant, value: 0.0 }, &[x])
    }

    /// `len` elements from `start` on along one axis, backwards if `reverse`.
    pub fn slice(&mut self, x: ValueId, axis: usize, start: usize, len: usize, reverse: bool) -> Built {
        let dims = self.dims(x);
        if len == dims[axis] && !reverse {
            return Ok(x);
        }
        let (mut starts, mut lens, mut steps) = (vec![0; dims.len()], dims.clone(), vec![1; dims.len()]);
        (starts[axis], lens[axis], steps[axis]) = (start, len, if reverse { -1 } else { 1 });
        self.add(Slice { starts: known(&starts), lens: known(&lens), steps }, &[x])
    }

    // ---- elementwise operators ----------------------------------------------------------------------------------------

    /// The gradients of an elementwise operator whose meaning is `program` over the given operands: see [`crate::derivative`].
    /// An operand that is one number becomes a constant of the program.
    pub fn pointwise_gradients(&mut self, program: &Pointwise) -> Result<(), GradientError> {
        let places: Vec<usize> = (0..self.operand_count()).filter(|i| self.optional(*i).is_some()).collect();
        let operands: Vec<ValueId> = self.operands.iter().copied().flatten().collect();
        let numbers: Vec<Option<Scalar>> = places.iter().zip(&operands).map(|(i, v)| self.number(*i, *v)).collect();
        let program = Pointwise::build(program.inputs(), |p, inputs| {
            let args =
                inputs.iter().zip(&numbers).map(|(r, n)| n.map_or(*r, |n| p.push(Inst::Const(n), p.type_of(*r))));
            let args: Vec<Ref> = args.collect();
            p.inline(program, &args)
        });
        let dy = self.dy()?;
        let values = [&operands[..], &[self.result(0), dy]].concat();
        for (k, &i) in places.iter().enumerate() {
            self.give_some(i, |cx| {
                let Some(d) = derivative(&program, k) else { return Ok(None) };
                let dx = cx.apply(&d, &values)?;
                cx.sum_to(dx, &cx.dims(operands[k])).map(Some)
            })?;
        }
        Ok(())
    }

    /// The float that every element of a constant operand is, if its gradient is not wanted.
    fn number(&self, i: usize, v: ValueId) -> Option<Scalar> {
        let one = self.constant_of(v).filter(|c| !self.wants(i) && c.dtype().is_float())?.splat_value()?;
        one.to_f64().first().map(|&x| Scalar::Float(x))
    }
}

/// A known shape.
fn known(dims: &[usize]) -> Vec<Dim> {
    dims.iter().map(|&d| Dim::from(d)).collect()
}
