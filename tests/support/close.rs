//! Comparing element by element, as numpy's `assert_allclose` does.

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
        Some(&i) => Err(format!(
            "{} of {} elements differ, the first at {i}: {}, expected {}",
            wrong.len(),
            g.len(),
            g[i],
            w[i]
        )),
    }
}
