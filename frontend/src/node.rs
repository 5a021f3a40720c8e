//! What an operator's import function sees of its node: operands, attributes, the opset version, and how to build.
//!
//! An import function turns one node into operators of the graph IR and returns the node's outputs. Its errors are
//! sentences without the node's name, which the driver adds: [`NodeCx::invalid`] for a broken rule ("Conv: ..."),
//! [`NodeCx::unsupported`] for what nncc cannot do ("Conv with ...").

use crate::build::{Builder, Stop, from_symbolic, needs_dims, symbolic};
use crate::model::{Attr, NodeDef};
use crate::problem::Problem;
use crate::value::Val;
use nncc_ir::pointwise::{BinaryFn, CompareFn, UnaryFn};
use nncc_ir::{Constant, DType, Dim, Op, Origin, Shape, SymTensor, Tensor, TensorType, ops};

/// The outputs of a node, or why it was not imported.
pub(crate) type Imported = Result<Vec<Val>, Stop>;

/// One node of the model while it is imported.
pub(crate) struct NodeCx<'a> {
    pub(crate) builder: &'a mut Builder,
    pub(crate) node: &'a NodeDef,
    /// The version of the operator: the newest one not above the model's opset.
    pub(crate) version: i64,
    pub(crate) operands: Vec<Option<Val>>,
    /// The values that its attributes name: see [`crate::ops::Entry::naming`].
    pub(crate) named: Vec<Val>,
    pub(crate) origin: Origin,
}

/// Operands up to which the inputs that a run-time value depends on are looked for, to name them in a message.
const TRACE: usize = 4096;

// ---- problems -----------------------------------------------------------------------------------------------------------

impl NodeCx<'_> {
    /// The model breaks a rule.
    pub(crate) fn invalid<T>(&self, message: impl Into<String>) -> Result<T, Stop> {
        Err(Problem::invalid(message).into())
    }

    /// nncc cannot do this: `what` continues the operator's name, "with mode=...".
    pub(crate) fn unsupported<T>(&self, what: impl Into<String>) -> Result<T, Stop> {
        Err(Problem::unsupported(what).into())
    }
}

// ---- operands -----------------------------------------------------------------------------------------------------------

