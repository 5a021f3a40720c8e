//! The C ABI of a compiled model as Rust sees it: structures and the table of functions.
//!
//! Written by hand, for a deployed program must not link the compiler. The compiler's tests compare the layouts here with
//! those that it emits.

use std::ffi::{c_char, c_void};

/// The ABI version that this crate speaks.
pub const ABI_VERSION: u32 = 1;

/// A context of a library; opaque.
#[repr(C)]
pub struct RawContext {
    _opaque: [u8; 0],
}

/// `nncc_tensor`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "documented in the generated header")]
pub struct RawTensor {
    pub data: *mut c_void,
    pub shape: *const i64,
    pub name: *const c_char,
    pub bytes: u64,
    pub dtype: u32,
    pub rank: u32,
    pub layout: u32,
    pub reserved: u32,
}

/// `nncc_step`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "documented in the generated header")]
pub struct RawStep {
    pub name: *const c_char,
    pub op: *const c_char,
    pub kernel: *const c_char,
    pub tasks: u64,
    pub macs: u64,
    pub bytes: u64,
}

/// `nncc_state`: what a model that learns keeps from run to run.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "documented in the generated header")]
pub struct RawState {
    pub tensor: RawTensor,
    pub offset: u64,
    pub role: u32,
    pub reserved: u32,
}

/// `nncc_state_header`: the beginning of a block of states.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "documented in the generated header")]
pub struct RawStateHeader {
    pub magic: u64,
    pub version: u32,
    pub reserved: u32,
    pub bytes: u64,
    pub hash: u64,
    pub seed: i64,
    pub steps: i64,
}

/// `nncc_bounds`: what a library holds, and a run needs at most.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// All intermediate values.
    pub arena_bytes: u64,
    /// Scratch of each thread.
    pub scratch_bytes: u64,
    /// Stack on each thread, callbacks not included.
    pub stack_bytes: u64,
    /// Machine code.
    pub code_bytes: u64,
    /// Weights.
    pub weight_bytes: u64,
    /// Multiply-accumulate operations of a run.
    pub macs: u64,
    /// Functions that the library imports from libc.
    pub imports: u64,
}

/// `nncc_trace_event`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "documented in the generated header")]
pub struct RawEvent {
    pub start_ns: u64,
    pub duration_ns: u64,
    pub name: *const c_char,
    pub op: *const c_char,
    pub results: *const RawTensor,
    pub result_count: u32,
    pub step: u32,
    pub set: u32,
    pub level: u32,
}

/// `nncc_trace_fn`.
pub type TraceFn = unsafe extern "C" fn(user: *mut c_void, event: *const RawEvent) -> i32;
/// A task of a `parallel_for`.
pub type TaskFn = unsafe extern "C" fn(job: *mut c_void, index: u32);
/// `nncc_parallel_for_fn`.
pub type ParallelForFn = unsafe extern "C" fn(user: *mut c_void, count: u32, task: TaskFn, job: *mut c_void);
/// `nncc_clock_fn`.
pub type ClockFn = unsafe extern "C" fn(user: *mut c_void) -> u64;

/// `nncc_options`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "documented in the generated header")]
pub struct RawOptions {
    pub struct_size: u64,
    pub threads: u32,
    pub max_level: u32,
    pub workspace: *mut c_void,
    pub workspace_bytes: u64,
    pub parallel_for: Option<ParallelForFn>,
    pub parallel_user: *mut c_void,
    pub clock: Option<ClockFn>,
    pub clock_user: *mut c_void,
}

