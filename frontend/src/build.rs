//! Building the graph: every operator that an import emits goes through [`Builder::emit`], which computes at once what is
//! known at once.
//!
//! | operands | what happens |
//! |---|---|
//! | all constant, small | evaluated by the reference evaluator: a constant |
//! | symbolic ones among them | evaluated symbolically, or the symbol must be given a number |
//! | else | a node of the graph |
//!
//! So shape arithmetic (Shape, Gather, Concat, Reshape, ...) folds while it is imported, whatever its pattern. Large
//! constants are left to the constant-folding pass: "small" bounds elements, and an import has a budget for all of them.

use crate::problem::Problem;
use crate::value::{SymVal, Val};
use nncc_ir::ops::reshape::Identity;
use nncc_ir::{Constant, DType, Dim, Graph, Op, Origin, SymTensor, Tensor, TensorType, ValueId};
use std::rc::Rc;

/// Why a node was not imported; the driver adds the node.
pub(crate) type Stop = Box<Problem>;

/// Nodes that an import may visit beyond [`NODES_EACH`] times those in the file: functions are copied where they are called,
/// and gradients are made of what they are the gradients of.
const NODES: usize = 50_000;
const NODES_EACH: usize = 20;
/// Elements of a constant up to which it takes part in folding: more than any shape arithmetic, less than weights.
pub(crate) const FOLD_ELEMS: usize = 1 << 16;
/// Elements that all folding of one import may produce: what it allocates is bounded whatever the file says.
const FOLD_TOTAL: usize = 1 << 24;
/// Multiply-accumulates up to which a product of constants is folded.
const FOLD_MACS: u64 = 1 << 20;
/// Elements of a symbolic value: shape arithmetic works on shapes, whose rank is small.
const SYMBOLIC_ELEMS: usize = 1 << 10;
/// Terms of a symbolic dimension, at all depths. Networks make a handful; squaring a sum again and again makes 2^n.
const DIM_TERMS: usize = 256;
/// Bytes of one value: a terabyte is beyond what is compiled for, and far from overflow in every later product.
const VALUE_BYTES: u64 = 1 << 40;

/// The graph that is being built.
pub(crate) struct Builder {
    pub(crate) graph: Graph,
    /// Whether what draws stays in the graph, and weights as they are: see [`crate::ImportOptions::training`].
    pub(crate) training: bool,
    /// How many operators there are that draw.
    draws: usize,
    fold_left: usize,
    nodes_left: usize,
}

impl Builder {
    /// For a model of so many nodes.
    pub(crate) fn new(name: &str, training: bool, nodes: usize) -> Builder {
        let nodes_left = NODES.saturating_add(NODES_EACH.saturating_mul(nodes));
        Builder { graph: Graph::new(name), training, draws: 0, fold_left: FOLD_TOTAL, nodes_left }
    }

    /// The stream of the next operator that draws.
    pub(crate) fn stream(&mut self) -> usize {
        self.draws += 1;
        self.draws - 1
    }

    /// Whether so many nodes more may be imported.
    pub(crate) fn allows_nodes(&self, count: usize) -> Result<(), Stop> {
        match count <= self.nodes_left {
            true => Ok(()),
            false => Err(Problem::unsupported("more nodes than its file is worth, after inlining functions").into()),
        }
    }

    /// Takes `count` from the budget of nodes.
    pub(crate) fn spend_nodes(&mut self, count: usize) -> Result<(), Stop> {
        self.allows_nodes(count)?;
        self.nodes_left -= count;
        Ok(())
    }

    /// Takes `elems` from the budget for constants that an import makes up.
    pub(crate) fn spend(&mut self, elems: usize) -> Result<(), Stop> {
        match self.fold_left.checked_sub(elems) {
            Some(left) => self.fold_left = left,
            None => return Err(Problem::unsupported("more constants to compute than an import may").into()),
        }
        Ok(())
    }

    /// The type of a value.
    pub(crate) fn ty(&self, v: &Val) -> TensorType {
        match v {
            Val::Node(v) => self.graph.ty(*v).clone(),
            Val::Const(c) => c.constant.ty(),
            Val::Symbolic(s) => TensorType::fixed(s.dtype, &s.tensor.dims),
            Val::Drawn(d) => d.ty.clone(),
        }
    }

