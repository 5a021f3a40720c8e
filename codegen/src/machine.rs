//! Programs that reach a machine's limits: what a profile divides by.
//!
//! A percentage of a data sheet's peak says little: clocks differ, a virtual machine shares its caches. So the peak is
//! measured where the network ran, by code that the same backends made for the same CPU level. [`probes`] gives an ordinary
//! [`Program`] without inputs, whose steps are the probes; whoever runs it times its steps, several times, and keeps the best.
//!
//! ```text
//! fma       for each of n accumulators: c[k] += c[k+1] * 0     n covers two FMA pipes x their latency; no memory
//! read L1   sum of a thread's own half of L1, again and again
//! read L2   the same for sqrt(L1 * L2) bytes: well beyond the one, well within the other
//! read L3   the same for sqrt(L2 * L3) bytes, which the threads share; none where there is no L3
//! memory    a buffer of four times the last cache, once, part by part: nothing of the last round is left in it
//! ```
//!
//! The multiplicand of an accumulator is its neighbour, so that no product is the same in two rounds and could be computed
//! once: without FMA (x86-64-v1) a multiplication and an addition are what is measured. Numbers are 1 throughout: no
//! denormals, no infinities.
//!
//! Steps are short, so that on a busy machine some run undisturbed; that is why memory is read in parts, of which the best
//! counts too.
//!
//! Limits: reads only, in sequence; a mix with writes is slower on most machines. The sizes come from the target, so a
//! target whose caches are guessed measures something in between.

use crate::kir::{ArgDecl, BinaryOp, Builder, Elem, Kernel, Type};
use crate::program::{
    Arg, Const, ConstData, ConstId, KernelId, LevelPlan, MAX_ALIGN, Port, Program, ProgramKernel, Purpose,
};
use crate::program::{ShapeSet, Step};
use crate::target::Target;
use nncc_ir::DType;

/// What a step of the program measures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Multiply-adds, as many FLOPs as the step says (two each).
    Compute,
    /// Reads from a level of the memory hierarchy.
    Read {
        /// `L1`, `L2`, `L3` or `memory`.
        level: &'static str,
        /// What the level holds, for all threads; none for memory.
        capacity: Option<usize>,
    },
}

/// FLOPs of a thread in the compute probe: 1 ms at 130 GFLOP/s.
const FLOPS: usize = 1 << 27;

/// Bytes that a thread reads in a cache's probe at least: half a millisecond at 130 GB/s.
const READ_BYTES: usize = 1 << 26;

/// Parts of the buffer in memory, each a step: 4 MiB of the smallest buffer.
const PARTS: usize = 16;

/// Bounds of the buffer in memory: beyond any cache that a core has to itself, and within what a small machine can spare.
const MEMORY_BYTES: (usize, usize) = (64 << 20, 512 << 20);

/// Accumulators of a read: loads keep two ports busy only if the additions behind them overlap.
const STREAMS: usize = 8;

/// Rounds of multiply-adds between two branches.
const UNROLL: usize = 4;

/// The program for a target on some threads, and what each of its steps measures.
pub fn probes(target: &Target, threads: u32) -> (Program, Vec<Probe>) {
    let threads = threads.max(1) as usize;
    let vector = target.vector_bits / 8;
    let between = |a: usize, b: usize| (a as f64 * b as f64).sqrt() as usize;
    let last = target.l2.max(target.l3);
    let buffer = (4 * last).clamp(MEMORY_BYTES.0, MEMORY_BYTES.1) / (PARTS * MAX_ALIGN) * (PARTS * MAX_ALIGN);
    // A thread's region of the buffer, a whole number of rounds.
    let round = vector * STREAMS;
    let region = |bytes: usize| (bytes.min(buffer / threads) / round).max(1) * round;

    let mut reads = vec![
        ("L1", Some(target.l1d * threads), region(target.l1d / 2)),
        ("L2", Some(target.l2 * threads), region(between(target.l1d, target.l2))),
    ];
    if target.l3 > target.l2 {
        // Shared, but each part is still larger than what a thread's own cache keeps.
        let share = (between(target.l2, target.l3) / threads).max(2 * target.l2);
        reads.push(("L3", Some(target.l3), region(share)));
    }
    reads.push(("memory", None, region(buffer / PARTS / threads)));

    let mut probes = vec![Probe::Compute];
    let mut kernels = vec![multiply_adds(target)];
    let per_round = 2 * UNROLL * accumulators(target) * target.lanes(Elem::F32);
    let mut steps = vec![step("fma", 0, threads, Arg::Const(ConstId(0), 0))];
    steps[0].macs = (FLOPS / per_round * per_round / 2 * threads) as u64;
    for (level, capacity, region) in reads {
        let times = if capacity.is_none() { 1 } else { READ_BYTES.div_ceil(region) };
        kernels.push(read(target, level, region, times));
        for part in 0..if capacity.is_none() { PARTS } else { 1 } {
            let at = Arg::Const(ConstId(1), part * (buffer / PARTS));
            steps
                .push(Step { bytes: (region * times * threads) as u64, ..step(level, kernels.len() - 1, threads, at) });
            probes.push(Probe::Read { level, capacity });
        }
    }

    let ones: Vec<u8> = 1f32.to_le_bytes().repeat(MAX_ALIGN / 4);
    let program = Program {
        name: "machine".into(),
        targets: vec![target.clone()],
        consts: vec![
            Const { data: vec![0; MAX_ALIGN].into(), align: MAX_ALIGN },
            Const { data: ConstData::Splat { pattern: ones.into(), count: buffer / MAX_ALIGN }, align: MAX_ALIGN },
        ],
        kernels: kernels.into_iter().map(|ir| ProgramKernel { level: target.level, ir }).collect(),
        states: vec![],
        sets: vec![ShapeSet {
            purpose: Purpose::Infer,
            inputs: vec![],
            outputs: vec![Port { name: "sums".into(), dtype: DType::F32, shape: vec![threads] }],
            levels: vec![LevelPlan { level: target.level, steps, arena_bytes: 0, scratch_bytes: 0 }],
        }],
    };
    (program, probes)
}

