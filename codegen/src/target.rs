//! What code is compiled for: the triple, the CPU level, and the numbers templates choose their tiles by.
//!
//! A target is a plain description: everything chosen from it is reproducible. Only [`Target::host`] (`--target-cpu native`)
//! looks at the machine it runs on.

use crate::kir::Elem;
use target_lexicon::{Architecture, Triple};

/// The instruction set a kernel may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Level {
    /// x86-64-v1: SSE2, 16 registers of 128 bits, no FMA.
    X86V1,
    /// x86-64-v3: AVX2 and FMA, 16 registers of 256 bits.
    X86V3,
    /// x86-64-v4: AVX-512 F, VL, BW, DQ; 32 registers of 512 bits, masks.
    X86V4,
    /// AArch64 with NEON: 32 registers of 128 bits, FMA.
    Aarch64,
}

impl Level {
    /// The name that `--target-cpu` takes for it.
    pub fn name(self) -> &'static str {
        match self {
            Level::X86V1 => "x86-64",
            Level::X86V3 => "x86-64-v3",
            Level::X86V4 => "x86-64-v4",
            Level::Aarch64 => "generic",
        }
    }

    /// The width of a vector register.
    pub fn vector_bits(self) -> usize {
        match self {
            Level::X86V1 | Level::Aarch64 => 128,
            Level::X86V3 => 256,
            Level::X86V4 => 512,
        }
    }
}

/// One machine to compile for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Architecture, operating system, object format.
    pub triple: Triple,
    /// The instructions that may be used.
    pub level: Level,
    /// The width of a vector register.
    pub vector_bits: usize,
    /// How many there are.
    pub vector_regs: usize,
    /// Is `MulAdd` one rounding?
    pub fma: bool,
    /// Can kernels ask for memory ahead? Cranelift, which serves the 128-bit levels, cannot.
    pub prefetches: bool,
    /// Bytes of first-level data cache.
    pub l1d: usize,
    /// Bytes of second-level cache, of one core.
    pub l2: usize,
    /// Bytes of last-level cache; 0 when there is none beyond the second.
    pub l3: usize,
}

/// Why a target could not be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// No backend for it.
    #[error("unsupported architecture {0}; nncc compiles for x86_64 and aarch64")]
    Architecture(String),
    /// Not a name that `--target-cpu` knows.
    #[error("unknown CPU {cpu:?} for {arch}; known: {known}")]
    Cpu {
        /// As given.
        cpu: String,
        /// Of the triple.
        arch: String,
        /// What could have been given.
        known: String,
    },
    /// `native` for a triple that is not the host's.
    #[error("--target-cpu native means this machine, but the target is {0}")]
    NotHost(String),
}

/// Names of CPUs and the level and caches they stand for: L1d, L2 of one core, L3, in KiB.
/// Level names get the caches of the common cores of that level: of x86-64-v3 those of Zen 2 and 3, which have less than the
/// Intel cores since Alder Lake.
const CPUS: &[(&str, Level, usize, usize, usize)] = &[
    ("x86-64", Level::X86V1, 32, 256, 4096),
    ("x86-64-v2", Level::X86V1, 32, 256, 4096),
    ("x86-64-v3", Level::X86V3, 32, 512, 16384),
    ("haswell", Level::X86V3, 32, 256, 8192),
    ("skylake", Level::X86V3, 32, 256, 8192),
    ("znver1", Level::X86V3, 32, 512, 8192),
    ("znver2", Level::X86V3, 32, 512, 16384),
    ("znver3", Level::X86V3, 32, 512, 32768),
    ("alderlake", Level::X86V3, 48, 1280, 30720),
    ("x86-64-v4", Level::X86V4, 32, 1024, 16384),
    ("skylake-avx512", Level::X86V4, 32, 1024, 16384),
    ("icelake-server", Level::X86V4, 48, 1280, 49152),
    ("sapphirerapids", Level::X86V4, 48, 2048, 49152),
    ("znver4", Level::X86V4, 32, 1024, 32768),
    ("znver5", Level::X86V4, 48, 1024, 32768),
    ("generic", Level::Aarch64, 32, 512, 2048),
    ("cortex-a72", Level::Aarch64, 32, 1024, 0),
    ("cortex-a76", Level::Aarch64, 64, 512, 4096),
    ("neoverse-n1", Level::Aarch64, 64, 1024, 32768),
    ("neoverse-v1", Level::Aarch64, 64, 1024, 32768),
    ("neoverse-n2", Level::Aarch64, 64, 1024, 32768),
    ("apple-m1", Level::Aarch64, 128, 3072, 8192),
];

