//! Elementwise maps: one [`Pointwise`] program at every point of a loop nest over strided operands.
//!
//! ```text
//! for i0 in 0..dims[0] { .. for ik in 0..dims[k] {
//!     y[i . strides of y] = program(x0[i . strides of x0], x1[i . strides of x1], ..)
//! }}
//! ```
//!
//! The last axis is the vector axis. Along it an operand is contiguous (stride 1, vector loads), the same for all (stride
//! 0, read once a row) or scattered (any other stride, element by element). Broadcasting, blocked layouts and parts of them
//! are all just strides; [`Nest::collapse`] first merges axes that are one axis to every operand, so that a map of equal
//! shapes is one long row.
//!
//! A kernel is made for a form, not for a size, where that costs nothing: the sizes are its last operand
//! ([`MapKernel::numbers`]). So the optimizer's updates of all parameters are one kernel, and so is a normalization of
//! whatever batch, channels and plane.
//!
//! | form | tasks | numbers |
//! |---|---|---|
//! | one row | pieces of it | its elements that are whole turns of the loop; the program's factors and addends |
//! | `Planes`: two last loops with some hundred points, any around them | runs of planes, or pieces of one | how these are counted; extents and strides of the loops around |
//! | else | `Plan` | none |
//!
//! Tasks are about `CHUNK` elements. Tails are loads and stores
//! of parts: nothing outside of an operand is touched. An operand may be the output itself: every element is read before it
//! is written, at the same place.

use crate::kernels::pointwise::{self, elem_of, from_memory, to_memory};
use crate::kernels::window::{self, div_rem_by};
use crate::kir::{Addr, ArgDecl, Builder, I64, IntCc, Kernel, Type, Value};
use crate::target::Target;
use nncc_ir::pointwise::{BinaryFn, Inst, Ref, Scalar};
use nncc_ir::{DType, Pointwise};

/// Elements of one task, about: small enough to share a feature map among threads, large enough to hide a task's overhead.
pub(crate) const CHUNK: usize = 16 * 1024;

/// A loop nest over several operands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nest {
    /// Turns of each loop, outermost first.
    pub dims: Vec<usize>,
    /// For each operand, the elements that it moves by in each loop.
    pub strides: Vec<Vec<usize>>,
}

impl Nest {
    /// Drops loops of one turn and merges neighbours that are one loop to every operand. At least one loop is left.
    pub fn collapse(&mut self) {
        for axis in (0..self.dims.len()).rev() {
            if self.dims[axis] == 1 {
                self.remove(axis);
            }
        }
        for axis in (1..self.dims.len()).rev() {
            let n = self.dims[axis];
            if self.strides.iter().all(|s| s[axis - 1] == s[axis].saturating_mul(n)) {
                self.dims[axis] *= self.dims[axis - 1];
                self.remove(axis - 1);
            }
        }
        if self.dims.is_empty() {
            self.dims.push(1);
            self.strides.iter_mut().for_each(|s| s.push(1));
        }
    }

    fn remove(&mut self, axis: usize) {
        self.dims.remove(axis);
        for s in &mut self.strides {
            s.remove(axis);
        }
    }

    fn elems(&self) -> usize {
        self.dims.iter().product()
    }
}

/// What computes a map.
pub struct MapKernel {
    /// Operands: the program's in order, the output, and the numbers if there are any.
    pub kernel: Kernel,
    /// How many tasks it has.
    pub tasks: usize,
    /// What is an operand instead of a constant in the code.
    pub numbers: Vec<i64>,
}

