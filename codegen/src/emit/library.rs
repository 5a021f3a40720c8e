//! Builds a library's code in a Cranelift module: the same for object files and for memory.
//!
//! A library is three blocks (kernels, tables, weights) and some thirty small functions around them. The functions read the
//! tables, so their number does not grow with the model: a model of ten thousand steps costs table rows, not code.

use super::abi::{self, Entry};
use super::clif::Code;
use super::functions::{Fun, Functions};
use super::tables::{self, Tables};
use super::{EmitError, EmitOptions, entry, native};
use crate::backend::MachineCode;
use crate::program::Program;
use cranelift_codegen::Context;
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_module::{DataDescription, DataId, Linkage, Module};
use rustc_hash::FxHashMap;
use target_lexicon::Architecture;

/// Stack that libc may use under a run: a system call's wrapper, `clock_gettime` in the vDSO.
const LIBC_STACK: u64 = 512;

/// Return address and frame pointer, which Cranelift does not count in a frame.
const FRAME_OVERHEAD: u64 = 16;

/// What the emitted code knows of the model, as constants.
pub struct Info {
    /// The target's architecture.
    pub architecture: Architecture,
    /// Whether nothing may be imported.
    pub freestanding: bool,
    /// Whether the model has states.
    pub learns: bool,
    /// Numbers of inputs and outputs (of a set that has most), shape sets and CPU levels.
    pub inputs: usize,
    /// As above.
    pub outputs: usize,
    /// As above.
    pub sets: usize,
    /// As above.
    pub levels: usize,
    /// Where things are in the tables.
    pub tables: Tables,
    /// The table block.
    pub tables_id: DataId,
    /// The weights.
    pub weights_id: DataId,
    /// Bytes of machine code and of weights, for `nncc_bounds`.
    pub code_bytes: u64,
    /// As above.
    pub weight_bytes: u64,
}

/// A library whose code is in a module.
pub struct Library {
    /// Its functions.
    pub functions: Functions,
    /// Data that the caller must define: the weights, of `weight_bytes` bytes.
    pub weights_id: DataId,
    /// Where each constant lies in the weights.
    pub const_offsets: Vec<usize>,
    /// Bytes of the weights.
    pub weight_bytes: u64,
    /// Where each kernel lies in the kernel block.
    pub kernel_offsets: Vec<usize>,
    /// Bytes of machine code.
    pub code_bytes: u64,
    /// Bound of a run's stack, by level.
    pub stack_bytes: Vec<u64>,
}

/// Where blocks of the given (bytes, align) go when laid one after the other; and the end.
pub fn lay_out(blocks: impl Iterator<Item = (usize, usize)>) -> (Vec<usize>, usize) {
    let mut end = 0;
    let offsets = blocks
        .map(|(bytes, align): (usize, usize)| {
            let offset = usize::next_multiple_of(end, align);
            end = offset + bytes;
            offset
        })
        .collect();
    (offsets, end)
}

/// Where each constant lies in the weights; and their size.
pub fn lay_out_consts(program: &Program) -> (Vec<usize>, usize) {
    lay_out(program.consts.iter().map(|c| (c.data.len(), c.align)))
}

/// Whether the model gets a typed convenience function: it needs no states, and its parameter list must stay readable.
pub fn typed_parameters(program: &Program, freestanding: bool) -> Option<usize> {
    let set = &program.sets[0];
    if program.learns() {
        return None;
    }
    let count = set.inputs.len() + set.outputs.len();
    (count <= 32).then_some(count + usize::from(freestanding))
}

/// Workspace for so many threads and any set: what the emitted `nncc_workspace_size` computes.
pub fn workspace_bytes(program: &Program, threads: usize) -> u64 {
    let set = &program.sets[0];
    let head = entry::head_bytes(set.inputs.len() + set.outputs.len(), threads);
    let plans = program.sets.iter().flat_map(|set| &set.levels);
    let most = plans.map(|plan| plan.arena_bytes + threads * tables::scratch_stride(plan)).max().unwrap_or(0);
    (head + most).next_multiple_of(abi::WORKSPACE_ALIGN) as u64
}

