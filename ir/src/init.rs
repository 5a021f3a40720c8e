//! Initialisation of weights: the distributions that training starts from, under PyTorch's names and definitions.
//!
//! ```text
//! fan_in = dims[1] * window      fan_out = dims[0] * window      window = product of dims[2..]
//!
//! constant c         all elements c (zeros, ones)
//! uniform a b        U(a, b)                              normal m s       N(m, s^2)
//! xavier-uniform     U(-b, b), b = gain * sqrt(6 / (fan_in + fan_out))
//! xavier-normal      N(0, s^2), s = gain * sqrt(2 / (fan_in + fan_out))        Glorot and Bengio 2010
//! kaiming-uniform    U(-b, b), b = gain * sqrt(3 / fan)                        He et al. 2015
//! kaiming-normal     N(0, s^2), s = gain / sqrt(fan)      gain sqrt(2) (of ReLU) and fan_in unless said otherwise
//! lecun-uniform, lecun-normal      the same with gain 1 and fan_in             LeCun et al. 1998
//! orthogonal         rows (or columns, if they are fewer) orthonormal, times gain      Saxe et al. 2014
//! ```
//!
//! Numbers come from Philox: the key is the seed, the counter is the element's index and the tensor's name. So a tensor's
//! start depends on nothing but these: not on the other tensors of a model, nor on the order in which they are made.
//! Source: `torch.nn.init`.

use crate::philox::{self, philox4x32};
use crate::{Data, NamePattern, Tensor};
use std::str::FromStr;

/// Which count of connections Kaiming's initialisation keeps the variance over: `In` in the forward pass, `Out` in the
/// backward pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fan {
    /// Connections into one output.
    In,
    /// Connections out of one input.
    Out,
}

/// A distribution of initial weights: see the module.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields have the names of the formulas above")]
pub enum Init {
    /// All elements equal.
    Constant(f64),
    /// Uniform between two bounds.
    Uniform { low: f64, high: f64 },
    /// Normal with a mean and a standard deviation.
    Normal { mean: f64, std: f64 },
    /// Glorot's, uniform.
    XavierUniform { gain: f64 },
    /// Glorot's, normal.
    XavierNormal { gain: f64 },
    /// He's, uniform.
    KaimingUniform { fan: Fan, gain: f64 },
    /// He's, normal.
    KaimingNormal { fan: Fan, gain: f64 },
    /// Orthonormal rows or columns.
    Orthogonal { gain: f64 },
}

/// Why a tensor cannot be initialised so, or a text is no initialisation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InitError(pub String);

/// The factor by which `nonlinearity` shrinks a signal's deviation, inverted: PyTorch's `calculate_gain`.
/// `None` for one that PyTorch has no gain for.
pub fn gain(nonlinearity: &str) -> Option<f64> {
    match nonlinearity {
        "linear" | "sigmoid" => Some(1.0),
        "tanh" => Some(5.0 / 3.0),
        "relu" => Some(std::f64::consts::SQRT_2),
        "leaky-relu" => Some((2.0f64 / (1.0 + 0.01 * 0.01)).sqrt()),
        "selu" => Some(0.75),
        _ => None,
    }
}

/// `(fan_in, fan_out)`; `None` for a tensor of fewer than two axes.
pub fn fans(dims: &[usize]) -> Option<(usize, usize)> {
    let [out, input, window @ ..] = dims else { return None };
    let window: usize = window.iter().product();
    Some((input * window, out * window))
}

impl Init {
    /// He's initialisation for layers that a ReLU follows.
    pub const HE: Init = Init::KaimingNormal { fan: Fan::In, gain: std::f64::consts::SQRT_2 };

    /// What PyTorch gives Linear and convolution layers unless told otherwise, weights and biases alike:
    /// `U(-1/sqrt(fan_in), 1/sqrt(fan_in))`, with the fan of the *weight*.
    pub fn default_of(fan_in: usize) -> Init {
        let bound = if fan_in == 0 { 0.0 } else { 1.0 / (fan_in as f64).sqrt() };
        Init::Uniform { low: -bound, high: bound }
    }

