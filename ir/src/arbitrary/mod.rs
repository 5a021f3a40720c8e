//! Random graphs with inputs, for differential tests of passes and of code generation.
//!
//! A graph is a function of a sequence of bytes, its *choices*: each decision of the generator consumes one, and an
//! exhausted sequence ends the graph. So a property test draws `Vec<u8>` and shrinks it as it shrinks any bytes, and a
//! fuzzer feeds its own; no other machinery is needed:
//!
//! ```
//! use nncc_ir::arbitrary::{Limits, case};
//! use nncc_ir::eval::{Precision, evaluate};
//! let case = case(&[3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5, 8, 9, 7, 9], &Limits::default());
//! assert!(evaluate(&case.graph, &case.inputs, Precision::Native).is_ok());
//! ```
//!
//! Graphs are well-typed by construction (operators are tried, and dropped where they do not fit), sizes are small and
//! awkward: 1, primes, and both sides of 8 and 16, sometimes 0. Shapes are known; there are no symbols.

mod movement;
mod numeric;

use crate::graph::{Graph, Origin, ValueId};
use crate::{Constant, DType, Op, Tensor, TensorType, random};

/// How large a graph gets, and what is in it.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The most operators.
    pub nodes: usize,
    /// The most elements of a value.
    pub elems: usize,
    /// Which operators.
    pub mix: Mix,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { nodes: 8, elems: 2048, mix: Mix::Any }
    }
}

/// The operators of a random graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    /// All, of all element types.
    Any,
    /// Those that a small change of their float operands changes little: results of two compilers can be compared with a
    /// tolerance. No comparisons, rounding, positions of extremes, no function with a pole.
    Continuous,
    /// Those that only move elements: results are equal bit by bit.
    Movement,
}

/// A graph and inputs for it.
#[derive(Clone, Debug)]
pub struct Case {
    /// The graph.
    pub graph: Graph,
    /// A tensor for each input.
    pub inputs: Vec<Tensor>,
}

/// The graph of a sequence of choices.
pub fn case(choices: &[u8], limits: &Limits) -> Case {
    let mut g = Generator {
        graph: Graph::new("random"),
        inputs: Vec::new(),
        pool: Vec::new(),
        choices,
        limits: limits.clone(),
        seed: 0,
        nodes: 0,
    };
    g.run();
    Case { graph: g.graph, inputs: g.inputs }
}

/// Tries to add one operator; `None` if it does not fit what there is.
type Step = fn(&mut Generator<'_>) -> Option<()>;

struct Generator<'a> {
    graph: Graph,
    inputs: Vec<Tensor>,
    pool: Vec<ValueId>, // what operators may use
    choices: &'a [u8],
    limits: Limits,
    seed: u64,
    nodes: usize,
}