/// Defines all functions and tables of a program in a module. The weights are declared only.
pub fn build(
    module: &mut dyn Module,
    program: &Program,
    code: &[MachineCode],
    options: &EmitOptions,
) -> Result<Library, EmitError> {
    program.verify()?;
    assert_eq!(code.len(), program.kernels.len(), "one machine code for each kernel");
    let set = &program.sets[0];
    let typed = typed_parameters(program, options.freestanding);
    let functions = Functions::declare(module, options.freestanding, program.learns(), typed)?;
    let tables_id = module.declare_data("nncc.tables", Linkage::Local, false, false)?;
    let weights_id = module.declare_data("nncc.weights", Linkage::Import, false, false)?;

    let (kernel_offsets, kernel_bytes) = lay_out(code.iter().map(|c| (c.bytes.len(), c.align.max(32) as usize)));
    if kernel_bytes > i32::MAX as usize {
        return Err(EmitError::TooLarge { what: "machine code", bytes: kernel_bytes as u64, limit: i32::MAX as u64 });
    }
    let (const_offsets, weight_bytes) = lay_out_consts(program);
    define_kernels(module, &functions, code, &kernel_offsets, kernel_bytes)?;

    let mut info = Info {
        architecture: program.targets[0].triple.architecture,
        freestanding: options.freestanding,
        learns: program.learns(),
        inputs: set.inputs.len(),
        outputs: set.outputs.len(),
        sets: program.sets.len(),
        levels: program.targets.len(),
        tables: tables::build(program, &kernel_offsets, &const_offsets)?,
        tables_id,
        weights_id,
        code_bytes: kernel_bytes as u64,
        weight_bytes: weight_bytes as u64,
    };
    let mut builder = Builder {
        module,
        functions: &functions,
        context: Context::new(),
        scratch: FunctionBuilderContext::new(),
        frames: FxHashMap::default(),
        code_bytes: 0,
    };
    builder.natives(info.architecture)?;
    entry::define_all(&mut builder, &info, typed)?;
    // `nncc_bounds` is defined last, for it tells the size of the code before it. Its own size is not known to itself;
    // the bound rounds up by more than it can have.
    info.code_bytes = (kernel_bytes as u64 + builder.code_bytes + 1024).next_multiple_of(1024);
    entry::define_bounds(&mut builder, &info)?;
    let frames = builder.frames;

    let stack_bytes = (0..info.levels).map(|level| stack_bound(program, code, &frames, level)).collect::<Vec<_>>();
    info.tables.set_stack(&stack_bytes);
    let mut data = DataDescription::new();
    data.define(std::mem::take(&mut info.tables.bytes).into_boxed_slice());
    data.set_align(8);
    module.define_data(tables_id, &data)?;
    Ok(Library {
        functions,
        weights_id,
        const_offsets,
        weight_bytes: weight_bytes as u64,
        kernel_offsets,
        code_bytes: info.code_bytes,
        stack_bytes,
    })
}

/// All kernels as one block of code, so that the plan can name a kernel by an offset and needs no relocation.
fn define_kernels(
    module: &mut dyn Module,
    functions: &Functions,
    code: &[MachineCode],
    offsets: &[usize],
    bytes: usize,
) -> Result<(), EmitError> {
    let mut block = vec![0; bytes.max(1)];
    let mut align = 64;
    for (code, &offset) in code.iter().zip(offsets) {
        block[offset..offset + code.bytes.len()].copy_from_slice(&code.bytes);
        align = align.max(code.align);
    }
    module.define_function_bytes(functions.id(Fun::Kernels), u64::from(align), &block, &[])?;
    Ok(())
}

/// The deepest chain of frames in a run: entry, step loop, then a kernel, directly or through the pool.
fn stack_bound(program: &Program, code: &[MachineCode], frames: &FxHashMap<Fun, u64>, level: usize) -> u64 {
    let frame = |fun| frames.get(&fun).copied().unwrap_or(0);
    let kernels = program.kernels.iter().zip(code);
    let kernel = kernels
        .filter(|(kernel, _)| kernel.level == program.targets[level].level)
        .map(|(_, code)| u64::from(code.stack) + FRAME_OVERHEAD)
        .max()
        .unwrap_or(0);
    let entry = [Entry::Run, Entry::RunTensors].map(|entry| frame(Fun::Entry(entry))).into_iter().max().unwrap_or(0);
    let pooled = frame(Fun::Parallel).max(frame(Fun::Worker)).max(frame(Fun::Task)) + frame(Fun::Part);
    let above = frame(Fun::TypedRun) + entry + frame(Fun::Execute);
    (above + (pooled + kernel).max(frame(Fun::Trace) + frame(Fun::Now)) + LIBC_STACK).next_multiple_of(256)
}

/// Compiles functions one by one into a module.
pub struct Builder<'a> {
    module: &'a mut dyn Module,
    functions: &'a Functions,
    context: Context,
    scratch: FunctionBuilderContext,
    frames: FxHashMap<Fun, u64>,
    code_bytes: u64,
}

impl Builder<'_> {
    /// Defines a function by the code that `body` writes.
    pub fn define(&mut self, info: &Info, fun: Fun, body: impl FnOnce(&mut Code)) -> Result<(), EmitError> {
        self.context.clear();
        self.context.func.signature = self.functions.signature(fun).clone();
        let b = FunctionBuilder::new(&mut self.context.func, &mut self.scratch);
        let mut code = Code::new(b, &mut *self.module, self.functions, info);
        body(&mut code);
        code.finish();
        self.module.define_function(self.functions.id(fun), &mut self.context)?;
        let buffer = &self.context.compiled_code().expect("just compiled").buffer;
        let frame = buffer.frame_layout().map_or(0, |layout| u64::from(layout.frame_to_fp_offset));
        self.frames.insert(fun, frame + FRAME_OVERHEAD);
        self.code_bytes += buffer.data().len().next_multiple_of(16) as u64;
        Ok(())
    }

    fn natives(&mut self, architecture: Architecture) -> Result<(), EmitError> {
        for fun in [Fun::Cpuid, Fun::Xgetbv, Fun::FpSwap, Fun::Pause] {
            if let (true, Some(bytes)) = (self.functions.has(fun), native::bytes(fun, architecture)) {
                self.module.define_function_bytes(self.functions.id(fun), 16, bytes, &[])?;
                self.code_bytes += bytes.len().next_multiple_of(16) as u64;
            }
        }
        Ok(())
    }
}
