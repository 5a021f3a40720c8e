//! How far a Winograd convolution is from the exact result, estimated from its weights.
//!
//! The layer is computed for a few output channels and tiles, on seeded inputs over all input channels (the positive halves of
//! a normal distribution, as a ReLU leaves them): as the kernel does it, with transforms and sums in f32; directly in f32; and
//! directly in f64. The estimates are root mean squares of the differences, relative to the range of the exact outputs.
//!
//! Typical, for 32 to 512 channels: F(2) has 0.7 times the direct form's error (its sums are shorter), F(4) twice, F(6) eight
//! times.

use super::transform::Minimal;

/// Tiles and output channels that are tried.
const TILES: usize = 3;
const OUTPUTS: usize = 6;

/// Root mean squares of errors, relative to the range of the outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Errors {
    /// Of the Winograd form in f32.
    pub winograd: f64,
    /// Of the direct form in f32.
    pub direct: f64,
}

/// The estimate. `weight(m, c, tap)` gives the filter of output channel `m` for input channel `c`.
pub fn estimate(
    minimal: Minimal,
    inputs: usize,
    outputs: usize,
    weight: impl Fn(usize, usize, usize) -> f32,
) -> Errors {
    let (m, n) = (minimal.outputs(), minimal.inputs());
    let (bt, at, g) = (as_f32(&minimal.input_matrix()), as_f32(&minimal.output_matrix()), minimal.filter_matrix());
    let g: Vec<Vec<f64>> = g.iter().map(|row| row.to_vec()).collect();
    let mut seed = 0x2545_f491_4f6c_dd1d_u64;
    let (mut winograd, mut direct, mut count) = (0.0, 0.0, 0);
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    let channels: Vec<usize> = (0..OUTPUTS.min(outputs)).map(|i| i * outputs / OUTPUTS.min(outputs)).collect();
    // G g G^T of each chosen channel, in the order [channel][input][place].
    let u: Vec<Vec<Vec<f32>>> = channels
        .iter()
        .map(|&o| {
            let transformed = |c: usize| {
                let filter: Vec<f64> = (0..9).map(|t| f64::from(weight(o, c, t))).collect();
                sandwich(&g, &filter, 3).into_iter().map(|x| x as f32).collect()
            };
            (0..inputs).map(transformed).collect()
        })
        .collect();
    for _ in 0..TILES {
        let d: Vec<Vec<f32>> = (0..inputs).map(|_| (0..n * n).map(|_| normal(&mut seed).max(0.0)).collect()).collect();
        let v: Vec<Vec<f32>> = d.iter().map(|d| sandwich(&bt, d, n)).collect();
        for (u, &o) in u.iter().zip(&channels) {
            let mut sums = vec![0f32; n * n];
            for (u, v) in u.iter().zip(&v) {
                sums.iter_mut().zip(u.iter().zip(v)).for_each(|(sum, (u, v))| *sum += u * v);
            }
            let y = sandwich(&at, &sums, n);
            for i in 0..m {
                for j in 0..m {
                    let (mut exact, mut rounded) = (0f64, 0f32);
                    for (c, d) in d.iter().enumerate() {
                        for t in 0..9 {
                            let (w, x) = (weight(o, c, t), d[(i + t / 3) * n + j + t % 3]);
                            exact += f64::from(w) * f64::from(x);
                            rounded += w * x;
                        }
                    }
                    winograd += (f64::from(y[i * m + j]) - exact).powi(2);
                    direct += (f64::from(rounded) - exact).powi(2);
                    count += 1;
                    (low, high) = (low.min(exact), high.max(exact));
                }
            }
        }
    }
    if high <= low {
        return Errors::default();
    }
    let relative = |squares: f64| (squares / f64::from(count)).sqrt() / (high - low);
    Errors { winograd: relative(winograd), direct: relative(direct) }
}

/// `L X L^T` for a square `X` of `n` columns.
fn sandwich<T: Copy + Default + std::ops::Mul<Output = T> + std::ops::Add<Output = T>>(
    l: &[Vec<T>],
    x: &[T],
    n: usize,
) -> Vec<T> {
    let dot =
        |row: &[T], at: &dyn Fn(usize) -> T| row.iter().enumerate().fold(T::default(), |sum, (k, &c)| sum + c * at(k));
    let half: Vec<T> = l.iter().flat_map(|row| (0..n).map(move |j| dot(row, &|k| x[k * n + j]))).collect();
    (0..l.len())
        .flat_map(|i| l.iter().map(move |row| (i, row)))
        .map(|(i, row)| dot(row, &|k| half[i * n + k]))
        .collect()
}

fn as_f32(matrix: &[Vec<f64>]) -> Vec<Vec<f32>> {
    matrix.iter().map(|row| row.iter().map(|&x| x as f32).collect()).collect()
}

/// Roughly normal: the sum of four uniform numbers.
fn normal(seed: &mut u64) -> f32 {
    let mut uniform = || {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        (*seed >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..4).map(|_| uniform()).sum::<f32>() * 1.7
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_grow_with_the_tile_and_are_of_the_right_size() {
        let weight = |m: usize, c: usize, t: usize| ((m * 31 + c * 17 + t * 7) % 23) as f32 / 23.0 - 0.5;
        let of = |f| estimate(f, 64, 64, weight);
        let [f2, f4, f6] = Minimal::ALL.map(of);
        let ratio = |e: Errors| e.winograd / e.direct;
        assert!((1e-8..3e-7).contains(&f2.direct), "{f2:?}");
        assert!(ratio(f2) < 1.5 && (1.0..3.0).contains(&ratio(f4)), "{f2:?} {f4:?}");
        assert!((4.0..20.0).contains(&ratio(f6)), "{f6:?}");
    }
}
