//! Epilogues: the elementwise program that runs on a tile's accumulators before they are stored.
//!
//! ```text
//! y = program(acc, extra 0, extra 1, ...)      each extra broadcast to the output in one of three ways:
//!     Same      the output's own shape and layout: a residual, loaded at the output's address
//!     Channel   one number a channel, for each image or for all: a scale, a squeeze-and-excite gate
//!     Scalar    one number
//! ```
//!
//! A program that is a few instructions is emitted once for each accumulator, in registers. One that is long (an exponential
//! is about 30 instructions) would make a tile of 28 accumulators ten kilobytes: the accumulators go to scratch memory and a
//! loop over them holds the program once.

use super::pointwise;
use crate::kir::{Builder, Elem, Type, Value};
use nncc_ir::Pointwise;
use nncc_ir::pointwise::{BinaryFn, Inst, UnaryFn};

/// What a kernel does with its sums.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Epilogue {
    /// The program; its operand 0 is the sum, then the extras. `None`: the sum is stored.
    pub program: Option<Pointwise>,
    /// The kinds of the program's other operands.
    pub extras: Vec<Extra>,
}

/// How an extra operand is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extra {
    /// At the address of the output, relative to its own base.
    Same,
    /// `[n * images + channel]`: `images` is the distance in elements from one image to the next, 0 where all share.
    Channel {
        /// Elements from one image to the next.
        images: usize,
    },
    /// One element.
    Scalar,
}

/// The addresses that belong to one vector of the output.
#[derive(Clone, Copy, Debug)]
pub struct Site {
    /// Bytes from the output's base, so also from that of a `Same` operand: a pointer to where and a displacement.
    pub same: (Value, i64),
    /// The index of the image.
    pub image: Value,
    /// The first channel of the vector.
    pub channel: (Value, i64),
    /// Lanes of the vector that exist in memory.
    pub count: usize,
}

impl Epilogue {
    /// Is there nothing to do?
    pub fn is_empty(&self) -> bool {
        self.program.is_none()
    }

    /// Should the program stand in a loop over the accumulators instead of behind each?
    pub fn is_long(&self) -> bool {
        self.program.as_ref().is_some_and(|p| instructions(p) > 12)
    }

    /// The program on one vector of sums. `extras` are the pointers of the extra operands; `site.same` holds a byte offset.
    pub fn apply(&self, b: &mut Builder, sum: Value, extras: &[Value], site: &Site) -> Value {
        let Some(program) = &self.program else { return sum };
        let ty = b.ty(sum);
        let mut inputs = vec![sum];
        for (&extra, &base) in self.extras.iter().zip(extras) {
            inputs.push(extra.load(b, ty, base, site));
        }
        pointwise::emit(b, program, ty.lanes(), &inputs)
    }
}

/// Roughly the instructions that a program becomes.
fn instructions(program: &Pointwise) -> usize {
    // Polynomials and their range reductions.
    const FUNCTION: usize = 30;
    let one = |inst: &Inst| match inst {
        Inst::Input(_) | Inst::Const(_) => 0,
        Inst::Unary(UnaryFn::Neg | UnaryFn::Abs | UnaryFn::Not | UnaryFn::BitNot | UnaryFn::Sqrt, _) => 1,
        Inst::Unary(UnaryFn::Floor | UnaryFn::Ceil | UnaryFn::Round | UnaryFn::Reciprocal | UnaryFn::Sign, _) => 2,
        Inst::Unary(..) | Inst::Binary(BinaryFn::Pow | BinaryFn::Mod | BinaryFn::Fmod, ..) => FUNCTION,
        Inst::Binary(..) | Inst::Compare(..) | Inst::Select { .. } | Inst::Cast(_) => 1,
    };
    program.insts().iter().map(|(inst, _)| one(inst)).sum()
}

impl Extra {
    fn load(self, b: &mut Builder, ty: Type, base: Value, site: &Site) -> Value {
        let size = Elem::F32.bytes();
        match self {
            Extra::Same => b.load_part(ty, base.at(site.same.1).idx(site.same.0, 1), site.count),
            Extra::Channel { images } => {
                let image = b.mul_imm(site.image, images as i64);
                let at = b.add(image, site.channel.0);
                b.load_part(ty, base.at(site.channel.1 * size as i64).idx(at, size), site.count)
            }
            Extra::Scalar => b.load_splat(ty, base),
        }
    }
}
