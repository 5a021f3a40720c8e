//! CPU levels: which instructions each may use.
//!
//! A library picks a level by CPUID, and then runs what the level's functions hold: one instruction beyond it is a crash on
//! the machines that the level was made for. Source: the x86-64 psABI's micro-architecture levels; of x86-64-v4 only F, VL,
//! BW and DQ are used.

use crate::program::text;
use iced_x86::{CpuidFeature, Instruction};

/// A micro-architecture level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// SSE2.
    V1,
    /// AVX2, FMA, BMI.
    V3,
    /// AVX-512 F, VL, BW, DQ.
    V4,
}

impl Level {
    /// Whether a function of this level may hold an instruction.
    ///
    /// # Errors
    /// The instruction and what it needs.
    pub fn permits(self, i: &Instruction) -> Result<(), String> {
        match i.cpuid_features().iter().find(|f| needs(**f).is_none_or(|level| level > self)) {
            Some(feature) => Err(format!("at {:#x}: {} needs {feature:?}, beyond {self:?}", i.ip(), text(i))),
            None => Ok(()),
        }
    }
}

/// The lowest level that has a feature; none for what no level has.
fn needs(feature: CpuidFeature) -> Option<Level> {
    use CpuidFeature as F;
    match feature {
        F::INTEL8086 | F::INTEL186 | F::INTEL286 | F::INTEL386 | F::INTEL486 | F::X64 => Some(Level::V1),
        F::CMOV | F::CX8 | F::FPU | F::FXSR | F::MMX | F::SSE | F::SSE2 | F::SYSCALL => Some(Level::V1),
        F::MULTIBYTENOP | F::PAUSE | F::CPUID => Some(Level::V1),
        F::CMPXCHG16B | F::POPCNT | F::SSE3 | F::SSSE3 | F::SSE4_1 | F::SSE4_2 => Some(Level::V3),
        F::AVX | F::AVX2 | F::BMI1 | F::BMI2 | F::F16C | F::FMA | F::LZCNT | F::MOVBE => Some(Level::V3),
        F::AVX512F | F::AVX512VL | F::AVX512BW | F::AVX512DQ => Some(Level::V4),
        _ => None,
    }
}
