//! Register files to try: special values at which instructions differ, and random ones.

use super::trampoline::{Block, MEMORY};
use crate::state::{Flags, Vector};

/// NaNs with payloads, quiet and signalling, of both signs; infinities; zeros; denormals; halves; the ends of integers.
const F32: [u32; 34] = [
    0x0000_0000,
    0x8000_0000,
    0x3f80_0000,
    0xbf80_0000,
    0x3f00_0000,
    0xbf00_0000,
    0x3fc0_0000,
    0x4020_0000,
    0xc020_0000,
    0x7f80_0000,
    0xff80_0000,
    0x7fc0_0000,
    0xffc0_0000,
    0x7fc1_2345,
    0xffd5_4321,
    0x7f80_0001,
    0xff80_0001,
    0x7fa3_4567,
    0xffbf_ffff,
    0x0000_0001,
    0x8000_0001,
    0x007f_ffff,
    0x0080_0000,
    0x7f7f_ffff,
    0xff7f_ffff,
    0x4f00_0000,
    0xcf00_0000,
    0x4eff_ffff,
    0xcf00_0001,
    0x5f00_0000,
    0xdf00_0000,
    0x5f80_0000,
    0x4aff_ffff,
    0x3eff_ffff,
];
const F64: [u64; 34] = [
    0x0000_0000_0000_0000,
    0x8000_0000_0000_0000,
    0x3ff0_0000_0000_0000,
    0xbff0_0000_0000_0000,
    0x3fe0_0000_0000_0000,
    0xbfe0_0000_0000_0000,
    0x3ff8_0000_0000_0000,
    0x4004_0000_0000_0000,
    0xc004_0000_0000_0000,
    0x7ff0_0000_0000_0000,
    0xfff0_0000_0000_0000,
    0x7ff8_0000_0000_0000,
    0xfff8_0000_0000_0000,
    0x7ff8_1234_5678_9abc,
    0xfffc_ba98_7654_3210,
    0x7ff0_0000_0000_0001,
    0xfff0_0000_0000_0001,
    0x7ff4_5678_0000_0000,
    0xfff7_ffff_ffff_ffff,
    0x0000_0000_0000_0001,
    0x8000_0000_0000_0001,
    0x000f_ffff_ffff_ffff,
    0x0010_0000_0000_0000,
    0x7fef_ffff_ffff_ffff,
    0xffef_ffff_ffff_ffff,
    0x41e0_0000_0000_0000,
    0xc1e0_0000_0020_0000,
    0x43e0_0000_0000_0000,
    0xc3e0_0000_0000_0000,
    0x43df_ffff_ffff_ffff,
    // Halfway between two floats of 32 bits, just above the largest, just below the smallest.
    0x3ff0_0000_1000_0000,
    0x47ef_ffff_f000_0000,
    0x380f_ffff_f000_0000,
    0x3690_0000_0000_0000,
];
const INTS: [u64; 10] = [
    0,
    1,
    u64::MAX,
    1 << 63,
    (1 << 63) - 1,
    0x8000_0000,
    0x7fff_ffff,
    0xffff_ffff,
    0x8000_8000_8080_8080,
    0x7f7f_7fff_8000_0001,
];

/// What the lanes of a register are taken for.
#[derive(Clone, Copy)]
enum Kind {
    F32,
    F64,
    Int,
    /// Numbers below 80: amounts and indices.
    Small,
    /// Any bits.
    Bits,
}

/// A reproducible source of register files.
pub struct Values {
    state: u64,
}

impl Values {
    /// Seeded by a form's name.
    pub fn new(name: &str) -> Values {
        // FNV-1a, 64 bits.
        let seed =
            name.bytes().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        Values { state: seed }
    }

    fn next(&mut self) -> u64 {
        // SplitMix64 (Steele, Lea, Flood 2014).
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn of<T: Copy>(&mut self, items: &[T]) -> T {
        items[(self.next() % items.len() as u64) as usize]
    }

    fn kind(&mut self) -> Kind {
        self.of(&[Kind::F32, Kind::F32, Kind::F64, Kind::F64, Kind::Int, Kind::Small, Kind::Bits])
    }

    /// Eight bytes of lanes.
    fn word(&mut self, kind: Kind) -> u64 {
        let random = self.next();
        match kind {
            // Numbers of the same magnitude between the special ones, so that sums round.
            Kind::F32 => [random as u32, (random >> 32) as u32]
                .map(|r| if r.is_multiple_of(3) { 0x3f80_0000 ^ (r & 0x80ff_ffff) } else { self.of(&F32) })
                .into_iter()
                .fold(0, |w, x| w << 32 | u64::from(x)),
            Kind::F64 if random.is_multiple_of(3) => 0x3ff0_0000_0000_0000 ^ (random & 0x801f_ffff_ffff_ffff),
            Kind::F64 => self.of(&F64),
            Kind::Int => self.of(&INTS),
            Kind::Small => {
                let lane = self.of(&[1u32, 2, 4, 8]) * 8;
                (0..64 / lane).fold(0, |w, i| w | (((random >> (8 * i % 56) & 0xff) % 80) << (lane * i)))
            }
            Kind::Bits => random,
        }
    }

    fn bytes<const N: usize>(&mut self, kind: Kind) -> [u8; N] {
        let mut out = [0; N];
        out.chunks_exact_mut(8).for_each(|c| c.copy_from_slice(&self.word(kind).to_le_bytes()));
        out
    }

    /// A register file.
    pub fn block(&mut self) -> Block {
        // Mostly all of one kind: operands that fit each other.
        let common = self.kind();
        let kind = |v: &mut Values| if v.next().is_multiple_of(4) { v.kind() } else { common };
        let mut b = Block::default();
        for i in 0..16 {
            let k = self.of(&[Kind::Int, Kind::Small, Kind::Bits, Kind::F64]);
            b.gpr[i] = self.word(k);
        }
        if self.next().is_multiple_of(2) {
            b.gpr[2] = ((b.gpr[0] as i64) >> 63) as u64; // rdx extends rax: a division that does not trap
        }
        for i in 0..8 {
            let random = self.next();
            b.mask[i] = self.of(&[random, random, u64::MAX, 0, 1, random & self.state]);
        }
        for i in 0..32 {
            let k = kind(self);
            b.vector[i] = Vector(self.bytes(k));
        }
        let k = kind(self);
        b.memory = self.bytes::<MEMORY>(k);
        let flags = self.next();
        b.rflags = 2 | Flags::RFLAGS.iter().map(|(_, bit)| flags & bit).sum::<u64>();
        b
    }
}