    /// The value as one of the graph.
    pub(crate) fn place(&mut self, v: &Val) -> Result<ValueId, Stop> {
        match v {
            Val::Node(v) => Ok(*v),
            Val::Const(c) => {
                if let Some(v) = c.placed.get() {
                    return Ok(v);
                }
                let v = self.graph.add_constant(&c.name.borrow(), c.constant.clone());
                c.placed.set(Some(v));
                Ok(v)
            }
            Val::Symbolic(s) => Err(needs_dims("the value of a shape is needed at run time", &s.tensor.elems).into()),
            Val::Drawn(_) => Err(Problem::unsupported("on random numbers: only PRelu takes them, as its slope").into()),
        }
    }

    /// A copy that is a value of its own in the graph.
    pub(crate) fn own(&mut self, v: &Val) -> Result<ValueId, Stop> {
        let v = self.place(v)?;
        let origin = self.graph.node(v.node).origin.clone();
        Ok(self.graph.add1(Identity {}, &[v], origin, "").map_err(|e| Problem::invalid(e.0))?)
    }

    /// Adds `op`, or computes it. Gives all outputs.
    pub(crate) fn emit(&mut self, op: Op, operands: &[Option<&Val>], origin: &Origin) -> Result<Vec<Val>, Stop> {
        let types: Vec<Option<TensorType>> = operands.iter().map(|v| v.map(|v| self.ty(v))).collect();
        let types: Vec<Option<&TensorType>> = types.iter().map(Option::as_ref).collect();
        let outputs = op.infer(&types).map_err(|e| type_problem(&op, &types, e.0))?;
        for ty in &outputs {
            check_size(ty)?;
        }
        if operands.iter().flatten().any(|v| matches!(v, Val::Symbolic(_))) {
            return emit_symbolic(&op, operands, &types, &outputs);
        }
        if let Some(values) = self.fold(&op, operands, &types, &outputs)? {
            return Ok(values);
        }
        let placed: Vec<Option<ValueId>> =
            operands.iter().map(|v| v.map(|v| self.place(v)).transpose()).collect::<Result<_, _>>()?;
        let node = self.graph.add(op, &placed, origin.clone(), &[]).map_err(|e| Problem::invalid(e.0))?;
        Ok(self.graph.results(node).map(Val::Node).collect())
    }

    /// The outputs of `op` as constants, if its operands are and it is cheap.
    fn fold(
        &mut self,
        op: &Op,
        operands: &[Option<&Val>],
        types: &[Option<&TensorType>],
        outputs: &[TensorType],
    ) -> Result<Option<Vec<Val>>, Stop> {
        let constants: Option<Vec<Option<&Constant>>> =
            operands.iter().map(|v| v.map_or(Some(None), |v| v.as_const().map(Some))).collect();
        let Some(constants) = constants else { return Ok(None) };
        let small = |n: Option<usize>| n.is_some_and(|n| n <= FOLD_ELEMS);
        let cheap = constants.iter().flatten().all(|c| small(Some(c.elems())))
            && outputs.iter().all(|t| small(t.elems()))
            && op.macs(types, outputs).is_none_or(|m| m <= FOLD_MACS)
            && !is_windowed(op);
        let total: usize = outputs.iter().filter_map(TensorType::elems).sum();
        let learned = self.training && operands.iter().flatten().any(|v| v.is_weight());
        if !cheap || learned || operands.is_empty() || total > self.fold_left {
            return Ok(None);
        }
        self.fold_left -= total;
        let tensors: Vec<Option<Tensor>> = constants.iter().map(|c| c.map(Constant::to_tensor)).collect();
        let tensors: Vec<Option<&Tensor>> = tensors.iter().map(Option::as_ref).collect();
        let results = op.eval(&tensors).map_err(|e| Problem::invalid(e.0))?;
        Ok(Some(results.iter().map(|t| Val::constant(Constant::from_tensor(t))).collect()))
    }
}

/// Operators whose work is many times their operands and results: never folded here.
fn is_windowed(op: &Op) -> bool {
    matches!(
        op.name(),
        "conv" | "conv_transpose" | "max_pool" | "average_pool" | "lp_pool" | "lrn" | "resize" | "einsum"
    )
}

fn emit_symbolic(
    op: &Op,
    operands: &[Option<&Val>],
    types: &[Option<&TensorType>],
    outputs: &[TensorType],
) -> Result<Vec<Val>, Stop> {
    let syms: Vec<Option<SymTensor>> = operands.iter().map(|v| v.and_then(symbolic)).collect();
    let syms: Vec<Option<&SymTensor>> = syms.iter().map(Option::as_ref).collect();
    let known = op.eval_symbolic(&syms, types).filter(|results| {
        let fits = |(r, t): (&SymTensor, &TensorType)| {
            t.dims().is_some_and(|d| d == r.dims) && t.elems() == Some(r.elems.len())
        };
        results.len() == outputs.len() && results.iter().zip(outputs).all(fits)
    });
    let Some(results) = known else {
        let elems: Vec<Dim> = syms.iter().flatten().flat_map(|s| s.elems.iter().cloned()).collect();
        return Err(needs_dims("it computes with a shape that is not known", &elems).into());
    };
    results.into_iter().zip(outputs).map(|(tensor, ty)| from_symbolic(tensor, ty.dtype)).collect()
}

