//! Winograd's minimal filtering `F(m, 3)`: the matrices, and their application to vectors in a kernel.
//!
//! ```text
//! y = A^T [ (G g) * (B^T d) ]        m outputs of a filter of 3 taps over n = m + 2 inputs, with n products instead of 3 m
//! ```
//!
//! The construction is Toom's and Cook's, transposed: `n - 1` points `x_j` and infinity (Winograd 1980, "Arithmetic Complexity
//! of Computations"; Lavin and Gray 2015, arXiv:1509.09308). The points here are 0 and pairs `p, -p`:
//!
//! ```text
//! P(x) = prod over all pairs of (x^2 - p^2),    Q_p(x) = P(x) / (x^2 - p^2)
//!
//! B^T   row 0     P(x)            G   row 0     (1, 0, 0) / P(0)            A^T   column 0     (1, 0, 0, ..)
//!       row +-p   x (x +- p) Q_p      row +-p   (1, +-p, p^2) / (2 p^2 Q_p(p^2))    column +-p   (1, +-p, p^2, ..)
//!       last      x P(x)              last      (0, 0, 1)                         last         (.., 0, 0, 1)
//! ```
//!
//! (a polynomial stands for its coefficients). A pair's two rows share their even and their odd terms, which halves the work:
//! 6 inputs take 14 instructions. The points are chosen for small errors, after Barabasz et al. 2020 (arXiv:1803.10986):
//! magnitudes near 1, and reciprocals together.

use crate::kir::{Builder, Type, Value};

/// `F(m, 3)` with `m` = 2, 4 or 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Minimal {
    /// 2 outputs from 4 inputs.
    F2,
    /// 4 outputs from 6 inputs.
    F4,
    /// 6 outputs from 8 inputs.
    F6,
}

impl Minimal {
    /// All variants, small ones first.
    pub const ALL: [Minimal; 3] = [Minimal::F2, Minimal::F4, Minimal::F6];

    /// Outputs of a tile on each axis: `m`.
    pub fn outputs(self) -> usize {
        2 * self.squares().len()
    }

    /// Inputs of a tile on each axis, and products: `m + 2`.
    pub fn inputs(self) -> usize {
        self.outputs() + 2
    }

    /// Does a tile of outputs hold whole windows of this size that lie side by side?
    pub fn holds(self, window: [usize; 2]) -> bool {
        window.iter().all(|&taps| taps > 0 && self.outputs().is_multiple_of(taps))
    }

    /// `p^2` of each pair, which is exact where `p` is not.
    fn squares(self) -> &'static [f64] {
        match self {
            Minimal::F2 => &[1.0],
            Minimal::F4 => &[0.5, 2.0],
            Minimal::F6 => &[1.0, 0.25, 4.0],
        }
    }

    /// `p` of each pair.
    fn points(self) -> Vec<f64> {
        self.squares().iter().map(|s| s.sqrt()).collect()
    }

    /// The product of `x^2 - p^2` over all pairs but one: coefficients of the powers of `x^2`, lowest first.
    fn product(self, without: Option<usize>) -> Vec<f64> {
        let mut coefficients = vec![1.0];
        for (i, square) in self.squares().iter().enumerate() {
            if Some(i) == without {
                continue;
            }
            let shifted = std::iter::once(0.0).chain(coefficients.iter().copied());
            let scaled = coefficients.iter().map(|c| -square * c).chain([0.0]);
            coefficients = shifted.zip(scaled).map(|(a, b)| a + b).collect();
        }
        coefficients
    }

    /// `G`, `n` rows of 3.
    pub fn filter_matrix(self) -> Vec<[f64; 3]> {
        let mut rows = vec![[1.0 / self.product(None)[0], 0.0, 0.0]];
        for (i, (p, square)) in self.points().into_iter().zip(self.squares()).enumerate() {
            let q = self.product(Some(i)).iter().rev().fold(0.0, |sum, c| sum * square + c);
            let scale = 1.0 / (2.0 * square * q);
            rows.push([scale, p * scale, square * scale]);
            rows.push([scale, -p * scale, square * scale]);
        }
        rows.push([0.0, 0.0, 1.0]);
        rows
    }

    /// `B^T`, `n` rows of `n`.
    pub fn input_matrix(self) -> Vec<Vec<f64>> {
        let n = self.inputs();
        // Coefficients of x^shift times a polynomial in x^2.
        let spread = |poly: &[f64], shift: usize| {
            let mut row = vec![0.0; n];
            poly.iter().enumerate().for_each(|(k, c)| row[2 * k + shift] = *c);
            row
        };
        let all = self.product(None);
        let mut rows = vec![spread(&all, 0)];
        for (i, p) in self.points().into_iter().enumerate() {
            let q = self.product(Some(i));
            let (even, odd) = (spread(&q, 2), spread(&q, 1));
            rows.push(even.iter().zip(&odd).map(|(e, o)| e + p * o).collect());
            rows.push(even.iter().zip(&odd).map(|(e, o)| e - p * o).collect());
        }
        rows.push(spread(&all, 1));
        rows
    }

    /// `A^T`, `m` rows of `n`.
    pub fn output_matrix(self) -> Vec<Vec<f64>> {
        let (m, n) = (self.outputs(), self.inputs());
        let row = |i: usize| {
            let mut row = vec![0.0; n];
            row[0] = if i == 0 { 1.0 } else { 0.0 };
            for (k, p) in self.points().into_iter().enumerate() {
                row[1 + 2 * k] = p.powi(i as i32);
                row[2 + 2 * k] = (-p).powi(i as i32);
            }
            row[n - 1] = if i == m - 1 { 1.0 } else { 0.0 };
            row
        };
        (0..m).map(row).collect()
    }

    /// `B^T d` for `n` vectors.
    pub fn emit_input(self, b: &mut Builder, d: &[Value]) -> Vec<Value> {
        let ty = b.ty(d[0]);
        let all = self.product(None);
        let mut rows = vec![polynomial(b, ty, &all, |k| d[2 * k])];
        for (i, p) in self.points().into_iter().enumerate() {
            let q = self.product(Some(i));
            let even = polynomial(b, ty, &q, |k| d[2 * k + 2]);
            let odd = polynomial(b, ty, &q, |k| d[2 * k + 1]);
            let (plus, minus) = sum_and_difference(b, even, odd, p);
            rows.extend([plus, minus]);
        }
        rows.push(polynomial(b, ty, &all, |k| d[2 * k + 1]));
        rows
    }

    /// `A^T t` for `n` vectors.
    pub fn emit_output(self, b: &mut Builder, t: &[Value]) -> Vec<Value> {
        let (m, n) = (self.outputs(), self.inputs());
        let ty = b.ty(t[0]);
        let points = self.points();
        let mut sums = Vec::new();
        for k in 0..points.len() {
            let (plus, minus) = (t[1 + 2 * k], t[2 + 2 * k]);
            sums.push([b.add(plus, minus), b.sub(plus, minus)]);
        }
        let mut outputs = Vec::with_capacity(m);
        for i in 0..m {
            // The points 0 and infinity reach the first and the last output.
            let first = (i == 0).then_some(t[0]);
            let mut sum = if i == m - 1 { Some(t[n - 1]) } else { first };
            for (p, even_odd) in points.iter().zip(&sums) {
                sum = Some(add_scaled(b, ty, sum, p.powi(i as i32), even_odd[i % 2]));
            }
            outputs.extend(sum);
        }
        outputs
    }
}