/// The kernel of a map. `nest` has a stride list for each of the program's operands and for the output; it must be collapsed
/// and without an empty loop.
pub fn map(target: &Target, p: &Pointwise, nest: &Nest) -> MapKernel {
    debug_assert!(nest.elems() > 0 && nest.strides.len() == p.inputs().len() + 1);
    let mut args: Vec<ArgDecl> =
        p.inputs().iter().enumerate().map(|(i, t)| ArgDecl::read(format!("x{i}"), t.bytes() as u32)).collect();
    args.push(ArgDecl::write("y", p.result_type().bytes() as u32));
    let n = *nest.dims.last().expect("a collapsed nest has a loop");
    let lanes = pointwise::lanes(target, p).min(n.next_power_of_two());
    // Several vectors a turn hide the latency of short programs; long ones fill the machine by themselves.
    let unroll = match p.insts().iter().filter(|(i, _)| !matches!(i, Inst::Input(_) | Inst::Const(_))).count() {
        0..=4 => 4,
        5..=12 => 2,
        _ => 1,
    };
    let turn = lanes * unroll;
    let is_row = nest.dims.len() == 1 && n >= turn;
    let planes = Planes::of(nest);
    if is_row || planes.is_some() {
        args.push(ArgDecl::read("numbers", 8));
    }
    let mut b = Builder::new(name(p), args);
    let map = |p, strides| Map { p, dtypes: dtypes(p), nest: Nest { dims: nest.dims.clone(), strides }, lanes, unroll };
    if is_row {
        let (program, factors) = factors_outside(p);
        let (operands, output) = nest.strides.split_at(p.inputs().len());
        let m = map(&program, [operands, &vec![vec![0]; factors.len()], output].concat());
        let numbers = b.arg(p.inputs().len() + 1);
        let mut pointers: Vec<Value> = (0..p.inputs().len()).map(|i| b.arg(i)).collect();
        pointers.extend((1..=factors.len()).map(|i| b.ptr(numbers.at(8 * i as i64))));
        pointers.push(b.arg(p.inputs().len()));
        let whole = b.load(I64, numbers.at(0));
        b.tasks(|b, task| m.piece(b, &pointers, task, whole, n % turn));
        let numbers = [vec![(n - n % turn) as i64], factors].concat();
        return MapKernel { kernel: b.finish(), tasks: n.div_ceil(CHUNK), numbers };
    }
    let m = map(p, nest.strides.clone());
    if let Some(planes) = planes {
        m.planes(&mut b);
        return MapKernel { kernel: b.finish(), tasks: planes.tasks(), numbers: m.plane_numbers(&planes) };
    }
    let plan = Plan::of(nest);
    b.tasks(|b, task| m.task(b, &plan, task));
    MapKernel { kernel: b.finish(), tasks: plan.tasks, numbers: Vec::new() }
}

/// Of a program's operands, then of its result.
fn dtypes(p: &Pointwise) -> Vec<DType> {
    p.inputs().iter().copied().chain([p.result_type()]).collect()
}

/// The program with further operands instead of the constants that it only multiplies, divides, adds and subtracts by, and
/// their bits: such a constant is often a count (of a batch, of a plane) or a rate, and one that is compared decides which
/// instructions are needed.
fn factors_outside(p: &Pointwise) -> (Pointwise, Vec<i64>) {
    let is_factor = |at: usize| {
        let mut users = p.insts().iter().filter(|(inst, _)| inst.operands().any(|r| r.0 as usize == at));
        use BinaryFn::{Add, Div, Mul, Sub};
        users.all(|(inst, _)| matches!(inst, Inst::Binary(Mul | Div | Add | Sub, ..))) && p.result().0 as usize != at
    };
    let (mut types, mut factors) = (p.inputs().to_vec(), Vec::new());
    let mut outside: Vec<Option<usize>> = Vec::new();
    for (at, (inst, ty)) in p.insts().iter().enumerate() {
        let bits = match inst {
            Inst::Const(Scalar::Float(x)) if *ty == DType::F32 => Some(i64::from((*x as f32).to_bits())),
            Inst::Const(Scalar::Float(x)) if *ty == DType::F64 => Some(x.to_bits() as i64),
            _ => None,
        };
        outside.push(bits.filter(|_| is_factor(at)).map(|bits| {
            factors.push(bits);
            types.push(*ty);
            types.len() - 1
        }));
    }
    let program = Pointwise::build(&types, |q, inputs| {
        let mut refs: Vec<Ref> = Vec::with_capacity(p.insts().len());
        for ((inst, ty), outside) in p.insts().iter().zip(&outside) {
            refs.push(match (inst, outside) {
                (_, Some(operand)) => inputs[*operand],
                (Inst::Input(operand), None) => inputs[*operand as usize],
                (inst, None) => q.push(inst.map_operands(|r| refs[r.0 as usize]), *ty),
            });
        }
        refs[p.result().0 as usize]
    });
    (program, factors)
}

