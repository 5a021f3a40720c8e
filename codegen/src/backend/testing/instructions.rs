//! One kernel for each instruction on each type, over special values: what every backend must compile, and agree with the
//! interpreter on.

use crate::kir::arbitrary::{BUFFER_LEN, Case, SCRATCH_LEN, special};
use crate::kir::typing::{converts, takes};
use crate::kir::{Access, ArgDecl, BinaryOp, Builder, ConvertOp, Elem, FloatCc, IntCc, Type, UnaryOp, Value};

/// The vector and scalar types of a register width: full registers, half ones, pairs, scalars.
fn types(vector_bits: usize) -> Vec<Type> {
    let mut types = Vec::new();
    for elem in Elem::ALL {
        let mut lanes = vector_bits / elem.bits();
        while lanes >= 1 {
            types.push(Type::of(elem, lanes));
            lanes /= 2;
        }
    }
    types
}

/// A kernel that stores what `f` makes of three operands of type `ty`, for many triples of special values.
fn for_specials(ty: Type, f: impl FnOnce(&mut Builder, [Value; 3]) -> Value) -> Case {
    let mut args = vec![ArgDecl::read("input", 64)];
    args.extend(Elem::ALL.map(|e| ArgDecl { name: format!("buf_{e}"), access: Access::ReadWrite, align: 64 }));
    let mut b = Builder::new("special", args);
    let elem = ty.elem().unwrap();
    let bytes = ty.bytes().unwrap();
    let outputs = b.tasks_with(|b, task| {
        let x = b.arg(0);
        let operands = [0, 1, 2].map(|i| b.load(ty, x.at(i * bytes as i64).idx(task, 3 * bytes)));
        let r = f(b, operands);
        let r = if matches!(b.ty(r), Type::Mask(_)) { b.mask_to_int(r) } else { r };
        let rt = b.ty(r);
        let out = b.arg(1 + Elem::ALL.iter().position(|&e| Some(e) == rt.elem()).unwrap());
        b.store(out.at(0).idx(task, rt.bytes().unwrap()), r);
        rt.bytes().unwrap()
    });
    let tasks = (BUFFER_LEN / outputs).min(64);
    let mut input = Vec::new();
    let mut i = 0u32;
    while input.len() < tasks * 3 * bytes {
        i = i.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        input.extend_from_slice(&special(elem, i >> 7).to_le_bytes()[..elem.bytes()]);
    }
    let mut buffers = vec![input];
    buffers.extend(Elem::ALL.map(|_| vec![0; BUFFER_LEN]));
    Case { kernel: b.finish(), buffers, scratch_len: SCRATCH_LEN, begin: 0, end: tasks as i64 }
}

impl Builder {
    /// `tasks`, giving what its body gives.
    fn tasks_with<T>(&mut self, body: impl FnOnce(&mut Builder, Value) -> T) -> T {
        let mut out = None;
        self.tasks(|b, task| out = Some(body(b, task)));
        out.expect("the body ran")
    }
}

/// Orders of the lanes of two vectors that instruction sets know by themselves, and those like them that they do not: runs of
/// x and of y in turn, from the lower or the upper half of each group of lanes.
fn interleavings(ty: Type) -> Vec<(String, Vec<usize>)> {
    let n = if ty.is_vector() { ty.lanes() } else { 0 };
    let powers = || (0..).map(|i| 1usize << i).take_while(|&p| p <= n);
    let mut all = Vec::new();
    for (group, run) in powers().flat_map(|group| powers().map(move |run| (group, run))) {
        if 2 * run > group {
            continue;
        }
        for half in [0, group / 2] {
            let lane = |i: usize| {
                let (first, within) = (i / group * group, i % group);
                within / run % 2 * n + first + half + within / (2 * run) * run + within % run
            };
            all.push((format!("{run} of {group} from {half}"), (0..n).map(lane).collect()));
        }
    }
    all
}

