//! Adding nodes to a graph in a line each: what losses, optimizers and the step are written in.

use super::TrainingError;
use nncc_ir::ops::elementwise::{Binary, Cast, Compare, Unary};
use nncc_ir::ops::fused::Fused;
use nncc_ir::ops::reduce::{Reduce, ReduceKind};
use nncc_ir::ops::reshape::Reshape;
use nncc_ir::pointwise::{BinaryFn, CompareFn, Ref, UnaryFn};
use nncc_ir::{Constant, DType, Dim, Graph, Op, Origin, Pointwise, Tensor, TensorType, ValueId};

pub(super) type Built = Result<ValueId, TrainingError>;

/// A graph to which nodes of one part of the step are added.
pub(super) struct Emit<'g> {
    pub(super) graph: &'g mut Graph,
    origin: Origin,
    name: String,
}

impl<'g> Emit<'g> {
    /// Nodes that stand for `part` in profiles and errors: `loss`, `optimizer/fc.weight`.
    pub(super) fn new(graph: &'g mut Graph, part: &str) -> Emit<'g> {
        Emit { graph, origin: Origin::named(part), name: part.to_string() }
    }

    pub(super) fn op(&mut self, op: impl Into<Op>, operands: &[ValueId]) -> Built {
        let added = self.graph.add1(op, operands, self.origin.clone(), &format!("{}.t", self.name));
        added.map_err(|e| TrainingError::Bug(format!("{}: {e}", self.name)))
    }

    pub(super) fn ty(&self, v: ValueId) -> TensorType {
        self.graph.ty(v).clone()
    }

    pub(super) fn dtype(&self, v: ValueId) -> DType {
        self.graph.ty(v).dtype
    }

    pub(super) fn constant(&mut self, t: &Tensor) -> ValueId {
        self.graph.add_constant("", Constant::from_tensor(t))
    }

    pub(super) fn scalar(&mut self, dtype: DType, x: f64) -> ValueId {
        self.constant(&Tensor::from_f64(dtype, &[], &[x]))
    }

    pub(super) fn unary(&mut self, function: UnaryFn, x: ValueId) -> Built {
        self.op(Unary { function }, &[x])
    }

    pub(super) fn binary(&mut self, function: BinaryFn, a: ValueId, b: ValueId) -> Built {
        self.op(Binary { function }, &[a, b])
    }

    pub(super) fn add(&mut self, a: ValueId, b: ValueId) -> Built {
        self.binary(BinaryFn::Add, a, b)
    }

    pub(super) fn sub(&mut self, a: ValueId, b: ValueId) -> Built {
        self.binary(BinaryFn::Sub, a, b)
    }

    pub(super) fn mul(&mut self, a: ValueId, b: ValueId) -> Built {
        self.binary(BinaryFn::Mul, a, b)
    }

    /// `f(x, c)`.
    pub(super) fn with(&mut self, function: BinaryFn, x: ValueId, c: f64) -> Built {
        let c = self.scalar(self.dtype(x), c);
        self.binary(function, x, c)
    }

    /// `x * c`; x itself for 1.
    pub(super) fn scale(&mut self, x: ValueId, c: f64) -> Built {
        if c == 1.0 { Ok(x) } else { self.with(BinaryFn::Mul, x, c) }
    }

    pub(super) fn compare(&mut self, function: CompareFn, a: ValueId, b: ValueId) -> Built {
        self.op(Compare { function }, &[a, b])
    }

    pub(super) fn cast(&mut self, x: ValueId, to: DType) -> Built {
        if self.dtype(x) == to { Ok(x) } else { self.op(Cast { to }, &[x]) }
    }

    pub(super) fn reshape(&mut self, x: ValueId, shape: Vec<Dim>) -> Built {
        if self.graph.ty(x).shape == shape { Ok(x) } else { self.op(Reshape { shape }, &[x]) }
    }

    pub(super) fn reduce(&mut self, kind: ReduceKind, x: ValueId, axes: &[usize], keepdims: bool) -> Built {
        self.op(Reduce { kind, axes: axes.to_vec(), keepdims }, &[x])
    }

    /// Over all axes, to a scalar.
    pub(super) fn reduce_all(&mut self, kind: ReduceKind, x: ValueId) -> Built {
        let axes: Vec<usize> = (0..self.graph.ty(x).rank()).collect();
        if axes.is_empty() { Ok(x) } else { self.reduce(kind, x, &axes, false) }
    }

    /// One node for an elementwise function of several values, which broadcast. It has no gradient: for what stands
    /// behind differentiation.
    pub(super) fn map(&mut self, values: &[ValueId], body: impl FnOnce(&mut Pointwise, &[Ref]) -> Ref) -> Built {
        let types: Vec<DType> = values.iter().map(|v| self.dtype(*v)).collect();
        self.op(Fused { root: None, program: Pointwise::build(&types, body), root_operands: 0 }, values)
    }
}