    /// The f32 tensor called `name` with these dimensions.
    pub fn tensor(&self, dims: &[usize], seed: u64, name: &str) -> Result<Tensor, InitError> {
        let counted = || {
            fans(dims).ok_or_else(|| InitError(format!("`{name}` has {} axes: its fan needs at least 2", dims.len())))
        };
        let fan = |which: Fan| counted().map(|(i, o)| if which == Fan::In { i } else { o } as f64);
        let both = || counted().map(|(i, o)| (i + o) as f64);
        let (uniform, normal) =
            (|bound: f64| Init::Uniform { low: -bound, high: bound }, |std: f64| Init::Normal { mean: 0.0, std });
        let plain = match *self {
            Init::XavierUniform { gain } => uniform(gain * (6.0 / both()?).sqrt()),
            Init::XavierNormal { gain } => normal(gain * (2.0 / both()?).sqrt()),
            Init::KaimingUniform { fan: which, gain } => uniform(gain * (3.0 / fan(which)?).sqrt()),
            Init::KaimingNormal { fan: which, gain } => normal(gain / fan(which)?.sqrt()),
            Init::Orthogonal { gain } => {
                counted()?;
                return Ok(orthogonal(dims, gain, seed, name));
            }
            plain => plain,
        };
        let elems = dims.iter().product();
        let numbers = match plain {
            Init::Constant(c) => vec![c as f32; elems],
            Init::Uniform { low, high } => draw(elems, seed, name, |words| {
                words.map(|w| (low + f64::from(philox::uniform(w)) * (high - low)) as f32)
            }),
            Init::Normal { mean, std } => {
                draw(elems, seed, name, |words| normals(words).map(|x| (mean + std * x) as f32))
            }
            _ => unreachable!("rewritten above"),
        };
        Ok(Tensor::of(dims, Data::F32(numbers)))
    }
}

fn normals([a, b, c, d]: [u32; 4]) -> [f64; 4] {
    let ([x, y], [z, w]) = (philox::normal([a, b]), philox::normal([c, d]));
    [x, y, z, w]
}

/// `n` numbers, four from each block of random words: block `i` has the counter `(i, hash of the name)`.
fn draw<T: Copy>(n: usize, seed: u64, name: &str, numbers: impl Fn([u32; 4]) -> [T; 4]) -> Vec<T> {
    let ([h0, h1], key) = (philox::key(hash(name)), philox::key(seed));
    let mut all = Vec::with_capacity(n.next_multiple_of(4));
    for block in 0..n.div_ceil(4) as u64 {
        let [lo, hi] = philox::key(block);
        all.extend(numbers(philox4x32(key, [lo, hi, h0, h1])));
    }
    all.truncate(n);
    all
}

/// FNV-1a (Fowler, Noll, Vo), which is the same for ever; `std`'s hashers promise no such thing.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The dimensions as a matrix `[dims[0], rest]`; its rows, or its columns if they are fewer, become orthonormal: the Q of a
/// random matrix, with the signs that make the diagonal of R positive, so that every rotation is equally likely
/// (Mezzadri 2007). Gram and Schmidt's method, applied twice: as orthogonal as rounding allows. O(long * short^2).
fn orthogonal(dims: &[usize], gain: f64, seed: u64, name: &str) -> Tensor {
    let (rows, columns) = (dims[0], dims[1..].iter().product::<usize>());
    let (short, long) = (rows.min(columns), rows.max(columns));
    let mut q = draw(short * long, seed, name, normals);
    for i in 0..short {
        let (done, rest) = q.split_at_mut(i * long);
        let v = &mut rest[..long];
        for _ in 0..2 {
            for u in done.chunks_exact(long) {
                let along: f64 = u.iter().zip(&*v).map(|(a, b)| a * b).sum();
                v.iter_mut().zip(u).for_each(|(b, a)| *b -= along * a);
            }
        }
        let norm = v.iter().map(|x| x * x).sum::<f64>().sqrt();
        v.iter_mut().for_each(|x| *x /= norm);
    }
    let at = |r: usize, c: usize| if rows <= columns { q[r * long + c] } else { q[c * long + r] };
    let elems = (0..rows).flat_map(|r| (0..columns).map(move |c| (r, c)));
    Tensor::of(dims, Data::F32(elems.map(|(r, c)| (gain * at(r, c)) as f32).collect()))
}

impl FromStr for Init {
    type Err = InitError;