/// A name that says what the program computes.
fn name(p: &Pointwise) -> String {
    let functions = p.insts().iter().filter_map(|(inst, _)| match inst {
        Inst::Input(_) | Inst::Const(_) => None,
        Inst::Unary(f, _) => Some(f.name()),
        Inst::Binary(f, ..) => Some(f.name()),
        Inst::Compare(f, ..) => Some(f.name()),
        Inst::Select { .. } => Some("select"),
        Inst::Cast(_) => Some("cast"),
    });
    let functions: Vec<&str> = functions.take(4).collect();
    let what = if functions.is_empty() { "copy".to_string() } else { functions.join("_") };
    format!("{}_map_{what}", p.result_type())
}

/// How any other nest is cut into tasks.
struct Plan {
    /// Leading loops that tasks run over; each combination of their indices is a row of tasks.
    split: usize,
    /// Rows in all.
    rows: usize,
    /// Rows of one task.
    rows_per_task: usize,
    /// Pieces of a row of the last loop; more than one only if every outer loop is split.
    pieces: usize,
    tasks: usize,
}

impl Plan {
    fn of(nest: &Nest) -> Plan {
        let k = nest.dims.len() - 1;
        let n = nest.dims[k];
        if n > 2 * CHUNK {
            let rows = nest.dims[..k].iter().product();
            let pieces = n.div_ceil(CHUNK);
            return Plan { split: k, rows, rows_per_task: 1, pieces, tasks: rows * pieces };
        }
        let inside = |split: usize| nest.dims[split..].iter().product::<usize>();
        let split = (0..=k).find(|&s| inside(s) <= 2 * CHUNK).unwrap_or(k);
        let rows: usize = nest.dims[..split].iter().product();
        let rows_per_task = (CHUNK / inside(split)).clamp(1, rows);
        Plan { split, rows, rows_per_task, pieces: 1, tasks: rows.div_ceil(rows_per_task) }
    }
}

/// The two last loops as a plane of lines, and the planes that the loops around them count.
struct Planes {
    planes: usize,
    /// Planes of a task; 1 where a plane is cut.
    planes_per_task: usize,
    /// Pieces of a plane; 1 where a task has several.
    pieces: usize,
    lines: usize,
    lines_per_piece: usize,
}

impl Planes {
    /// The fewest elements of a plane that are worth finding its place: a division for each loop around it.
    const LEAST: usize = 256;

    fn of(nest: &Nest) -> Option<Planes> {
        let [around @ .., lines, n] = &nest.dims[..] else { return None };
        let elems = lines.saturating_mul(*n);
        if *n > 2 * CHUNK || elems < Planes::LEAST {
            return None;
        }
        let planes = around.iter().product();
        let pieces = if elems > 2 * CHUNK { lines.div_ceil((CHUNK / n).max(1)) } else { 1 };
        let planes_per_task = if pieces > 1 { 1 } else { (CHUNK / elems).clamp(1, planes) };
        Some(Planes { planes, planes_per_task, pieces, lines: *lines, lines_per_piece: lines.div_ceil(pieces) })
    }

    fn tasks(&self) -> usize {
        self.planes.div_ceil(self.planes_per_task) * self.pieces
    }
}

struct Map<'a> {
    p: &'a Pointwise,
    /// Of the operands, then of the output.
    dtypes: Vec<DType>,
    nest: Nest,
    lanes: usize,
    unroll: usize,
}