/// One task a thread; what each computed goes into the output, lest a kernel that computes nothing be none.
fn step(name: &str, kernel: usize, threads: usize, operand: Arg) -> Step {
    let args = vec![operand, Arg::Output(0, 0)];
    Step::bare(name, "probe", KernelId(kernel as u32), args, threads as u64)
}

/// As many as the registers hold beside the factor and a product: at least 12, where 2 pipes x 4 or 5 cycles want 10.
fn accumulators(target: &Target) -> usize {
    if target.vector_regs >= 32 { 24 } else { 12 }
}

fn multiply_adds(target: &Target) -> Kernel {
    let (lanes, count) = (target.lanes(Elem::F32), accumulators(target));
    let ty = Type::of(Elem::F32, lanes);
    let mut b = Builder::new("fma", vec![ArgDecl::read("factor", 64), ArgDecl::write("sums", 4)]);
    let (factor, sums) = (b.arg(0), b.arg(1));
    let one = b.float(ty, 1.0);
    b.tasks(|b, task| {
        let factor = b.load(ty, factor.at(0));
        let rounds = FLOPS / (2 * UNROLL * count * lanes);
        let c = b.loop_(0, rounds, 1, &vec![one; count], |b, _, c| {
            let mut c = c.to_vec();
            for k in (0..UNROLL).flat_map(|_| 0..count) {
                c[k] = b.mul_add(c[(k + 1) % count], factor, c[k]);
            }
            c
        });
        store_sum(b, sums.at(0).idx(task, 4), &c);
    });
    b.finish()
}

/// Reads `region` bytes of its own `times` over, for each task.
fn read(target: &Target, level: &str, region: usize, times: usize) -> Kernel {
    let (ty, vector) = (Type::of(Elem::F32, target.lanes(Elem::F32)), target.vector_bits / 8);
    let mut b = Builder::new(format!("read_{level}"), vec![ArgDecl::read("x", 64), ArgDecl::write("sums", 4)]);
    let (x, sums) = (b.arg(0), b.arg(1));
    let zero = b.zero(ty);
    b.tasks(|b, task| {
        let x = b.ptr(x.at(0).idx(task, region));
        let s = b.loop_(0, times, 1, &[zero; STREAMS], |b, _, s| {
            b.loop_(0, region / vector, STREAMS as i64, s, |b, i, s| {
                let add = |(k, &s): (usize, &_)| {
                    let v = b.load(ty, x.at((k * vector) as i64).idx(i, vector));
                    b.add(s, v)
                };
                s.iter().enumerate().map(add).collect()
            })
        });
        store_sum(b, sums.at(0).idx(task, 4), &s);
    });
    b.finish()
}

fn store_sum(b: &mut Builder, place: crate::kir::Addr, vectors: &[crate::kir::Value]) {
    let sum = vectors[1..].iter().fold(vectors[0], |sum, &v| b.add(sum, v));
    let sum = b.reduce(BinaryOp::FAdd, sum);
    b.store(place, sum);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::for_target;
    use crate::kir::verify;
    use crate::testing::targets;

    #[test]
    fn probes_are_programs_of_every_level() {
        for target in targets() {
            for threads in [0, 1, 2, 3, 64] {
                let (program, probes) = probes(&target, threads);
                program.verify().unwrap();
                let steps = &program.sets[0].levels[0].steps;
                assert_eq!(probes.len(), steps.len());
                let buffer = program.consts[1].data.len() as u64;
                for (probe, step) in probes.iter().zip(steps) {
                    verify::verify(&program.kernels[step.kernel.0 as usize].ir).unwrap();
                    match probe {
                        Probe::Compute => assert!(step.macs > 0 && step.bytes == 0),
                        // The parts of all threads lie in the buffer and nearly fill it.
                        Probe::Read { capacity: None, .. } => {
                            let Arg::Const(_, at) = step.args[0] else { panic!("{step:?}") };
                            assert!(at as u64 + step.bytes <= buffer, "{at} and {} of {buffer}", step.bytes);
                            assert!(step.bytes > buffer / PARTS as u64 / 10 * 9, "{} of {buffer}", step.bytes);
                        }
                        Probe::Read { .. } => assert!(step.bytes as usize >= READ_BYTES),
                    }
                }
            }
        }
    }

    /// What makes the peak a peak: the inner loop holds the multiply-adds, the loop's own instructions and nothing else.
    #[test]
    fn the_compute_probe_neither_spills_nor_copies() {
        for target in [Target::x86_64_v3(), Target::x86_64_v4()] {
            let kernel = multiply_adds(&target);
            let listing = for_target(&target).unwrap().listing(&kernel, &target).unwrap();
            let fmas = listing.matches("vfmadd").count();
            assert_eq!(fmas, UNROLL * accumulators(&target), "{listing}");
            let lines: Vec<&str> = listing.lines().collect();
            let first = lines.iter().position(|l| l.contains("vfmadd")).unwrap();
            let last = lines.iter().rposition(|l| l.contains("vfmadd")).unwrap();
            assert_eq!(last - first + 1, fmas, "{listing}");
        }
    }
}
