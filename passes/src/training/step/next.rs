//! What states become: sums of gradients that wait for an update, and nothing new where the loss is no finite number.

use super::{Gather, StateKind, StepBuilder, filled};
use crate::training::TrainingError;
use crate::training::emit::{Built, Emit};
use nncc_ir::pointwise::{BinaryFn, CompareFn};
use nncc_ir::{NodeId, ValueId};

impl StepBuilder<'_> {
    /// Makes each gradient the sum of the accumulator and this batch's share, and keeps what adds without an update.
    pub(super) fn accumulate(
        &mut self,
        gradients: &mut [(usize, ValueId)],
        share: ValueId,
    ) -> Result<(), TrainingError> {
        let mut sums = Vec::new();
        for (i, gradient) in gradients.iter_mut() {
            let parameter = self.states[*i].name.clone();
            let name = format!("gradient/{parameter}");
            let (ty, initial) = (self.graph.ty(*gradient).clone(), filled(self.graph.ty(*gradient), 0.0));
            let sum = self.graph.add_input(&name, ty);
            sums.push(self.states.len());
            self.register(name, StateKind::Gradient, Some(parameter), sum, initial);
            let mut emit = Emit::new(&mut self.graph, "accumulate");
            let share = emit.cast(share, emit.dtype(sum))?;
            *gradient = emit.map(&[sum, *gradient, share], |p, v| {
                let part = p.binary(BinaryFn::Mul, v[1], v[2]);
                p.binary(BinaryFn::Add, v[0], part)
            })?;
        }
        let (step, reads) = (self.graph.clone(), self.states.len());
        let mut writes = Vec::new();
        for i in 0..reads {
            let value = match (self.states[i].kind, sums.iter().position(|&s| s == i)) {
                (_, Some(k)) => gradients[k].1,
                (StateKind::Statistic, _) => self.next[i],
                _ => continue,
            };
            let value = self.unless_not_finite(i, value)?;
            writes.push((i, self.graph.outputs().len()));
            self.graph.add_output(&format!("next/{}", self.states[i].name), value);
        }
        self.gather = Some(Gather { graph: std::mem::replace(&mut self.graph, step), reads, writes });
        for i in sums {
            let empty = filled(self.graph.ty(self.current[i]), 0.0);
            self.next[i] = self.graph.add_constant("", empty);
        }
        Ok(())
    }

    /// The next value of a state, or the state as it is where the loss is no finite number. What follows from a next value of
    /// the optimizer's follows from this one then, so that the value without the condition is needed nowhere else.
    pub(super) fn unless_not_finite(&mut self, i: usize, next: ValueId) -> Built {
        let (old, Some(finite)) = (self.current[i], self.finite) else { return Ok(next) };
        if next == old {
            return Ok(next);
        }
        let followed = self.states[i].kind != StateKind::Statistic && self.graph.constant(next).is_none();
        let users: Vec<(NodeId, usize)> = self.graph.users(next).filter(|_| followed).collect();
        let mut emit = Emit::new(&mut self.graph, "finite");
        let finite = emit.cast(finite, emit.dtype(old))?;
        let kept = emit.map(&[old, next, finite], |p, v| {
            let zero = p.constant(p.type_of(v[2]), 0.0);
            let moves = p.compare(CompareFn::Gt, v[2], zero);
            p.select(moves, v[1], v[0])
        })?;
        for (n, operand) in users {
            self.graph.set_operand(n, operand, Some(kept));
        }
        Ok(kept)
    }
}