impl Map<'_> {
    fn pointers(&self, b: &Builder) -> Vec<Value> {
        (0..self.dtypes.len()).map(|i| b.arg(i)).collect()
    }

    /// The loops around planes.
    fn around(&self) -> usize {
        self.nest.dims.len() - 2
    }

    /// The numbers of a kernel of planes, in the order in which [`planes`](Map::planes) reads them.
    fn plane_numbers(&self, planes: &Planes) -> Vec<i64> {
        let Planes { planes, planes_per_task, pieces, lines, lines_per_piece } = *planes;
        let mut numbers = vec![pieces, planes, planes_per_task, lines, lines_per_piece];
        for axis in (0..self.around()).rev() {
            numbers.push(self.nest.dims[axis]);
            numbers.extend((0..self.dtypes.len()).map(|i| self.nest.strides[i][axis] * self.dtypes[i].bytes()));
        }
        numbers.into_iter().map(|n| n as i64).collect()
    }

    /// The kernel of planes: only the strides in a plane and the length of a line are constants in it.
    fn planes(&self, b: &mut Builder) {
        let numbers = b.arg(self.dtypes.len());
        let number = |b: &mut Builder, i: usize| b.load(I64, numbers.at(8 * i as i64));
        let [pieces, planes, planes_per_task, lines, lines_per_piece] = [0, 1, 2, 3, 4].map(|i| number(b, i));
        let pointers = self.pointers(b);
        b.tasks(|b, task| {
            let (run, piece) = div_rem_by(b, task, pieces);
            let [first_plane, past_plane] = window::piece(b, run, planes_per_task, planes);
            let [first_line, past_line] = window::piece(b, piece, lines_per_piece, lines);
            b.for_(first_plane, past_plane, 1, |b, plane| {
                let (mut rest, mut pointers) = (plane, pointers.clone());
                for i in 0..self.around() {
                    let at = 5 + i * (1 + self.dtypes.len());
                    let mut index = rest;
                    if i + 1 < self.around() {
                        let extent = number(b, at);
                        (rest, index) = div_rem_by(b, rest, extent);
                    }
                    for (operand, p) in pointers.iter_mut().enumerate() {
                        let stride = number(b, at + 1 + operand);
                        let offset = b.mul(index, stride);
                        *p = b.ptr_add(*p, offset, 1);
                    }
                }
                b.for_(first_line, past_line, 1, |b, line| {
                    let pointers = self.advance(b, self.around(), line, &pointers);
                    self.row(b, &pointers);
                });
            });
        });
    }

    fn task(&self, b: &mut Builder, plan: &Plan, task: Value) {
        let pointers = self.pointers(b);
        if plan.pieces > 1 {
            let pieces = b.i64(plan.pieces as i64);
            let (row, piece) = (b.div_u(task, pieces), b.rem_u(task, pieces));
            let pointers = self.at_row(b, plan, row, &pointers);
            let (turn, n) = (self.turn(), self.row_elems());
            let whole = b.i64((n / turn * turn) as i64);
            return self.piece(b, &pointers, piece, whole, n % turn);
        }
        let first = b.mul_imm(task, plan.rows_per_task as i64);
        let past = b.add_imm(first, plan.rows_per_task as i64);
        let rows = b.i64(plan.rows as i64);
        let past = if plan.rows.is_multiple_of(plan.rows_per_task) { past } else { b.min_s(past, rows) };
        if plan.rows_per_task == 1 {
            let pointers = self.at_row(b, plan, first, &pointers);
            return self.loops(b, plan.split, &pointers);
        }
        b.for_(first, past, 1, |b, row| {
            let pointers = self.at_row(b, plan, row, &pointers);
            self.loops(b, plan.split, &pointers);
        });
    }

    /// The pointers of a row of tasks: its number taken apart into the indices of the split loops.
    fn at_row(&self, b: &mut Builder, plan: &Plan, row: Value, pointers: &[Value]) -> Vec<Value> {
        let mut pointers = pointers.to_vec();
        let mut rest = row;
        for axis in (0..plan.split).rev() {
            let n = b.i64(self.nest.dims[axis] as i64);
            let index = if axis == 0 { rest } else { b.rem_u(rest, n) };
            rest = if axis == 0 { rest } else { b.div_u(rest, n) };
            pointers = self.advance(b, axis, index, &pointers);
        }
        pointers
    }

    fn advance(&self, b: &mut Builder, axis: usize, index: Value, pointers: &[Value]) -> Vec<Value> {
        let step = |i: usize| self.nest.strides[i][axis] * self.dtypes[i].bytes();
        pointers.iter().enumerate().map(|(i, &p)| if step(i) == 0 { p } else { moved(b, p, index, step(i)) }).collect()
    }

    /// The loops from `axis` on.
    fn loops(&self, b: &mut Builder, axis: usize, pointers: &[Value]) {
        if axis + 1 == self.nest.dims.len() {
            return self.row(b, pointers);
        }
        b.for_(0, self.nest.dims[axis], 1, |b, index| {
            let pointers = self.advance(b, axis, index, pointers);
            self.loops(b, axis + 1, &pointers);
        });
    }

    /// Elements of a row.
    fn row_elems(&self) -> usize {
        *self.nest.dims.last().expect("a loop")
    }

    /// Elements of a turn of the last loop.
    fn turn(&self) -> usize {
        self.lanes * self.unroll
    }

    /// The last loop.
    fn row(&self, b: &mut Builder, pointers: &[Value]) {
        let fixed = self.fixed(b, pointers);
        let (turn, n) = (self.turn(), self.row_elems());
        let whole = n / turn * turn;
        b.for_(0, whole, turn as i64, |b, at| self.turns(b, pointers, &fixed, at));
        let whole = b.i64(whole as i64);
        self.rest(b, pointers, &fixed, whole, n % turn);
    }

    /// `CHUNK` elements of the last loop, which is whole turns up to `whole` and has `rest` elements behind them.
    fn piece(&self, b: &mut Builder, pointers: &[Value], piece: Value, whole: Value, rest: usize) {
        let fixed = self.fixed(b, pointers);
        let first = b.mul_imm(piece, CHUNK as i64);
        let behind = b.add_imm(first, CHUNK as i64);
        let past = b.min_s(behind, whole);
        b.for_(first, past, self.turn() as i64, |b, at| self.turns(b, pointers, &fixed, at));
        if rest > 0 {
            let is_last = b.icmp(IntCc::LtS, whole, behind);
            b.when(is_last, |b| self.rest(b, pointers, &fixed, whole, rest));
        }
    }

    /// The operands that are the same for a whole row.
    fn fixed(&self, b: &mut Builder, pointers: &[Value]) -> Vec<Option<Value>> {
        let of = |i: usize| {
            let ty = Type::of(elem_of(self.dtypes[i]), self.lanes);
            (self.stride(i) == 0).then(|| b.load_splat(ty, pointers[i]))
        };
        (0..self.dtypes.len() - 1).map(of).collect()
    }

    fn turns(&self, b: &mut Builder, pointers: &[Value], fixed: &[Option<Value>], at: Value) {
        for u in 0..self.unroll {
            self.vector(b, pointers, fixed, at, u * self.lanes, self.lanes);
        }
    }

    /// The `n` elements behind the last turn.
    fn rest(&self, b: &mut Builder, pointers: &[Value], fixed: &[Option<Value>], whole: Value, n: usize) {
        for from in (0..n).step_by(self.lanes) {
            self.vector(b, pointers, fixed, whole, from, self.lanes.min(n - from));
        }
    }

    /// The elements that an operand moves by in the last loop.
    fn stride(&self, i: usize) -> usize {
        *self.nest.strides[i].last().expect("a loop")
    }

    /// `count` elements from index `at + offset` on.
    fn vector(
        &self,
        b: &mut Builder,
        pointers: &[Value],
        fixed: &[Option<Value>],
        at: Value,
        offset: usize,
        count: usize,
    ) {
        let place = |i: usize| Row { dtype: self.dtypes[i], base: pointers[i], stride: self.stride(i) };
        let mut inputs = Vec::with_capacity(fixed.len());
        for (i, fixed) in fixed.iter().enumerate() {
            inputs.push(match fixed {
                Some(v) => from_memory(b, self.dtypes[i], *v),
                None => place(i).load(b, self.lanes, at, offset, count),
            });
        }
        let y = pointwise::emit(b, self.p, self.lanes, &inputs);
        place(self.dtypes.len() - 1).store(b, y, at, offset, count);
    }
}

