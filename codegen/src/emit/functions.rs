//! The functions of an emitted library: which there are, their signatures, and what is imported.
//!
//! | kind | linkage |
//! |---|---|
//! | [`Fun::Entry`] | the C ABI; local here, exported under its public names by the object writer, so that no call within a library can be interposed |
//! | imports | the few libc functions below; none in a freestanding library |
//! | [native](super::native) | instructions CLIF cannot say, as encoded bytes |
//! | the rest | internal |

use super::EmitError;
use super::abi::{self, C, Entry};
use cranelift_codegen::ir::{AbiParam, Signature, Type, types::I32, types::I64};
use cranelift_module::{FuncId, Linkage, Module};
use rustc_hash::FxHashMap;

/// Every function that emitted code calls or defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fun {
    /// A function of the C ABI.
    Entry(Entry),
    /// `<model>_run`: the typed convenience function.
    TypedRun,

    /// `void *malloc(size_t)`.
    Malloc,
    /// `void free(void *)`.
    Free,
    /// `int pthread_create(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *)`.
    PthreadCreate,
    /// `int pthread_join(pthread_t, void **)`.
    PthreadJoin,
    /// `int pthread_sigmask(int, const sigset_t *, sigset_t *)`.
    PthreadSigmask,
    /// `long syscall(long, ...)`: for futex, which has no wrapper, and madvise, which not every libc has.
    Syscall,
    /// `int clock_gettime(clockid_t, struct timespec *)`.
    ClockGettime,

    /// `void cpuid(u32 leaf, u32 subleaf, u32 out[4])`.
    Cpuid,
    /// `u64 xgetbv()`: XCR0.
    Xgetbv,
    /// `u32 fp_swap(u32 control) -> former control`: MXCSR or FPCR.
    FpSwap,
    /// `void pause()`: the spin-wait hint.
    Pause,

    /// All kernels, one after the other; called through offsets, never as one function.
    Kernels,
    /// `i32 pick_level(u32 max_level) -> level index or -1`.
    PickLevel,
    /// `u64 set_bytes(u64 set, u64 threads)`: workspace of a set, at its greediest level.
    SetBytes,
    /// `i32 fail(ctx, i32 code, const char *message)`: notes a failure.
    Fail,
    /// `i32 describe(port, nncc_tensor *out)`.
    Describe,
    /// `u32 shape_equal(port, const nncc_tensor *)`.
    ShapeEqual,
    /// `i32 match_set(const nncc_tensor *inputs, count, const nncc_tensor *outputs or null, count)`: set or -1.
    MatchSet,
    /// `i32 enter(ctx)`: checks a context and takes it.
    Enter,
    /// `i32 bind(ctx, ports, count, void *const *pointers, first base)`.
    Bind,
    /// `i32 bind_tensors(ctx, ports, count, const nncc_tensor *, first base)`.
    BindTensors,
    /// `i32 check_dtypes(ctx, ports, count, const nncc_tensor *)`.
    CheckDtypes,
    /// `i32 shape_failure(ctx, inputs, count, outputs, count)`: finds the tensor to blame.
    ShapeFailure,
    /// `i32 execute(ctx, u64 set)`: the step loop.
    Execute,
    /// `i64 find_state(const char *name)`: its row in the tables, or 0.
    FindState,
    /// `i32 check_block(ctx, const void *block, u64 bytes)`: whether it is a block of this library's states.
    CheckBlock,
    /// `void copy(void *to, const void *from, u64 bytes)`: at any addresses.
    Copy,
    /// `i32 trace(ctx, step, args, start, set and index)`: calls the hook.
    Trace,
    /// `u64 now(ctx)`: nanoseconds.
    Now,
    /// `void parallel(ctx)`: does the job on all threads.
    Parallel,
    /// `void part(ctx, u64 index)`: one thread's share of the job.
    Part,
    /// `void task(ctx, u32 index)`: a share, as the caller's `parallel_for` calls it.
    Task,
    /// `void *worker(record)`: a pool thread.
    Worker,
    /// `void stop(ctx)`: ends the pool.
    Stop,
    /// `void futex_wait(u32 *, u32 expected)`.
    FutexWait,
    /// `void futex_wake(u32 *, u32 count)`.
    FutexWake,
}

/// Imported functions and their symbols. Every libc has them.
pub const IMPORTS: [(Fun, &str); 7] = [
    (Fun::Malloc, "malloc"),
    (Fun::Free, "free"),
    (Fun::PthreadCreate, "pthread_create"),
    (Fun::PthreadJoin, "pthread_join"),
    (Fun::PthreadSigmask, "pthread_sigmask"),
    (Fun::Syscall, "syscall"),
    (Fun::ClockGettime, "clock_gettime"),
];

/// What a library imports.
pub fn imports(freestanding: bool) -> &'static [(Fun, &'static str)] {
    if freestanding { &[] } else { &IMPORTS }
}

