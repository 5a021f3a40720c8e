//! L-BFGS: the direction of Newton's method from the last changes of parameters and gradients, for all parameters together.
//!
//! ```text
//! y = g - g_before     s = t d_before                        pushed to the history where y.s > 1e-10: rho = 1 / y.s,
//!                                                            h = y.s / y.y
//! q = -g     for k from the newest back:  a_k = rho_k s_k.q     q = q - a_k y_k
//! d = h q    for k from the oldest on:    d = d + s_k (a_k - rho_k y_k.d)
//! t = r, at the first step r min(1, 1 / |g|_1)               p = p + t d, where g.d <= -1e-9
//! ```
//!
//! One iteration a step, without a line search: `torch.optim.LBFGS` with `max_iter=1`. Gradients of the whole data are what
//! it is meant for (one batch, or accumulated ones); those of small batches differ by more than the curvature. A history of
//! `m` costs two states of each parameter's size for each of its `m` places, the oldest first and empty ones zero (rho too,
//! so that they add nothing). Source: Nocedal 1980; Nocedal and Wright, "Numerical optimization", algorithm 7.4.

use super::{Memory, StepBuilder};
use crate::training::TrainingError;
use crate::training::emit::{Built, Emit};
use nncc_ir::ops::reduce::ReduceKind;
use nncc_ir::pointwise::{BinaryFn, CompareFn, Ref, UnaryFn};
use nncc_ir::{DType, Dim, Pointwise, TensorType, ValueId};

use BinaryFn::{Add, Div, Min, Mul, Sub};

/// Curvature below which a change is not remembered, and the slope above which nothing is moved: PyTorch's.
const CURVATURE: f64 = 1e-10;
const SLOPE: f64 = -1e-9;

/// A vector in pieces, one a parameter.
type Pieces = Vec<ValueId>;

impl StepBuilder<'_> {
    /// The new parameters.
    pub(super) fn lbfgs(
        &mut self,
        learned: &[(usize, ValueId)],
        time: ValueId,
        history: usize,
    ) -> Result<Pieces, TrainingError> {
        let mut graph = std::mem::take(&mut self.graph);
        let names: Vec<String> = learned.iter().map(|(i, _)| self.states[*i].name.clone()).collect();
        let parameters: Pieces = learned.iter().map(|(i, _)| self.current[*i]).collect();
        let (decay, rate) = (self.options.weight_decay, self.rate);
        let memory = Memory { value: parameters[0], parameter: String::new(), builder: self };
        let mut search = Search { emit: Emit::new(&mut graph, "optimizer/lbfgs"), memory, names: &names };
        let gradients = learned.iter().map(|(_, g)| *g).collect();
        let result = search.step(&parameters, gradients, decay, rate, time, history);
        self.graph = graph;
        result
    }
}

struct Search<'s, 'g, 'b, 'a> {
    emit: Emit<'g>,
    memory: Memory<'b, 'a>,
    names: &'s [String],
}

impl Search<'_, '_, '_, '_> {
    fn step(
        &mut self,
        parameters: &[ValueId],
        mut g: Pieces,
        decay: f64,
        rate: ValueId,
        time: ValueId,
        history: usize,
    ) -> Result<Pieces, TrainingError> {
        if parameters.iter().any(|&p| self.emit.dtype(p) != DType::F32) {
            return Err(TrainingError::Option("L-BFGS takes parameters of type f32".into()));
        }
        if decay != 0.0 {
            g = self.each(&[&g, parameters], &[], |p, v| {
                let decay = p.binary_const(Mul, v[1], decay);
                p.binary(Add, v[0], decay)
            })?;
        }
        let before = self.pieces("prev_grad");
        let moved = self.pieces("direction");
        let t_before = self.scalar("t", 0.0);
        let y = self.each(&[&g, &before], &[], |p, v| p.binary(Sub, v[0], v[1]))?;
        let s = self.each(&[&moved], &[t_before], |p, v| p.binary(Mul, v[0], v[1]))?;
        let (ys, yy) = (self.dot(&y, &s)?, self.dot(&y, &y)?);
        let pushed = self.emit.map(&[ys, time], |p, v| {
            let (zero, one) = (p.constant(p.type_of(v[0]), 0.0), p.constant(p.type_of(v[0]), 1.0));
            let flat = p.constant(p.type_of(v[0]), CURVATURE);
            let flat = p.compare(CompareFn::Le, v[0], flat);
            let first = p.compare(CompareFn::Le, v[1], one);
            let later = p.select(flat, zero, one);
            p.select(first, zero, later)
        })?;
        let inverse = self.emit.unary(UnaryFn::Reciprocal, ys)?;
        let scale = self.emit.binary(Div, ys, yy)?;
        let h_before = self.scalar("h", 1.0);
        let h = self.chosen(pushed, scale, h_before)?;

        // The history, shifted by one place where something is pushed.
        let (mut ys_kept, mut ss_kept, mut rhos) = (Vec::new(), Vec::new(), Vec::new());
        for k in 0..history {
            let old = |k: usize| (format!("old_dirs{k}"), format!("old_stps{k}"), format!("rho{k}"));
            let (own, next) = (old(k), old(k + 1));
            let (next_y, next_s, next_rho) = if k + 1 == history {
                (y.clone(), s.clone(), inverse)
            } else {
                (self.pieces(&next.0), self.pieces(&next.1), self.scalar(&next.2, 0.0))
            };
            for (name, next, kept) in [(&own.0, next_y, &mut ys_kept), (&own.1, next_s, &mut ss_kept)] {
                let old = self.pieces(name);
                let new = self.each(&[&next, &old], &[pushed], |p, v| choose(p, v[2], v[0], v[1]))?;
                self.keep(name, &new);
                kept.push(new);
            }
            let old_rho = self.scalar(&own.2, 0.0);
            let rho = self.chosen(pushed, next_rho, old_rho)?;
            self.keep_scalar(&own.2, rho);
            rhos.push(rho);
        }

        let mut d = self.each(&[&g], &[], |p, v| p.binary_const(Mul, v[0], -1.0))?;
        let mut shares = vec![h; history];
        for k in (0..history).rev() {
            let product = self.dot(&ss_kept[k], &d)?;
            shares[k] = self.emit.mul(product, rhos[k])?;
            d = self.each(&[&d, &ys_kept[k]], &[shares[k]], |p, v| {
                let part = p.binary(Mul, v[2], v[1]);
                p.binary(Sub, v[0], part)
            })?;
        }
        d = self.each(&[&d], &[h], |p, v| p.binary(Mul, v[0], v[1]))?;
        for k in 0..history {
            let product = self.dot(&ys_kept[k], &d)?;
            let product = self.emit.mul(product, rhos[k])?;
            let by = self.emit.sub(shares[k], product)?;
            d = self.each(&[&d, &ss_kept[k]], &[by], |p, v| {
                let part = p.binary(Mul, v[2], v[1]);
                p.binary(Add, v[0], part)
            })?;
        }

        let size = self.sum(&g, ReduceKind::L1)?;
        let t = self.emit.map(&[rate, time, size], |p, v| {
            let one = p.constant(p.type_of(v[0]), 1.0);
            let inverse = p.binary(Div, one, v[2]);
            let least = p.binary(Min, inverse, one);
            let begin = p.binary(Mul, least, v[0]);
            let first = p.compare(CompareFn::Le, v[1], one);
            p.select(first, begin, v[0])
        })?;
        let slope = self.dot(&g, &d)?;
        let by = self.emit.map(&[slope, t], |p, v| {
            let (zero, bound) = (p.constant(p.type_of(v[1]), 0.0), p.constant(p.type_of(v[0]), SLOPE));
            let falls = p.compare(CompareFn::Le, v[0], bound);
            p.select(falls, v[1], zero)
        })?;
        self.keep("prev_grad", &g);
        self.keep("direction", &d);
        self.keep_scalar("t", t);
        self.keep_scalar("h", h);
        self.each(&[parameters, &d], &[by], |p, v| {
            let part = p.binary(Mul, v[2], v[1]);
            p.binary(Add, v[0], part)
        })
    }

