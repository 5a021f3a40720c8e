//! Weight gradients one element at a time: right for every dtype, layout, group and number of axes, fast for none.
//!
//! ```text
//! task = one output channel;  for each input channel of its group, for each tap: sum over the images and the outputs whose
//! window has that tap inside
//! ```

use crate::kernels::conv::generic::{GenericAxis, element};
use crate::kernels::window::div_rem;
use crate::kir::{ArgDecl, Builder, Elem, IntCc, Kernel, Type, Value};
use nncc_ir::Layout;

/// A weight gradient of any kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Generic {
    /// `F32` or `F64`.
    pub elem: Elem,
    /// Images.
    pub batch: usize,
    /// Groups.
    pub groups: usize,
    /// Input channels of one group.
    pub inputs: usize,
    /// Output channels of one group.
    pub outputs: usize,
    /// The spatial axes of the convolution.
    pub axes: Vec<GenericAxis>,
    /// How x and dy are stored.
    pub layouts: [Layout; 2],
}

impl Generic {
    /// How many tasks the kernel has.
    pub fn tasks(&self) -> usize {
        self.groups * self.outputs
    }

    /// The kernel. Operands: x, dy, dw, which is row-major.
    pub fn kernel(&self) -> Kernel {
        let (align, size) = (self.elem.bytes() as u32, self.elem.bytes());
        let args = vec![ArgDecl::read("x", align), ArgDecl::read("dy", align), ArgDecl::write("dw", align)];
        let mut b = Builder::new(format!("{}_conv_weights_any", self.elem), args);
        let ty = Type::Scalar(self.elem);
        let taps: usize = self.axes.iter().map(|a| a.kernel).product();
        b.tasks(|b, m| {
            let (group, _) = div_rem(b, m, self.outputs);
            let first = b.mul_imm(group, self.inputs as i64);
            b.for_(0, self.inputs, 1, |b, c| {
                let channel = b.add(first, c);
                b.for_(0, taps, 1, |b, tap| {
                    let zero = b.zero(ty);
                    let sum = b.loop_(0, self.batch, 1, &[zero], |b, image, sum| {
                        let start = b.i64(0);
                        vec![self.axis(
                            b,
                            &At { image, m, channel },
                            self.axes.len(),
                            [tap, start, start],
                            [1, 1],
                            sum[0],
                        )]
                    });
                    let row = b.mul_imm(m, self.inputs as i64);
                    let row = b.add(row, c);
                    let at = b.mul_imm(row, taps as i64);
                    let at = b.add(at, tap);
                    b.store(b.arg(2).at(0).idx(at, size), sum[0]);
                });
            });
        });
        b.finish()
    }

    /// The outputs of the axes before `axis`, the innermost first. `walk` is what is left of the tap's number, and the input
    /// and output pixel so far; `pitches` are the pixels from one row of each to the next.
    fn axis(
        &self,
        b: &mut Builder,
        at: &At,
        axis: usize,
        [tap, input, output]: [Value; 3],
        pitches: [usize; 2],
        sum: Value,
    ) -> Value {
        let ty = Type::Scalar(self.elem);
        let Some(inner) = axis.checked_sub(1) else {
            let (channels, outputs) = (self.groups * self.inputs, self.groups * self.outputs);
            let x = element(b, self.layouts[0], channels, pitches[0], [at.image, at.channel, input]);
            let dy = element(b, self.layouts[1], outputs, pitches[1], [at.image, at.m, output]);
            let x = b.load(ty, b.arg(0).at(0).idx(x, self.elem.bytes()));
            let dy = b.load(ty, b.arg(1).at(0).idx(dy, self.elem.bytes()));
            return b.mul_add(dy, x, sum);
        };
        let a = &self.axes[inner];
        let (tap, k) = div_rem(b, tap, a.kernel);
        let spread = b.mul_imm(k, a.dilation as i64);
        let first = b.add_imm(spread, -(a.pad as i64));
        let sum = b.loop_(0, a.output, 1, &[sum], |b, o, sum| {
            let i = b.mul_imm(o, a.stride as i64);
            let i = b.add(i, first);
            let (zero, extent) = (b.i64(0), b.i64(a.input as i64));
            let (above, below) = (b.icmp(IntCc::GeS, i, zero), b.icmp(IntCc::LtS, i, extent));
            let inside = b.and(above, below);
            b.if_(
                inside,
                |b| {
                    let (i, o) = (b.mul_imm(i, pitches[0] as i64), b.mul_imm(o, pitches[1] as i64));
                    let (input, output) = (b.add(input, i), b.add(output, o));
                    let pitches = [pitches[0] * a.input, pitches[1] * a.output];
                    vec![self.axis(b, at, inner, [tap, input, output], pitches, sum[0])]
                },
                |_| vec![sum[0]],
            )
        });
        sum[0]
    }
}

/// What an element is summed over.
struct At {
    image: Value,
    m: Value,
    /// The channel of x.
    channel: Value,
}
