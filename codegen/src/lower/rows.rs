//! Steps over rows that are read once: what softmax and normalizations are lowered through where it can be.

use crate::kernels::rows::{RowFold, Rows};
use crate::lower::fold::Parts;
use crate::lower::{Call, LowerCx, LowerError, Operand};
use crate::program::Arg;
use nncc_ir::{Layout, Pointwise};

impl From<&Parts> for RowFold {
    fn from(parts: &Parts) -> RowFold {
        RowFold { pre: parts.pre.clone(), combine: parts.combine, post: parts.post.clone(), keep: false }
    }
}

/// Appends the step of [`Rows`] over the axes of x from `axis` on, if they are rows in memory that fit the first-level cache;
/// `vectors` have an element for each of a row. Says whether it did.
///
/// # Errors
/// A constant that does not fit in memory.
pub(crate) fn lower(
    folds: Vec<RowFold>,
    map: Pointwise,
    axis: usize,
    [x, y]: [&Operand; 2],
    vectors: &[&Operand],
    label: &str,
    cx: &mut LowerCx<'_, '_>,
) -> Result<bool, LowerError> {
    let n: usize = x.dims[axis..].iter().product();
    let is_row = [x.layout, y.layout] == [Layout::RowMajor; 2] && x.dtype.is_float() && x.elems() > 0;
    // Equal numbers of elements are not enough: a number for each channel is none for each of a row.
    let without_ones = |dims: &[usize]| dims.iter().copied().skip_while(|&n| n == 1).collect::<Vec<_>>();
    let of_a_row = |v: &&Operand| without_ones(&v.dims) == without_ones(&x.dims[axis..]) && v.dtype == x.dtype;
    if !is_row || !vectors.iter().all(of_a_row) {
        return Ok(false);
    }
    let rows = Rows { dtype: x.dtype, rows: x.elems() / n, n, vectors: vectors.len(), folds, map };
    if !rows.fits(cx.target()) {
        return Ok(false);
    }
    let operands = [x].into_iter().chain(vectors.iter().copied()).chain([y]);
    let args = operands.map(|o| cx.arg(o)).collect::<Result<Vec<Arg>, _>>()?;
    let (kernel, tasks) = rows.kernel(cx.target(), &format!("{}_{label}_rows", x.dtype));
    let id = cx.kernel(kernel);
    cx.step(Call::new(id, &args, tasks));
    Ok(true)
}
