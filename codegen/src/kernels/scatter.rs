//! Updates to places chosen by indices at run time: ScatterElements and ScatterND after the operand has been copied.
//!
//! ```text
//! y[place(idx[u])] = updates[u]     or   y[..] op updates[u]     for u in order
//! ```
//!
//! Order matters where indices repeat, so that only what cannot meet is divided into tasks: updates that differ in an axis
//! before the scattered one. Indices are clamped as in [`super::indexed`].

use super::indexed::{Rows, coordinates, load_index};
use crate::kir::{ArgDecl, Builder, Elem, Kernel, Type, Value};
use crate::target::Target;
use nncc_ir::DType;
use nncc_ir::ops::scatter::ScatterReduction;
use nncc_ir::tensor::strides_of;

fn builder(name: &str) -> Builder {
    let args = vec![ArgDecl::read("idx", 1), ArgDecl::read("updates", 1), ArgDecl::read_write("y", 1)];
    Builder::new(name, args)
}

/// The element type in which `dtype` is combined.
fn elem_of(dtype: DType) -> Elem {
    super::pointwise::elem_of(dtype)
}

/// An element that has met an update.
fn combined(b: &mut Builder, dtype: DType, reduction: ScatterReduction, old: Value, new: Value) -> Value {
    let (is_float, is_signed) = (dtype.is_float(), dtype.is_signed_int());
    match reduction {
        ScatterReduction::None => new,
        ScatterReduction::Add => b.add(old, new),
        ScatterReduction::Mul => b.mul(old, new),
        ScatterReduction::Max if is_float => b.fmax(old, new),
        ScatterReduction::Max if is_signed => b.max_s(old, new),
        ScatterReduction::Max => b.max_u(old, new),
        ScatterReduction::Min if is_float => b.fmin(old, new),
        ScatterReduction::Min if is_signed => b.min_s(old, new),
        ScatterReduction::Min => b.min_u(old, new),
    }
}

/// The kernel of ScatterElements over (idx, updates, y) and its number of tasks: `y` of extents `to`, the others of extents
/// `from`; the axis of `y` is not empty.
pub fn elements(
    to: &[usize],
    from: &[usize],
    axis: usize,
    index: Elem,
    dtype: DType,
    reduction: ScatterReduction,
) -> (Kernel, usize) {
    let mut b = builder("scatter_elements");
    let (idx, updates, y) = (b.arg(0), b.arg(1), b.arg(2));
    let (elem, strides) = (elem_of(dtype), strides_of(to));
    let (tasks, inside): (usize, usize) = (from[..axis].iter().product(), from[axis..].iter().product());
    b.tasks(|b, task| {
        let base = coordinates(b, task, &from[..axis], |a| strides[a]);
        b.for_(0, inside, 1, |b, i| {
            let u = b.mul_imm(task, inside as i64);
            let u = b.add(u, i);
            let along = load_index(b, idx.at(0).idx(u, index.bytes()), index, to[axis]);
            let along = b.mul_imm(along, strides[axis] as i64);
            let rest = coordinates(b, i, &from[axis..], |a| if a == 0 { 0 } else { strides[axis + a] });
            let at = b.add(base, along);
            let at = b.add(at, rest);
            let place = b.ptr_add(y, at, elem.bytes());
            let new = b.load(Type::Scalar(elem), updates.at(0).idx(u, elem.bytes()));
            let old = b.load(Type::Scalar(elem), place);
            let v = combined(b, dtype, reduction, old, new);
            b.store(place, v);
        });
    });
    (b.finish(), tasks)
}

/// The kernel of ScatterND over (idx, updates, y), one task: `rows` says where each slice of the updates goes in y.
pub fn slices(target: &Target, rows: &Rows, dtype: DType, reduction: ScatterReduction) -> (Kernel, usize) {
    let mut b = builder("scatter_nd");
    let (idx, updates, y) = (b.arg(0), b.arg(1), b.arg(2));
    let elem = elem_of(dtype);
    b.tasks(|b, _| {
        b.for_(0, rows.rows, 1, |b, r| {
            let dst = rows.address(b, y, idx, r);
            let src = b.ptr_add(updates, r, rows.slice * rows.width);
            if reduction == ScatterReduction::None {
                return rows.copy(b, target, src, dst);
            }
            b.for_(0, rows.slice, 1, |b, i| {
                let new = b.load(Type::Scalar(elem), src.at(0).idx(i, elem.bytes()));
                let old = b.load(Type::Scalar(elem), dst.at(0).idx(i, elem.bytes()));
                let v = combined(b, dtype, reduction, old, new);
                b.store(dst.at(0).idx(i, elem.bytes()), v);
            });
        });
    });
    (b.finish(), 1)
}