    /// A function of the pieces of several vectors, and of scalars behind them.
    fn each(
        &mut self,
        vectors: &[&[ValueId]],
        scalars: &[ValueId],
        f: impl Fn(&mut Pointwise, &[Ref]) -> Ref,
    ) -> Result<Pieces, TrainingError> {
        let pieces = vectors.first().map_or(0, |v| v.len());
        let mut out = Vec::with_capacity(pieces);
        for i in 0..pieces {
            let operands: Vec<ValueId> = vectors.iter().map(|v| v[i]).chain(scalars.iter().copied()).collect();
            out.push(self.emit.map(&operands, |p, v| f(p, v))?);
        }
        Ok(out)
    }

    /// `new` where something was pushed, else `old`.
    fn chosen(&mut self, pushed: ValueId, new: ValueId, old: ValueId) -> Built {
        self.emit.map(&[new, old, pushed], |p, v| choose(p, v[2], v[0], v[1]))
    }

    fn dot(&mut self, a: &[ValueId], b: &[ValueId]) -> Built {
        let products = self.each(&[a, b], &[], |p, v| p.binary(Mul, v[0], v[1]))?;
        self.sum(&products, ReduceKind::Sum)
    }

    fn sum(&mut self, pieces: &[ValueId], kind: ReduceKind) -> Built {
        let mut sum = None;
        for &piece in pieces {
            // A parameter of no axes is reduced over none: its magnitude is still wanted.
            let elems = self.emit.ty(piece).elems().unwrap_or(1);
            let flat = self.emit.reshape(piece, vec![Dim::from(elems)])?;
            let part = self.emit.reduce_all(kind, flat)?;
            sum = Some(match sum {
                Some(sum) => self.emit.add(sum, part)?,
                None => part,
            });
        }
        sum.ok_or(TrainingError::NoParameters("the loss depends on no parameter"))
    }

    fn pieces(&mut self, name: &str) -> Pieces {
        let mut pieces = Pieces::new();
        for parameter in self.names {
            let builder = &self.memory.builder;
            let ty = self.emit.ty(builder.current[builder.by_name[parameter]]);
            let full = format!("{name}/{parameter}");
            pieces.push(self.memory.state(&mut self.emit, full, Some(parameter.clone()), ty, 0.0));
        }
        pieces
    }

    fn keep(&mut self, name: &str, pieces: &[ValueId]) {
        for (parameter, &piece) in self.names.iter().zip(pieces) {
            self.memory.set(&format!("{name}/{parameter}"), piece, false);
        }
    }

    fn scalar(&mut self, name: &str, initial: f64) -> ValueId {
        let ty = TensorType::fixed(DType::F32, &[]);
        self.memory.state(&mut self.emit, format!("lbfgs/{name}"), None, ty, initial)
    }

    fn keep_scalar(&mut self, name: &str, value: ValueId) {
        self.memory.set(&format!("lbfgs/{name}"), value, false);
    }
}

fn choose(p: &mut Pointwise, pushed: Ref, new: Ref, old: Ref) -> Ref {
    let half = p.constant(p.type_of(pushed), 0.5);
    let kept = p.compare(CompareFn::Le, pushed, half);
    p.select(kept, old, new)
}
