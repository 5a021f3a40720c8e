//! Comparing results with what was expected: element by element as numpy's `assert_allclose` does, and by the largest
//! difference relative to the range of the expected output.

use nncc_ir::Tensor;

/// `Err` says where `got` first leaves `|got - want| <= atol + rtol * |want|`. Types and shapes must be equal; NaN equals
/// NaN, and an infinity only itself, as `numpy.testing.assert_allclose` has it.
pub fn all_close(got: &Tensor, want: &Tensor, rtol: f64, atol: f64) -> Result<(), String> {
    if got.dtype() != want.dtype() {
        return Err(format!("type {:?}, expected {:?}", got.dtype(), want.dtype()));
    }
    if got.dims() != want.dims() {
        return Err(format!("shape {:?}, expected {:?}", got.dims(), want.dims()));
    }
    let (g, w) = (got.to_f64(), want.to_f64());
    let close = |a: f64, b: f64| a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= atol + rtol * b.abs();
    let wrong: Vec<usize> = (0..g.len()).filter(|&i| !close(g[i], w[i])).collect();
    match wrong.first() {
        None => Ok(()),
        Some(&i) => Err(format!("{} of {} elements differ, the first at {i}: {}, expected {}", wrong.len(), g.len(), g[i], w[i])),
    }
}

/// The largest difference of `got` from `want`, as a share of `want`'s range. Infinite if any is not a number.
pub fn relative_to_range(got: &[f64], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len(), "number of elements");
    let low = want.iter().copied().fold(f64::INFINITY, f64::min);
    let high = want.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let largest = got.iter().zip(want).map(|(g, w)| (g - w).abs()).fold(0.0, |a: f64, b| if b.is_nan() { f64::INFINITY } else { a.max(b) });
    largest / (high - low)
}

/// The indices of the `n` largest elements, largest first.
pub fn top(values: &[f64], n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    order.truncate(n);
    order
}
