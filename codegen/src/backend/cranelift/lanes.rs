//! Types, constants, masks, shuffles, reductions: everything about where lanes stand.

use super::emit::{Emit, Emitted};
use crate::kir::{BinaryOp, Elem, Type, Value};
use cranelift_codegen::ir::{self, ConstantData, Endianness, InstBuilder, MemFlagsData, condcodes::IntCC, types};

/// The CLIF type of one element.
pub(super) fn clif_elem(elem: Elem) -> ir::Type {
    match elem {
        Elem::I8 => types::I8,
        Elem::I16 => types::I16,
        Elem::I32 => types::I32,
        Elem::I64 => types::I64,
        Elem::F32 => types::F32,
        Elem::F64 => types::F64,
    }
}

/// The 128-bit vector of an element.
pub(super) fn clif_vector(elem: Elem) -> ir::Type {
    clif_elem(elem).by(128 / elem.bits() as u32).expect("every element fills 128 bits")
}

/// The integer element of a mask's lanes.
pub(super) fn mask_elem(lanes: usize) -> Elem {
    match lanes {
        2 => Elem::I64,
        4 => Elem::I32,
        8 => Elem::I16,
        _ => Elem::I8,
    }
}

impl Emit<'_, '_> {
    /// How a type is represented.
    pub fn clif_type(&self, ty: Type) -> Emitted<ir::Type> {
        match ty {
            Type::Scalar(e) => Ok(clif_elem(e)),
            Type::Vector(e, n) if e.bits() * usize::from(n) <= 128 => Ok(clif_vector(e)),
            Type::Mask(1) => Ok(types::I8),
            Type::Mask(n) if n <= 16 => Ok(clif_vector(mask_elem(usize::from(n)))),
            Type::Ptr => Ok(types::I64),
            wide => Err(format!("{wide}, which is wider than 128 bits")),
        }
    }

    /// The same 128 bits as another vector type.
    pub fn reinterpret(&mut self, ty: ir::Type, v: ir::Value) -> ir::Value {
        if self.b.func.dfg.value_type(v) == ty {
            return v;
        }
        let flags = MemFlagsData::new().with_endianness(Endianness::Little);
        self.b.ins().bitcast(ty, flags, v)
    }

    /// A constant; equal lanes are remembered, for shift amounts and divisors.
    pub fn constant(&mut self, v: Value, ty: Type, lanes: &[u64]) -> Emitted<ir::Value> {
        if lanes.iter().all(|&l| l == lanes[0]) {
            self.uniform.insert(v, lanes[0]);
        }
        let clif = self.clif_type(ty)?;
        Ok(match ty {
            Type::Scalar(Elem::F32) => self.b.ins().f32const(f32::from_bits(lanes[0] as u32)),
            Type::Scalar(Elem::F64) => self.b.ins().f64const(f64::from_bits(lanes[0])),
            Type::Scalar(e) => {
                // CLIF wants immediates sign-extended to 64 bits and within the type as unsigned.
                self.b.ins().iconst(clif, (lanes[0] & e.bit_mask()) as i64)
            }
            Type::Vector(e, _) => self.vector_constant(clif, e, lanes),
            Type::Mask(1) => self.b.ins().iconst(types::I8, lanes[0] as i64),
            _ => {
                let elem = mask_elem(lanes.len());
                let lanes: Vec<u64> = lanes.iter().map(|&l| l.wrapping_neg() & elem.bit_mask()).collect();
                self.vector_constant(clif, elem, &lanes)
            }
        })
    }

    /// A vector constant; equal lanes fill the register, others leave zeros behind them.
    fn vector_constant(&mut self, clif: ir::Type, elem: Elem, lanes: &[u64]) -> ir::Value {
        let equal = lanes.iter().all(|&l| l == lanes[0]);
        let mut bytes = Vec::with_capacity(16);
        for i in 0..16 / elem.bytes() {
            let lane = if equal { lanes[0] } else { lanes.get(i).copied().unwrap_or(0) };
            bytes.extend_from_slice(&lane.to_le_bytes()[..elem.bytes()]);
        }
        let handle = self.b.func.dfg.constants.insert(ConstantData::from(&bytes[..]));
        self.b.ins().vconst(clif, handle)
    }