impl NodeCx<'_> {
    /// Operand `i`, which the operator requires; `name` is what the specification calls it.
    pub(crate) fn operand(&self, i: usize, name: &str) -> Result<Val, Stop> {
        match self.optional(i) {
            Some(v) => Ok(v),
            None => self.invalid(format!("the operand `{name}` is missing")),
        }
    }

    /// Operand `i`, if it is given.
    pub(crate) fn optional(&self, i: usize) -> Option<Val> {
        self.operands.get(i).cloned().flatten()
    }

    /// All operands of a variadic operator, of which there is at least one.
    pub(crate) fn variadic(&self) -> Result<Vec<Val>, Stop> {
        match self.operands.iter().cloned().collect::<Option<Vec<Val>>>() {
            Some(all) if !all.is_empty() => Ok(all),
            _ => self.invalid("an operand is missing"),
        }
    }

    /// Whether the node gives output `i` a name.
    pub(crate) fn wants(&self, i: usize) -> bool {
        self.node.outputs.get(i).is_some_and(|n| !n.is_empty())
    }

    pub(crate) fn ty(&self, v: &Val) -> TensorType {
        self.builder.ty(v)
    }

    pub(crate) fn dtype(&self, v: &Val) -> DType {
        self.builder.ty(v).dtype
    }

    pub(crate) fn shape(&self, v: &Val) -> Shape {
        self.builder.ty(v).shape
    }

    pub(crate) fn rank(&self, v: &Val) -> usize {
        self.builder.ty(v).rank()
    }

    /// The dimensions of a value as numbers.
    pub(crate) fn known_dims(&self, v: &Val, what: &str) -> Result<Vec<usize>, Stop> {
        let ty = self.ty(v);
        match ty.dims() {
            Some(dims) => Ok(dims),
            None => Err(needs_dims(what, &ty.shape).into()),
        }
    }

    /// The elements of an operand that must be known when compiling, up to symbols.
    pub(crate) fn known(&self, v: &Val, name: &str) -> Result<SymTensor, Stop> {
        if let Val::Node(_) | Val::Drawn(_) = v {
            return Err(self.runtime_operand(v, name));
        }
        match symbolic(v) {
            Some(s) => Ok(s),
            None => self.invalid(format!("the operand `{name}` is not a short list of whole numbers")),
        }
    }

    /// The elements of an operand of at most one axis, up to symbols.
    pub(crate) fn known_list(&self, v: &Val, name: &str) -> Result<Vec<Dim>, Stop> {
        let s = self.known(v, name)?;
        if s.dims.len() > 1 {
            return self.invalid(format!("the operand `{name}` has {} axes, not one", s.dims.len()));
        }
        Ok(s.elems)
    }

    /// The elements of an operand as numbers.
    pub(crate) fn known_i64s(&self, v: &Val, name: &str) -> Result<Vec<i64>, Stop> {
        let list = self.known_list(v, name)?;
        match list.iter().map(Dim::known).collect() {
            Some(numbers) => Ok(numbers),
            None => Err(needs_dims(&format!("its operand `{name}` is not known"), &list).into()),
        }
    }

    /// The one element of an operand as a number.
    pub(crate) fn known_i64(&self, v: &Val, name: &str) -> Result<i64, Stop> {
        match self.known_i64s(v, name)?[..] {
            [n] => Ok(n),
            ref many => self.invalid(format!("the operand `{name}` has {} elements, not 1", many.len())),
        }
    }

    /// An operand as a tensor.
    pub(crate) fn known_tensor(&self, v: &Val, name: &str) -> Result<Tensor, Stop> {
        match v {
            Val::Node(_) | Val::Drawn(_) => Err(self.runtime_operand(v, name)),
            Val::Symbolic(s) => Err(needs_dims(&format!("its operand `{name}` is not known"), &s.tensor.elems).into()),
            Val::Const(c) if c.constant.elems() <= crate::build::FOLD_ELEMS => Ok(c.constant.to_tensor()),
            Val::Const(c) => self.unsupported(format!("with a `{name}` of {} elements", c.constant.elems())),
        }
    }

    fn runtime_operand(&self, v: &Val, name: &str) -> Stop {
        let mut problem = Problem::unsupported(format!("with an operand `{name}` that is computed at run time"));
        let inputs = self.inputs_of(v);
        if let [input] = &inputs[..] {
            problem = problem.help(format!("`--fix {input}=FILE.npy` makes the input `{input}` a constant"));
        } else if let Some((last, rest)) = inputs.split_last() {
            problem = problem.help(format!(
                "it depends on the inputs {} and `{last}`; `--fix NAME=FILE.npy` makes an input a constant",
                rest.iter().map(|n| format!("`{n}`")).collect::<Vec<_>>().join(", ")
            ));
        }
        problem.inputs = inputs;
        problem.into()
    }

    /// The graph inputs that a value depends on, if they are found within [`TRACE`] steps.
    fn inputs_of(&self, v: &Val) -> Vec<String> {
        let Val::Node(v) = v else { return Vec::new() };
        let graph = &self.builder.graph;
        let (mut stack, mut seen, mut found) = (vec![v.node], rustc_hash::FxHashSet::default(), Vec::new());
        while let Some(n) = stack.pop() {
            if seen.len() > TRACE || !seen.insert(n) {
                continue;
            }
            if *graph.op(n) == Op::Input {
                found.extend(graph.node(n).outputs().iter().map(|o| o.name.to_string()));
            }
            stack.extend(graph.operands(n).into_iter().flatten().map(|v| v.node));
        }
        found.sort();
        found
    }
}

// ---- attributes ---------------------------------------------------------------------------------------------------------