/// Internal functions with parameter and result types.
const INTERNAL: [(Fun, &[Type], Option<Type>); 29] = [
    (Fun::Cpuid, &[I32, I32, I64], None),
    (Fun::Xgetbv, &[], Some(I64)),
    (Fun::FpSwap, &[I32], Some(I32)),
    (Fun::Pause, &[], None),
    (Fun::Kernels, &[], None),
    (Fun::PickLevel, &[I32], Some(I32)),
    (Fun::SetBytes, &[I64, I64], Some(I64)),
    (Fun::Fail, &[I64, I32, I64], Some(I32)),
    (Fun::Describe, &[I64, I64], Some(I32)),
    (Fun::ShapeEqual, &[I64, I64], Some(I32)),
    (Fun::MatchSet, &[I64, I64, I64, I64], Some(I32)),
    (Fun::Enter, &[I64], Some(I32)),
    (Fun::Bind, &[I64, I64, I64, I64, I64], Some(I32)),
    (Fun::BindTensors, &[I64, I64, I64, I64, I64], Some(I32)),
    (Fun::CheckDtypes, &[I64, I64, I64, I64], Some(I32)),
    (Fun::ShapeFailure, &[I64, I64, I64, I64, I64], Some(I32)),
    (Fun::Execute, &[I64, I64], Some(I32)),
    (Fun::FindState, &[I64], Some(I64)),
    (Fun::CheckBlock, &[I64, I64, I64], Some(I32)),
    (Fun::Copy, &[I64, I64, I64], None),
    (Fun::Trace, &[I64, I64, I64, I64, I64], Some(I32)),
    (Fun::Now, &[I64], Some(I64)),
    (Fun::Parallel, &[I64], None),
    (Fun::Part, &[I64, I64], None),
    (Fun::Task, &[I64, I32], None),
    (Fun::Worker, &[I64], Some(I64)),
    (Fun::Stop, &[I64], None),
    (Fun::FutexWait, &[I64, I32], None),
    (Fun::FutexWake, &[I64, I32], None),
];

/// Types of the imports, in the order of [`IMPORTS`].
const IMPORT_TYPES: [(&[Type], Option<Type>); 7] = [
    (&[I64], Some(I64)),
    (&[I64], None),
    (&[I64, I64, I64, I64], Some(I32)),
    (&[I64, I64], Some(I32)),
    (&[I32, I64, I64], Some(I32)),
    // Variadic in C. Integer arguments are passed alike by both ABIs; x86-64's AL (vector registers used) may hold
    // anything up to 255 by what libc's implementations read of it: none is passed in a vector register.
    (&[I64, I64, I64, I64, I64], Some(I64)),
    (&[I32, I64], Some(I32)),
];

/// A signature in the target's C calling convention.
pub fn signature(module: &dyn Module, params: &[Type], ret: Option<Type>) -> Signature {
    let mut signature = module.make_signature();
    signature.params.extend(params.iter().map(|&ty| AbiParam::new(ty)));
    signature.returns.extend(ret.map(AbiParam::new));
    signature
}

/// The declared functions of a module.
pub struct Functions {
    ids: FxHashMap<Fun, (FuncId, Signature)>,
}

impl Functions {
    /// Declares what a library has. `typed` is the parameter count of the typed convenience function, if there is one.
    /// `learns` is whether the model has states.
    pub fn declare(
        module: &mut dyn Module,
        freestanding: bool,
        learns: bool,
        typed: Option<usize>,
    ) -> Result<Functions, EmitError> {
        let mut ids = FxHashMap::default();
        let mut add = |module: &mut dyn Module, fun, name: &str, linkage, params: &[Type], ret| {
            let signature = signature(module, params, ret);
            let id = module.declare_function(name, linkage, &signature)?;
            ids.insert(fun, (id, signature));
            Ok::<(), EmitError>(())
        };
        if !freestanding {
            for ((fun, name), (params, ret)) in IMPORTS.into_iter().zip(IMPORT_TYPES) {
                add(module, fun, name, Linkage::Import, params, ret)?;
            }
        }
        for (fun, params, ret) in INTERNAL {
            let needs_threads = matches!(fun, Fun::Worker | Fun::Stop | Fun::FutexWait | Fun::FutexWake | Fun::Pause);
            let x86_only = matches!(fun, Fun::Cpuid | Fun::Xgetbv);
            let x86 = matches!(module.isa().triple().architecture, target_lexicon::Architecture::X86_64);
            let needs_states = matches!(fun, Fun::FindState | Fun::CheckBlock | Fun::Copy);
            if (freestanding && needs_threads) || (x86_only && !x86) || (needs_states && !learns) {
                continue;
            }
            add(module, fun, &format!("nncc.{fun:?}").to_lowercase(), Linkage::Local, params, ret)?;
        }
        for def in abi::entries(learns) {
            let params: Vec<Type> = def.params.iter().filter_map(|(ty, _)| ty.machine()).collect();
            let name = format!("nncc.{}", def.name);
            add(module, Fun::Entry(def.entry), &name, Linkage::Local, &params, C::machine(def.ret))?;
        }
        if let Some(count) = typed {
            add(module, Fun::TypedRun, "nncc.typed_run", Linkage::Local, &vec![I64; count], Some(I32))?;
        }
        Ok(Functions { ids })
    }

    /// The module's id of a function.
    pub fn id(&self, fun: Fun) -> FuncId {
        self.ids[&fun].0
    }

    /// Whether the library has the function.
    pub fn has(&self, fun: Fun) -> bool {
        self.ids.contains_key(&fun)
    }

    /// A function's signature.
    pub fn signature(&self, fun: Fun) -> &Signature {
        &self.ids[&fun].1
    }
}
