//! Batches of another size: on which axis the samples of a batch stand, and how an operator hands them on.
//!
//! ```text
//! samples on an axis of outer * B * inner elements:   sample s is the elements  (o * B + s) * inner + i
//! an operator keeps samples apart:                    sample s of its result needs sample s of its operands alone
//! ```
//!
//! A graph all of whose operators keep samples apart means the same for any number of them: its results for N samples are
//! those of N samples run by themselves. [`Operator::batched`](crate::Operator::batched) says for one operator whether it
//! does and what of its attributes the number stands in. Values without samples (weights) are shared by all.
//!
//! `inner` is more than 1 where a model joins the batch with the axis behind it (`[B, T, C] -> [B*T, C]`), `outer` where it
//! joins it with the one in front (`[T, B, C] -> [T*B, C]`); one follows from the other and the axis's length. Operators but
//! Reshape move whole axes, so that `outer` stays. Where B is 1 a Reshape may leave several places to choose from; each has
//! the same elements in the same order, and one that an operator behind it cannot use is refused there.

use crate::{Dim, Op, TensorType};

/// A node's operands, as [`Operator::batched`](crate::Operator::batched) sees them.
pub struct BatchCx<'a> {
    /// The types for the present size.
    pub types: &'a [Option<&'a TensorType>],
    /// The axis of each operand that samples stand on; `None` where all samples share it. At least one has some.
    pub axes: &'a [Option<usize>],
    /// How often the samples stand one after the other on each of these axes.
    pub outer: usize,
    /// The present number of samples, at least 1.
    pub from: usize,
    /// The wanted one.
    pub to: usize,
}

/// How an operator that keeps samples apart hands them on.
#[derive(Clone, Debug, PartialEq)]
pub struct Batched {
    /// The operator for the wanted size, where its attributes change.
    pub op: Option<Op>,
    /// The axis that each operand must have its samples on: its own, or one for an operand without samples, which must then
    /// be repeated for each.
    pub operands: Vec<Option<usize>>,
    /// The axis of each result.
    pub results: Vec<usize>,
    /// How often the samples stand one after the other on these.
    pub outer: usize,
}

impl BatchCx<'_> {
    /// The type of an operand that is given.
    pub fn ty(&self, operand: usize) -> Option<&TensorType> {
        self.types.get(operand).copied().flatten()
    }

    /// The axis of an operand's samples.
    pub fn axis(&self, operand: usize) -> Option<usize> {
        self.axes.get(operand).copied().flatten()
    }

    /// The axis of the first operand's samples, if no other operand has any.
    pub fn first_alone(&self) -> Option<usize> {
        if self.axes.iter().skip(1).all(Option::is_none) { self.axis(0) } else { None }
    }

    /// The same operator: operands as they are, samples on `axis` of the one result.
    pub fn on(&self, axis: usize) -> Batched {
        Batched { op: None, operands: self.axes.to_vec(), results: vec![axis], outer: self.outer }
    }

    /// The same where the first operand alone has samples, on an axis that the operator leaves as it is: `keeps` says which.
    pub fn where_first(&self, keeps: impl Fn(usize) -> bool) -> Option<Batched> {
        self.first_alone().filter(|&axis| keeps(axis)).map(|axis| self.on(axis))
    }

    /// A dimension that samples stand on, for the wanted number of them.
    pub fn scaled(&self, d: &Dim) -> Option<Dim> {
        let (from, to) = (Dim::from(self.from), Dim::from(self.to));
        let inner = d.floor_div(&from)?;
        (inner.mul(&from) == *d).then(|| inner.mul(&to))
    }

    /// `shape` with the dimension of `axis` for the wanted number of samples.
    pub fn scaled_at(&self, shape: &[Dim], axis: usize) -> Option<Vec<Dim>> {
        let mut shape = shape.to_vec();
        let d = shape.get_mut(axis)?;
        *d = self.scaled(d)?;
        Some(shape)
    }

    /// For operands whose axes are aligned at the last of `rank` ones and broadcast: the axis of the result that samples
    /// stand on, and the axis that each operand must have them on. `skip` axes at an operand's end do not broadcast.
    pub fn broadcast(&self, rank: usize, skip: usize) -> Option<(usize, Vec<Option<usize>>)> {
        // Where an operand's axis stands in the result.
        let place = |ty: &TensorType, axis: usize| {
            (axis + skip < ty.rank()).then(|| (axis + rank).checked_sub(ty.rank())).flatten()
        };
        let (mut at, mut length) = (None, None);
        for (ty, axis) in self.types.iter().zip(self.axes) {
            let (Some(ty), &Some(axis)) = (ty, axis) else { continue };
            let here = place(ty, axis)?;
            let own = ty.shape.get(axis)?;
            if at.is_some_and(|at| at != here) || length.is_some_and(|length| length != own) {
                return None;
            }
            (at, length) = (Some(here), Some(own));
        }
        let (at, length) = (at?, length?);
        let mut operands = self.axes.to_vec();
        for (wanted, ty) in operands.iter_mut().zip(self.types) {
            let (Some(ty), None) = (ty, &wanted) else { continue };
            let Some(axis) = (at + ty.rank()).checked_sub(rank) else { continue };
            match ty.shape.get(axis)? {
                Dim::Known(1) => {} // one element for all samples
                own if own == length => *wanted = Some(axis),
                _ => return None,
            }
        }
        Some((at, operands))
    }
}
