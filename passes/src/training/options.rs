//! What a training step shall do: loss, optimizer, groups of parameters, bounds, averages.

use super::{Loss, Optimizer, TrainingError};
use crate::Recompute;
use nncc_ir::NamePattern;

/// Parameters that are trained in their own way: the first group whose pattern fits counts.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Which ones, by the names of their initializers.
    pub pattern: NamePattern,
    /// By what the learning rate is multiplied.
    pub rate: f64,
    /// Instead of the weight decay of all.
    pub weight_decay: Option<f64>,
    /// Not trained at all: constants of the step. A frozen statistic keeps its batch normalization in inference form.
    pub frozen: bool,
}

/// Bounds of the gradients.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Clip {
    /// Of each element's magnitude: `clip_grad_value_`.
    pub value: Option<f64>,
    /// Of the norm of all gradients together: `clip_grad_norm_`.
    pub norm: Option<f64>,
}

/// What a training step does.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainingOptions {
    /// What is made small.
    pub loss: Loss,
    /// What the evaluation measures instead: of class indices, where steps learn from mixed ones.
    pub evaluation_loss: Option<Loss>,
    /// How.
    pub optimizer: Optimizer,
    /// Of every parameter that its group does not exempt.
    pub weight_decay: f64,
    /// `l1 * sum |p|` of the parameters with two axes or more is added to the loss.
    pub l1: f64,
    /// `l2 * sum p^2` of the same.
    pub l2: f64,
    /// Groups.
    pub groups: Vec<Group>,
    /// Bounds of the gradients.
    pub clip: Clip,
    /// The share that a moving average of the parameters keeps of itself in a step, if there is one.
    pub average: Option<f64>,
    /// The share of the new value in running means and variances: PyTorch's momentum.
    pub batch_norm_momentum: f64,
    /// Whether several batches may make one update: see the module.
    pub accumulate: bool,
    /// Which values of a step may be computed again to save memory.
    pub recompute: Recompute,
    /// Whether the norm of each parameter's gradient, before it is clipped, is an output: where gradients vanish or explode.
    pub watch: bool,
}

impl TrainingOptions {
    /// PyTorch's defaults for a loss and an optimizer.
    pub fn new(loss: Loss, optimizer: Optimizer) -> TrainingOptions {
        let (_, weight_decay) = optimizer.defaults();
        TrainingOptions {
            loss,
            evaluation_loss: None,
            optimizer,
            weight_decay,
            l1: 0.0,
            l2: 0.0,
            groups: Vec::new(),
            clip: Clip::default(),
            average: None,
            batch_norm_momentum: 0.1,
            accumulate: false,
            recompute: Recompute::None,
            watch: false,
        }
    }

    pub(super) fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|g| g.pattern.fits(name))
    }

    pub(super) fn check(&self) -> Result<(), TrainingError> {
        self.optimizer.check()?;
        let apart = |g: &Group| !g.frozen && (g.rate != 1.0 || g.weight_decay.is_some());
        if matches!(self.optimizer, Optimizer::Lbfgs { .. }) && self.groups.iter().any(apart) {
            return Err(TrainingError::Option("L-BFGS moves all parameters together, by one rate".into()));
        }
        let within = |name: &str, x: f64, fits: bool, what: &str| match fits {
            true => Ok(()),
            false => Err(TrainingError::Option(format!("{name} is {x}, not {what}"))),
        };
        for (name, x) in [("the weight decay", self.weight_decay), ("the factor of L1", self.l1), ("of L2", self.l2)] {
            within(name, x, x >= 0.0, "at least 0")?;
        }
        for (name, x) in [("the bound of gradients", self.clip.value), ("the bound of their norm", self.clip.norm)] {
            within(name, x.unwrap_or(1.0), x.is_none_or(|x| x > 0.0), "above 0")?;
        }
        let share = |x: f64| (0.0..=1.0).contains(&x);
        let average = self.average.unwrap_or(0.0);
        within("the moving average's share", average, share(average), "in 0..=1")?;
        let momentum = self.batch_norm_momentum;
        within("the momentum of batch normalizations", momentum, share(momentum), "in 0..=1")
    }
}