    /// The same bits in every lane of an element's vector.
    pub fn fill(&mut self, elem: Elem, bits: u64) -> ir::Value {
        self.vector_constant(clif_vector(elem), elem, &[bits & elem.bit_mask()])
    }

    /// A scalar or condition in every lane.
    pub fn splat(&mut self, ty: Type, scalar: ir::Value) -> Emitted<ir::Value> {
        let clif = self.clif_type(ty)?;
        if !matches!(ty, Type::Mask(_)) {
            return Ok(self.b.ins().splat(clif, scalar));
        }
        let ones = self.b.ins().ineg(scalar);
        let lane = clif.lane_type();
        let ones = if lane == types::I8 { ones } else { self.b.ins().sextend(lane, ones) };
        Ok(self.b.ins().splat(clif, ones))
    }

    /// One lane, as a scalar or condition.
    pub fn extract(&mut self, ty: Type, v: ir::Value, lane: u8) -> Emitted<ir::Value> {
        let x = self.b.ins().extractlane(v, lane);
        Ok(if matches!(ty, Type::Mask(_)) { self.b.ins().icmp_imm_s(IntCC::NotEqual, x, 0) } else { x })
    }

    /// A scalar as lane 0 of a vector; Cranelift's x86 side has this for 32 and 64 bits only.
    pub fn low_lane(&mut self, vector: ir::Type, x: ir::Value) -> ir::Value {
        if vector.lane_bits() >= 32 {
            return self.b.ins().scalar_to_vector(vector, x);
        }
        let x = self.b.ins().uextend(types::I32, x);
        let v = self.b.ins().scalar_to_vector(types::I32X4, x);
        self.reinterpret(vector, v)
    }

    /// Does `f` for each lane of vectors and gathers the results.
    pub fn per_lane(
        &mut self,
        result: Type,
        operands: &[ir::Value],
        mut f: impl FnMut(&mut Self, &[ir::Value]) -> Emitted<ir::Value>,
    ) -> Emitted<ir::Value> {
        let clif = self.clif_type(result)?;
        let mut gathered = None;
        for lane in 0..result.lanes() as u8 {
            let scalars: Vec<ir::Value> = operands.iter().map(|&v| self.b.ins().extractlane(v, lane)).collect();
            let x = f(self, &scalars)?;
            gathered = Some(match gathered {
                None => self.low_lane(clif, x),
                Some(v) => self.b.ins().insertlane(v, x, lane),
            });
        }
        Ok(gathered.expect("vectors have lanes"))
    }

    /// The integer vector that a comparison made (lanes as wide as the operands') as a mask.
    pub fn widen_mask(&mut self, lanes: usize, elem: Elem, compared: ir::Value) -> ir::Value {
        let (mut v, mut bits) = (compared, elem.bits());
        while bits < 128 / lanes {
            bits *= 2;
            v = self.b.ins().swiden_low(v);
        }
        v
    }

    /// A mask with lanes as wide as `elem`'s.
    pub fn mask_as(&mut self, lanes: usize, elem: Elem, mask: ir::Value) -> ir::Value {
        let (mut v, mut from) = (mask, mask_elem(lanes));
        while from.bits() > elem.bits() {
            (v, from) = self.halve(v, from);
        }
        v
    }

    /// Narrows integer lanes to half their width, keeping the low bits; the result's lanes stand low.
    pub fn halve(&mut self, v: ir::Value, from: Elem) -> (ir::Value, Elem) {
        match from {
            Elem::I64 => {
                let v = self.reinterpret(types::I32X4, v);
                (self.shuffle_bytes(v, v, [0, 1, 2, 3, 8, 9, 10, 11, 0, 1, 2, 3, 8, 9, 10, 11]), Elem::I32)
            }
            Elem::I32 => {
                // The saturating narrowing keeps what fits: sign-extend the low half first.
                let up = self.b.ins().ishl_imm_u(v, 16);
                let v = self.b.ins().sshr_imm_u(up, 16);
                (self.b.ins().snarrow(v, v), Elem::I16)
            }
            _ => {
                let up = self.b.ins().ishl_imm_u(v, 8);
                let v = self.b.ins().sshr_imm_u(up, 8);
                (self.b.ins().snarrow(v, v), Elem::I8)
            }
        }
    }

