//! The C header of a library: types, constants, and a comment for every function.
//!
//! Generated from the tables of [`super::abi`] and the program. Two parts: the types, which are the same for every model and
//! guarded by a macro of their own, so that headers of several models meet in one program; and the model's constants and
//! functions, under its prefix.

use super::abi::{self, ERRORS};
use super::functions::imports;
use super::library::typed_parameters;
use super::{EmitError, EmitOptions, Emitted, c_identifier};
use crate::backend::MachineCode;
use crate::program::{LevelPlan, Port, Program, Purpose, ShapeSet};
use crate::state;
use std::fmt::Write;

/// The header of a program, when no library is written along with it: its constants need everything but the file.
///
/// # Errors
/// See [`EmitError`].
pub fn emit_header(program: &Program, code: &[MachineCode], options: &EmitOptions) -> Result<String, EmitError> {
    let emitted = super::object::stream_object(program, code, options, &mut std::io::sink())?;
    Ok(header(program, options, &emitted))
}

/// The header of an emitted library.
pub fn header(program: &Program, options: &EmitOptions, emitted: &Emitted) -> String {
    let mut out = String::new();
    let guard = emitted.prefix.to_uppercase();
    let name = comment_text(&program.name);
    let learning = if program.learns() { LEARNING } else { "" };
    let _ = write!(
        out,
        "/* {name}: compiled by nncc {version}; this file is generated.\n *\n{INTRODUCTION}{learning} */\n\
         #ifndef {guard}_H\n#define {guard}_H\n\n#include <stdint.h>\n\n",
        version = env!("CARGO_PKG_VERSION"),
    );
    types(&mut out);
    out.push_str("#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n");
    constants(&mut out, program, options, emitted, &guard);
    functions(&mut out, program, options, emitted);
    out.push_str("#ifdef __cplusplus\n}\n#endif\n\n");
    let _ = writeln!(out, "#endif /* {guard}_H */");
    out
}

const INTRODUCTION: &str = " \
* Use: create a context, run it, destroy it. A library has no state of its own: everything is in the
 * context, contexts are independent, and each may run in its own thread at the same time. A run allocates
 * nothing, prints nothing and never ends the program; what fails returns a code, and nncc_last_error says
 * more. The same inputs give the same bits whatever the number of threads or contexts, at one CPU level.
 *
 * Names: every function is exported with the model's name in front, so that several models link into one
 * program. A shared library exports each under nncc_ as well (nncc_create, nncc_run, ...): the names by
 * which a program finds them in a library that it opens with dlopen. Where the two differ: nncc_run is
 * <model>_run_context here, because <model>_run is the typed function at the end.
";

const LEARNING: &str = " \
*
 * This library learns. What it learns is in a block of memory of the caller's, the states: nncc_init_state makes
 * one, nncc_attach_state gives it to a context. Running a set of NNCC_PURPOSE_STEP is one step of learning: inputs
 * are a batch, its targets and the learning rate. Sets of NNCC_PURPOSE_EVALUATE give prediction and loss, sets of
 * NNCC_PURPOSE_INFER the prediction alone (with the moving averages of the weights where these are kept). Where several
 * batches make one step, sets of NNCC_PURPOSE_GATHER (a batch, its targets, its share of the samples of the step) come
 * before a set of NNCC_PURPOSE_STEP, which then takes a share too, in front of the learning rate. A loss that is no finite
 * number leaves the states as they were.
 * nncc_run_tensors finds the set by the number and shapes of what it is given.
";

const TYPES: &str = "\
/* How the elements of a traced value lie in memory. */
#define NNCC_LAYOUT_ROW_MAJOR 0u
/* [N][ceil(C/16)][spatial...][16]; the last block is 8 wide if C mod 16 is in 1..8. Lanes beyond C hold anything. */
#define NNCC_LAYOUT_BLOCKED 1u

/* CPU levels for nncc_options.max_level. */
#define NNCC_LEVEL_BASELINE 1u /* x86-64-v1; ARMv8-A with NEON */
#define NNCC_LEVEL_X86_64_V3 3u /* AVX2, FMA */
#define NNCC_LEVEL_X86_64_V4 4u /* AVX-512 F, BW, CD, DQ, VL */

/* A tensor: an input, an output, or a value seen by the trace hook. */
typedef struct nncc_tensor {
    void *data;           /* elements, C order unless layout says otherwise; inputs are only read */
    const int64_t *shape; /* rank extents; may be null for a scalar */
    const char *name;     /* as in the model */
    uint64_t bytes;
    uint32_t dtype;  /* NNCC_F32, ... */
    uint32_t rank;
    uint32_t layout; /* NNCC_LAYOUT_ROW_MAJOR except in the trace hook */
    uint32_t reserved;
} nncc_tensor;