/// Elements at equal distances: one operand along the vector axis of a nest.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    /// Their type.
    pub dtype: DType,
    /// The first one.
    pub base: Value,
    /// Elements from one to the next.
    pub stride: usize,
}

impl Row {
    fn at(&self, b: &mut Builder, at: Value, offset: usize) -> Addr {
        let bytes = self.dtype.bytes() * self.stride;
        let p = moved(b, self.base, at, bytes);
        let disp = offset * bytes;
        if i32::try_from(disp).is_ok() {
            return p.at(disp as i64);
        }
        let disp = b.i64(disp as i64);
        p.at(0).idx(disp, 1)
    }

    /// Elements `at + offset ..`, `count` of them, in the form of programs; the other lanes hold 0.
    pub fn load(&self, b: &mut Builder, lanes: usize, at: Value, offset: usize, count: usize) -> Value {
        let ty = Type::of(elem_of(self.dtype), lanes);
        let v = match self.stride {
            0 => b.load_splat(ty, self.base),
            1 => {
                let from = self.at(b, at, offset);
                b.load_part(ty, from, count)
            }
            _ => {
                let mut v = b.zero(ty);
                for lane in 0..count {
                    let from = self.at(b, at, offset + lane);
                    let x = b.load(ty.lane(), from);
                    v = b.insert(v, lane, x);
                }
                v
            }
        };
        from_memory(b, self.dtype, v)
    }

