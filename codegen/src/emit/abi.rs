//! The C ABI of a compiled model, as data: functions, structures, error codes.
//!
//! One declaration, everything follows: the entry points' signatures in machine code, the generated header and the tests
//! are all made from these tables. The Rust side of the ABI (`nncc-runtime`) is written by hand, for a deployed program
//! must not link the compiler; a test compares its layouts with the ones here.
//!
//! Versioning: [`VERSION`] changes when a function's meaning or a structure's layout does. A new function or error code
//! does not change it: `nncc_options` says its own size, and callers look functions up by name.

use cranelift_codegen::ir::{Type, types};

/// What `nncc_abi_version()` returns.
pub const VERSION: u32 = 1;

/// The set argument that stands for all shape sets.
pub const ANY_SET: u32 = u32::MAX;

/// The most threads a context may ask for; beyond it is a mistake, not a machine.
pub const MAX_THREADS: u32 = 1024;

/// Alignment of a workspace in bytes.
pub const WORKSPACE_ALIGN: usize = crate::program::MAX_ALIGN;

/// Error codes. A closed set; each has one sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
#[allow(missing_docs, reason = "ERRORS holds one sentence for each, which is its documentation")]
pub enum Error {
    Ok,
    Null,
    Context,
    Busy,
    Set,
    Count,
    Dtype,
    Shape,
    Size,
    Align,
    Workspace,
    Memory,
    Threads,
    Cpu,
    Options,
    Stopped,
    Index,
    State,
}

/// (code, C name, sentence), in order of code.
pub const ERRORS: [(Error, &str, &str); 18] = [
    (Error::Ok, "NNCC_OK", "no error"),
    (Error::Null, "NNCC_ERROR_NULL", "a pointer that must not be null is null"),
    (Error::Context, "NNCC_ERROR_CONTEXT", "the context was not made by this library, or is destroyed"),
    (Error::Busy, "NNCC_ERROR_BUSY", "the context is running in another thread; use one context for each thread"),
    (Error::Set, "NNCC_ERROR_SET", "no such shape set"),
    (Error::Count, "NNCC_ERROR_COUNT", "the number of inputs or outputs differs from the model's"),
    (Error::Dtype, "NNCC_ERROR_DTYPE", "an element type differs from the model's"),
    (Error::Shape, "NNCC_ERROR_SHAPE", "the shapes are those of no compiled shape set"),
    (Error::Size, "NNCC_ERROR_SIZE", "a buffer is smaller than its tensor"),
    (Error::Align, "NNCC_ERROR_ALIGN", "a buffer is not aligned to its element type"),
    (
        Error::Workspace,
        "NNCC_ERROR_WORKSPACE",
        "the workspace is missing, smaller than nncc_workspace_size says, or not aligned to 64 bytes",
    ),
    (Error::Memory, "NNCC_ERROR_MEMORY", "out of memory"),
    (
        Error::Threads,
        "NNCC_ERROR_THREADS",
        "a thread could not be started, or a freestanding library was asked for threads without a parallel_for",
    ),
    (Error::Cpu, "NNCC_ERROR_CPU", "this CPU runs none of the levels that the library was compiled for"),
    (Error::Options, "NNCC_ERROR_OPTIONS", "options: struct_size is not sizeof(nncc_options), or too many threads"),
    (Error::Stopped, "NNCC_ERROR_STOPPED", "the trace hook stopped the run"),
    (Error::Index, "NNCC_ERROR_INDEX", "no such input, output, step, level or state"),
    (
        Error::State,
        "NNCC_ERROR_STATE",
        "the block of states is missing, is none, or is that of another model or another way to train it",
    ),
];

/// A C type, as far as the ABI uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum C {
    /// `void`, as a result only.
    Void,
    /// `int32_t`.
    I32,
    /// `uint32_t`.
    U32,
    /// `uint64_t`.
    U64,
    /// A pointer, spelled as in the header, e.g. `const char *`.
    Ptr(&'static str),
}

impl C {
    /// How the header spells it; ends in a space unless in `*`, so that a name can follow.
    pub fn spelling(self) -> &'static str {
        match self {
            C::Void => "void ",
            C::I32 => "int32_t ",
            C::U32 => "uint32_t ",
            C::U64 => "uint64_t ",
            C::Ptr(spelling) => spelling,
        }
    }

    /// The machine type; `None` for `void`.
    pub fn machine(self) -> Option<Type> {
        match self {
            C::Void => None,
            C::I32 | C::U32 => Some(types::I32),
            C::U64 | C::Ptr(_) => Some(types::I64),
        }
    }
}