impl NodeCx<'_> {
    pub(crate) fn attr(&self, name: &str) -> Option<&Attr> {
        self.node.attributes.iter().find(|(n, _)| n == name).map(|(_, a)| a)
    }

    fn wrong_kind<T>(&self, name: &str, wanted: &str, attr: &Attr) -> Result<T, Stop> {
        self.invalid(format!("the attribute `{name}` is {}, not {wanted}", attr.kind()))
    }

    pub(crate) fn maybe_int(&self, name: &str) -> Result<Option<i64>, Stop> {
        match self.attr(name) {
            None => Ok(None),
            Some(Attr::Int(n)) => Ok(Some(*n)),
            Some(other) => self.wrong_kind(name, "an integer", other),
        }
    }

    pub(crate) fn int(&self, name: &str, default: i64) -> Result<i64, Stop> {
        Ok(self.maybe_int(name)?.unwrap_or(default))
    }

    pub(crate) fn required_int(&self, name: &str) -> Result<i64, Stop> {
        self.maybe_int(name)?.map_or_else(|| self.missing(name), Ok)
    }

    fn missing<T>(&self, name: &str) -> Result<T, Stop> {
        self.invalid(format!("the attribute `{name}` is missing"))
    }

    /// An integer that is used as a truth value.
    pub(crate) fn flag(&self, name: &str, default: bool) -> Result<bool, Stop> {
        Ok(self.int(name, i64::from(default))? != 0)
    }

    /// A positive integer.
    pub(crate) fn count(&self, name: &str, default: Option<i64>) -> Result<usize, Stop> {
        let n = match default {
            Some(d) => self.int(name, d)?,
            None => self.required_int(name)?,
        };
        match usize::try_from(n) {
            Ok(n) if n > 0 => Ok(n),
            _ => self.invalid(format!("the attribute `{name}` is {n}, not positive")),
        }
    }

    pub(crate) fn maybe_float(&self, name: &str) -> Result<Option<f64>, Stop> {
        match self.attr(name) {
            None => Ok(None),
            Some(Attr::Float(x)) => Ok(Some(f64::from(*x))),
            Some(Attr::Int(0)) => Ok(Some(0.0)), // an attribute without a declared kind: see `model`
            Some(other) => self.wrong_kind(name, "a float", other),
        }
    }

    pub(crate) fn float(&self, name: &str, default: f32) -> Result<f64, Stop> {
        Ok(self.maybe_float(name)?.unwrap_or(f64::from(default)))
    }

    pub(crate) fn ints(&self, name: &str) -> Result<Option<Vec<i64>>, Stop> {
        match self.attr(name) {
            None => Ok(None),
            Some(Attr::Ints(v)) => Ok(Some(v.to_vec())),
            Some(other) => self.wrong_kind(name, "a list of integers", other),
        }
    }

    pub(crate) fn required_ints(&self, name: &str) -> Result<Vec<i64>, Stop> {
        self.ints(name)?.map_or_else(|| self.missing(name), Ok)
    }

    /// A list of integers, one for each of `n` axes, each at least `least`; `default` for all if it is not given.
    pub(crate) fn sizes(&self, name: &str, n: usize, least: i64, default: i64) -> Result<Vec<usize>, Stop> {
        let list = self.ints(name)?.unwrap_or_else(|| vec![default; n]);
        if list.len() != n {
            return self.invalid(format!("the attribute `{name}` has {} elements, not {n}", list.len()));
        }
        let size = |&x: &i64| usize::try_from(x).ok().filter(|_| x >= least);
        match list.iter().map(size).collect() {
            Some(sizes) => Ok(sizes),
            None => self.invalid(format!("the attribute `{name}` is {list:?}; each must be at least {least}")),
        }
    }

    pub(crate) fn floats(&self, name: &str) -> Result<Option<Vec<f32>>, Stop> {
        match self.attr(name) {
            None => Ok(None),
            Some(Attr::Floats(v)) => Ok(Some(v.to_vec())),
            Some(other) => self.wrong_kind(name, "a list of floats", other),
        }
    }

    pub(crate) fn maybe_text(&self, name: &str) -> Result<Option<String>, Stop> {
        match self.attr(name) {
            None => Ok(None),
            Some(Attr::Text(t)) => Ok(Some(String::from_utf8_lossy(t).into_owned())),
            Some(other) => self.wrong_kind(name, "a string", other),
        }
    }

    pub(crate) fn text(&self, name: &str, default: &str) -> Result<String, Stop> {
        Ok(self.maybe_text(name)?.unwrap_or_else(|| default.to_string()))
    }

    pub(crate) fn texts(&self, name: &str) -> Result<Option<Vec<String>>, Stop> {
        match self.attr(name) {
            None => Ok(None),
            Some(Attr::Texts(list)) => Ok(Some(list.iter().map(|t| String::from_utf8_lossy(t).into_owned()).collect())),
            Some(other) => self.wrong_kind(name, "a list of strings", other),
        }
    }

    /// One of a fixed set of words.
    pub(crate) fn choice<T: Copy>(&self, name: &str, default: &str, choices: &[(&str, T)]) -> Result<T, Stop> {
        let text = self.text(name, default)?;
        match choices.iter().find(|(word, _)| *word == text) {
            Some((_, value)) => Ok(*value),
            None => {
                let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
                self.invalid(format!("the attribute `{name}` is \"{text}\", not one of {}", words.join(", ")))
            }
        }
    }

    /// An axis of a value of rank `rank`, counted from the end if it is negative.
    pub(crate) fn axis(&self, axis: i64, rank: usize) -> Result<usize, Stop> {
        let from_end = i64::try_from(rank).unwrap_or(i64::MAX).saturating_add(axis);
        match usize::try_from(if axis < 0 { from_end } else { axis }) {
            Ok(a) if a < rank => Ok(a),
            _ => self.invalid(format!("axis {axis} of a value of rank {rank}")),
        }
    }

    /// Distinct axes, in the order given.
    pub(crate) fn axes(&self, axes: &[i64], rank: usize) -> Result<Vec<usize>, Stop> {
        let mut out = Vec::with_capacity(axes.len().min(rank));
        for &a in axes {
            let a = self.axis(a, rank)?;
            if out.contains(&a) {
                return self.invalid(format!("axis {a} is given twice"));
            }
            out.push(a);
        }
        Ok(out)
    }
}

