//! Machine instructions before and after register allocation.
//!
//! An [`Inst`] is a form of the encoder (`Code`) with operands in encoding order. A register operand is a virtual register and a
//! role. The role says what the allocator must know: [`Opnd::Tied`] is x86's destructive first operand, read as one
//! value and written as another.

use iced_x86::Code;
use regalloc2::{RegClass, VReg};
use smallvec::SmallVec;

/// The width of a vector instruction: 128, 256 or 512 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Width {
    /// xmm, also for scalars and shorter vectors.
    X,
    /// ymm.
    Y,
    /// zmm.
    Z,
}

impl Width {
    /// The narrowest register that holds `bytes`; none beyond 64.
    pub fn of_bytes(bytes: usize) -> Option<Width> {
        match bytes {
            0..=16 => Some(Width::X),
            17..=32 => Some(Width::Y),
            33..=64 => Some(Width::Z),
            _ => None,
        }
    }

    /// Bytes of a register.
    pub fn bytes(self) -> usize {
        match self {
            Width::X => 16,
            Width::Y => 32,
            Width::Z => 64,
        }
    }
}

/// Register classes, in regalloc2's three slots.
pub const GPR: RegClass = RegClass::Int;
/// xmm, ymm, zmm: one class, for they overlap.
pub const VEC: RegClass = RegClass::Float;
/// k registers.
pub const MASK: RegClass = RegClass::Vector;

/// The width at which a general-purpose or vector register is named in an encoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the registers'")]
pub enum View {
    R8,
    R16,
    R32,
    R64,
    Xmm,
    Ymm,
    Zmm,
    K,
}

impl From<Width> for View {
    fn from(w: Width) -> View {
        match w {
            Width::X => View::Xmm,
            Width::Y => View::Ymm,
            Width::Z => View::Zmm,
        }
    }
}

/// What a memory operand is relative to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Base {
    /// A register.
    Reg(VReg),
    /// The constant pool, relative to the instruction.
    Pool,
    /// The frame's own memory (not the allocator's spill slots).
    Frame,
}

/// A memory operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mem {
    /// See [`Base`].
    pub base: Base,
    /// A register and its scale: 1, 2, 4 or 8.
    pub index: Option<(VReg, u8)>,
    /// Bytes.
    pub disp: i32,
    /// Whether one element of it is repeated in every lane (EVEX).
    pub broadcast: bool,
}

impl Mem {
    /// A place in the constant pool.
    pub fn pool(offset: u32) -> Mem {
        Mem { base: Base::Pool, index: None, disp: offset as i32, broadcast: false }
    }

    /// A place in the frame.
    pub fn frame(offset: i32) -> Mem {
        Mem { base: Base::Frame, index: None, disp: offset, broadcast: false }
    }

    /// What a pointer in a register points at.
    pub fn at(base: VReg, disp: i32) -> Mem {
        Mem { base: Base::Reg(base), index: None, disp, broadcast: false }
    }

    /// The same address, further on.
    pub fn plus(self, bytes: i32) -> Mem {
        Mem { disp: self.disp + bytes, ..self }
    }

    /// The same address, one element repeated.
    pub fn broadcast(self) -> Mem {
        Mem { broadcast: true, ..self }
    }
}

/// One operand, in encoding order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opnd {
    /// Read.
    Use(VReg, View),
    /// Written.
    Def(VReg, View),
    /// Read as `from` and written as `to`: both get one register.
    Tied {
        /// The value after.
        to: VReg,
        /// The value before.
        from: VReg,
        /// The name in the encoding.
        view: View,
    },
    /// The register of the first operand again, not read: for idioms that make a constant (`vxorps a, a, a`).
    Same(View),
    /// Read or written, as the instruction says.
    Mem(Mem),
    /// An immediate of 8 bits.
    Imm8(u8),
    /// An immediate of 8 bits, sign-extended to the operand's 64.
    Imm8Sx(i8),
    /// An immediate of 32 bits, sign-extended to 64.
    Imm32Sx(i32),
    /// An immediate of 32 bits.
    Imm32(u32),
    /// An immediate of 64 bits.
    Imm64(u64),
}