/// An exported function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "ENTRIES documents each")]
pub enum Entry {
    AbiVersion,
    ModelName,
    ErrorMessage,
    SetCount,
    InputCount,
    OutputCount,
    Input,
    Output,
    LevelCount,
    LevelName,
    BestLevel,
    StepCount,
    Step,
    StepWeights,
    StepCycles,
    StepMoved,
    Bounds,
    FindSet,
    WorkspaceSize,
    Create,
    ContextLevel,
    SetTrace,
    Run,
    RunTensors,
    LastError,
    Destroy,
    SetPurpose,
    StateSize,
    StateCount,
    State,
    InitState,
    AttachState,
    GetState,
    SetState,
    SaveState,
    LoadState,
}

/// How an exported function looks from C.
#[derive(Debug)]
pub struct EntryDef {
    /// Which.
    pub entry: Entry,
    /// Its name after `nncc_`.
    pub name: &'static str,
    /// Its name after the model's prefix; differs from `name` only where `<model>_run` is taken.
    pub model_name: &'static str,
    /// What it returns.
    pub ret: C,
    /// Its parameters.
    pub params: &'static [(C, &'static str)],
    /// What it does; lines of the comment in the header.
    pub doc: &'static [&'static str],
    /// Whether only a library that learns has it.
    pub learns: bool,
}

const CONTEXT: C = C::Ptr("nncc_context *");
const CONST_CONTEXT: C = C::Ptr("const nncc_context *");
const CONST_CHAR: C = C::Ptr("const char *");
const TENSOR: C = C::Ptr("nncc_tensor *");
const CONST_TENSOR: C = C::Ptr("const nncc_tensor *");

const fn entry(
    entry: Entry,
    name: &'static str,
    ret: C,
    params: &'static [(C, &'static str)],
    doc: &'static [&'static str],
) -> EntryDef {
    EntryDef { entry, name, model_name: name, ret, params, doc, learns: false }
}

/// A function of libraries that learn.
const fn learning(
    which: Entry,
    name: &'static str,
    ret: C,
    params: &'static [(C, &'static str)],
    doc: &'static [&'static str],
) -> EntryDef {
    EntryDef { learns: true, ..entry(which, name, ret, params, doc) }
}

/// The functions that a library exports.
pub fn entries(learns: bool) -> impl Iterator<Item = &'static EntryDef> {
    ENTRIES.iter().filter(move |def| learns || !def.learns)
}