/// `sum + c * v`, with as few instructions as the number needs.
fn add_scaled(b: &mut Builder, ty: Type, sum: Option<Value>, c: f64, v: Value) -> Value {
    match (sum, c == 1.0) {
        (None, true) => v,
        (Some(sum), true) => b.add(sum, v),
        (None, false) => {
            let c = b.float(ty, c);
            b.mul(c, v)
        }
        (Some(sum), false) => {
            let c = b.float(ty, c);
            b.mul_add(c, v, sum)
        }
    }
}

/// The sum of `c_k * at(k)`, the highest (whose coefficient is 1) first.
fn polynomial(b: &mut Builder, ty: Type, coefficients: &[f64], at: impl Fn(usize) -> Value) -> Value {
    let (last, rest) = coefficients.split_last().expect("a polynomial has terms");
    let highest = add_scaled(b, ty, None, *last, at(rest.len()));
    let terms = rest.iter().enumerate().rev();
    terms.fold(highest, |sum, (k, &c)| add_scaled(b, ty, Some(sum), c, at(k)))
}

/// `even + p * odd` and `even - p * odd`.
fn sum_and_difference(b: &mut Builder, even: Value, odd: Value, p: f64) -> (Value, Value) {
    let ty = b.ty(even);
    if p == 1.0 {
        return (b.add(even, odd), b.sub(even, odd));
    }
    (add_scaled(b, ty, Some(even), p, odd), add_scaled(b, ty, Some(even), -p, odd))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_matrices_make_a_filter() {
        for f in Minimal::ALL {
            let (m, n) = (f.outputs(), f.inputs());
            let d: Vec<f64> = (0..n).map(|i| (i * i % 7) as f64 - 2.5).collect();
            let g = [0.75, -1.5, 2.0];
            let dot = |row: &[f64], v: &[f64]| row.iter().zip(v).map(|(a, b)| a * b).sum::<f64>();
            let products: Vec<f64> = f
                .filter_matrix()
                .iter()
                .zip(f.input_matrix())
                .map(|(g_row, b_row)| dot(g_row, &g) * dot(&b_row, &d))
                .collect();
            for (i, row) in f.output_matrix().iter().enumerate() {
                let want = dot(&g, &d[i..i + 3]);
                assert!((dot(row, &products) - want).abs() < 1e-12, "{f:?}, output {i} of {m}");
            }
        }
    }

    #[test]
    fn f4_has_the_known_rows() {
        // Points 0, +-1/sqrt 2, +-sqrt 2: x^4 - 2.5 x^2 + 1.
        let rows = Minimal::F4.input_matrix();
        let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-15);
        assert!(close(&rows[0], &[1.0, 0.0, -2.5, 0.0, 1.0, 0.0]), "{:?}", rows[0]);
        assert!(close(&rows[5], &[0.0, 1.0, 0.0, -2.5, 0.0, 1.0]), "{:?}", rows[5]);
    }
}