/* One step of a run: the call of a kernel. */
typedef struct nncc_step {
    const char *name;   /* the ONNX nodes that it computes */
    const char *op;     /* what it does */
    const char *kernel; /* the symbol of its code */
    uint64_t tasks;     /* independent parts that threads share */
    uint64_t macs;      /* multiply-accumulate operations */
    uint64_t bytes;     /* memory that it reads and writes at least once */
} nncc_step;

/* What a library holds, and a run needs at most. */
typedef struct nncc_bounds {
    uint64_t arena_bytes;   /* all intermediate values */
    uint64_t scratch_bytes; /* for each thread */
    uint64_t stack_bytes;   /* on each thread, callbacks not included */
    uint64_t code_bytes;
    uint64_t weight_bytes;
    uint64_t macs;
    uint64_t imports; /* functions that the library imports from libc */
} nncc_bounds;

/* Told to the trace hook after each step; valid during the call only. */
typedef struct nncc_trace_event {
    uint64_t start_ns; /* by the context's clock */
    uint64_t duration_ns;
    const char *name; /* of the step */
    const char *op;
    const nncc_tensor *results; /* values that the step completed */
    uint32_t result_count;
    uint32_t step; /* number of the step */
    uint32_t set;
    uint32_t level;
} nncc_trace_event;

/* The trace hook. A value other than 0 ends the run with NNCC_ERROR_STOPPED. */
typedef int32_t (*nncc_trace_fn)(void *user, const nncc_trace_event *event);

/* The caller's threads: calls task(job, i) once for each i in 0..count-1, in any order, on any threads, at
   the same time or not, and returns when all are done. */
typedef void (*nncc_parallel_for_fn)(void *user, uint32_t count, void (*task)(void *job, uint32_t index), void *job);

/* The caller's clock: nanoseconds from any fixed point. */
typedef uint64_t (*nncc_clock_fn)(void *user);

/* How a context is made. Zero everything, then set struct_size and what is wanted. */
typedef struct nncc_options {
    uint64_t struct_size;     /* sizeof(nncc_options) */
    uint32_t threads;         /* 0 and 1: the calling thread alone */
    uint32_t max_level;       /* 0: the best that the CPU runs */
    void *workspace;          /* aligned to 64 bytes, alive until destroy; null: malloc */
    uint64_t workspace_bytes; /* nncc_workspace_size(set, threads), or more */
    nncc_parallel_for_fn parallel_for; /* null: the context starts threads - 1 of its own */
    void *parallel_user;
    nncc_clock_fn clock; /* for the trace hook; null: clock_gettime */
    void *clock_user;
} nncc_options;

/* What a run needs; opaque. */
typedef struct nncc_context nncc_context;

/* Of libraries that learn (nncc MODEL.onnx --train): what a shape set is run for. */
#define NNCC_PURPOSE_INFER 0u    /* the model alone, with what was learnt */
#define NNCC_PURPOSE_STEP 1u     /* one step of learning: it changes the states */
#define NNCC_PURPOSE_EVALUATE 2u /* the model as it infers, and its loss */
#define NNCC_PURPOSE_GATHER 3u   /* adds a batch's gradients to those in the states, for a later step */

/* What a state is. */
#define NNCC_STATE_PARAMETER 0u /* a weight of the model */
#define NNCC_STATE_STATISTIC 1u /* a running mean or variance of the model */
#define NNCC_STATE_MOMENT 2u    /* what the optimizer remembers */
#define NNCC_STATE_AVERAGE 3u   /* the moving average of a weight */
#define NNCC_STATE_GRADIENT 4u  /* the sum of a weight's gradients since the last step: zero behind one */

/* A state: what a model that learns keeps from run to run. */
typedef struct nncc_state {
    nncc_tensor tensor; /* data is null */
    uint64_t offset;    /* from the beginning of the block */
    uint32_t role;      /* NNCC_STATE_PARAMETER, ... */
    uint32_t reserved;
} nncc_state;

/* The beginning of a block of states. The states follow, each at a multiple of 64 bytes, row-major. A block holds no
   address: it can be copied, written to a file and read again as it is. Numbers are little-endian. */
