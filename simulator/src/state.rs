//! The registers: general-purpose, vector, opmask, flags.

/// A vector register: a zmm, whose low halves are the ymm and xmm of the same number. Lanes are little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Vector(pub [u8; 64]);

impl Vector {
    /// All bits zero.
    pub const ZERO: Vector = Vector([0; 64]);

    /// One lane.
    #[inline(always)]
    pub fn lane<T: Lane>(&self, i: usize) -> T {
        T::load(&self.0[i * T::BYTES..])
    }

    /// Sets one lane.
    #[inline(always)]
    pub fn set_lane<T: Lane>(&mut self, i: usize, x: T) {
        x.store(&mut self.0[i * T::BYTES..]);
    }

    /// The bits of a lane of `bytes`, zero-extended.
    pub fn bits(&self, bytes: usize, i: usize) -> u64 {
        let mut word = [0; 8];
        word[..bytes].copy_from_slice(&self.0[i * bytes..][..bytes]);
        u64::from_le_bytes(word)
    }

    /// Sets the bits of a lane of `bytes`.
    pub fn set_bits(&mut self, bytes: usize, i: usize, x: u64) {
        self.0[i * bytes..][..bytes].copy_from_slice(&x.to_le_bytes()[..bytes]);
    }
}

/// The bits of a lane.
pub trait Lane: Copy + PartialEq {
    /// Its size.
    const BYTES: usize;

    /// From the beginning of a slice.
    fn load(bytes: &[u8]) -> Self;

    /// To the beginning of a slice.
    fn store(self, bytes: &mut [u8]);
}

macro_rules! lanes {
    ($($ty:ty)*) => {
        $(impl Lane for $ty {
            const BYTES: usize = size_of::<$ty>();

            #[inline(always)]
            fn load(bytes: &[u8]) -> Self {
                let mut own = [0; size_of::<$ty>()];
                own.copy_from_slice(&bytes[..size_of::<$ty>()]);
                <$ty>::from_le_bytes(own)
            }

            #[inline(always)]
            fn store(self, bytes: &mut [u8]) {
                bytes[..size_of::<$ty>()].copy_from_slice(&self.to_le_bytes());
            }
        })*
    };
}

lanes!(u8 u16 u32 u64);

/// The status flags that conditions read. Some instructions leave some undefined: to depend on one of those is an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flags {
    /// See the constants.
    pub value: u8,
    /// Which of them mean something.
    pub defined: u8,
}

impl Flags {
    /// Carry.
    pub const CF: u8 = 1;
    /// Even parity of the low byte.
    pub const PF: u8 = 2;
    /// Zero.
    pub const ZF: u8 = 4;
    /// Sign.
    pub const SF: u8 = 8;
    /// Signed overflow.
    pub const OF: u8 = 16;
    /// All of them.
    pub const ALL: u8 = 31;

    /// All defined.
    pub fn new(value: u8) -> Flags {
        Flags { value, defined: Flags::ALL }
    }

    /// Their places in the `rflags` register.
    pub const RFLAGS: [(u8, u64); 5] =
        [(Flags::CF, 1), (Flags::PF, 1 << 2), (Flags::ZF, 1 << 6), (Flags::SF, 1 << 7), (Flags::OF, 1 << 11)];
}

/// All registers.
#[derive(Clone, Debug)]
pub struct State {
    /// By number: rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8 to r15.
    pub gpr: [u64; 16],
    /// By number.
    pub vector: [Vector; 32],
    /// By number.
    pub mask: [u64; 8],
    /// See [`Flags`].
    pub flags: Flags,
    /// Whether the upper parts of registers 0 to 15 were written since the last `vzeroupper`.
    pub dirty: bool,
}

/// The number of the stack pointer.
pub const RSP: usize = 4;
/// What a callee must preserve: rbx, rbp, r12 to r15.
pub const CALLEE_SAVED: [usize; 6] = [3, 5, 12, 13, 14, 15];

impl State {
    /// Registers as a caller may leave them: nothing in them means anything.
    pub fn unspecified() -> State {
        let gpr = std::array::from_fn(|i| 0xdead_beef_0000_0000 | i as u64);
        // Of a caller that keeps to the convention the upper parts are zero.
        let mut vector = [Vector([0xff; 64]); 32];
        vector[..16].iter_mut().for_each(|v| v.0[16..].fill(0));
        State { gpr, vector, mask: [0xaaaa_5555_aaaa_5555; 8], flags: Flags { value: 0, defined: 0 }, dirty: false }
    }
}
