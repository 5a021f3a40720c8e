//! Matrix products one element at a time: right for every dtype, stride and broadcast, fast for none.
//!
//! ```text
//! y[batch, m, n] = alpha * sum over k of a[batch, m, k] * b[batch, k, n] + beta * c[batch, m, n]
//! ```
//!
//! A task is one row of y. Integers wrap; float sums round at each step. Operands: a, b, c if there is one, y (row-major).

use crate::kernels::pointwise::elem_of;
use crate::kernels::window::div_rem;
use crate::kir::{ArgDecl, Builder, Kernel, Type, Value};
use nncc_ir::DType;

/// A matrix product of any kind.
#[derive(Clone, Debug, PartialEq)]
pub struct Generic {
    /// Of all operands.
    pub dtype: DType,
    /// Extents of the batch axes.
    pub batch: Vec<usize>,
    /// Rows, inner extent, columns.
    pub extents: [usize; 3],
    /// Strides in elements.
    pub a: Strides,
    /// Strides in elements.
    pub b: Strides,
    /// Strides in elements of the addend.
    pub c: Option<Strides>,
    /// The factor of the product.
    pub alpha: f64,
    /// The factor of the addend.
    pub beta: f64,
}

/// Where an element of an operand lies: 0 along broadcast axes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strides {
    /// One for each batch axis.
    pub batch: Vec<usize>,
    /// Along its first matrix axis.
    pub row: usize,
    /// Along its second matrix axis.
    pub column: usize,
}

impl Strides {
    fn offset(&self, b: &mut Builder, batch: &[Value], row: Value, column: Value) -> Value {
        let mut at = b.mul_imm(row, self.row as i64);
        let along = b.mul_imm(column, self.column as i64);
        at = b.add(at, along);
        for (&i, &stride) in batch.iter().zip(&self.batch) {
            let along = b.mul_imm(i, stride as i64);
            at = b.add(at, along);
        }
        at
    }
}

impl Generic {
    /// How many tasks the kernel has.
    pub fn tasks(&self) -> usize {
        if self.extents[2] == 0 { 0 } else { self.batch.iter().product::<usize>() * self.extents[0] }
    }

    /// The kernel.
    pub fn kernel(&self) -> Kernel {
        let elem = elem_of(self.dtype);
        let (ty, size) = (Type::Scalar(elem), elem.bytes());
        let align = size as u32;
        let mut args = vec![ArgDecl::read("a", align), ArgDecl::read("b", align)];
        args.extend(self.c.iter().map(|_| ArgDecl::read("c", align)));
        args.push(ArgDecl::write("y", align));
        let [rows, inner, columns] = self.extents;
        let mut b = Builder::new(format!("{}_matmul_any", self.dtype), args);
        let y = b.arg(2 + usize::from(self.c.is_some()));
        let factor = |b: &mut Builder, v: Value, factor: f64| {
            if factor == 1.0 {
                return v;
            }
            let f = if elem.is_float() { b.float(ty, factor) } else { b.int(ty, factor as i64) };
            b.mul(f, v)
        };
        b.tasks(|b, task| {
            let (mut rest, m) = div_rem(b, task, rows);
            let mut batch = vec![rest; self.batch.len()];
            for (i, &extent) in self.batch.iter().enumerate().rev() {
                let (outer, at) = div_rem(b, rest, extent);
                batch[i] = at;
                rest = outer;
            }
            let first = b.mul_imm(task, columns as i64);
            b.for_(0, columns, 1, |b, n| {
                let zero = b.zero(ty);
                let sum = b.loop_(0, inner, 1, &[zero], |b, k, sum| {
                    let at = self.a.offset(b, &batch, m, k);
                    let l = b.load(ty, b.arg(0).at(0).idx(at, size));
                    let at = self.b.offset(b, &batch, k, n);
                    let r = b.load(ty, b.arg(1).at(0).idx(at, size));
                    if elem.is_float() {
                        return vec![b.mul_add(l, r, sum[0])];
                    }
                    let product = b.mul(l, r);
                    vec![b.add(product, sum[0])]
                });
                let mut result = factor(b, sum[0], self.alpha);
                if let Some(c) = &self.c {
                    let at = c.offset(b, &batch, m, n);
                    let c = b.load(ty, b.arg(2).at(0).idx(at, size));
                    let c = factor(b, c, self.beta);
                    result = b.add(result, c);
                }
                let at = b.add(first, n);
                b.store(y.at(0).idx(at, size), result);
            });
        });
        b.finish()
    }
}