typedef struct nncc_state_header {
    uint64_t magic;   /* NNCC_STATE_MAGIC */
    uint32_t version; /* of this format: 1 */
    uint32_t reserved;
    uint64_t bytes; /* of the whole block */
    uint64_t hash;  /* of names, types, shapes and roles of the states */
    int64_t seed;   /* of dropout; may be changed between runs */
    int64_t steps;  /* done so far; optimizers correct their moments by it */
} nncc_state_header;
#define NNCC_STATE_MAGIC UINT64_C(0x7461747363636e6e) /* the bytes nnccstat */
";

fn types(out: &mut String) {
    out.push_str("#ifndef NNCC_TYPES_H\n#define NNCC_TYPES_H\n\n");
    let _ = writeln!(out, "#define NNCC_ABI_VERSION {}u\n#define NNCC_ANY_SET UINT32_MAX\n", abi::VERSION);
    out.push_str("/* Error codes. */\n");
    for (code, name, sentence) in ERRORS {
        let _ = writeln!(out, "#define {name} {} /* {sentence} */", code as i32);
    }
    out.push_str("\n/* Element types; the numbers are ONNX's. */\n");
    for dtype in nncc_ir::DType::ALL {
        let name = dtype.name().to_uppercase();
        let _ = writeln!(out, "#define NNCC_{name} {}u /* {} */", abi::dtype_code(dtype), abi::dtype_c(dtype));
    }
    out.push('\n');
    out.push_str(TYPES);
    out.push_str("\n#endif /* NNCC_TYPES_H */\n\n");
}

const PURPOSES: [(Purpose, &str); 4] =
    [(Purpose::Step, "STEP"), (Purpose::Gather, "GATHER"), (Purpose::Evaluate, "EVALUATE"), (Purpose::Infer, "INFER")];

fn constants(out: &mut String, program: &Program, options: &EmitOptions, emitted: &Emitted, guard: &str) {
    let set = &program.sets[0];
    let mut define = |name: &str, value: &dyn std::fmt::Display, why: &str| {
        let _ = writeln!(out, "#define {guard}_{name} {value}{why}");
    };
    define("INPUT_COUNT", &format_args!("{}u", set.inputs.len()), "");
    define("OUTPUT_COUNT", &format_args!("{}u", set.outputs.len()), "");
    define("SET_COUNT", &format_args!("{}u", program.sets.len()), "");
    let plans = || program.sets.iter().flat_map(|set| &set.levels);
    let most = |f: fn(&LevelPlan) -> u64| plans().map(f).max().unwrap_or(0);
    let bounds = [
        ("ARENA_BYTES", most(|plan| plan.arena_bytes as u64), "all intermediate values, at most"),
        ("SCRATCH_BYTES", most(|plan| super::tables::scratch_stride(plan) as u64), "for each thread, at most"),
        ("STACK_BYTES", emitted.stack_bytes, "on each thread during a run, at most; callbacks not included"),
        ("CODE_BYTES", emitted.code_bytes, "at most"),
        ("WEIGHT_BYTES", emitted.weight_bytes, ""),
        ("MACS", most(|plan| plan.steps.iter().map(|step| step.macs).sum()), "multiply-accumulates of a run, at most"),
        ("WORKSPACE_BYTES", emitted.workspace_bytes, "for one thread and any set; aligned to 64 bytes"),
    ];
    for (name, value, why) in bounds {
        let why = if why.is_empty() { String::new() } else { format!(" /* {why} */") };
        define(name, &format_args!("UINT64_C({value})"), &why);
    }
    let imports = imports(options.freestanding);
    let names: Vec<&str> = imports.iter().map(|(_, symbol)| *symbol).collect();
    let names = if names.is_empty() { String::new() } else { format!(" /* libc: {} */", names.join(", ")) };
    define("IMPORTS", &format_args!("{}u", imports.len()), &names);
    if program.learns() {
        let bytes = state::block_bytes(&program.states).unwrap_or(usize::MAX);
        define("STATE_BYTES", &format_args!("UINT64_C({bytes})"), " /* the block of states; aligned to 64 bytes */");
        define("STATE_COUNT", &format_args!("{}u", program.states.len()), "");
        for (purpose, name) in PURPOSES {
            if let Some(first) = program.sets.iter().position(|set| set.purpose == purpose) {
                define(&format!("{name}_SET"), &format_args!("{first}u"), " /* the first of them */");
            }
        }
    }
    out.push('\n');
    for (s, set) in program.sets.iter().enumerate() {
        let purpose = PURPOSES.iter().find(|(purpose, _)| *purpose == set.purpose && program.learns());
        let purpose = purpose.map_or(String::new(), |(_, name)| format!(": NNCC_PURPOSE_{name}"));
        let _ = writeln!(out, "/* Shape set {s}{purpose}");
        for (kind, ports) in [("input", &set.inputs), ("output", &set.outputs)] {
            for (i, port) in ports.iter().enumerate() {
                let (dtype, shape, name) = (port.dtype.name(), &port.shape, comment_text(&port.name));
                let _ = writeln!(out, "     {kind} {i}  {dtype}{shape:?}  \"{name}\"");
            }
        }
        out.push_str(" */\n");
    }
    out.push('\n');
}

