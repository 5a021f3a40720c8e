//! Optimizers: a parameter and its gradient become the next parameter, and what the optimizer remembers of it its next value.
//!
//! ```text
//! g gradient, p parameter, r learning rate, t number of the step from 1, l weight decay (g = g + l p, but for AdamW)
//!
//! sgd        b = m b + (1 - dampening) g  (b = g at t = 1)     p -= r b      nesterov: p -= r (g + m b)      without m: p -= r g
//! adagrad    s = s + g^2                              p -= r / (1 + (t - 1) decay) g / (sqrt(s) + eps)
//! rmsprop    v = a v + (1 - a) g^2                    d = g / (sqrt(v) + eps)     centered: v - mean^2, mean = a mean + (1 - a) g
//!                                                     p -= r d, or with momentum: b = m b + d, p -= r b
//! adadelta   v = rho v + (1 - rho) g^2                d = g sqrt(u + eps) / sqrt(v + eps)     u = rho u + (1 - rho) d^2     p -= r d
//! adam       m = b1 m + (1 - b1) g                    v = b2 v + (1 - b2) g^2     (amsgrad: v's largest so far in what follows)
//!                                                     p -= r m / (1 - b1^t) / (sqrt(v / (1 - b2^t)) + eps)
//! adamw      p = p (1 - r l), then adam without l
//! lbfgs      of all parameters together: `step/lbfgs.rs`
//! adamax     m as adam                                u = max(b2 u, |g| + eps)    p -= r / (1 - b1^t) m / u
//! nadam      mu_t = b1 (1 - 0.96^(t psi) / 2)         M = product of mu_1 .. mu_t
//!            p -= r [ (1 - mu_t) / (1 - M) g + mu_(t+1) / (1 - M mu_(t+1)) m ] / (sqrt(v / (1 - b2^t)) + eps)
//! ```
//!
//! Definitions and defaults are those of `torch.optim`. The step's number is a run-time scalar; `1 - b^t` is computed as
//! `-2 e^(u/2) sinh(u/2)`, `u = t ln b`, which f32 gives without cancellation (for b2 = 0.999 and t = 1 the plain difference
//! has lost four digits). Each new value is one elementwise node, so that it can be written over the old one.

use super::TrainingError;
use super::emit::{Built, Emit};
use nncc_ir::pointwise::{BinaryFn, CompareFn, Ref, UnaryFn};
use nncc_ir::{DType, Pointwise, ValueId};

/// An optimizer: see the module. Fields have PyTorch's names.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "the fields have the names of the formulas above and of PyTorch's arguments")]
pub enum Optimizer {
    /// Stochastic gradient descent.
    Sgd { momentum: f64, dampening: f64, nesterov: bool },
    /// Duchi et al. 2011.
    Adagrad { lr_decay: f64, initial_accumulator_value: f64, eps: f64 },
    /// Hinton 2012.
    RmsProp { alpha: f64, eps: f64, momentum: f64, centered: bool },
    /// Zeiler 2012.
    Adadelta { rho: f64, eps: f64 },
    /// Kingma and Ba 2014.
    Adam { betas: (f64, f64), eps: f64, amsgrad: bool },
    /// Loshchilov and Hutter 2017: the weight decay stands apart from the gradient.
    AdamW { betas: (f64, f64), eps: f64, amsgrad: bool },
    /// Kingma and Ba 2014, by the largest gradient.
    Adamax { betas: (f64, f64), eps: f64 },
    /// Dozat 2016: Adam with Nesterov's momentum.
    NAdam { betas: (f64, f64), eps: f64, momentum_decay: f64 },
    /// Nocedal 1980: one iteration a step, without a line search. See `step/lbfgs.rs`.
    Lbfgs { history_size: u32 },
}