impl Target {
    /// The target of a level, with caches that suit its common cores.
    pub fn of_level(triple: Triple, level: Level) -> Target {
        let &(_, _, l1d, l2, l3) =
            CPUS.iter().find(|&&(name, l, ..)| l == level && name == level.name()).expect("each level is named");
        Target::new(triple, level, l1d * 1024, l2 * 1024, l3 * 1024)
    }

    fn new(triple: Triple, level: Level, l1d: usize, l2: usize, l3: usize) -> Target {
        let (vector_regs, fma) = match level {
            Level::X86V1 => (16, false),
            Level::X86V3 => (16, true),
            Level::X86V4 | Level::Aarch64 => (32, true),
        };
        let prefetches = matches!(level, Level::X86V3 | Level::X86V4);
        Target { triple, level, vector_bits: level.vector_bits(), vector_regs, fma, prefetches, l1d, l2, l3 }
    }

    /// x86-64 Linux at its baseline.
    pub fn x86_64_v1() -> Target {
        Target::of_level(linux(Architecture::X86_64), Level::X86V1)
    }

    /// x86-64 Linux with AVX2 and FMA.
    pub fn x86_64_v3() -> Target {
        Target::of_level(linux(Architecture::X86_64), Level::X86V3)
    }

    /// x86-64 Linux with AVX-512.
    pub fn x86_64_v4() -> Target {
        Target::of_level(linux(Architecture::X86_64), Level::X86V4)
    }

    /// AArch64 Linux.
    pub fn aarch64() -> Target {
        Target::of_level(linux(aarch64_arch()), Level::Aarch64)
    }

    /// What `--target TRIPLE --target-cpu CPU` means. `native` is this machine; `generic` the baseline of the architecture.
    ///
    /// # Errors
    /// An architecture that no backend compiles for, or a CPU name that is not known for it.
    pub fn parse(triple: &Triple, cpu: &str) -> Result<Target, TargetError> {
        let levels = Target::levels(triple)?;
        match cpu {
            "native" if triple.architecture == Triple::host().architecture => {
                return Ok(Target { triple: triple.clone(), ..Target::host()? });
            }
            "native" => return Err(TargetError::NotHost(triple.to_string())),
            "generic" => return Ok(Target::of_level(triple.clone(), levels[0])),
            _ => {}
        }
        let known = || CPUS.iter().filter(|(_, l, ..)| levels.contains(l));
        match known().find(|(name, ..)| *name == cpu) {
            Some(&(_, level, l1d, l2, l3)) => Ok(Target::new(triple.clone(), level, l1d * 1024, l2 * 1024, l3 * 1024)),
            None => Err(TargetError::Cpu {
                cpu: cpu.into(),
                arch: triple.architecture.to_string(),
                known: known().map(|(name, ..)| *name).chain(["native"]).collect::<Vec<_>>().join(", "),
            }),
        }
    }

    /// The levels of an architecture, the baseline first: what a library carries when no CPU is named.
    ///
    /// # Errors
    /// An architecture that no backend compiles for.
    pub fn levels(triple: &Triple) -> Result<&'static [Level], TargetError> {
        match triple.architecture {
            Architecture::X86_64 => Ok(&[Level::X86V1, Level::X86V3, Level::X86V4]),
            Architecture::Aarch64(_) => Ok(&[Level::Aarch64]),
            other => Err(TargetError::Architecture(other.to_string())),
        }
    }

    /// This machine: the best level that it has, and its caches where it tells them.
    ///
    /// # Errors
    /// When it is of an architecture that no backend compiles for.
    pub fn host() -> Result<Target, TargetError> {
        let triple = Triple::host();
        let levels = Target::levels(&triple)?;
        let level = levels.iter().copied().rev().find(|&l| host_has(l)).unwrap_or(levels[0]);
        let named = Target::of_level(triple, level);
        Ok(match host_caches() {
            Some([l1d, l2, l3]) => Target { l1d, l2, l3, ..named },
            None => named,
        })
    }

    /// How many lanes of an element fill a vector register.
    pub fn lanes(&self, elem: Elem) -> usize {
        self.vector_bits / elem.bits()
    }
}