/// Every exported function, in the order of [`Entry`] and of the header.
pub const ENTRIES: [EntryDef; 36] = [
    entry(Entry::AbiVersion, "abi_version", C::U32, &[], &["NNCC_ABI_VERSION of the compiler that made the library."]),
    entry(Entry::ModelName, "model_name", CONST_CHAR, &[], &["The model's name. Static, as every string of this API."]),
    entry(
        Entry::ErrorMessage,
        "error_message",
        CONST_CHAR,
        &[(C::I32, "code")],
        &["One sentence for an error code. Never null."],
    ),
    entry(
        Entry::SetCount,
        "set_count",
        C::U32,
        &[],
        &[
            "How many shape sets were compiled: combinations of input shapes, numbered from 0. A library that learns has",
            "sets for each purpose: NNCC_PURPOSE_STEP first, then NNCC_PURPOSE_GATHER, NNCC_PURPOSE_EVALUATE, NNCC_PURPOSE_INFER.",
        ],
    ),
    entry(Entry::InputCount, "input_count", C::U32, &[], &["How many inputs a set has at most."]),
    entry(Entry::OutputCount, "output_count", C::U32, &[], &["How many outputs a set has at most."]),
    entry(
        Entry::Input,
        "input",
        C::I32,
        &[(C::U32, "set"), (C::U32, "index"), (TENSOR, "out")],
        &[
            "Describes an input in a shape set: name, dtype, rank, shape, bytes; data is null. NNCC_ERROR_INDEX past the last.",
        ],
    ),
    entry(
        Entry::Output,
        "output",
        C::I32,
        &[(C::U32, "set"), (C::U32, "index"), (TENSOR, "out")],
        &["Describes an output in a shape set, likewise."],
    ),
    entry(
        Entry::LevelCount,
        "level_count",
        C::U32,
        &[],
        &["How many CPU levels the library holds code for, numbered from 0, the lowest first."],
    ),
    entry(
        Entry::LevelName,
        "level_name",
        CONST_CHAR,
        &[(C::U32, "level")],
        &["The name of a CPU level, e.g. x86-64-v3; null when there is none of that number."],
    ),
    entry(
        Entry::BestLevel,
        "best_level",
        C::I32,
        &[],
        &["The highest level that this CPU (and its operating system) runs; -1 if none."],
    ),
    entry(
        Entry::StepCount,
        "step_count",
        C::U32,
        &[(C::U32, "set"), (C::U32, "level")],
        &["How many steps a run has; 0 when there is no such set or level."],
    ),
    entry(
        Entry::Step,
        "step",
        C::I32,
        &[(C::U32, "set"), (C::U32, "level"), (C::U32, "index"), (C::Ptr("nncc_step *"), "out")],
        &["Describes a step, for profilers."],
    ),
    entry(
        Entry::StepWeights,
        "step_weights",
        C::U64,
        &[(C::U32, "set"), (C::U32, "level"), (C::U32, "index")],
        &["Of a step's bytes, those of weights; 0 when there is no such set, level or step."],
    ),
    entry(
        Entry::StepCycles,
        "step_cycles",
        C::U64,
        &[(C::U32, "set"), (C::U32, "level"), (C::U32, "index")],
        &[
            "Cycles of one core that the compiler expects of a step whose operands are all in the first cache; 0 when there",
            "is no such set, level or step.",
        ],
    ),
    entry(
        Entry::StepMoved,
        "step_moved",
        C::U64,
        &[(C::U32, "set"), (C::U32, "level"), (C::U32, "index")],
        &[
            "Bytes that a step reads and writes at least once and that are no weights, with those that it hands on to the next",
            "step of the same node; 0 when there is no such set, level or step.",
        ],
    ),
    entry(
        Entry::Bounds,
        "bounds",
        C::I32,
        &[(C::U32, "set"), (C::U32, "level"), (C::Ptr("nncc_bounds *"), "out")],
        &["What a run needs at most: the bounds that also stand as constants in this header."],
    ),
    entry(
        Entry::FindSet,
        "find_set",
        C::I32,
        &[(CONST_TENSOR, "inputs"), (C::U32, "count"), (C::Ptr("uint32_t *"), "set")],
        &["Finds the shape set of inputs with the given dtypes, ranks and shapes; the other fields are not read."],
    ),
    entry(
        Entry::WorkspaceSize,
        "workspace_size",
        C::U64,
        &[(C::U32, "set"), (C::U32, "threads")],
        &[
            "Bytes of workspace for a context that runs the set (or any, with NNCC_ANY_SET) on so many threads, at",
            "whatever level; 0 when there is no such set. The workspace is all the memory that a context uses.",
        ],
    ),
    entry(
        Entry::Create,
        "create",
        C::I32,
        &[(C::Ptr("const nncc_options *"), "options"), (C::Ptr("nncc_context **"), "out")],
        &[
            "Makes a context; null options mean one thread and memory from malloc. On failure *out is null.",
            "Contexts are independent: each may run in its own thread at the same time.",
        ],
    ),
    entry(
        Entry::ContextLevel,
        "context_level",
        C::I32,
        &[(CONST_CONTEXT, "context")],
        &["The CPU level that the context runs; -1 when it is not a context."],
    ),
    entry(
        Entry::SetTrace,
        "set_trace",
        C::I32,
        &[(CONTEXT, "context"), (C::Ptr("nncc_trace_fn "), "trace"), (C::Ptr("void *"), "user")],
        &["Has `trace` called after each step of each later run; null stops that. Costs nothing when unset."],
    ),
    EntryDef {
        entry: Entry::Run,
        name: "run",
        model_name: "run_context",
        ret: C::I32,
        params: &[
            (CONTEXT, "context"),
            (C::U32, "set"),
            (C::Ptr("const void *const *"), "inputs"),
            (C::Ptr("void *const *"), "outputs"),
        ],
        doc: &[
            "Runs the model on buffers of the sizes that the shape set says, in the model's order. Allocates nothing.",
            "Each buffer is aligned to its element type (64 bytes is fastest); that of a tensor without elements may be",
            "null. Inputs are only read. An output must not overlap an input, another output or the block of states. The",
            "floating-point control state is left as found. A set of NNCC_PURPOSE_STEP changes the attached states, and counts",
            "the step in their header when it is done; stopped by a trace hook, it leaves them half changed.",
        ],
        learns: false,
    },
    entry(
        Entry::RunTensors,
        "run_tensors",
        C::I32,
        &[
            (CONTEXT, "context"),
            (CONST_TENSOR, "inputs"),
            (C::U32, "input_count"),
            (CONST_TENSOR, "outputs"),
            (C::U32, "output_count"),
        ],
        &[
            "The same with checks: the shape set is found by the shapes of inputs and outputs; dtype, rank and shape must",
            "be given and are compared, bytes too unless it is 0; name and layout are not read.",
        ],
    ),
    entry(
        Entry::LastError,
        "last_error",
        CONST_CHAR,
        &[(CONST_CONTEXT, "context")],
        &["A sentence on the context's last failed call, which names the input or output at fault. Never null."],
    ),
    entry(
        Entry::Destroy,
        "destroy",
        C::Void,
        &[(CONTEXT, "context")],
        &["Stops the context's threads and frees its memory. Null is allowed; a context that runs is not."],
    ),
    learning(
        Entry::SetPurpose,
        "set_purpose",
        C::U32,
        &[(C::U32, "set")],
        &["What a shape set is run for: NNCC_PURPOSE_..; NNCC_PURPOSE_INFER when there is no such set."],
    ),
    learning(Entry::StateSize, "state_size", C::U64, &[], &["Bytes of the block of states."]),
    learning(Entry::StateCount, "state_count", C::U32, &[], &["How many states there are, numbered from 0."]),
    learning(
        Entry::State,
        "state",
        C::I32,
        &[(C::U32, "index"), (C::Ptr("nncc_state *"), "out")],
        &["Describes a state: name, dtype, rank, shape, bytes, what it is, and where in the block it lies."],
    ),
    learning(
        Entry::InitState,
        "init_state",
        C::I32,
        &[(C::Ptr("void *"), "block"), (C::U64, "bytes"), (C::U64, "seed")],
        &[
            "Makes a block of states as before the first step: the weights of the model that was compiled. The seed is that",
            "of dropout. The block is aligned to 64 bytes and nncc_state_size() bytes long.",
        ],
    ),
    learning(
        Entry::AttachState,
        "attach_state",
        C::I32,
        &[(CONTEXT, "context"), (C::Ptr("void *"), "block"), (C::U64, "bytes")],
        &[
            "Has the context run on a block, which stays the caller's and must stay alive; null takes it away. A block that",
            "nncc_init_state made, or a copy of one. Several contexts may run on one block at the same time as long as none",
            "runs a set of NNCC_PURPOSE_STEP or NNCC_PURPOSE_GATHER.",
        ],
    ),
    learning(
        Entry::GetState,
        "get_state",
        C::I32,
        &[(CONTEXT, "context"), (CONST_CHAR, "name"), (C::Ptr("void *"), "to"), (C::U64, "bytes")],
        &["Copies the value of a state of the attached block, row-major."],
    ),
    learning(
        Entry::SetState,
        "set_state",
        C::I32,
        &[(CONTEXT, "context"), (CONST_CHAR, "name"), (C::Ptr("const void *"), "from"), (C::U64, "bytes")],
        &["Gives a state of the attached block another value, row-major."],
    ),
    learning(
        Entry::SaveState,
        "save_state",
        C::I32,
        &[(CONTEXT, "context"), (C::Ptr("void *"), "to"), (C::U64, "bytes")],
        &["Copies the attached block to a buffer of nncc_state_size() bytes at any address: what goes into a file."],
    ),
    learning(
        Entry::LoadState,
        "load_state",
        C::I32,
        &[(CONTEXT, "context"), (C::Ptr("const void *"), "from"), (C::U64, "bytes")],
        &[
            "Copies a saved block into the attached one, which is left as it was unless the header is that of this library's",
            "blocks (NNCC_ERROR_STATE) and nothing is missing at the end (NNCC_ERROR_SIZE).",
        ],
    ),
];

