//! `nncc verify`: a compiled library against the reference evaluator on random and edge inputs.

use super::{args, compile, print};
use nncc::verify::{Difference, compare};
use nncc::{DType, Error, Model, Tensor};
use nncc_ir::TensorType;

/// Runs the subcommand: every shape set of the library, one after the other.
pub fn run(a: &args::Verify) -> Result<(), Error> {
    let model = Model::open(&a.library)?;
    let sets = model.library().set_count();
    let mut failed = None;
    for set in 0..sets {
        let types = model.input_types_of(set);
        let mut compiler = compile::importer(&a.importing)?;
        for (name, ty) in &types {
            compiler = compiler.input_shape(name, &ty.dims().unwrap_or_default());
        }
        let graph = compiler.import(&a.model)?;
        if sets > 1 {
            let types: Vec<String> = types.iter().map(|(name, ty)| format!("{name}: {ty}")).collect();
            print(&format!("shape set {set}, {}\n", types.join(", ")))?;
        }
        let types: Vec<TensorType> = types.into_iter().map(|(_, ty)| ty).collect();
        for (what, inputs) in inputs(a, &types) {
            let verdict = compare(&graph, &model, &inputs, a.tolerance)?;
            let worst = verdict.worst.as_ref();
            let worst = worst.map_or(String::new(), |w| {
                format!(", at most {:.1e} of a value's scale (\"{}\")", w.relative, w.value)
            });
            print(&format!("{what}: {} values compared{worst}\n", verdict.compared))?;
            if let (Some(difference), None) = (verdict.first, &failed) {
                failed = Some((what, difference));
            }
        }
    }
    match failed {
        None => Ok(()),
        Some((what, Difference { value, step, relative, allowed })) => Err(Error::Differs(format!(
            "the library differs from the model\n  --> value \"{value}\", made by {step}, on {what}\n  \
             {relative:.2e} of the value's scale, {allowed:.1e} is allowed"
        ))),
    }
}

/// Random inputs, and edges: nothing, everything alike, numbers so large that functions saturate (but not so large that
/// the rounding before a saturation to 6 would count against 6), and so small that they and their products are denormal.
fn inputs(a: &args::Verify, types: &[TensorType]) -> Vec<(String, Vec<Tensor>)> {
    let seeded = |seed: u64, scale: f64| each(types, |t, d, i| random(t, d, seed.wrapping_mul(1000) + i, scale));
    let mut sets: Vec<(String, Vec<Tensor>)> = (0..u64::from(a.rounds))
        .map(|round| a.seed.wrapping_add(round))
        .map(|seed| (format!("random inputs, seed {seed}"), seeded(seed, 1.0)))
        .collect();
    sets.push(("zeros".into(), each(types, |t, d, _| Tensor::zeros(t, d))));
    sets.push(("ones".into(), each(types, |t, d, _| Tensor::from_i64(t, d, &vec![1; d.iter().product()]))));
    if types.iter().any(|t| t.dtype.is_float()) {
        sets.push(("large inputs".into(), seeded(a.seed, 30.0)));
        sets.push(("denormal inputs".into(), seeded(a.seed, 1e-39)));
    }
    sets
}

fn each(types: &[TensorType], make: impl Fn(DType, &[usize], u64) -> Tensor) -> Vec<Tensor> {
    types.iter().enumerate().map(|(i, t)| make(t.dtype, &t.dims().unwrap_or_default(), i as u64)).collect()
}

/// Normal floats times `scale`; small non-negative integers, which are valid as indices more often than others.
fn random(dtype: DType, dims: &[usize], seed: u64, scale: f64) -> Tensor {
    if dtype.is_float() {
        let numbers = normal(DType::F64, dims, seed).to_f64();
        return Tensor::from_f64(dtype, dims, &numbers.iter().map(|x| x * scale).collect::<Vec<_>>());
    }
    let mut rng = SplitMix(seed);
    let v: Vec<i64> = (0..dims.iter().product()).map(|_| (rng.next() % 2) as i64).collect();
    Tensor::from_i64(dtype, dims, &v)
}

/// Seeded numbers of a normal distribution (Box and Muller 1958).
pub fn normal(dtype: DType, dims: &[usize], seed: u64) -> Tensor {
    let mut rng = SplitMix(seed);
    let mut uniform = || ((rng.next() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    let mut one = || (-2.0 * uniform().ln()).sqrt() * (2.0 * std::f64::consts::PI * uniform()).cos();
    let v: Vec<f64> = (0..dims.iter().product()).map(|_| one()).collect();
    Tensor::from_f64(dtype, dims, &v)
}

/// SplitMix64 (Steele, Lea, Flood 2014): reproducible, no dependency.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