    /// `mask ? x : y` on vectors of a type.
    pub fn blend(&mut self, ty: Type, mask: ir::Value, x: ir::Value, y: ir::Value) -> Emitted<ir::Value> {
        if matches!(ty, Type::Mask(_)) {
            return Ok(self.b.ins().bitselect(mask, x, y));
        }
        let clif = self.clif_type(ty)?;
        let elem = ty.elem().expect("a vector");
        let mask = self.mask_as(ty.lanes(), elem, mask);
        let mask = self.reinterpret(clif, mask);
        Ok(self.b.ins().bitselect(mask, x, y))
    }

    /// A mask as `I8` lanes of 0 and 1.
    pub fn mask_to_int(&mut self, ty: Type, mask: ir::Value) -> Emitted<ir::Value> {
        if ty.lanes() == 1 {
            return Ok(mask);
        }
        let bytes = self.mask_as(ty.lanes(), Elem::I8, mask);
        let one = self.fill(Elem::I8, 1);
        Ok(self.b.ins().band(bytes, one))
    }

    /// Low half `op` high half, until one lane is left.
    pub fn reduce(&mut self, op: BinaryOp, ty: Type, v: ir::Value) -> Emitted<ir::Value> {
        let elem = ty.elem().expect("a vector");
        let (mut v, mut lanes) = (v, ty.lanes());
        while lanes > 1 {
            lanes /= 2;
            let half: Vec<u8> = (lanes as u8..2 * lanes as u8).collect();
            let high = if half.len() == 1 {
                // A lane moved to the front, as a shuffle of the whole register.
                self.shuffle(ty, v, v, &[half[0], half[0]])?
            } else {
                self.shuffle(ty, v, v, &half)?
            };
            if lanes == 1 {
                let (low, high) = (self.b.ins().extractlane(v, 0), self.b.ins().extractlane(high, 0));
                return self.binary_values(op, Type::Scalar(elem), low, high, None);
            }
            v = self.binary_values(op, Type::of(elem, lanes), v, high, None)?;
        }
        Ok(v)
    }

    /// Lanes of `a` followed by `b`, both of type `ty`.
    pub fn shuffle(&mut self, ty: Type, a: ir::Value, b: ir::Value, lanes: &[u8]) -> Emitted<ir::Value> {
        let elem = ty.elem().expect("a vector");
        self.clif_type(Type::of(elem, lanes.len()))?;
        let (size, n) = (elem.bytes(), ty.lanes());
        // Lanes beyond the result's repeat them: as good as any, and nearer to the patterns of real instructions.
        let bytes: [u8; 16] = std::array::from_fn(|i| {
            let lane = usize::from(lanes[i / size % lanes.len()]);
            let from = if lane < n { lane * size } else { 16 + (lane - n) * size };
            (from + i % size) as u8
        });
        Ok(self.shuffle_bytes(a, b, bytes))
    }

    /// Bytes of `a` followed by `b`; the result has the type of `a`.
    pub fn shuffle_bytes(&mut self, a: ir::Value, b: ir::Value, bytes: [u8; 16]) -> ir::Value {
        let ty = self.b.func.dfg.value_type(a);
        if self.x86 && !sse2_shuffles(&bytes) {
            return match words(&bytes) {
                Some(words) => self.shuffle_words(a, b, words),
                None => self.shuffle_by_lanes(a, b, &bytes),
            };
        }
        // One value for both operands where they are one: what the rule for `fmla` by element looks for.
        let first = self.reinterpret(types::I8X16, a);
        let second = if a == b { first } else { self.reinterpret(types::I8X16, b) };
        let mask = self.b.func.dfg.immediates.push(ConstantData::from(&bytes[..]));
        let v = self.b.ins().shuffle(first, second, mask);
        self.reinterpret(ty, v)
    }