    /// A name of the module's table, then what differs from the default, with colons: `kaiming-normal:fan-out`,
    /// `xavier-uniform:gain=tanh`, `uniform:-0.1:0.1`, `normal:0:0.02`, `constant:0.5`, `zeros`. `glorot` and `he` are
    /// other names of `xavier` and `kaiming`.
    fn from_str(text: &str) -> Result<Init, InitError> {
        let wrong = |why: &str| InitError(format!("`{text}` is no initialisation: {why}"));
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default().replace("glorot", "xavier");
        let name = if name.starts_with("he-") { name.replacen("he", "kaiming", 1) } else { name };
        let (mut numbers, mut fan, mut factor) = (Vec::new(), None, None);
        for part in parts {
            match part.split_once('=') {
                _ if part == "fan-in" => fan = Some(Fan::In),
                _ if part == "fan-out" => fan = Some(Fan::Out),
                Some(("gain", value)) => {
                    let known = gain(value).or_else(|| value.parse().ok());
                    factor = Some(known.ok_or_else(|| wrong(&format!("`{value}` is no gain")))?);
                }
                _ => numbers.push(part.parse().map_err(|_| wrong(&format!("`{part}` is no number")))?),
            }
        }
        if fan.is_some() && !name.starts_with("kaiming") {
            return Err(wrong("only kaiming chooses its fan"));
        }
        if factor.is_some() && !["xavier", "kaiming", "orthogonal"].iter().any(|n| name.starts_with(n)) {
            return Err(wrong("it has no gain"));
        }
        let (one, relu) = (factor.unwrap_or(1.0), factor.unwrap_or(std::f64::consts::SQRT_2));
        let fan = fan.unwrap_or(Fan::In);
        let init = match (name.as_str(), &numbers[..]) {
            ("zeros", []) => Init::Constant(0.0),
            ("ones", []) => Init::Constant(1.0),
            ("constant", &[c]) => Init::Constant(c),
            ("uniform", &[low, high]) if low <= high => Init::Uniform { low, high },
            ("normal", &[mean, std]) if std >= 0.0 => Init::Normal { mean, std },
            ("xavier-uniform", []) => Init::XavierUniform { gain: one },
            ("xavier-normal", []) => Init::XavierNormal { gain: one },
            ("kaiming-uniform", []) => Init::KaimingUniform { fan, gain: relu },
            ("kaiming-normal", []) => Init::KaimingNormal { fan, gain: relu },
            ("lecun-uniform", []) => Init::KaimingUniform { fan: Fan::In, gain: 1.0 },
            ("lecun-normal", []) => Init::KaimingNormal { fan: Fan::In, gain: 1.0 },
            ("orthogonal", []) => Init::Orthogonal { gain: one },
            ("uniform", _) => return Err(wrong("uniform:LOW:HIGH is expected")),
            ("normal", _) => return Err(wrong("normal:MEAN:DEVIATION is expected")),
            ("constant", _) => return Err(wrong("constant:VALUE is expected")),
            ("zeros" | "ones" | "orthogonal", _) => return Err(wrong("it takes no numbers")),
            (name, _) if name.starts_with("xavier") || name.starts_with("kaiming") || name.starts_with("lecun") => {
                return Err(wrong("NAME-uniform or NAME-normal is expected"));
            }
            _ => {
                return Err(wrong(
                    "zeros, ones, constant, uniform, normal, xavier-*, kaiming-*, lecun-* and orthogonal are known",
                ));
            }
        };
        Ok(init)
    }
}

/// A rule of re-initialisation: the tensors whose names fit get new values. Written `PATTERN=INIT`.
#[derive(Clone, Debug, PartialEq)]
pub struct InitRule {
    /// For which names.
    pub pattern: NamePattern,
    /// Which values.
    pub init: Init,
}

impl FromStr for InitRule {
    type Err = InitError;

    fn from_str(text: &str) -> Result<InitRule, InitError> {
        match text.split_once('=') {
            Some((pattern, init)) if !pattern.is_empty() => {
                Ok(InitRule { pattern: NamePattern::new(pattern), init: init.parse()? })
            }
            _ => Err(InitError(format!("`{text}` is no rule: PATTERN=INITIALISATION is expected"))),
        }
    }
}

