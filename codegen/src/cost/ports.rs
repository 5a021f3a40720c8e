//! What one kernel IR instruction takes of a core: the resources that it occupies, and how long its result takes.
//!
//! A core is a wide one of today, the same for every level: two ports of multiply-adds (a third for other vector work where
//! vectors have 256 bits or fewer), one for shuffles, one divider, two loads and one store a cycle, and `ISSUE` instructions
//! a cycle in all. A load with one user folds into it, an address computation of one term into the access.
//!
//! Sources: Fog, "Instruction tables"; Abel and Reineke, uops.info (Ice Lake, Golden Cove, Zen 3). Where cores differ, what is
//! common to most. Left out: which port a given instruction gets, the front end's limits, what the register allocator adds.

use crate::kir::{BinaryOp, ConvertOp, Op, Type, UnaryOp, Value};
use crate::target::Target;

/// Instructions that issue in a cycle: four on Skylake, five on Ice Lake, six since; with what the allocator adds, five.
const ISSUE: f64 = 5.0;

/// Loads that issue in a cycle.
const LOADS: f64 = 2.0;

/// How long a loaded value takes from the first cache.
const LOAD_LATENCY: f64 = 6.0;

/// Occupied resources, in instructions of each kind; of the divider in cycles.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Uses {
    /// Multiply-adds, and whatever shares their two ports.
    pub multiply: f64,
    /// All vector work but loads and stores.
    pub vector: f64,
    /// Moves of lanes.
    pub shuffle: f64,
    /// Cycles of the divider.
    pub divide: f64,
    /// Loads.
    pub load: f64,
    /// Stores.
    pub store: f64,
    /// Everything that issues.
    pub issue: f64,
}

impl Uses {
    /// Adds another's.
    pub fn add(&mut self, other: Uses) {
        self.multiply += other.multiply;
        self.vector += other.vector;
        self.shuffle += other.shuffle;
        self.divide += other.divide;
        self.load += other.load;
        self.store += other.store;
        self.issue += other.issue;
    }

    /// Cycles of the resource that is occupied longest.
    pub fn cycles(&self, target: &Target) -> f64 {
        let vector_ports = if target.vector_bits > 256 { 2.0 } else { 3.0 };
        [
            self.multiply / 2.0,
            self.vector / vector_ports,
            self.shuffle,
            self.divide,
            self.load / LOADS,
            self.store,
            self.issue / ISSUE,
        ]
        .into_iter()
        .fold(0.0, f64::max)
    }

    fn times(self, n: f64) -> Uses {
        Uses {
            multiply: self.multiply * n,
            vector: self.vector * n,
            shuffle: self.shuffle * n,
            divide: self.divide * n,
            load: self.load * n,
            store: self.store * n,
            issue: self.issue * n,
        }
    }
}

const SCALAR: Uses = Uses { multiply: 0.0, vector: 0.0, shuffle: 0.0, divide: 0.0, load: 0.0, store: 0.0, issue: 1.0 };
const VECTOR: Uses = Uses { vector: 1.0, ..SCALAR };
const MULTIPLY: Uses = Uses { multiply: 1.0, ..VECTOR };
const SHUFFLE: Uses = Uses { shuffle: 1.0, ..VECTOR };
const LOAD: Uses = Uses { load: 1.0, ..SCALAR };
const STORE: Uses = Uses { store: 1.0, ..SCALAR };
const NOTHING: Uses = Uses { issue: 0.0, ..SCALAR };