// ---- building -----------------------------------------------------------------------------------------------------------

impl NodeCx<'_> {
    /// Emits an operator whose operands are all given; its first output.
    pub(crate) fn emit(&mut self, op: impl Into<Op>, operands: &[&Val]) -> Result<Val, Stop> {
        let operands: Vec<Option<&Val>> = operands.iter().copied().map(Some).collect();
        self.emit_all(op, &operands)?.into_iter().next().ok_or_else(|| Problem::invalid("it has no output").into())
    }

    /// Emits an operator; all its outputs.
    pub(crate) fn emit_all(&mut self, op: impl Into<Op>, operands: &[Option<&Val>]) -> Result<Vec<Val>, Stop> {
        self.builder.emit(op.into(), operands, &self.origin)
    }

    /// A constant that the importer makes up.
    pub(crate) fn constant(&mut self, t: &Tensor) -> Val {
        Val::constant(Constant::from_tensor(t))
    }

    /// A constant scalar.
    pub(crate) fn scalar(&mut self, dtype: DType, x: f64) -> Val {
        self.constant(&Tensor::from_f64(dtype, &[], &[x]))
    }

    /// A list of integers that may hold symbols, as a value of type i64.
    pub(crate) fn shape_value(&mut self, elems: Vec<Dim>) -> Result<Val, Stop> {
        from_symbolic(SymTensor { dims: vec![elems.len()], elems }, DType::I64)
    }

    pub(crate) fn unary(&mut self, function: UnaryFn, x: &Val) -> Result<Val, Stop> {
        self.emit(ops::elementwise::Unary { function }, &[x])
    }

    pub(crate) fn binary(&mut self, function: BinaryFn, a: &Val, b: &Val) -> Result<Val, Stop> {
        self.emit(ops::elementwise::Binary { function }, &[a, b])
    }

    /// `f(a, x)` with a constant scalar of a's type.
    pub(crate) fn binary_const(&mut self, function: BinaryFn, a: &Val, x: f64) -> Result<Val, Stop> {
        let c = self.scalar(self.dtype(a), x);
        self.binary(function, a, &c)
    }

    pub(crate) fn compare(&mut self, function: CompareFn, a: &Val, b: &Val) -> Result<Val, Stop> {
        self.emit(ops::elementwise::Compare { function }, &[a, b])
    }

    pub(crate) fn select(&mut self, cond: &Val, then: &Val, otherwise: &Val) -> Result<Val, Stop> {
        self.emit(ops::elementwise::Where {}, &[cond, then, otherwise])
    }

    /// The value converted to `to`; itself if it has that type.
    pub(crate) fn cast(&mut self, x: &Val, to: DType) -> Result<Val, Stop> {
        if self.dtype(x) == to { Ok(x.clone()) } else { self.emit(ops::elementwise::Cast { to }, &[x]) }
    }
}