/// The value of the first rule that fits the name, if one does. What has no fan (a bias) keeps its value where the rule's
/// distribution needs one, unless the pattern is the name itself: `*=he-normal` is meant for weights.
pub fn by_rules(rules: &[InitRule], dims: &[usize], seed: u64, name: &str) -> Result<Option<Tensor>, InitError> {
    let Some(rule) = rules.iter().find(|r| r.pattern.fits(name)) else { return Ok(None) };
    match rule.init.tensor(dims, seed, name) {
        Err(_) if rule.pattern.to_string() != name => Ok(None),
        tensor => tensor.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bounds and deviation of a tensor against PyTorch's: `nn.init` on `[64, 32, 3, 3]`, the bound or deviation printed.
    #[test]
    fn bounds_and_deviations_are_pytorchs() {
        let dims = [64, 32, 3, 3]; // fan_in 288, fan_out 576
        let cases: [(&str, f64, bool); 9] = [
            ("xavier-uniform", 0.083_333_333, true),
            ("xavier-normal:gain=relu", 0.068_041_382, false),
            ("kaiming-uniform", 0.144_337_567, true),
            ("kaiming-uniform:gain=2.2360679775:fan-out", 0.161_374_306, true),
            ("he-normal:fan-out", 0.058_925_565, false),
            ("lecun-normal", 0.058_925_565, false),
            ("lecun-uniform", 0.102_062_073, true),
            ("uniform:-0.5:0.5", 0.5, true),
            ("normal:0:0.02", 0.02, false),
        ];
        for (text, size, is_bound) in cases {
            let t = text.parse::<Init>().unwrap().tensor(&dims, 3, "conv.weight").unwrap().to_f64();
            let n = t.len() as f64;
            let deviation = (t.iter().map(|x| x * x).sum::<f64>() / n).sqrt();
            let largest = t.iter().fold(0.0f64, |m, x| m.max(x.abs()));
            // A uniform distribution's variance is b^2/3; the deviation's own relative error is below 1/sqrt(2 n) = 0.5 %.
            let expected = if is_bound { size / 3f64.sqrt() } else { size };
            assert!((deviation / expected - 1.0).abs() < 0.03, "{text}: deviation {deviation} for {expected}");
            assert!(
                !is_bound || (largest <= size * 1.000_001 && largest > size * 0.999),
                "{text}: {largest} for {size}"
            );
            assert!((t.iter().sum::<f64>() / n).abs() < 4.0 * expected / n.sqrt(), "{text}: mean");
        }
    }

    #[test]
    fn orthogonal_rows_or_columns() {
        for dims in [[5, 3, 2, 2], [40, 3, 1, 1], [7, 7, 1, 1], [1, 9, 1, 1]] {
            let t = Init::Orthogonal { gain: 2.0 }.tensor(&dims, 1, "w").unwrap().to_f64();
            let (rows, columns) = (dims[0], dims[1..].iter().product::<usize>());
            let at = |i: usize, k: usize| if rows <= columns { t[i * columns + k] } else { t[k * columns + i] };
            for i in 0..rows.min(columns) {
                for j in 0..=i {
                    let dot: f64 = (0..rows.max(columns)).map(|k| at(i, k) * at(j, k)).sum();
                    assert!((dot - if i == j { 4.0 } else { 0.0 }).abs() < 1e-6, "{dims:?}: {i} {j} {dot}");
                }
            }
        }
    }

    #[test]
    fn values_belong_to_seed_name_and_index() {
        let make = |n, seed, name| Init::HE.tensor(&[n, 5], seed, name).unwrap().to_f64();
        assert_eq!(make(3, 1, "a")[..15], make(7, 1, "a")[..15]);
        assert_ne!(make(3, 1, "a"), make(3, 2, "a"));
        assert_ne!(make(3, 1, "a"), make(3, 1, "b"));
    }

    #[test]
    fn rules_reset_what_they_name() {
        let rules: Vec<InitRule> = ["fc.bias=zeros", "fc.*=he-normal"].iter().map(|t| t.parse().unwrap()).collect();
        let value = |name, dims: &[usize]| by_rules(&rules, dims, 1, name).unwrap();
        assert_eq!(value("fc.bias", &[2]).unwrap(), Tensor::f32(&[2], vec![0.0, 0.0]));
        assert!(value("fc.weight", &[2, 3]).is_some() && value("conv", &[2, 3]).is_none());
        assert_eq!(value("fc.scale", &[2]), None); // no fan: kept
        let exact = ["b=he-normal".parse::<InitRule>().unwrap()];
        let error = by_rules(&exact, &[2], 1, "b").unwrap_err().to_string();
        assert_eq!(error, "`b` has 1 axes: its fan needs at least 2");
    }

    #[test]
    fn texts_that_are_no_initialisation() {
        let error = |text: &str| text.parse::<Init>().unwrap_err().to_string();
        assert_eq!(error("kaiming"), "`kaiming` is no initialisation: NAME-uniform or NAME-normal is expected");
        assert_eq!(error("normal:1"), "`normal:1` is no initialisation: normal:MEAN:DEVIATION is expected");
        assert_eq!(error("zeros:fan-in"), "`zeros:fan-in` is no initialisation: only kaiming chooses its fan");
        assert_eq!(error("lecun-normal:gain=2"), "`lecun-normal:gain=2` is no initialisation: it has no gain");
        assert_eq!(error("he-normal:gain=x"), "`he-normal:gain=x` is no initialisation: `x` is no gain");
        assert!(error("other").ends_with("orthogonal are known"));
        assert_eq!("he-uniform".parse::<Init>(), "kaiming-uniform".parse());
    }
}