    /// Stores `count` lanes of a value of a program as elements `at + offset ..`.
    pub fn store(&self, b: &mut Builder, v: Value, at: Value, offset: usize, count: usize) {
        let v = to_memory(b, self.dtype, v);
        if self.stride == 1 {
            let to = self.at(b, at, offset);
            return b.store_part(to, v, count);
        }
        for lane in 0..count {
            let (to, x) = (self.at(b, at, offset + lane), b.extract(v, lane));
            b.store(to, x);
        }
    }
}

/// `p + index * bytes`, whatever the size of `bytes`.
pub(crate) fn moved(b: &mut Builder, p: Value, index: Value, bytes: usize) -> Value {
    if i32::try_from(bytes).is_ok() {
        return b.ptr_add(p, index, bytes);
    }
    let offset = b.mul_imm(index, bytes as i64);
    b.ptr_add(p, offset, 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collapsed(dims: &[usize], strides: &[&[usize]]) -> (Vec<usize>, Vec<Vec<usize>>) {
        let mut nest = Nest { dims: dims.to_vec(), strides: strides.iter().map(|s| s.to_vec()).collect() };
        nest.collapse();
        (nest.dims, nest.strides)
    }

    #[test]
    fn loops_that_are_one_merge() {
        assert_eq!(collapsed(&[2, 3, 4], &[&[12, 4, 1], &[12, 4, 1]]), (vec![24], vec![vec![1], vec![1]]));
        let bias = collapsed(&[2, 3, 4, 5], &[&[60, 20, 5, 1], &[0, 1, 0, 0]]);
        assert_eq!(bias, (vec![2, 3, 20], vec![vec![60, 20, 1], vec![0, 1, 0]]));
        assert_eq!(collapsed(&[1, 1], &[&[7, 1]]), (vec![1], vec![vec![1]]));
        assert_eq!(collapsed(&[], &[&[], &[]]), (vec![1], vec![vec![1], vec![1]]));
        assert_eq!(collapsed(&[5, 1, 3], &[&[3, 9, 1], &[0, 0, 0]]), (vec![15], vec![vec![1], vec![0]]));
    }
}