    /// Any choice of four 32-bit lanes by `shufps`, which takes two lanes from each of its operands: bring the first two
    /// into one register, the last two into another, then take two of each.
    fn shuffle_words(&mut self, a: ir::Value, b: ir::Value, words: [u8; 4]) -> ir::Value {
        let pair = |e: &mut Self, x: u8, y: u8| match (x < 4, y < 4) {
            (true, true) => (a, x, y),
            (false, false) => (b, x - 4, y - 4),
            // One of each: both stand in one register after a `shufps`.
            _ => {
                let [low, high] = [x.min(y), x.max(y)];
                let v = e.shuffle_bytes(a, b, bytes_of([low, low, high, high]));
                if x < y { (v, 0, 2) } else { (v, 2, 0) }
            }
        };
        let (first, x, y) = pair(self, words[0], words[1]);
        let (last, z, w) = pair(self, words[2], words[3]);
        self.shuffle_bytes(first, last, bytes_of([x, y, z + 4, w + 4]))
    }

    /// Byte or 16-bit shuffles that SSE2 has no instruction for: through general registers.
    fn shuffle_by_lanes(&mut self, a: ir::Value, b: ir::Value, bytes: &[u8; 16]) -> ir::Value {
        let ty = self.b.func.dfg.value_type(a);
        let pairs = (0..8).all(|i| bytes[2 * i].is_multiple_of(2) && bytes[2 * i + 1] == bytes[2 * i] + 1);
        let (vector, size) = if pairs { (types::I16X8, 2) } else { (types::I8X16, 1) };
        let (a, b) = (self.reinterpret(vector, a), self.reinterpret(vector, b));
        let mut out = None;
        for i in 0..16 / size {
            let from = bytes[i * size] / size as u8;
            let n = 16 / size as u8;
            let x = if from < n { self.b.ins().extractlane(a, from) } else { self.b.ins().extractlane(b, from - n) };
            out = Some(match out {
                None => self.low_lane(vector, x),
                Some(v) => self.b.ins().insertlane(v, x, i as u8),
            });
        }
        self.reinterpret(ty, out.expect("16 bytes"))
    }
}

/// The 32-bit lanes of a byte shuffle that moves nothing smaller.
fn words(bytes: &[u8; 16]) -> Option<[u8; 4]> {
    let mut words = [0; 4];
    for (i, w) in words.iter_mut().enumerate() {
        let first = bytes[4 * i];
        if !first.is_multiple_of(4) || (0..4).any(|j| bytes[4 * i + j] != first + j as u8) {
            return None;
        }
        *w = first / 4;
    }
    Some(words)
}

fn bytes_of(words: [u8; 4]) -> [u8; 16] {
    std::array::from_fn(|i| words[i / 4] * 4 + (i % 4) as u8)
}

/// Does Cranelift have a rule for this shuffle that needs neither SSSE3 nor a library call? `pshufd` of one operand,
/// `shufps` of two, and the interleavings of low or high halves.
fn sse2_shuffles(bytes: &[u8; 16]) -> bool {
    if let Some(w) = words(bytes) {
        let one = w.iter().all(|&x| x < 4) || w.iter().all(|&x| x >= 4);
        let two = (w[0] < 4 && w[1] < 4 && w[2] >= 4 && w[3] >= 4) || (w[0] >= 4 && w[1] >= 4 && w[2] < 4 && w[3] < 4);
        if one || two {
            return true;
        }
    }
    [1, 2, 4, 8].into_iter().any(|size| {
        [0, 8].into_iter().any(|half| {
            (0..16).all(|i| {
                let (pair, side, at) = (i / (2 * size), i / size % 2, i % size);
                usize::from(bytes[i]) == 16 * side + half + pair * size + at
            })
        })
    })
}