/// A read that the encoding does not show, in a fixed register (division, high products).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fixed {
    /// Read from the register with this number.
    Use(VReg, u8),
    /// Written to it.
    Def(VReg, u8),
}

/// One instruction, or the end of a block.
#[derive(Clone, Debug, PartialEq)]
pub enum Inst {
    /// One machine instruction.
    Op {
        /// Its form.
        code: Code,
        /// Operands in encoding order.
        ops: SmallVec<[Opnd; 4]>,
        /// The write mask, and whether lanes that it leaves out become 0 (else they keep the first operand's).
        mask: Option<(VReg, bool)>,
        /// Operands that the encoding implies.
        fixed: SmallVec<[Fixed; 2]>,
    },
    /// The four parameters of the kernel, in their registers.
    Params([VReg; 4]),
    /// To another block, handing values to its parameters.
    Jump,
    /// To the first successor if the condition holds for the flags, else to the second.
    Branch(Cond),
    /// The end of the kernel.
    Return,
}

/// Conditions of jumps, `setcc` and `cmovcc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "x86's names")]
pub enum Cond {
    E,
    Ne,
    L,
    Le,
    G,
    Ge,
    B,
    Be,
    A,
    Ae,
}

impl Cond {
    /// The condition that holds when this one does not.
    pub fn inverted(self) -> Cond {
        use Cond::*;
        match self {
            E => Ne,
            Ne => E,
            L => Ge,
            Ge => L,
            G => Le,
            Le => G,
            B => Ae,
            Ae => B,
            A => Be,
            Be => A,
        }
    }

    /// The condition for exchanged operands.
    pub fn swapped(self) -> Cond {
        use Cond::*;
        match self {
            L => G,
            G => L,
            Le => Ge,
            Ge => Le,
            B => A,
            A => B,
            Be => Ae,
            Ae => Be,
            same => same,
        }
    }

    /// `jcc rel32`.
    pub fn jump(self) -> Code {
        use Cond::*;
        match self {
            E => Code::Je_rel32_64,
            Ne => Code::Jne_rel32_64,
            L => Code::Jl_rel32_64,
            Le => Code::Jle_rel32_64,
            G => Code::Jg_rel32_64,
            Ge => Code::Jge_rel32_64,
            B => Code::Jb_rel32_64,
            Be => Code::Jbe_rel32_64,
            A => Code::Ja_rel32_64,
            Ae => Code::Jae_rel32_64,
        }
    }

    /// `setcc r8`.
    pub fn set(self) -> Code {
        use Cond::*;
        match self {
            E => Code::Sete_rm8,
            Ne => Code::Setne_rm8,
            L => Code::Setl_rm8,
            Le => Code::Setle_rm8,
            G => Code::Setg_rm8,
            Ge => Code::Setge_rm8,
            B => Code::Setb_rm8,
            Be => Code::Setbe_rm8,
            A => Code::Seta_rm8,
            Ae => Code::Setae_rm8,
        }
    }

    /// `cmovcc r64, r64`.
    pub fn cmov(self) -> Code {
        use Cond::*;
        match self {
            E => Code::Cmove_r64_rm64,
            Ne => Code::Cmovne_r64_rm64,
            L => Code::Cmovl_r64_rm64,
            Le => Code::Cmovle_r64_rm64,
            G => Code::Cmovg_r64_rm64,
            Ge => Code::Cmovge_r64_rm64,
            B => Code::Cmovb_r64_rm64,
            Be => Code::Cmovbe_r64_rm64,
            A => Code::Cmova_r64_rm64,
            Ae => Code::Cmovae_r64_rm64,
        }
    }
}