impl Generator<'_> {
    fn run(&mut self) {
        let steps: Vec<Step> = match self.limits.mix {
            Mix::Any => [numeric::CONTINUOUS, numeric::OTHERS, movement::STEPS].concat(),
            Mix::Continuous => [numeric::CONTINUOUS, movement::STEPS].concat(),
            Mix::Movement => movement::STEPS.to_vec(),
        };
        let dtype = self.dtype();
        let dims = self.dims();
        self.input(random_tensor(dtype, &dims, 0));
        // A step that does not fit costs its choices, so that this ends.
        while self.nodes < self.limits.nodes && !self.choices.is_empty() {
            let step = self.pick(&steps);
            step(self);
        }
        let unused = |v: &&ValueId| self.graph.users(**v).next().is_none();
        let computed = |v: &&ValueId| !matches!(self.graph.op(v.node), Op::Input | Op::Constant(_));
        let mut outputs: Vec<ValueId> = self.pool.iter().filter(unused).filter(computed).copied().collect();
        if outputs.is_empty() {
            outputs.push(self.pool[0]);
        }
        for v in outputs {
            let name = self.graph.value(v).name.clone();
            self.graph.add_output(&name, v);
        }
    }

    // ---- choices ----------------------------------------------------------------------------------------------------

    /// A number below `n`, 0 when no choice is left; `n` at most 256.
    fn below(&mut self, n: usize) -> usize {
        match self.choices.split_first() {
            Some((&c, rest)) => {
                self.choices = rest;
                usize::from(c) % n.max(1)
            }
            None => 0,
        }
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 1
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }

    /// f32 mostly; any type where the mix has operators for it.
    fn dtype(&mut self) -> DType {
        let others = if self.limits.mix == Mix::Continuous { &[][..] } else { &DType::ALL[1..] };
        match self.below(4) {
            3 if !others.is_empty() => self.pick(others),
            _ => DType::F32,
        }
    }

    fn dim(&mut self) -> usize {
        self.pick(&[2, 1, 3, 5, 4, 7, 8, 9, 13, 16, 17, 24, 33, 0])
    }

    /// The dimensions of an image mostly, otherwise of rank 0 to 5.
    fn dims(&mut self) -> Vec<usize> {
        let rank = self.pick(&[4, 3, 2, 4, 5, 1, 4, 0]);
        let mut dims: Vec<usize> = (0..rank).map(|_| self.dim()).collect();
        if let (4.., Some(batch)) = (rank, dims.first_mut()) {
            *batch = (*batch).min(2);
        }
        while dims.iter().product::<usize>() > self.limits.elems {
            dims.iter_mut().for_each(|d| *d = d.div_ceil(2));
        }
        dims
    }

    // ---- values -----------------------------------------------------------------------------------------------------

    fn ty(&self, v: ValueId) -> TensorType {
        self.graph.ty(v).clone()
    }

    /// The dimensions of a value, which are known here.
    fn sizes(&self, v: ValueId) -> Vec<usize> {
        self.graph.ty(v).dims().unwrap_or_default()
    }

    /// A value whose type suits; recent ones first.
    fn find(&mut self, suits: impl Fn(&TensorType) -> bool) -> Option<ValueId> {
        let suiting: Vec<ValueId> = self.pool.iter().rev().filter(|v| suits(self.graph.ty(**v))).copied().collect();
        if suiting.is_empty() { None } else { Some(self.pick(&suiting[..suiting.len().min(8)])) }
    }

    fn float(&mut self) -> Option<ValueId> {
        self.find(|t| t.dtype == DType::F32)
    }

    /// A float value of rank `least` to `most`.
    fn float_of_rank(&mut self, least: usize, most: usize) -> Option<ValueId> {
        self.find(|t| t.dtype == DType::F32 && (least..=most).contains(&t.rank()))
    }

    /// A new value with random elements: a constant mostly, or an input.
    fn fresh(&mut self, dtype: DType, dims: &[usize]) -> ValueId {
        self.seed += 1;
        let t = random_tensor(dtype, dims, self.seed);
        self.given(t)
    }

    /// A new value with these elements: a constant mostly, or an input, or a splat of its first element.
    fn given(&mut self, t: Tensor) -> ValueId {
        match self.below(4) {
            3 => self.input(t),
            2 if t.elems() > 0 => {
                let one = t.to_bytes()[..t.dtype().bytes()].to_vec();
                let one = Tensor::from_bytes(t.dtype(), &[], &one);
                let splat = one.and_then(|one| Constant::splat(&one, t.dims()));
                self.graph.add_constant("c", splat.unwrap_or_else(|| Constant::from_tensor(&t)))
            }
            _ => self.graph.add_constant("c", Constant::from_tensor(&t)),
        }
    }

    fn input(&mut self, t: Tensor) -> ValueId {
        let v = self.graph.add_input("x", t.ty());
        self.inputs.push(t);
        self.pool.push(v);
        v
    }

    /// Indices into an axis of `n` elements, negative ones too.
    fn indices(&mut self, dims: &[usize], n: usize) -> Option<ValueId> {
        self.seed += 1;
        let (mut rng, count) = (random::Rng::new(self.seed), dims.iter().product::<usize>());
        if n == 0 && count > 0 {
            return None;
        }
        let v: Vec<i64> = (0..count).map(|_| rng.below(2 * n as u64) as i64 - n as i64).collect();
        let dtype = self.pick(&[DType::I64, DType::I32]);
        Some(self.given(Tensor::from_i64(dtype, dims, &v)))
    }

    /// Adds an operator if it takes these operands and its results are small.
    fn emit(&mut self, op: impl Into<Op>, operands: &[Option<ValueId>]) -> Option<()> {
        let op = op.into();
        let types: Vec<Option<&TensorType>> = operands.iter().map(|v| v.map(|v| self.graph.ty(v))).collect();
        let small = |t: &TensorType| t.elems().is_some_and(|n| n <= self.limits.elems);
        if !op.infer(&types).is_ok_and(|results| results.iter().all(small)) {
            return None;
        }
        let name = op.name();
        let n = self.graph.add(op, operands, Origin::named(&format!("{name}_{}", self.nodes)), &[]).ok()?;
        self.pool.extend(self.graph.results(n));
        self.nodes += 1;
        Some(())
    }

    fn emit1(&mut self, op: impl Into<Op>, x: ValueId) -> Option<()> {
        self.emit(op, &[Some(x)])
    }
}