/// Each instruction on each type: the whole table, so that a missing lowering shows by name.
pub fn every_instruction(vector_bits: usize) -> Vec<(String, Case)> {
    let mut cases = Vec::new();
    for ty in types(vector_bits) {
        let mut add = |name: String, c: Case| cases.push((format!("{name} {ty}"), c));
        for (name, lanes) in interleavings(ty) {
            add(format!("interleave {name}"), for_specials(ty, |b, [x, y, _]| b.shuffle(x, y, &lanes)));
        }
        for op in BinaryOp::ALL.into_iter().filter(|&op| takes(op, ty)) {
            add(format!("{op:?}"), for_specials(ty, |b, [x, y, _]| b.binary(op, x, y)));
            if ty.is_vector() && op.is_reduction() {
                add(format!("reduce {op:?}"), for_specials(ty, |b, [x, ..]| b.reduce(op, x)));
            }
            for c in [0, 1, 5, -1] {
                if ty.is_int() {
                    add(
                        format!("{op:?} by {c}"),
                        for_specials(ty, |b, [x, ..]| {
                            let c = b.int(ty, c);
                            b.binary(op, x, c)
                        }),
                    );
                }
            }
        }
        for op in UnaryOp::ALL.into_iter().filter(|op| op.is_float() == ty.is_float()) {
            add(format!("{op:?}"), for_specials(ty, |b, [x, ..]| b.unary(op, x)));
        }
        for op in ConvertOp::ALL {
            for to in Elem::ALL {
                if converts(op, ty.elem().unwrap(), to) && to.bits() * ty.lanes() <= vector_bits {
                    add(
                        format!("{op:?} to {to}"),
                        for_specials(ty, |b, [x, y, _]| {
                            // Not of what arithmetic made: its NaNs have no defined bits.
                            let _ = y;
                            b.convert(op, x, to)
                        }),
                    );
                }
            }
        }
        if ty.is_float() {
            add("MulAdd".into(), for_specials(ty, |b, [x, y, z]| b.mul_add(x, y, z)));
            for cc in FloatCc::ALL {
                add(format!("fcmp {cc:?}"), for_specials(ty, |b, [x, y, _]| b.fcmp(cc, x, y)));
                add(format!("fcmp {cc:?} with itself"), for_specials(ty, |b, [x, ..]| b.fcmp(cc, x, x)));
                add(
                    format!("select {cc:?}"),
                    for_specials(ty, |b, [x, y, z]| {
                        let m = b.fcmp(cc, x, y);
                        b.select(m, y, z)
                    }),
                );
            }
        } else {
            for cc in IntCc::ALL {
                add(format!("icmp {cc:?}"), for_specials(ty, |b, [x, y, _]| b.icmp(cc, x, y)));
                add(
                    format!("select {cc:?}"),
                    for_specials(ty, |b, [x, y, z]| {
                        let m = b.icmp(cc, x, y);
                        b.select(m, y, z)
                    }),
                );
            }
        }
        let compare = |b: &mut Builder, x, y| {
            if ty.is_float() { b.fcmp(FloatCc::Lt, x, y) } else { b.icmp(IntCc::LtS, x, y) }
        };
        add(
            "any".into(),
            for_specials(ty, |b, [x, y, _]| {
                let m = compare(b, x, y);
                b.any(m)
            }),
        );
        add(
            "all".into(),
            for_specials(ty, |b, [x, y, _]| {
                let m = compare(b, x, y);
                b.all(m)
            }),
        );
        add(
            "mask logic".into(),
            for_specials(ty, |b, [x, y, z]| {
                let (m, n) = (compare(b, x, y), compare(b, y, z));
                let (i, j) = (b.and(m, n), b.xor(m, n));
                let k = b.not(j);
                b.or(i, k)
            }),
        );
        for count in 1..ty.lanes() {
            add(
                format!("first {count}"),
                for_specials(ty, |b, [x, ..]| {
                    let at = b.scratch();
                    b.store_part(at.at(64), x, count);
                    b.load_part(ty, at.at(64), count)
                }),
            );
        }
    }
    cases
}