/// A number or a switch of an optimizer.
#[derive(Debug)]
pub enum Parameter<'a> {
    /// A number.
    Number(&'a mut f64),
    /// A switch.
    Flag(&'a mut bool),
    /// A whole number.
    Count(&'a mut u32),
}

impl Optimizer {
    /// The optimizer of this name with PyTorch's defaults: `sgd`, `momentum` and `nesterov` (with 0.9), `adagrad`, `rmsprop`,
    /// `adadelta`, `adam`, `adamw`, `adamax`, `nadam`, `lbfgs` (with a history of 10, not 100: each costs two states a
    /// parameter).
    pub fn named(name: &str) -> Option<Optimizer> {
        let (betas, eps) = ((0.9, 0.999), 1e-8);
        let sgd = |momentum, nesterov| Optimizer::Sgd { momentum, dampening: 0.0, nesterov };
        Some(match name {
            "sgd" => sgd(0.0, false),
            "momentum" => sgd(0.9, false),
            "nesterov" => sgd(0.9, true),
            "adagrad" => Optimizer::Adagrad { lr_decay: 0.0, initial_accumulator_value: 0.0, eps: 1e-10 },
            "rmsprop" => Optimizer::RmsProp { alpha: 0.99, eps, momentum: 0.0, centered: false },
            "adadelta" => Optimizer::Adadelta { rho: 0.9, eps: 1e-6 },
            "adam" => Optimizer::Adam { betas, eps, amsgrad: false },
            "adamw" => Optimizer::AdamW { betas, eps, amsgrad: false },
            "adamax" => Optimizer::Adamax { betas, eps },
            "nadam" => Optimizer::NAdam { betas, eps, momentum_decay: 4e-3 },
            "lbfgs" => Optimizer::Lbfgs { history_size: 10 },
            _ => return None,
        })
    }

    /// Every name that [`Optimizer::named`] knows.
    pub const NAMES: &'static [&'static str] =
        &["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adadelta", "adam", "adamw", "adamax", "nadam", "lbfgs"];

    /// Its numbers by PyTorch's names, to be set: Adam's `betas` are `beta1` and `beta2`.
    pub fn parameters(&mut self) -> Vec<(&'static str, Parameter<'_>)> {
        use Parameter::{Flag, Number};
        match self {
            Optimizer::Sgd { momentum, dampening, nesterov } => {
                vec![("momentum", Number(momentum)), ("dampening", Number(dampening)), ("nesterov", Flag(nesterov))]
            }
            Optimizer::Adagrad { lr_decay, initial_accumulator_value, eps } => vec![
                ("lr_decay", Number(lr_decay)),
                ("initial_accumulator_value", Number(initial_accumulator_value)),
                ("eps", Number(eps)),
            ],
            Optimizer::RmsProp { alpha, eps, momentum, centered } => vec![
                ("alpha", Number(alpha)),
                ("eps", Number(eps)),
                ("momentum", Number(momentum)),
                ("centered", Flag(centered)),
            ],
            Optimizer::Adadelta { rho, eps } => vec![("rho", Number(rho)), ("eps", Number(eps))],
            Optimizer::Adam { betas, eps, amsgrad } | Optimizer::AdamW { betas, eps, amsgrad } => vec![
                ("beta1", Number(&mut betas.0)),
                ("beta2", Number(&mut betas.1)),
                ("eps", Number(eps)),
                ("amsgrad", Flag(amsgrad)),
            ],
            Optimizer::Adamax { betas, eps } => {
                vec![("beta1", Number(&mut betas.0)), ("beta2", Number(&mut betas.1)), ("eps", Number(eps))]
            }
            Optimizer::NAdam { betas, eps, momentum_decay } => vec![
                ("beta1", Number(&mut betas.0)),
                ("beta2", Number(&mut betas.1)),
                ("eps", Number(eps)),
                ("momentum_decay", Number(momentum_decay)),
            ],
            Optimizer::Lbfgs { history_size } => vec![("history_size", Parameter::Count(history_size))],
        }
    }

    /// The learning rate and the weight decay that PyTorch takes if none is given.
    pub fn defaults(&self) -> (f64, f64) {
        match self {
            Optimizer::Sgd { .. } => (1e-3, 0.0),
            Optimizer::Adagrad { .. } | Optimizer::RmsProp { .. } => (1e-2, 0.0),
            Optimizer::Adadelta { .. } | Optimizer::Lbfgs { .. } => (1.0, 0.0),
            Optimizer::Adam { .. } => (1e-3, 0.0),
            Optimizer::AdamW { .. } => (1e-3, 1e-2),
            Optimizer::Adamax { .. } | Optimizer::NAdam { .. } => (2e-3, 0.0),
        }
    }

    /// What is wrong with the numbers, if something is.
    pub fn check(&self) -> Result<(), TrainingError> {
        for (name, parameter) in self.clone().parameters() {
            if let Parameter::Number(x) = parameter
                && !(*x >= 0.0 && x.is_finite())
            {
                return Err(TrainingError::Option(format!("{name} is {x}, not a number of at least 0")));
            }
        }
        let share = |name: &str, x: f64| match x {
            x if (0.0..1.0).contains(&x) => Ok(()),
            _ => Err(TrainingError::Option(format!("{name} is {x}, not a share of at least 0 and less than 1"))),
        };
        let both = |(a, b): (f64, f64)| share("the first beta", a).and_then(|()| share("the second beta", b));
        match self {
            Optimizer::Sgd { momentum, dampening, nesterov: true } if *momentum <= 0.0 || *dampening != 0.0 => {
                Err(TrainingError::Option("Nesterov's method needs a momentum and no dampening".into()))
            }
            Optimizer::Sgd { .. } | Optimizer::Adagrad { .. } => Ok(()),
            Optimizer::RmsProp { alpha, .. } => share("alpha", *alpha),
            Optimizer::Adadelta { rho, .. } => share("rho", *rho),
            Optimizer::Lbfgs { history_size } if !(1..=100).contains(history_size) => {
                Err(TrainingError::Option(format!("history_size is {history_size}, not within 1 to 100")))
            }
            Optimizer::Lbfgs { .. } => Ok(()),
            Optimizer::Adam { betas, .. }
            | Optimizer::AdamW { betas, .. }
            | Optimizer::Adamax { betas, .. }
            | Optimizer::NAdam { betas, .. } => both(*betas),
        }
    }
}

/// What the scalars of a step are: all of the parameters' type, computed once a step.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// The learning rate.
    pub(super) rate: ValueId,
    /// The step's number from 1.
    pub(super) time: ValueId,
}

