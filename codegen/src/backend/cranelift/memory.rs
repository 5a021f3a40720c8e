//! Addresses, loads and stores, whole and in part.
//!
//! A part of a vector is assembled from its two 8-byte halves, each read with the widest accesses that stay inside: exactly
//! the bytes asked for are touched. Vectors narrower than a register are parts of one.

use super::emit::{Emit, Emitted, Reduced};
use crate::kir::{Addr, Type, Value};
use cranelift_codegen::ir::{self, InstBuilder, MemFlagsData, types};

impl Emit<'_, '_> {
    /// An address as a CLIF base and displacement.
    pub fn address(&mut self, addr: &Addr) -> (ir::Value, i32) {
        let disp = i32::try_from(addr.disp).expect("kernels are verified: displacements fit");
        let base = match addr.index {
            None => self.get(addr.base),
            Some((index, scale)) => {
                if let Some(&p) = self.reduced.get(&Reduced::Pointer(addr.base, index, scale)) {
                    return (p, disp);
                }
                let offset = match self.reduced.get(&Reduced::Offset(index, scale)) {
                    Some(&offset) => offset,
                    None => {
                        let index = self.get(index);
                        self.scaled(index, scale)
                    }
                };
                let base = self.get(addr.base);
                self.b.ins().iadd(base, offset)
            }
        };
        (base, disp)
    }

    /// `index * scale`, as the shift that address modes know where it is one.
    pub fn scaled(&mut self, index: ir::Value, scale: i64) -> ir::Value {
        match scale {
            1 => index,
            s if s > 0 && s.count_ones() == 1 => self.b.ins().ishl_imm_u(index, i64::from(s.trailing_zeros())),
            s => self.b.ins().imul_imm_s(index, s),
        }
    }

    /// Loads and stores stay in their buffers, and SSE may use them as operands where they are known to be aligned.
    fn flags(&self, addr: &Addr, bytes: usize) -> MemFlagsData {
        let flags = MemFlagsData::new().with_notrap();
        if self.alignment.of(addr) as usize >= bytes { flags.with_aligned() } else { flags }
    }

    /// The first `count` lanes; the others are 0.
    pub fn load(&mut self, ty: Type, addr: &Addr, count: usize) -> Emitted<ir::Value> {
        let clif = self.clif_type(ty)?;
        let elem = ty.elem().expect("kernels are verified: loads have an element type");
        let bytes = elem.bytes() * count;
        let flags = self.flags(addr, bytes);
        let (p, disp) = self.address(addr);
        if ty.is_vector() && bytes == 16 && elem.is_float() && !flags.aligned() {
            // Cranelift 0.135 makes any vector that is loaded the operand of `cmpps` and `cmppd`, which fault at an address that is
            // no multiple of 16. (All its other SSE instructions ask whether the load is aligned.) Loaded as bytes it is none.
            let bytes = self.b.ins().load(types::I8X16, flags, p, disp);
            return Ok(self.reinterpret(clif, bytes));
        }
        if !ty.is_vector() || bytes == 16 {
            return Ok(self.b.ins().load(clif, flags, p, disp));
        }
        let flags = MemFlagsData::new().with_notrap();
        let low = self.load_half(flags, p, disp, bytes.min(8));
        if bytes <= 8 {
            return Ok(self.reinterpret(clif, low));
        }
        let high = self.load_half(flags, p, disp + 8, bytes - 8);
        let (low, high) = (self.reinterpret(types::F64X2, low), self.reinterpret(types::F64X2, high));
        let both = self.shuffle_bytes(low, high, [0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23]);
        Ok(self.reinterpret(clif, both))
    }

    /// A vector whose low 8 bytes hold `bytes` (1 to 8) of memory, all others 0.
    fn load_half(&mut self, flags: MemFlagsData, p: ir::Value, disp: i32, bytes: usize) -> ir::Value {
        let float = match bytes {
            8 => Some((types::F64, types::F64X2)),
            4 => Some((types::F32, types::F32X4)),
            _ => None,
        };
        if let Some((scalar, vector)) = float {
            let x = self.b.ins().load(scalar, flags, p, disp);
            return self.b.ins().scalar_to_vector(vector, x);
        }
        let mut word = None;
        for (at, size) in pieces(bytes) {
            let offset = disp + at as i32;
            let part = match size {
                4 => self.b.ins().uload32(flags, p, offset),
                2 => self.b.ins().uload16(types::I64, flags, p, offset),
                _ => self.b.ins().uload8(types::I64, flags, p, offset),
            };
            word = Some(match word {
                None => part,
                Some(word) => {
                    let part = self.b.ins().ishl_imm_u(part, 8 * at as i64);
                    self.b.ins().bor(word, part)
                }
            });
        }
        self.b.ins().scalar_to_vector(types::I64X2, word.expect("at least one byte"))
    }

    /// Writes the first `count` lanes of a scalar or vector.
    pub fn store(&mut self, addr: &Addr, value: Value, count: usize) -> Emitted<()> {
        let ty = self.ty(value);
        let elem = ty.elem().expect("kernels are verified: stores have an element type");
        let bytes = elem.bytes() * count;
        let flags = self.flags(addr, bytes);
        let (p, disp) = self.address(addr);
        let value = self.get(value);
        if !ty.is_vector() || bytes == 16 {
            self.b.ins().store(flags, value, p, disp);
            return Ok(());
        }
        self.store_half(value, 0, p, disp, bytes.min(8));
        if bytes > 8 {
            self.store_half(value, 1, p, disp + 8, bytes - 8);
        }
        Ok(())
    }

    /// Writes `bytes` (1 to 8) of one half of a register.
    fn store_half(&mut self, value: ir::Value, half: u8, p: ir::Value, disp: i32, bytes: usize) {
        let flags = MemFlagsData::new().with_notrap();
        let float = match bytes {
            8 => Some((types::F64X2, half)),
            4 => Some((types::F32X4, 2 * half)),
            _ => None,
        };
        if let Some((vector, lane)) = float {
            let v = self.reinterpret(vector, value);
            let x = self.b.ins().extractlane(v, lane);
            self.b.ins().store(flags, x, p, disp);
            return;
        }
        let v = self.reinterpret(types::I64X2, value);
        let word = self.b.ins().extractlane(v, half);
        for (at, size) in pieces(bytes) {
            let offset = disp + at as i32;
            let part = if at == 0 { word } else { self.b.ins().ushr_imm_u(word, 8 * at as i64) };
            match size {
                4 => self.b.ins().istore32(flags, part, p, offset),
                2 => self.b.ins().istore16(flags, part, p, offset),
                _ => self.b.ins().istore8(flags, part, p, offset),
            };
        }
    }
}

/// Splits up to 7 bytes into accesses of 4, 2 and 1 bytes, as (offset, size).
fn pieces(bytes: usize) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    [4, 2, 1].into_iter().filter(move |size| bytes & size != 0).map(move |size| {
        at += size;
        (at - size, size)
    })
}
