//! What the operators' homes share: taking operands apart, checking types, sizes for evaluation.

use crate::op::{EvalError, Operator, TypeError};
use crate::{DType, Dim, Tensor, TensorType, type_err};

/// Splits operands into `R` that must be given and `O` that may be.
pub(crate) fn operands<'a, T, const R: usize, const O: usize>(
    inputs: &[Option<&'a T>],
) -> Result<([&'a T; R], [Option<&'a T>; O]), TypeError> {
    let at = |i: usize| inputs.get(i).copied().flatten();
    if inputs.len() > R + O {
        return type_err!("takes at most {} operands, {} are given", R + O, inputs.len());
    }
    let required: Vec<&T> = (0..R).map_while(at).collect();
    let required =
        required.try_into().map_err(|given: Vec<_>| TypeError(format!("operand {} is missing", given.len())))?;
    Ok((required, std::array::from_fn(|i| at(R + i))))
}

/// The same for evaluation, where `infer` has accepted the operands already.
pub(crate) fn tensors<'a, const R: usize, const O: usize>(
    inputs: &[Option<&'a Tensor>],
) -> Result<([&'a Tensor; R], [Option<&'a Tensor>; O]), EvalError> {
    operands(inputs).map_err(|e| EvalError(e.0))
}

/// The element type that all operands have.
pub(crate) fn one_dtype<'a>(types: impl IntoIterator<Item = &'a TensorType>) -> Result<DType, TypeError> {
    let mut types = types.into_iter();
    let Some(first) = types.next() else { return type_err!("has no operand") };
    match types.find(|t| t.dtype != first.dtype) {
        Some(t) => type_err!("operands have different types, {} and {}", first.dtype, t.dtype),
        None => Ok(first.dtype),
    }
}

/// The floating-point type that all operands have.
pub(crate) fn one_float<'a>(types: impl IntoIterator<Item = &'a TensorType>) -> Result<DType, TypeError> {
    let dtype = one_dtype(types)?;
    if dtype.is_float() { Ok(dtype) } else { type_err!("takes f32 or f64, not {dtype}") }
}

/// Checks that two dimensions may be equal; symbols are taken for whatever fits.
pub(crate) fn same_dim(a: &Dim, b: &Dim, what: &str) -> Result<(), TypeError> {
    match (a.known(), b.known()) {
        (Some(a), Some(b)) if a != b => type_err!("{what}: {a} and {b} differ"),
        _ => Ok(()),
    }
}

/// Checks that an operand is a vector of `len` elements.
pub(crate) fn vector_of(t: &TensorType, len: &Dim, what: &str) -> Result<(), TypeError> {
    match &t.shape[..] {
        [d] => same_dim(d, len, &format!("the length of {what}")),
        _ => type_err!("{what} has rank {}, not 1", t.rank()),
    }
}

/// Checks an axis attribute.
pub(crate) fn axis_of(axis: usize, x: &TensorType) -> Result<(), TypeError> {
    if axis < x.rank() { Ok(()) } else { type_err!("axis {axis} is not an axis of a tensor of rank {}", x.rank()) }
}

/// The known dimensions of the first output for these operands, by `infer`.
pub(crate) fn output_dims(op: &impl Operator, inputs: &[Option<&Tensor>]) -> Result<Vec<usize>, EvalError> {
    let types: Vec<Option<TensorType>> = inputs.iter().map(|t| t.map(Tensor::ty)).collect();
    let types: Vec<Option<&TensorType>> = types.iter().map(Option::as_ref).collect();
    let outputs = op.infer(&types).map_err(|e| EvalError(e.0))?;
    let first = outputs.first().ok_or_else(|| EvalError("there is no output".into()))?;
    match (first.dims(), first.elems()) {
        (Some(dims), Some(_)) => Ok(dims),
        _ => Err(EvalError(format!("a result of type {first} cannot be stored"))),
    }
}

/// The sizes before, along and behind an axis, of a row-major tensor.
pub(crate) fn around(dims: &[usize], axis: usize) -> (usize, usize, usize) {
    (dims[..axis].iter().product(), dims[axis], dims[axis + 1..].iter().product())
}
