//! What a call checks besides its result: the convention, the bounds, the forms it knows; and that a wrong meaning would show.
#![cfg(target_arch = "x86_64")]

use iced_x86::IcedError;
use iced_x86::code_asm::*;
use nncc_simulator::level::Level;
use nncc_simulator::{Access, Limits, Memory, Program, call, hardware};

/// A function from its instructions.
fn function(body: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Vec<u8> {
    let mut a = CodeAssembler::new(64).unwrap();
    body(&mut a).unwrap();
    a.assemble(0).unwrap()
}

const LIMITS: Limits = Limits { stack: 16, instructions: 100 };

/// Calls a function with the address of 64 bytes, which hold 0, 1, 2, ..; gives them afterwards.
fn run(access: Access, body: impl FnOnce(&mut CodeAssembler) -> Result<(), IcedError>) -> Result<Vec<u8>, String> {
    let program = Program::decode(&function(body)).map_err(|e| e.to_string())?;
    let mut memory = Memory::new();
    let at = memory.add((0..64).collect(), access);
    let count = call(&program, &mut memory, [at, 0, 0, 0], LIMITS).map_err(|e| e.to_string())?;
    assert!(count <= 100);
    Ok(memory.take(at))
}

#[test]
fn a_loop_runs_and_is_counted() {
    let code = function(|a| {
        let mut again = a.create_label();
        a.xor(eax, eax)?;
        a.set_label(&mut again)?;
        a.mov(dword_ptr(rdi + rax * 4), eax)?;
        a.add(rax, 1)?;
        a.cmp(rax, 7)?;
        a.jl(again)?;
        a.ret()
    });
    let mut memory = Memory::new();
    let at = memory.add(vec![0xff; 28], Access::ReadWrite);
    let count = call(&Program::decode(&code).unwrap(), &mut memory, [at, 0, 0, 0], LIMITS);
    assert_eq!(count, Ok(1 + 7 * 4 + 1));
    assert_eq!(memory.take(at), (0..7).flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
}

#[test]
fn accesses_stay_in_their_region() {
    let store = |offset: i32| run(Access::ReadWrite, |a| a.mov(dword_ptr(rdi + offset), eax).and_then(|()| a.ret()));
    assert!(store(60).is_ok());
    let beyond = "at 0x0, mov [rdi+3Dh],eax: a store of 4 bytes at 61 of region 0: 64 bytes, ReadWrite";
    assert_eq!(store(61), Err(beyond.into()));
    assert!(store(-1).is_err());
    let refused = run(Access::Read, |a| a.mov(dword_ptr(rdi), eax).and_then(|()| a.ret()));
    assert_eq!(refused, Err("at 0x0, mov [rdi],eax: a store of 4 bytes at 0 of region 0: 64 bytes, Read".into()));
    let nowhere = run(Access::Read, |a| a.mov(eax, dword_ptr(rdx)).and_then(|()| a.ret()));
    assert_eq!(nowhere, Err("at 0x0, mov eax,[rdx]: a load of 4 bytes at 0x0, where nothing is".into()));
}

/// Lanes that a mask leaves out are not touched, so that a tail may end where its memory does.
#[test]
fn masked_accesses_touch_their_lanes_alone() {
    let bytes = run(Access::ReadWrite, |a| {
        a.mov(eax, 0b101)?;
        a.kmovq(k1, rax)?;
        a.vmovups(zmm1.k1().z(), zmmword_ptr(rdi + 52))?;
        a.vmovups(zmmword_ptr(rdi + 52).k1(), zmm1)?;
        a.vmovups(xmmword_ptr(rdi), xmm1)?;
        a.vzeroupper()?;
        a.ret()
    });
    let mut want: Vec<u8> = (0..64).collect();
    want[..16].copy_from_slice(&[52, 53, 54, 55, 0, 0, 0, 0, 60, 61, 62, 63, 0, 0, 0, 0]);
    assert_eq!(bytes, Ok(want));
}

#[test]
fn the_convention_is_kept() {
    let saved = run(Access::Read, |a| a.mov(rbx, 1u64).and_then(|()| a.ret()));
    assert_eq!(saved, Err("at 0xa, ret: register 3 is not preserved".into()));
    let dirty = run(Access::Read, |a| a.vmovups(ymm3, ymmword_ptr(rdi)).and_then(|()| a.ret()));
    assert_eq!(dirty, Err("at 0x4, ret: upper parts of vector registers are left dirty".into()));
    let deep = run(Access::Read, |a| (0..3).try_for_each(|_| a.push(rax)).and_then(|()| a.ret()));
    assert!(deep.is_err_and(|e| e.starts_with("at 0x2, push rax: a store of 8 bytes")));
    let unbalanced = run(Access::Read, |a| a.push(rax).and_then(|()| a.ret()));
    assert_eq!(unbalanced, Err("at 0x1, ret: rsp is off by -8".into()));
    let endless = run(Access::Read, |a| {
        let mut again = a.create_label();
        a.set_label(&mut again)?;
        a.jmp(again)
    });
    assert_eq!(endless, Err("at 0x0, jmp short 0000010000000000h: still running after 100 instructions".into()));
}

#[test]
fn undefined_flags_are_not_read() {
    let zero_after_product = run(Access::Read, |a| {
        a.imul_2(rax, rcx)?;
        a.sete(al)?;
        a.ret()
    });
    assert_eq!(zero_after_product, Err("at 0x4, sete al: it depends on a flag that is undefined".into()));
}

#[test]
fn unknown_forms_are_named() {
    let unknown = run(Access::Read, |a| a.vpabsb(xmm1, xmm2).and_then(|()| a.ret()));
    let text = "at 0x0: the simulator does not know vpabsb xmm1,xmm2 (VEX_Vpabsb_xmm_xmmm128)";
    assert_eq!(unknown, Err(text.into()));
    let outside = Program::decode(&[0xeb, 0x10]).unwrap_err().to_string();
    assert!(outside.starts_with("at 0x12: the simulator does not know what lies outside of the code"), "{outside}");
}

#[test]
fn levels_know_their_instructions() {
    let levels = |body: fn(&mut CodeAssembler) -> Result<(), IcedError>| {
        let code = function(|a| body(a).and_then(|()| a.ret()));
        let found = nncc_simulator::program::reachable(&code, 0).unwrap();
        [Level::V1, Level::V3, Level::V4].map(|level| found.values().all(|i| level.permits(i).is_ok()))
    };
    assert_eq!(levels(|a| a.addps(xmm1, xmm2)), [true, true, true]);
    assert_eq!(levels(|a| a.vaddps(xmm1, xmm2, xmm3)), [false, true, true]);
    assert_eq!(levels(|a| a.pabsb(xmm1, xmm2)), [false, true, true]);
    // The same instruction in the encoding that has masks and registers 16 to 31.
    assert_eq!(levels(|a| a.evex().vaddps(xmm1, xmm2, xmm3)), [false, false, true]);
    assert_eq!(levels(|a| a.kmovq(k1, k2)), [false, false, true]);
    assert_eq!(levels(|a| a.vpermb(zmm1, zmm2, zmm3)), [false, false, false]);
}

/// The comparison with the CPU sees what it is for: another instruction in the simulator than on the CPU differs.
#[test]
fn a_wrong_meaning_differs_from_the_cpu() {
    type Body = fn(&mut CodeAssembler) -> Result<(), IcedError>;
    let avx2: [(Body, Body); 6] = [
        (|a| a.vminps(ymm2, ymm7, ymm1), |a| a.vminps(ymm2, ymm1, ymm7)),
        (|a| a.vfmadd231ps(ymm2, ymm7, ymm1), |a| a.vfmadd213ps(ymm7, ymm1, ymm2)),
        (|a| a.vaddps(xmm2, xmm7, xmm1), |a| a.vaddps(ymm2, ymm7, ymm1)),
        (|a| a.vmulpd(ymm2, ymm7, ymm1), |a| a.vmulpd(ymm2, ymm1, ymm7)),
        (|a| a.cmp(r9, rbx), |a| a.cmp(rbx, r9)),
        (|a| a.movzx(r9d, bl), |a| a.movsx(r9d, bl)),
    ];
    let avx512: [(Body, Body); 3] = [
        (|a| a.vaddps(zmm2.k3(), zmm7, zmm1), |a| a.vaddps(zmm2.k3().z(), zmm7, zmm1)),
        (|a| a.vblendmps(zmm2.k3(), zmm7, zmm1), |a| a.vblendmps(zmm2.k3(), zmm1, zmm7)),
        (|a| a.vcmpps(k3.k5(), zmm7, zmm1, 1), |a| a.vcmpps(k3.k5(), zmm7, zmm1, 2)),
    ];
    let mut checked = 0;
    for (here, there) in avx2.into_iter().chain(avx512) {
        let [here, there] = [here, there].map(function);
        match hardware::differ(&here, &there) {
            None => println!("skipped: this CPU lacks it"),
            Some(differ) => {
                assert!(differ, "{here:02x?} and {there:02x?} look the same");
                assert_eq!(hardware::differ(&here, &here), Some(false), "{here:02x?}");
                checked += 1;
            }
        }
    }
    println!("{checked} of 9 pairs");
}