/// Field offsets of `nncc_tensor`.
pub mod tensor {
    #![allow(missing_docs, reason = "the header documents the fields")]
    pub const DATA: i32 = 0;
    pub const SHAPE: i32 = 8;
    pub const NAME: i32 = 16;
    pub const BYTES: i32 = 24;
    pub const DTYPE: i32 = 32;
    pub const RANK: i32 = 36;
    pub const LAYOUT: i32 = 40;
    pub const RESERVED: i32 = 44;
    pub const SIZE: i32 = 48;
}

/// Field offsets of `nncc_state`.
pub mod state {
    #![allow(missing_docs, reason = "the header documents the fields")]
    pub const TENSOR: i32 = 0;
    pub const OFFSET: i32 = super::tensor::SIZE;
    pub const ROLE: i32 = OFFSET + 8;
    pub const RESERVED: i32 = ROLE + 4;
    pub const SIZE: i32 = RESERVED + 4;
}

/// Field offsets of `nncc_step`.
pub mod step {
    #![allow(missing_docs, reason = "the header documents the fields")]
    pub const NAME: i32 = 0;
    pub const OP: i32 = 8;
    pub const KERNEL: i32 = 16;
    pub const TASKS: i32 = 24;
    pub const MACS: i32 = 32;
    pub const BYTES: i32 = 40;
}

