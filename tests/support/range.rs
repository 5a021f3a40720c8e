//! Comparing a network's output with the exact one: by the largest difference relative to the range, by the best classes.

#![allow(dead_code, reason = "each test takes what it needs")]

/// The largest difference of `got` from `want`, as a share of `want`'s range. Infinite if any is not a number.
pub fn relative_to_range(got: &[f64], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len(), "number of elements");
    let low = want.iter().copied().fold(f64::INFINITY, f64::min);
    let high = want.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let largest = got
        .iter()
        .zip(want)
        .map(|(g, w)| (g - w).abs())
        .fold(0.0, |a: f64, b| if b.is_nan() { f64::INFINITY } else { a.max(b) });
    largest / (high - low)
}

/// The indices of the `n` largest elements, largest first.
pub fn top(values: &[f64], n: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    order.truncate(n);
    order
}
