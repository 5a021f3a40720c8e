//! The choice of the CPU level: the highest that the library has, the CPU runs and the caller allows.
//!
//! A level counts only when the operating system saves its registers (XCR0): AVX2 needs the XMM and YMM states (bits 1, 2),
//! AVX-512 also opmasks and both halves of the ZMM state (bits 5 to 7). Source: Intel SDM volume 1, 14.3 and 15.2; the
//! features of a level are those of the x86-64 psABI's micro-architecture levels.

use crate::emit::EmitError;
use crate::emit::abi::Entry;
use crate::emit::clif::{Code, I32};
use crate::emit::functions::Fun;
use crate::emit::library::{Builder, Info};
use cranelift_codegen::ir::condcodes::IntCC;
use cranelift_codegen::ir::{InstBuilder, Value};
use cranelift_frontend::Variable;
use target_lexicon::Architecture;

/// Leaf 1, ECX: FMA, MOVBE, OSXSAVE, AVX, F16C.
const LEAF_1_ECX: i64 = 1 << 12 | 1 << 22 | 1 << 27 | 1 << 28 | 1 << 29;
/// Leaf 7, EBX: BMI1, AVX2, BMI2.
const LEAF_7_V3: i64 = 1 << 3 | 1 << 5 | 1 << 8;
/// Leaf 7, EBX: AVX-512 F, DQ, CD, BW, VL.
const LEAF_7_V4: i64 = 1 << 16 | 1 << 17 | 1 << 28 | 1 << 30 | 1 << 31;
/// Leaf 0x8000_0001, ECX: LZCNT.
const LEAF_EXTENDED: i64 = 1 << 5;
/// XCR0: SSE and AVX states.
const XCR0_V3: i64 = 0x06;
/// XCR0: these and the three of AVX-512.
const XCR0_V4: i64 = 0xe6;

/// Defines `pick_level` and `nncc_best_level`.
pub fn define(builder: &mut Builder, info: &Info) -> Result<(), EmitError> {
    builder.define(info, Fun::PickLevel, pick_level)?;
    builder.define(info, Fun::Entry(Entry::BestLevel), |c| {
        let any = c.int32(0);
        let level = c.call(Fun::PickLevel, &[any]);
        c.ret(&[level]);
    })
}

fn pick_level(c: &mut Code) {
    let [max_level] = c.params();
    let baseline = c.int32(1);
    let code = c.var(baseline);
    if matches!(c.info.architecture, Architecture::X86_64) {
        detect_x86(c, code);
    }
    let is_limited = c.is(IntCC::NotEqual, max_level, 0);
    c.if_(is_limited, |c| {
        let detected = c.get(code);
        let limited = c.b.ins().umin(detected, max_level);
        c.set(code, limited);
    });
    let none = c.b.ins().iconst(I32, -1);
    let best = c.var(none);
    let (levels, count) = (c.info.tables.levels, c.info.levels);
    let levels = c.table(levels);
    let count = c.int(count as i64);
    // Levels rise, so the last that fits is the best.
    c.for_(count, |c, i| {
        let row = c.element(levels, i, 8);
        let level = c.load(I32, row, 0);
        let limit = c.get(code);
        let fits = c.b.ins().icmp(IntCC::UnsignedLessThanOrEqual, level, limit);
        c.if_(fits, |c| {
            let i = c.b.ins().ireduce(I32, i);
            c.set(best, i);
        });
    });
    let best = c.get(best);
    c.ret(&[best]);
}

/// Raises `code` to 3 or 4 as the CPU allows. Leaf 7 exists wherever AVX2 does, but reading it needs asking leaf 0 first.
fn detect_x86(c: &mut Code, code: Variable) {
    let slot = c.stack(16);
    let out = c.stack_address(slot);
    cpuid(c, out, 0);
    let last_leaf = c.load(I32, out, 0);
    let has_leaf_7 = c.is(IntCC::UnsignedGreaterThanOrEqual, last_leaf, 7);
    c.if_(has_leaf_7, |c| {
        cpuid(c, out, 1);
        let has_avx = has_all(c, out, 8, LEAF_1_ECX);
        c.if_(has_avx, |c| {
            let states = c.call(Fun::Xgetbv, &[]);
            cpuid(c, out, 0x8000_0001);
            let has_lzcnt = has_all(c, out, 8, LEAF_EXTENDED);
            cpuid(c, out, 7);
            let has_avx2 = has_all(c, out, 4, LEAF_7_V3);
            let saved = saves(c, states, XCR0_V3);
            let both = c.b.ins().band(has_lzcnt, has_avx2);
            let v3 = c.b.ins().band(both, saved);
            c.if_(v3, |c| {
                let three = c.int32(3);
                c.set(code, three);
                let has_avx512 = has_all(c, out, 4, LEAF_7_V4);
                let saved = saves(c, states, XCR0_V4);
                let v4 = c.b.ins().band(has_avx512, saved);
                c.if_(v4, |c| {
                    let four = c.int32(4);
                    c.set(code, four);
                });
            });
        });
    });
}

fn cpuid(c: &mut Code, out: Value, leaf: u32) {
    let (leaf, subleaf) = (c.int32(leaf), c.int32(0));
    c.call_void(Fun::Cpuid, &[leaf, subleaf, out]);
}

/// Whether all the bits are set in a register of the last CPUID.
fn has_all(c: &mut Code, out: Value, register: i32, bits: i64) -> Value {
    let value = c.load_u32(out, register);
    saves(c, value, bits)
}

/// Whether all the bits are set.
fn saves(c: &mut Code, value: Value, bits: i64) -> Value {
    let mask = c.int(bits);
    let masked = c.b.ins().band(value, mask);
    c.b.ins().icmp(IntCC::Equal, masked, mask)
}