/// Field offsets of `nncc_bounds`.
pub mod bounds {
    #![allow(missing_docs, reason = "the header documents the fields")]
    pub const ARENA: i32 = 0;
    pub const SCRATCH: i32 = 8;
    pub const STACK: i32 = 16;
    pub const CODE: i32 = 24;
    pub const WEIGHTS: i32 = 32;
    pub const MACS: i32 = 40;
    pub const IMPORTS: i32 = 48;
    pub const SIZE: i32 = 56;
}

/// Field offsets of `nncc_trace_event`.
pub mod event {
    #![allow(missing_docs, reason = "the header documents the fields")]
    pub const START: i32 = 0;
    pub const DURATION: i32 = 8;
    pub const NAME: i32 = 16;
    pub const OP: i32 = 24;
    pub const RESULTS: i32 = 32;
    pub const RESULT_COUNT: i32 = 40;
    pub const STEP: i32 = 44;
    pub const SET: i32 = 48;
    pub const LEVEL: i32 = 52;
    pub const SIZE: i32 = 56;
}

/// Field offsets of `nncc_options`.
pub mod options {
    #![allow(missing_docs, reason = "the header documents the fields")]
    pub const STRUCT_SIZE: i32 = 0;
    pub const THREADS: i32 = 8;
    pub const MAX_LEVEL: i32 = 12;
    pub const WORKSPACE: i32 = 16;
    pub const WORKSPACE_BYTES: i32 = 24;
    pub const PARALLEL_FOR: i32 = 32;
    pub const PARALLEL_USER: i32 = 40;
    pub const CLOCK: i32 = 48;
    pub const CLOCK_USER: i32 = 56;
    pub const SIZE: i32 = 64;
}

/// The ABI's number of an element type: that of ONNX's `TensorProto.DataType`.
pub fn dtype_code(dtype: nncc_ir::DType) -> u32 {
    use nncc_ir::DType;
    match dtype {
        DType::F32 => 1,
        DType::U8 => 2,
        DType::I8 => 3,
        DType::U16 => 4,
        DType::I16 => 5,
        DType::I32 => 6,
        DType::I64 => 7,
        DType::Bool => 9,
        DType::F64 => 11,
        DType::U32 => 12,
        DType::U64 => 13,
    }
}

/// The C type of an element type.
pub fn dtype_c(dtype: nncc_ir::DType) -> &'static str {
    use nncc_ir::DType;
    match dtype {
        DType::F32 => "float",
        DType::F64 => "double",
        DType::I8 => "int8_t",
        DType::I16 => "int16_t",
        DType::I32 => "int32_t",
        DType::I64 => "int64_t",
        DType::U8 | DType::Bool => "uint8_t",
        DType::U16 => "uint16_t",
        DType::U32 => "uint32_t",
        DType::U64 => "uint64_t",
    }
}

/// The ABI's number of a layout.
pub fn layout_code(layout: nncc_ir::Layout) -> u32 {
    match layout {
        nncc_ir::Layout::RowMajor => 0,
        nncc_ir::Layout::Blocked => 1,
    }
}

/// The ABI's number of a CPU level, for `nncc_options.max_level`: 1 is the baseline of the architecture.
pub fn level_code(level: crate::target::Level) -> u32 {
    use crate::target::Level;
    match level {
        Level::X86V1 | Level::Aarch64 => 1,
        Level::X86V3 => 3,
        Level::X86V4 => 4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_in_the_order_of_their_enums() {
        for (i, (code, ..)) in ERRORS.iter().enumerate() {
            assert_eq!(*code as usize, i);
        }
        for (i, def) in ENTRIES.iter().enumerate() {
            assert_eq!(def.entry as usize, i);
        }
    }
}