/// A value from elements known up to symbols: a constant if there are no symbols.
pub(crate) fn from_symbolic(tensor: SymTensor, dtype: DType) -> Result<Val, Stop> {
    let known: Option<Vec<i64>> = tensor.elems.iter().map(Dim::known).collect();
    if let Some(elems) = known {
        return Ok(Val::constant(Constant::from_tensor(&Tensor::from_i64(dtype, &tensor.dims, &elems))));
    }
    check_terms(&tensor.elems)?;
    Ok(Val::Symbolic(Rc::new(SymVal { tensor, dtype })))
}

/// The elements of a value, if they are known and whole numbers.
pub(crate) fn symbolic(v: &Val) -> Option<SymTensor> {
    match v {
        Val::Node(_) | Val::Drawn(_) => None,
        Val::Symbolic(s) => Some(s.tensor.clone()),
        Val::Const(c) => {
            let c = &c.constant;
            if c.elems() > SYMBOLIC_ELEMS {
                return None;
            }
            let t = c.to_tensor();
            let ints = t.to_i64();
            let whole = !c.dtype().is_float() || t.to_f64().iter().zip(&ints).all(|(x, &n)| *x == n as f64);
            whole.then(|| SymTensor { dims: c.dims().to_vec(), elems: ints.into_iter().map(Dim::Known).collect() })
        }
    }
}

/// A problem with what a node needs to know, naming the dimensions that would tell.
pub(crate) fn needs_dims(what: &str, elems: &[Dim]) -> Problem {
    let mut names: Vec<_> = elems.iter().flat_map(Dim::symbols).collect();
    names.sort();
    names.dedup();
    let flags: Vec<String> = names.iter().map(|n| format!("--dim {n}=...")).collect();
    Problem::options(format!("{what}: it depends on {}", names.join(", "))).help(format!(
        "{} {} a number",
        flags.join(" "),
        if names.len() == 1 { "gives it" } else { "gives each" }
    ))
}

fn check_terms(dims: &[Dim]) -> Result<(), Stop> {
    match dims.iter().all(|d| d.terms(DIM_TERMS) < DIM_TERMS) {
        true => Ok(()),
        false => Err(Problem::unsupported(format!("a dimension of more than {DIM_TERMS} terms"))
            .help("--dim gives symbolic dimensions numbers")
            .into()),
    }
}

/// Refuses values too large to compile, and dimensions too large to compute with.
pub(crate) fn check_size(ty: &TensorType) -> Result<(), Stop> {
    check_terms(&ty.shape)?;
    if let Some(d) = ty.shape.iter().find(|d| d.known().is_some_and(|n| n < 0)) {
        return Err(Problem::invalid(format!("a value would have the dimension {d}: {ty}")).into());
    }
    let bytes = ty
        .shape
        .iter()
        .filter_map(Dim::known)
        .filter(|n| *n > 0)
        .fold(ty.dtype.bytes() as u64, |b, n| b.saturating_mul(n.unsigned_abs()));
    if bytes > VALUE_BYTES && !ty.shape.contains(&Dim::Known(0)) {
        return Err(Problem::unsupported(format!("a value of {} GiB, {ty} (limit 1024)", bytes >> 30)).into());
    }
    Ok(())
}

/// Whose fault a type error is: if the operands' shapes fit and they have one element type, which f32 in its place would
/// make right, then it is nncc that lacks that type; else the model is wrong.
fn type_problem(op: &Op, types: &[Option<&TensorType>], message: String) -> Stop {
    let dtypes: Vec<DType> = types.iter().flatten().map(|t| t.dtype).collect();
    if let Some(&first) = dtypes.first()
        && first != DType::F32
        && dtypes.iter().all(|&d| d == first)
    {
        let as_f32: Vec<Option<TensorType>> =
            types.iter().map(|t| t.map(|t| TensorType { dtype: DType::F32, shape: t.shape.clone() })).collect();
        if op.infer(&as_f32.iter().map(Option::as_ref).collect::<Vec<_>>()).is_ok() {
            return Problem::unsupported(format!("on {first}")).into();
        }
    }
    Problem::invalid(message).into()
}