fn linux(architecture: Architecture) -> Triple {
    use target_lexicon::{BinaryFormat, Environment, OperatingSystem, Vendor};
    Triple {
        architecture,
        vendor: Vendor::Unknown,
        operating_system: OperatingSystem::Linux,
        environment: Environment::Gnu,
        binary_format: BinaryFormat::Elf,
    }
}

fn aarch64_arch() -> Architecture {
    Architecture::Aarch64(target_lexicon::Aarch64Architecture::Aarch64)
}

/// Can this machine run code of that level?
pub fn host_has(level: Level) -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use std::is_x86_feature_detected as has;
        let v3 = || {
            has!("avx2")
                && has!("fma")
                && has!("bmi1")
                && has!("bmi2")
                && has!("lzcnt")
                && has!("movbe")
                && has!("f16c")
        };
        match level {
            Level::X86V1 => true,
            Level::X86V3 => v3(),
            Level::X86V4 => {
                v3() && has!("avx512f") && has!("avx512vl") && has!("avx512bw") && has!("avx512dq") && has!("avx512cd")
            }
            Level::Aarch64 => false,
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        cfg!(target_arch = "aarch64") && level == Level::Aarch64
    }
}

/// L1d, L2 and L3 in bytes from CPUID's deterministic cache leaf (Intel 4, AMD 0x8000_001D).
fn host_caches() -> Option<[usize; 3]> {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{__cpuid, __cpuid_count};
        let amd = __cpuid(0).ecx == u32::from_le_bytes(*b"cAMD");
        let leaf = if amd { 0x8000_001D } else { 4 };
        let last = __cpuid(leaf & 0x8000_0000).eax;
        if last < leaf {
            return None;
        }
        let mut sizes = [0; 3];
        for sub in 0..8 {
            let r = __cpuid_count(leaf, sub);
            let (kind, level) = (r.eax & 31, (r.eax >> 5 & 7) as usize);
            match kind {
                0 => break,
                // 1 data, 3 unified; 2 is instructions.
                1 | 3 if (1..=3).contains(&level) => {
                    let field = |shift: u32, bits: u32| (r.ebx >> shift & ((1 << bits) - 1)) as usize + 1;
                    sizes[level - 1] = field(22, 10) * field(12, 10) * field(0, 12) * (r.ecx as usize + 1);
                }
                _ => {}
            }
        }
        (sizes[0] > 0 && sizes[1] > 0).then_some(sizes)
    }
    #[cfg(not(target_arch = "x86_64"))]
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_names_give_levels_and_widths() {
        let x86 = linux(Architecture::X86_64);
        let parse = |cpu| Target::parse(&x86, cpu).map(|t| (t.level, t.vector_bits, t.vector_regs, t.fma));
        assert_eq!(parse("x86-64"), Ok((Level::X86V1, 128, 16, false)));
        assert_eq!(parse("generic"), Ok((Level::X86V1, 128, 16, false)));
        assert_eq!(parse("znver3"), Ok((Level::X86V3, 256, 16, true)));
        assert_eq!(parse("x86-64-v4"), Ok((Level::X86V4, 512, 32, true)));
        assert_eq!(Target::x86_64_v4().lanes(Elem::F32), 16);
        let arm = Target::parse(&linux(aarch64_arch()), "neoverse-n1").unwrap();
        assert_eq!((arm.level, arm.lanes(Elem::F64)), (Level::Aarch64, 2));
    }

    #[test]
    fn unknown_cpus_are_refused_with_the_known_ones() {
        let e = Target::parse(&linux(aarch64_arch()), "znver3").unwrap_err();
        assert_eq!(
            e.to_string(),
            "unknown CPU \"znver3\" for aarch64; known: generic, cortex-a72, cortex-a76, neoverse-n1, neoverse-v1, \
             neoverse-n2, apple-m1, native"
        );
        let riscv = Triple { architecture: "riscv64gc".parse().unwrap(), ..linux(Architecture::X86_64) };
        assert_eq!(
            Target::parse(&riscv, "generic").unwrap_err().to_string(),
            "unsupported architecture riscv64gc; nncc compiles for x86_64 and aarch64"
        );
    }

    #[test]
    fn host_is_its_own_target() {
        let host = Target::host().unwrap();
        assert!(host_has(host.level));
        assert!(host.l1d >= 8 * 1024 && host.l2 >= host.l1d, "{host:?}");
    }
}
