//! Copies contiguous bytes.
//!
//! ```text
//! task t copies bytes t * CHUNK .. min((t + 1) * CHUNK, len)
//! ```
//!
//! Full chunks are copied by whole vectors; the last chunk's tail by vectors and then single bytes. Buffers must not overlap.

use crate::kir::{ArgDecl, Builder, Elem, Kernel, Type};
use crate::lower::{Call, LowerCx, LowerError, Operand};
use crate::target::Target;

/// Bytes of one task: small enough to share a copy of a feature map among threads, large enough to hide a task's overhead.
const CHUNK: usize = 16 * 1024;

/// Appends a copy of all bytes of `from` to `to`, which have the same dtype, extents and layout. No step for no bytes.
///
/// # Errors
/// When `from` is a constant that does not fit in memory.
pub fn lower_copy(cx: &mut LowerCx<'_, '_>, from: &Operand, to: &Operand) -> Result<(), LowerError> {
    let bytes = from.stored_bytes();
    if bytes == 0 {
        return Ok(());
    }
    let (kernel, args) = (copy(cx.target(), bytes), [cx.arg(from)?, cx.arg(to)?]);
    let kernel = cx.kernel(kernel);
    cx.step(Call::new(kernel, &args, bytes.div_ceil(CHUNK)).labelled("copy"));
    Ok(())
}

/// The kernel: `bytes` from operand 0 to operand 1.
pub fn copy(target: &Target, bytes: usize) -> Kernel {
    let mut b = Builder::new(format!("copy_{bytes}"), vec![ArgDecl::read("x", 1), ArgDecl::write("y", 1)]);
    let (x, y) = (b.arg(0), b.arg(1));
    let width = target.vector_bits / 8;
    let ty = Type::of(Elem::I32, width / 4);
    let body = |b: &mut Builder, from, len: usize| {
        let (whole, end) = (len / width * width, len);
        let (src, dst) = (b.ptr_add(x, from, 1), b.ptr_add(y, from, 1));
        b.for_(0, whole, width as i64, |b, i| {
            let v = b.load(ty, src.at(0).idx(i, 1));
            b.store(dst.at(0).idx(i, 1), v);
        });
        b.for_(whole, end, 1, |b, i| {
            let v = b.load(Type::Scalar(Elem::I8), src.at(0).idx(i, 1));
            b.store(dst.at(0).idx(i, 1), v);
        });
    };
    let (full, rest) = (bytes / CHUNK, bytes % CHUNK);
    b.tasks(|b, task| {
        let from = b.mul_imm(task, CHUNK as i64);
        if rest == 0 {
            body(b, from, CHUNK);
        } else if full == 0 {
            body(b, from, rest);
        } else {
            let full = b.i64(full as i64);
            let is_full = b.icmp(crate::kir::IntCc::LtS, task, full);
            b.branch(is_full, |b| body(b, from, CHUNK), |b| body(b, from, rest));
        }
    });
    b.finish()
}