/// One parameter during the step.
pub(super) struct Update<'a, 'g> {
    pub(super) emit: &'a mut Emit<'g>,
    /// Gives the state of that name for this parameter, with this number for all elements before the first step, and takes
    /// its new value.
    pub(super) states: &'a mut dyn States,
    pub(super) parameter: ValueId,
    pub(super) gradient: ValueId,
    pub(super) clock: Clock,
    pub(super) weight_decay: f64,
}

/// Where an optimizer's memory lives.
pub(super) trait States {
    /// The current value of a state of the parameter.
    fn read(&mut self, emit: &mut Emit<'_>, name: &str, initial: f64) -> ValueId;
    /// The current value of a scalar that all parameters share.
    fn read_shared(&mut self, emit: &mut Emit<'_>, name: &str, dtype: DType, initial: f64) -> ValueId;
    /// Its new value.
    fn write(&mut self, name: &str, value: ValueId);
    /// Its new value, if it has none yet: all parameters would give it the same.
    fn write_shared(&mut self, name: &str, value: ValueId);
}

use BinaryFn::{Add, Div, Max, Mul, Pow, Sub};
use UnaryFn::{Abs, Exp, Sinh, Sqrt};

/// `1 - base^t`, in a program.
fn correction(p: &mut Pointwise, t: Ref, base: f64) -> Ref {
    if base == 0.0 {
        return p.constant(p.type_of(t), 1.0);
    }
    let u = p.binary_const(Mul, t, base.ln());
    let u = p.binary_const(Max, u, -80.0); // e^-80 is nothing beside 1, and sinh(40) is a number in f32
    let half = p.binary_const(Mul, u, 0.5);
    let (e, s) = (p.unary(Exp, half), p.unary(Sinh, half));
    let product = p.binary(Mul, e, s);
    p.binary_const(Mul, product, -2.0)
}

/// `share old + (1 - share) new`.
fn blend(p: &mut Pointwise, share: f64, old: Ref, new: Ref) -> Ref {
    let (old, new) = (p.binary_const(Mul, old, share), p.binary_const(Mul, new, 1.0 - share));
    p.binary(Add, old, new)
}

impl Update<'_, '_> {
    fn moment(&mut self, name: &str, initial: f64) -> ValueId {
        self.states.read(self.emit, name, initial)
    }

    /// A state's new value from its old one and further values.
    fn advance(
        &mut self,
        name: &str,
        initial: f64,
        values: &[ValueId],
        body: impl FnOnce(&mut Pointwise, Ref, &[Ref]) -> Ref,
    ) -> Built {
        let old = self.moment(name, initial);
        let new = self.emit.map(&[&[old], values].concat(), |p, v| body(p, v[0], &v[1..]))?;
        self.states.write(name, new);
        Ok(new)
    }

    /// The new parameter.
    pub(super) fn build(mut self, optimizer: &Optimizer) -> Built {
        let l = self.weight_decay;
        if l != 0.0 && !matches!(optimizer, Optimizer::AdamW { .. }) {
            self.gradient = self.emit.map(&[self.gradient, self.parameter], |p, v| {
                let decay = p.binary_const(Mul, v[1], l);
                p.binary(Add, v[0], decay)
            })?;
        }
        match *optimizer {
            Optimizer::Sgd { momentum, dampening, nesterov } => self.sgd(momentum, dampening, nesterov),
            Optimizer::Adagrad { lr_decay, initial_accumulator_value, eps } => {
                self.adagrad(lr_decay, initial_accumulator_value, eps)
            }
            Optimizer::RmsProp { alpha, eps, momentum, centered } => self.rms_prop(alpha, eps, momentum, centered),
            Optimizer::Adadelta { rho, eps } => self.adadelta(rho, eps),
            Optimizer::Adam { betas, eps, amsgrad } => self.adam(betas, eps, amsgrad, 0.0),
            Optimizer::AdamW { betas, eps, amsgrad } => self.adam(betas, eps, amsgrad, l),
            Optimizer::Adamax { betas, eps } => self.adamax(betas, eps),
            Optimizer::NAdam { betas, eps, momentum_decay } => self.nadam(betas, eps, momentum_decay),
            Optimizer::Lbfgs { .. } => Err(TrainingError::Bug("L-BFGS moves all parameters together".into())),
        }
    }

    /// `p - r d`.
    fn descend(&mut self, direction: ValueId) -> Built {
        self.emit.map(&[self.parameter, self.clock.rate, direction], |p, v| {
            let move_by = p.binary(Mul, v[1], v[2]);
            p.binary(Sub, v[0], move_by)
        })
    }

    fn sgd(&mut self, momentum: f64, dampening: f64, nesterov: bool) -> Built {
        let g = self.gradient;
        if momentum == 0.0 {
            return self.descend(g);
        }
        let buffer = self.advance("momentum", 0.0, &[g, self.clock.time], |p, b, v| {
            let kept = p.binary_const(Mul, b, momentum);
            if dampening == 0.0 {
                return p.binary(Add, kept, v[0]);
            }
            let damped = p.binary_const(Mul, v[0], 1.0 - dampening);
            let later = p.binary(Add, kept, damped);
            let one = p.constant(p.type_of(v[1]), 1.0);
            let first = p.compare(CompareFn::Le, v[1], one);
            p.select(first, v[0], later)
        })?;
        if !nesterov {
            return self.descend(buffer);
        }
        let ahead = self.emit.map(&[g, buffer], |p, v| {
            let kept = p.binary_const(Mul, v[1], momentum);
            p.binary(Add, v[0], kept)
        })?;
        self.descend(ahead)
    }

    fn adagrad(&mut self, lr_decay: f64, initial: f64, eps: f64) -> Built {
        let g = self.gradient;
        let sum = self.advance("sum", initial, &[g], |p, s, v| {
            let square = p.binary(Mul, v[0], v[0]);
            p.binary(Add, s, square)
        })?;
        let Clock { rate, time } = self.clock;
        self.emit.map(&[self.parameter, g, sum, rate, time], |p, v| {
            let mut rate = v[3];
            if lr_decay != 0.0 {
                let before = p.binary_const(Sub, v[4], 1.0);
                let decay = p.binary_const(Mul, before, lr_decay);
                let decay = p.binary_const(Add, decay, 1.0);
                rate = p.binary(Div, rate, decay);
            }
            let root = p.unary(Sqrt, v[2]);
            let root = p.binary_const(Add, root, eps);
            let direction = p.binary(Div, v[1], root);
            let move_by = p.binary(Mul, rate, direction);
            p.binary(Sub, v[0], move_by)
        })
    }

    fn rms_prop(&mut self, alpha: f64, eps: f64, momentum: f64, centered: bool) -> Built {
        let g = self.gradient;
        let square = self.square_average("square_avg", alpha)?;
        let mean = match centered {
            true => Some(self.advance("grad_avg", 0.0, &[g], |p, m, v| blend(p, alpha, m, v[0]))?),
            false => None,
        };
        let values: Vec<ValueId> = [g, square].into_iter().chain(mean).collect();
        let direction = self.emit.map(&values, |p, v| {
            let mut variance = v[1];
            if let Some(&mean) = v.get(2) {
                let square = p.binary(Mul, mean, mean);
                variance = p.binary(Sub, variance, square);
            }
            let root = p.unary(Sqrt, variance);
            let root = p.binary_const(Add, root, eps);
            p.binary(Div, v[0], root)
        })?;
        if momentum == 0.0 {
            return self.descend(direction);
        }
        let buffer = self.advance("momentum", 0.0, &[direction], |p, b, v| {
            let kept = p.binary_const(Mul, b, momentum);
            p.binary(Add, kept, v[0])
        })?;
        self.descend(buffer)
    }

    /// `v = share v + (1 - share) g^2`.
    fn square_average(&mut self, name: &str, share: f64) -> Built {
        self.advance(name, 0.0, &[self.gradient], |p, old, v| {
            let square = p.binary(Mul, v[0], v[0]);
            blend(p, share, old, square)
        })
    }

    fn adadelta(&mut self, rho: f64, eps: f64) -> Built {
        let square = self.square_average("square_avg", rho)?;
        let moved = self.moment("acc_delta", 0.0);
        let direction = self.emit.map(&[self.gradient, moved, square], |p, v| {
            let (u, s) = (p.binary_const(Add, v[1], eps), p.binary_const(Add, v[2], eps));
            let (u, s) = (p.unary(Sqrt, u), p.unary(Sqrt, s));
            let ratio = p.binary(Div, u, s);
            p.binary(Mul, ratio, v[0])
        })?;
        let next = self.emit.map(&[moved, direction], |p, v| {
            let square = p.binary(Mul, v[1], v[1]);
            blend(p, rho, v[0], square)
        })?;
        self.states.write("acc_delta", next);
        self.descend(direction)
    }

    fn adam(&mut self, (b1, b2): (f64, f64), eps: f64, amsgrad: bool, decay: f64) -> Built {
        let g = self.gradient;
        let m = self.advance("exp_avg", 0.0, &[g], |p, m, v| blend(p, b1, m, v[0]))?;
        let mut square = self.square_average("exp_avg_sq", b2)?;
        if amsgrad {
            square = self.advance("max_exp_avg_sq", 0.0, &[square], |p, most, v| p.binary(Max, most, v[0]))?;
        }
        let Clock { rate, time } = self.clock;
        let parameter = self.parameter;
        let scale = self.emit.map(&[rate, time], |p, v| {
            let c = correction(p, v[1], b1);
            p.binary(Div, v[0], c)
        })?;
        let spread = self.emit.map(&[time], |p, v| {
            let c = correction(p, v[0], b2);
            p.unary(Sqrt, c)
        })?;
        self.emit.map(&[parameter, m, square, scale, spread, rate], |p, v| {
            let root = p.unary(Sqrt, v[2]);
            let root = p.binary(Div, root, v[4]);
            let root = p.binary_const(Add, root, eps);
            let direction = p.binary(Div, v[1], root);
            let move_by = p.binary(Mul, v[3], direction);
            let mut old = v[0];
            if decay != 0.0 {
                let shrink = p.binary_const(Mul, v[5], -decay);
                let shrink = p.binary_const(Add, shrink, 1.0);
                old = p.binary(Mul, old, shrink);
            }
            p.binary(Sub, old, move_by)
        })
    }

    fn adamax(&mut self, (b1, b2): (f64, f64), eps: f64) -> Built {
        let g = self.gradient;
        let m = self.advance("exp_avg", 0.0, &[g], |p, m, v| blend(p, b1, m, v[0]))?;
        let most = self.advance("exp_inf", 0.0, &[g], |p, u, v| {
            let (kept, size) = (p.binary_const(Mul, u, b2), p.unary(Abs, v[0]));
            let size = p.binary_const(Add, size, eps);
            p.binary(Max, kept, size)
        })?;
        let Clock { rate, time } = self.clock;
        let scale = self.emit.map(&[rate, time], |p, v| {
            let c = correction(p, v[1], b1);
            p.binary(Div, v[0], c)
        })?;
        self.emit.map(&[self.parameter, m, most, scale], |p, v| {
            let direction = p.binary(Div, v[1], v[2]);
            let move_by = p.binary(Mul, v[3], direction);
            p.binary(Sub, v[0], move_by)
        })
    }

    fn nadam(&mut self, (b1, b2): (f64, f64), eps: f64, momentum_decay: f64) -> Built {
        let g = self.gradient;
        let Clock { rate, time } = self.clock;
        let mu = |p: &mut Pointwise, t: Ref| {
            let base = p.constant(p.type_of(t), 0.96);
            let exponent = p.binary_const(Mul, t, momentum_decay);
            let power = p.binary(Pow, base, exponent);
            let less = p.binary_const(Mul, power, -0.5 * b1);
            p.binary_const(Add, less, b1)
        };
        let dtype = self.emit.dtype(rate);
        let old = self.states.read_shared(self.emit, "mu_product", dtype, 1.0);
        let product = self.emit.map(&[old, time], |p, v| {
            let now = mu(p, v[1]);
            p.binary(Mul, v[0], now)
        })?;
        self.states.write_shared("mu_product", product);
        // What the gradient and the average each count, with the rate.
        let of_gradient = self.emit.map(&[rate, time, product], |p, v| {
            let now = mu(p, v[1]);
            let one = p.constant(p.type_of(now), 1.0);
            let (above, below) = (p.binary(Sub, one, now), p.binary(Sub, one, v[2]));
            let share = p.binary(Div, above, below);
            p.binary(Mul, v[0], share)
        })?;
        let of_average = self.emit.map(&[rate, time, product], |p, v| {
            let next_time = p.binary_const(Add, v[1], 1.0);
            let next = mu(p, next_time);
            let one = p.constant(p.type_of(next), 1.0);
            let later = p.binary(Mul, v[2], next);
            let below = p.binary(Sub, one, later);
            let share = p.binary(Div, next, below);
            p.binary(Mul, v[0], share)
        })?;
        let spread = self.emit.map(&[time], |p, v| {
            let c = correction(p, v[0], b2);
            p.unary(Sqrt, c)
        })?;
        let m = self.advance("exp_avg", 0.0, &[g], |p, m, v| blend(p, b1, m, v[0]))?;
        let square = self.square_average("exp_avg_sq", b2)?;
        self.emit.map(&[self.parameter, g, m, square, of_gradient, of_average, spread], |p, v| {
            let root = p.unary(Sqrt, v[3]);
            let root = p.binary(Div, root, v[6]);
            let root = p.binary_const(Add, root, eps);
            let (a, b) = (p.binary(Mul, v[4], v[1]), p.binary(Mul, v[5], v[2]));
            let sum = p.binary(Add, a, b);
            let move_by = p.binary(Div, sum, root);
            p.binary(Sub, v[0], move_by)
        })
    }
}