fn functions(out: &mut String, program: &Program, options: &EmitOptions, emitted: &Emitted) {
    let prefix = &emitted.prefix;
    for def in abi::entries(program.learns()) {
        comment(out, def.doc);
        let params: Vec<String> = def.params.iter().map(|(ty, name)| format!("{}{name}", ty.spelling())).collect();
        let params = if params.is_empty() { "void".to_owned() } else { params.join(", ") };
        let _ = writeln!(out, "{}{prefix}_{}({params});\n", def.ret.spelling(), def.model_name);
    }
    let set = &program.sets[0];
    if typed_parameters(program, options.freestanding).is_some() {
        let mut doc =
            vec!["Runs the model once on the shapes of set 0, with a context made for the call: for convenience."];
        if options.freestanding {
            doc.push("The workspace is aligned to 64 bytes and as large as <model>_workspace_size(0, 1) says.");
        }
        comment(out, &doc);
        let _ = writeln!(out, "int32_t {prefix}_run({});\n", typed_signature(set, options.freestanding));
    }
}

fn comment(out: &mut String, lines: &[&str]) {
    let _ = writeln!(out, "/* {} */", lines.join("\n   "));
}

/// Parameters of the typed function: `const float *data, float *prob`.
fn typed_signature(set: &ShapeSet, freestanding: bool) -> String {
    let mut used = Vec::new();
    let mut parameters = Vec::new();
    let mut add = |port: &Port, qualifier: &str| {
        let mut name = c_identifier(&port.name).to_lowercase();
        // A trailing underscore keeps clear of keywords of C and C++; a number keeps names apart.
        if KEYWORDS.contains(&name.as_str()) {
            name.push('_');
        }
        if used.contains(&name) {
            name = format!("{name}_{}", used.len());
        }
        parameters.push(format!("{qualifier}{} *{name}", abi::dtype_c(port.dtype)));
        used.push(name);
    };
    set.inputs.iter().for_each(|port| add(port, "const "));
    set.outputs.iter().for_each(|port| add(port, ""));
    if freestanding {
        parameters.push("void *nncc_workspace".into());
    }
    if parameters.is_empty() { "void".into() } else { parameters.join(", ") }
}

/// Words that C99 or C++17 reserve (lower case, as all parameter names are) and macros that common headers define.
const KEYWORDS: &[&str] = &[
    "alignas",
    "alignof",
    "and",
    "and_eq",
    "asm",
    "auto",
    "bitand",
    "bitor",
    "bool",
    "break",
    "case",
    "catch",
    "char",
    "char16_t",
    "char32_t",
    "class",
    "compl",
    "const",
    "const_cast",
    "constexpr",
    "continue",
    "decltype",
    "default",
    "delete",
    "do",
    "double",
    "dynamic_cast",
    "else",
    "enum",
    "errno",
    "explicit",
    "export",
    "extern",
    "false",
    "float",
    "for",
    "friend",
    "goto",
    "if",
    "inline",
    "int",
    "int16_t",
    "int32_t",
    "int64_t",
    "int8_t",
    "linux",
    "long",
    "mutable",
    "namespace",
    "new",
    "noexcept",
    "not",
    "not_eq",
    "nullptr",
    "operator",
    "or",
    "or_eq",
    "private",
    "protected",
    "public",
    "register",
    "reinterpret_cast",
    "restrict",
    "return",
    "short",
    "signed",
    "sizeof",
    "static",
    "static_assert",
    "static_cast",
    "struct",
    "switch",
    "template",
    "this",
    "thread_local",
    "throw",
    "true",
    "try",
    "typedef",
    "typeid",
    "typename",
    "uint16_t",
    "uint32_t",
    "uint64_t",
    "uint8_t",
    "union",
    "unix",
    "unsigned",
    "using",
    "virtual",
    "void",
    "volatile",
    "wchar_t",
    "while",
    "xor",
    "xor_eq",
];

/// A name from the model, safe inside a C comment: one line, and no way to end the comment.
fn comment_text(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect::<String>()
        .replace("*/", "* /")
        .replace("/*", "/ *")
        .replace("\\\n", " ")
}
