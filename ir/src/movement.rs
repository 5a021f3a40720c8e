//! What all operators share that only move elements: each output element is one operand element, named by its offset.
//!
//! ```text
//! y[i] = x[source(i)]      i: an index of y, source: a row-major offset into x
//! ```
//!
//! An operator gives `source`; evaluation on numbers ([`pick`]) and on symbolic shape arithmetic ([`pick_symbolic`]) follow.
//! Also here: checks of shape attributes, with symbolic dimensions, that several of these operators make.

use crate::op::{SymTensor, TypeError};
use crate::tensor::indices;
use crate::{Dim, Tensor, map_data, type_err};

/// The most elements for which shape arithmetic is followed symbolically. Shapes have tens; the bound keeps a hostile
/// model (an Expand of a symbol to 10^12 elements) from exhausting memory.
pub const MAX_SYMBOLIC: usize = 1 << 16;

/// `y[i] = x[source(i)]` for every index of `dims`, for any element type.
pub fn pick(x: &Tensor, dims: &[usize], source: impl Fn(&[usize]) -> usize) -> Tensor {
    let at: Vec<usize> = indices(dims).map(|i| source(&i)).collect();
    Tensor::of(dims, map_data!(x.data(), v => at.iter().map(|&i| v[i]).collect()))
}

/// [`pick`] on a symbolic tensor; `None` if there are more than [`MAX_SYMBOLIC`] elements.
pub fn pick_symbolic(x: &SymTensor, dims: &[usize], source: impl Fn(&[usize]) -> usize) -> Option<SymTensor> {
    let n = dims.iter().try_fold(1usize, |a, &d| a.checked_mul(d))?;
    (n <= MAX_SYMBOLIC)
        .then(|| SymTensor { dims: dims.to_vec(), elems: indices(dims).map(|i| x.elems[source(&i)].clone()).collect() })
}

/// The offset of an index under these strides.
pub fn offset(index: &[usize], strides: &[usize]) -> usize {
    index.iter().zip(strides).map(|(i, s)| i * s).sum()
}

/// Whether two dimensions can be equal: not, if both are known and differ or if their difference is a known number.
pub fn may_equal(a: &Dim, b: &Dim) -> bool {
    a == b || !matches!(a.sub(b), Dim::Known(d) if d != 0)
}

/// The more precise of two dimensions that must be equal, or `None` if they cannot be.
pub fn unify(a: &Dim, b: &Dim) -> Option<Dim> {
    may_equal(a, b).then(|| if a.known().is_some() { a.clone() } else { b.clone() })
}

/// Refuses negative dimensions.
pub fn check_shape(shape: &[Dim]) -> Result<(), TypeError> {
    match shape.iter().find(|d| d.known().is_some_and(|n| n < 0)) {
        Some(d) => type_err!("the shape has the negative dimension {d}"),
        None => Ok(()),
    }
}

/// Refuses an axis beyond the rank.
pub fn check_axis(axis: usize, rank: usize) -> Result<(), TypeError> {
    if axis < rank { Ok(()) } else { type_err!("axis {axis} is not below the rank {rank}") }
}

/// Refuses a list attribute that does not have one entry an axis.
pub fn check_len(name: &str, given: usize, rank: usize) -> Result<(), TypeError> {
    if given == rank { Ok(()) } else { type_err!("`{name}` has {given} entries for {rank} axes") }
}

/// The product of dimensions; `None` if known ones overflow i64.
pub fn product(shape: &[Dim]) -> Option<Dim> {
    let mut known = 1i64;
    let mut symbolic = Dim::Known(1);
    for d in shape {
        match d {
            Dim::Known(n) => known = if *n == 0 || known == 0 { 0 } else { known.checked_mul(*n)? },
            Dim::Sym(_) => symbolic = symbolic.mul(d),
        }
    }
    Some(symbolic.mul(&Dim::Known(known)))
}

/// The dimensions of a shape attribute that evaluation needs as numbers.
pub fn sizes(shape: &[Dim]) -> Result<Vec<usize>, TypeError> {
    let unknown = |d: &Dim| TypeError(format!("dimension {d} is not a known size"));
    shape.iter().map(|d| d.size().ok_or_else(|| unknown(d))).collect()
}