/// What an instruction without blocks takes, and the cycles until its result is there. `ty` is the type of a value, `folds`
/// says whether a loaded value has one user that takes it from memory.
pub fn of(target: &Target, op: &Op, ty: impl Fn(Value) -> Type, folds: bool) -> (Uses, f64) {
    // Registers that a value of the type takes.
    let width = |t: Type| (t.bytes().unwrap_or(0) * 8).div_ceil(target.vector_bits).max(1) as f64;
    let is_vector = |v: Value| ty(v).lanes() > 1 || ty(v).is_float();
    let loaded = |t: Type| {
        let uses = LOAD.times(width(t));
        if folds { Uses { issue: 0.0, ..uses } } else { uses }
    };
    match op {
        Op::Const { .. } | Op::VecConst { .. } => (NOTHING, 0.0),
        Op::Splat { ty, .. } => (SHUFFLE.times(width(*ty)), 3.0),
        Op::Unary(op, v) => unary(target, *op, ty(*v), is_vector(*v), width(ty(*v))),
        Op::Binary(op, a, _) => binary(*op, ty(*a), is_vector(*a), width(ty(*a))),
        Op::MulAdd(a, ..) if target.fma => (MULTIPLY.times(width(ty(*a))), 4.0),
        Op::MulAdd(a, ..) => (MULTIPLY.times(2.0 * width(ty(*a))), 8.0),
        Op::Convert { op, to, value } => {
            let width = width(*to).max(width(ty(*value)));
            match op {
                ConvertOp::Bitcast => (NOTHING, 0.0),
                ConvertOp::ToS | ConvertOp::ToU => (VECTOR.times(5.0 * width), 12.0),
                _ if ty(*value).is_float() || to.is_float() => (VECTOR.times(width), 4.0),
                _ if is_vector(*value) => (SHUFFLE.times(width), 3.0),
                _ => (SCALAR, 1.0),
            }
        }
        Op::ICmp(_, a, _) | Op::FCmp(_, a, _) if !is_vector(*a) => (SCALAR, 1.0),
        Op::ICmp(_, a, _) | Op::FCmp(_, a, _) => (VECTOR.times(width(ty(*a))), 3.0),
        Op::Select { a, .. } if !is_vector(*a) => (SCALAR, 1.0),
        Op::Select { a, .. } => (VECTOR.times(width(ty(*a))), 1.0),
        Op::MaskToInt(_) | Op::Any(_) | Op::All(_) => (VECTOR, 3.0),
        Op::Load { ty, .. } | Op::LoadSplat { ty, .. } => (loaded(*ty), LOAD_LATENCY),
        Op::LoadPart { ty, .. } => {
            let mut uses = LOAD.times(width(*ty));
            uses.add(if target.vector_bits > 256 { NOTHING } else { SHUFFLE });
            (uses, LOAD_LATENCY + 1.0)
        }
        Op::Store { value, .. } => (STORE.times(width(ty(*value))), 0.0),
        Op::StorePart { value, .. } => (Uses { issue: 2.0, ..STORE.times(width(ty(*value))) }, 0.0),
        Op::PtrAdd(addr) => (if addr.index.is_some() { SCALAR } else { NOTHING }, 1.0),
        Op::Prefetch(_) => (LOAD, 0.0),
        Op::ExtractLane { lane: 0, .. } => (NOTHING, 0.0),
        Op::ExtractLane { .. } | Op::InsertLane { .. } => (SHUFFLE, 3.0),
        Op::Reduce(op, v) => {
            // A tree: each level moves half of the lanes and combines.
            let levels = f64::from(ty(*v).lanes().ilog2());
            let (one, latency) = binary(*op, ty(*v), true, 1.0);
            let mut uses = one.times(levels);
            uses.add(SHUFFLE.times(levels));
            (uses, levels * (latency + 3.0))
        }
        Op::Shuffle { a, lanes, .. } => {
            let bits = lanes.len() * ty(*a).elem().map_or(8, |e| e.bits());
            (SHUFFLE.times(bits.div_ceil(target.vector_bits).max(1) as f64), 3.0)
        }
        Op::Loop(_) | Op::If(_) => (SCALAR.times(2.0), 0.0),
    }
}

fn unary(target: &Target, op: UnaryOp, ty: Type, vector: bool, width: f64) -> (Uses, f64) {
    match op {
        UnaryOp::Sqrt => divided(ty, 6.0),
        // Without an instruction for it (SSE2) rounding is half a dozen.
        UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Trunc | UnaryOp::Nearest => {
            (VECTOR.times(width * if target.fma { 2.0 } else { 6.0 }), 8.0)
        }
        _ if vector => (VECTOR.times(width), 1.0),
        _ => (SCALAR, 1.0),
    }
}

fn binary(op: BinaryOp, ty: Type, vector: bool, width: f64) -> (Uses, f64) {
    use BinaryOp::*;
    match op {
        FDiv => divided(ty, 4.0),
        FAdd | FSub | FMul => (MULTIPLY.times(width), 4.0),
        PMin | PMax => (VECTOR.times(width), 4.0),
        // NaN and the sign of zero take a comparison and two selections more.
        FMin | FMax => (VECTOR.times(5.0 * width), 10.0),
        DivS | DivU | RemS | RemU => (SCALAR.times(10.0 * ty.lanes() as f64), 14.0),
        Mul if vector => (MULTIPLY.times(2.0 * width), 10.0),
        Mul => (SCALAR, 3.0),
        _ if vector => (VECTOR.times(width), 1.0),
        _ => (SCALAR, 1.0),
    }
}

/// The divider works on 128 bits at a time.
fn divided(ty: Type, cycles: f64) -> (Uses, f64) {
    let parts = (ty.bytes().unwrap_or(16) as f64 / 16.0).max(1.0);
    (Uses { divide: cycles * parts, ..VECTOR }, 8.0 + cycles * parts)
}