/// Declares the function table and the way to fill it from symbols, from one list.
macro_rules! abi_table {
    (@function $address:expr, fn($($arg:ty),*) $(-> $ret:ty)?) => {
        // SAFETY: by the contract of `resolve` the address is that of a function of this very type; function pointers and data
        // pointers are of one size on every target that nncc compiles for.
        unsafe { std::mem::transmute::<*const c_void, unsafe extern "C" fn($($arg),*) $(-> $ret)?>($address) }
    };
    (
        required { $($name:ident: fn($($arg:ty),*) $(-> $ret:ty)?;)* }
        optional { $($extra:ident: fn($($extra_arg:ty),*) $(-> $extra_ret:ty)?;)* }
    ) => {
        /// The functions of a library. Filled by name, from a shared library's symbols or from JIT memory's. Functions that
        /// describe and came later are optional: a library of before them runs as well. So are those of models that learn.
        #[derive(Clone, Copy, Debug)]
        #[allow(missing_docs, reason = "documented in the generated header")]
        pub struct AbiTable {
            $(pub $name: unsafe extern "C" fn($($arg),*) $(-> $ret)?,)*
            $(pub $extra: Option<unsafe extern "C" fn($($extra_arg),*) $(-> $extra_ret)?>,)*
        }

        impl AbiTable {
            /// Fills the table; on failure gives the name that is missing.
            ///
            /// # Safety
            /// For each name, `resolve` gives null or the address of the function of that name in the generated header.
            pub unsafe fn resolve(
                mut resolve: impl FnMut(&str) -> Option<*const c_void>,
            ) -> Result<AbiTable, &'static str> {
                let mut find = |name| resolve(name).filter(|address| !address.is_null());
                Ok(AbiTable {
                    $($name: {
                        let name = concat!("nncc_", stringify!($name));
                        let address = find(name).ok_or(name)?;
                        abi_table!(@function address, fn($($arg),*) $(-> $ret)?)
                    },)*
                    $($extra: find(concat!("nncc_", stringify!($extra)))
                        .map(|address| abi_table!(@function address, fn($($extra_arg),*) $(-> $extra_ret)?)),)*
                })
            }
        }
    };
}

abi_table! {
    required {
        abi_version: fn() -> u32;
        model_name: fn() -> *const c_char;
        error_message: fn(i32) -> *const c_char;
        set_count: fn() -> u32;
        input_count: fn() -> u32;
        output_count: fn() -> u32;
        input: fn(u32, u32, *mut RawTensor) -> i32;
        output: fn(u32, u32, *mut RawTensor) -> i32;
        level_count: fn() -> u32;
        level_name: fn(u32) -> *const c_char;
        best_level: fn() -> i32;
        step_count: fn(u32, u32) -> u32;
        step: fn(u32, u32, u32, *mut RawStep) -> i32;
        bounds: fn(u32, u32, *mut Bounds) -> i32;
        find_set: fn(*const RawTensor, u32, *mut u32) -> i32;
        workspace_size: fn(u32, u32) -> u64;
        create: fn(*const RawOptions, *mut *mut RawContext) -> i32;
        context_level: fn(*const RawContext) -> i32;
        set_trace: fn(*mut RawContext, Option<TraceFn>, *mut c_void) -> i32;
        run: fn(*mut RawContext, u32, *const *const c_void, *const *mut c_void) -> i32;
        run_tensors: fn(*mut RawContext, *const RawTensor, u32, *const RawTensor, u32) -> i32;
        last_error: fn(*const RawContext) -> *const c_char;
        destroy: fn(*mut RawContext);
    }
    optional {
        step_weights: fn(u32, u32, u32) -> u64;
        step_cycles: fn(u32, u32, u32) -> u64;
        step_moved: fn(u32, u32, u32) -> u64;
        set_purpose: fn(u32) -> u32;
        state_size: fn() -> u64;
        state_count: fn() -> u32;
        state: fn(u32, *mut RawState) -> i32;
        init_state: fn(*mut c_void, u64, u64) -> i32;
        attach_state: fn(*mut RawContext, *mut c_void, u64) -> i32;
        get_state: fn(*mut RawContext, *const c_char, *mut c_void, u64) -> i32;
        set_state: fn(*mut RawContext, *const c_char, *const c_void, u64) -> i32;
        save_state: fn(*mut RawContext, *mut c_void, u64) -> i32;
        load_state: fn(*mut RawContext, *const c_void, u64) -> i32;
    }
}
