//! Instructions that CLIF cannot say, as encoded functions: CPUID, XGETBV, floating-point control, the spin-wait hint.
//!
//! Each is a leaf in the C calling convention. The tests decode the x86-64 ones with an independent disassembler.
//! Source: Intel SDM volume 2; Arm ARM, C6.2 (MRS, MSR, ISB).

use super::functions::Fun;
use target_lexicon::Architecture;

/// The floating-point control word in which kernels run: round to nearest even, denormals kept, no traps.
/// MXCSR holds the exception masks (bits 7 to 12) as well; FPCR has enable bits instead, so there all is zero.
pub fn default_fp_control(architecture: Architecture) -> u32 {
    match architecture {
        Architecture::X86_64 => 0x1f80,
        _ => 0,
    }
}

/// The bytes of a native function; `None` when it is not one, or not of this architecture.
pub fn bytes(fun: Fun, architecture: Architecture) -> Option<&'static [u8]> {
    match (architecture, fun) {
        (Architecture::X86_64, Fun::Cpuid) => Some(&[
            0x53, // push rbx                 cpuid writes it, the ABI keeps it
            0x49, 0x89, 0xd0, // mov r8, rdx
            0x89, 0xf8, // mov eax, edi
            0x89, 0xf1, // mov ecx, esi
            0x0f, 0xa2, // cpuid
            0x41, 0x89, 0x00, // mov [r8], eax
            0x41, 0x89, 0x58, 0x04, // mov [r8+4], ebx
            0x41, 0x89, 0x48, 0x08, // mov [r8+8], ecx
            0x41, 0x89, 0x50, 0x0c, // mov [r8+12], edx
            0x5b, // pop rbx
            0xc3, // ret
        ]),
        (Architecture::X86_64, Fun::Xgetbv) => Some(&[
            0x31, 0xc9, // xor ecx, ecx
            0x0f, 0x01, 0xd0, // xgetbv
            0x48, 0xc1, 0xe2, 0x20, // shl rdx, 32
            0x48, 0x09, 0xd0, // or rax, rdx
            0xc3, // ret
        ]),
        (Architecture::X86_64, Fun::FpSwap) => Some(&[
            0x89, 0x7c, 0x24, 0xf8, // mov [rsp-8], edi         in the red zone
            0x0f, 0xae, 0x5c, 0x24, 0xfc, // stmxcsr [rsp-4]
            0x0f, 0xae, 0x54, 0x24, 0xf8, // ldmxcsr [rsp-8]
            0x8b, 0x44, 0x24, 0xfc, // mov eax, [rsp-4]
            0xc3, // ret
        ]),
        (Architecture::X86_64, Fun::Pause) => Some(&[
            0xf3, 0x90, // pause
            0xc3, // ret
        ]),
        (Architecture::Aarch64(_), Fun::FpSwap) => Some(&[
            0x01, 0x44, 0x3b, 0xd5, // mrs x1, fpcr
            0x00, 0x44, 0x1b, 0xd5, // msr fpcr, x0
            0xe0, 0x03, 0x01, 0xaa, // mov x0, x1
            0xc0, 0x03, 0x5f, 0xd6, // ret
        ]),
        (Architecture::Aarch64(_), Fun::Pause) => Some(&[
            0xdf, 0x3f, 0x03, 0xd5, // isb                      waits longer than yield, which many cores ignore
            0xc0, 0x03, 0x5f, 0xd6, // ret
        ]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use iced_x86::{Decoder, DecoderOptions, Formatter, NasmFormatter};

    fn listing(fun: Fun) -> String {
        let code = bytes(fun, Architecture::X86_64).unwrap();
        let mut text = String::new();
        for instruction in Decoder::new(64, code, DecoderOptions::NONE) {
            NasmFormatter::new().format(&instruction, &mut text);
            text.push('\n');
        }
        text
    }

    #[test]
    fn x86_bytes_decode_to_what_their_comments_say() {
        assert_eq!(
            listing(Fun::Cpuid),
            "push rbx\nmov r8,rdx\nmov eax,edi\nmov ecx,esi\ncpuid\nmov [r8],eax\nmov [r8+4],ebx\nmov [r8+8],ecx\n\
             mov [r8+0Ch],edx\npop rbx\nret\n"
        );
        assert_eq!(listing(Fun::Xgetbv), "xor ecx,ecx\nxgetbv\nshl rdx,20h\nor rax,rdx\nret\n");
        assert_eq!(listing(Fun::FpSwap), "mov [rsp-8],edi\nstmxcsr [rsp-4]\nldmxcsr [rsp-8]\nmov eax,[rsp-4]\nret\n");
        assert_eq!(listing(Fun::Pause), "pause\nret\n");
    }
}
