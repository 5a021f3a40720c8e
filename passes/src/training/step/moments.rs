//! What the optimizer remembers of a parameter, as states of the step.

use super::{State, StateKind, StepBuilder, filled};
use crate::training::emit::Emit;
use crate::training::optimizers::States;
use nncc_ir::{DType, TensorType, ValueId};

/// The optimizer's memory of one parameter: states of the step.
pub(super) struct Memory<'b, 'a> {
    pub(super) builder: &'b mut StepBuilder<'a>,
    pub(super) parameter: String,
    pub(super) value: ValueId,
}

impl Memory<'_, '_> {
    /// The state called `full`, made if there is none yet.
    pub(super) fn state(
        &mut self,
        emit: &mut Emit<'_>,
        full: String,
        of: Option<String>,
        ty: TensorType,
        initial: f64,
    ) -> ValueId {
        if let Some(&i) = self.builder.by_name.get(&full) {
            return self.builder.current[i];
        }
        let start = filled(&ty, initial);
        let value = emit.graph.add_input(&full, ty);
        let input = emit.graph.inputs().len() - 1;
        let b = &mut *self.builder;
        b.by_name.insert(full.clone(), b.states.len());
        b.states.push(State {
            name: full,
            kind: StateKind::Moment,
            of,
            input,
            output: 0, // outputs are added when all states are known
            initial: start,
        });
        b.current.push(value);
        b.next.push(value);
        value
    }

    /// Gives a state its next value.
    pub(super) fn set(&mut self, full: &str, value: ValueId, first_only: bool) {
        if let Some(&i) = self.builder.by_name.get(full)
            && (!first_only || self.builder.next[i] == self.builder.current[i])
        {
            self.builder.next[i] = value;
        }
    }
}

impl States for Memory<'_, '_> {
    fn read(&mut self, emit: &mut Emit<'_>, name: &str, initial: f64) -> ValueId {
        let (full, ty) = (format!("{name}/{}", self.parameter), emit.ty(self.value));
        self.state(emit, full, Some(self.parameter.clone()), ty, initial)
    }

    fn read_shared(&mut self, emit: &mut Emit<'_>, name: &str, dtype: DType, initial: f64) -> ValueId {
        self.state(emit, name.to_string(), None, TensorType::fixed(dtype, &[]), initial)
    }

    fn write(&mut self, name: &str, value: ValueId) {
        self.set(&format!("{name}/{}", self.parameter), value, false);
    }

    fn write_shared(&mut self, name: &str, value: ValueId) {
        self.set(name, value, true);
    }
}