fn random_tensor(dtype: DType, dims: &[usize], seed: u64) -> Tensor {
    random::tensor(dtype, dims, seed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::{Precision, evaluate};
    use crate::print::{self, Options};
    use crate::{parse, verify};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    /// Graphs are sound, evaluate, and survive their text form.
    fn check(choices: &[u8], mix: Mix) {
        let case = case(choices, &Limits { mix, elems: 512, ..Limits::default() });
        if let Err(e) = verify::verify(&case.graph) {
            panic!("{e}");
        }
        let y =
            evaluate(&case.graph, &case.inputs, Precision::Native).unwrap_or_else(|e| panic!("{e}\n{}", case.graph));
        let types: Vec<&TensorType> = case.graph.outputs().iter().map(|(_, v)| case.graph.ty(*v)).collect();
        assert_eq!(y.iter().map(Tensor::ty).collect::<Vec<_>>().iter().collect::<Vec<_>>(), types);
        let text = print::graph(&case.graph, &Options::exact());
        let read = parse::graph(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_eq!(print::graph(&read, &Options::exact()), text);
        assert!(evaluate(&case.graph, &case.inputs, Precision::F64).is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(150))]

        #[test]
        fn graphs_are_sound_and_round_trip(choices in prop::collection::vec(any::<u8>(), 0..120)) {
            check(&choices, Mix::Any);
            check(&choices, Mix::Continuous);
            check(&choices, Mix::Movement);
        }
    }

    /// The generator is not worth more than what it reaches.
    #[test]
    fn almost_every_operator_occurs() {
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        for seed in 0..600 {
            let mut rng = random::Rng::new(seed);
            let choices: Vec<u8> = (0..160).map(|_| rng.bits() as u8).collect();
            let g = case(&choices, &Limits { nodes: 12, elems: 512, mix: Mix::Any }).graph;
            seen.extend(g.node_ids().map(|n| g.op(n).name()));
        }
        let missing: Vec<&&str> = Op::NAMES.iter().filter(|n| !seen.contains(**n)).collect();
        // Passes and training make these, but for einsum, whose equations are cases of their own.
        let made = [
            "conv_weight_gradient",
            "relayout",
            "max_pool_gradient",
            "average_pool_gradient",
            "batch_norm_training",
            "batch_norm_statistics",
            "dropout",
            "rrelu",
            "einsum",
            "resize_gradient",
            "fused",
            "chain",
        ];
        assert_eq!(missing, made.iter().collect::<Vec<_>>());
    }
}
