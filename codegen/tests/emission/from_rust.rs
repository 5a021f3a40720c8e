//! Rust programs through `nncc-runtime`: the same program as a file and in memory, the Rust side's layouts, loading.

use crate::support::*;
use nncc_codegen::backend::MachineCode;
use nncc_codegen::emit::{self, EmitOptions, abi};
use nncc_codegen::program::*;
use nncc_codegen::target::{Level, Target};
use nncc_runtime::ffi::{self, AbiTable};
use nncc_runtime::{
    Context, ContextOptions, DType, ErrorKind, Library, LoadError, Purpose, StateBlock, TensorView, TensorViewMut,
};
use std::mem::offset_of;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

fn host() -> (Program, Vec<MachineCode>) {
    affine(if cfg!(target_arch = "x86_64") { x86_64() } else { aarch64() })
}

fn in_memory() -> Library {
    let (program, code) = host();
    let jit = emit::jit(&program, &code, &EmitOptions::default()).unwrap();
    // SAFETY: the symbols are those of a library that nncc compiled, and go along with their owner.
    unsafe {
        let abi = AbiTable::resolve(|name| jit.symbol(name)).unwrap();
        Library::from_abi(abi, jit).unwrap()
    }
}

fn in_file(dir: &TempDir) -> Library {
    let (program, code) = host();
    let path = dir.0.join("affine.so");
    emit::emit_shared(&program, &code, &EmitOptions::default(), &path).unwrap();
    // SAFETY: just written.
    unsafe { Library::open(path) }.unwrap()
}

fn input(rows: usize) -> Vec<f32> {
    (0..rows * ROW).map(|i| (i % 37) as f32 * 0.37 - 3.0).collect()
}

fn want(rows: usize) -> Vec<f32> {
    input(rows).iter().enumerate().map(|(i, x)| x * weight(i % ROW) + bias(i % ROW)).collect()
}

#[test]
fn runtime_layouts_are_the_emitted_ones() {
    use abi::{bounds, event, options, state, step, tensor};
    use nncc_codegen::state::header;
    macro_rules! same {
        ($raw:ident, $module:ident: $($field:ident = $constant:ident),*) => {
            $(assert_eq!(offset_of!(ffi::$raw, $field), $module::$constant as usize);)*
        };
    }
    same!(RawTensor, tensor: data = DATA, shape = SHAPE, name = NAME, bytes = BYTES, dtype = DTYPE, rank = RANK, layout = LAYOUT);
    same!(RawStep, step: name = NAME, op = OP, kernel = KERNEL, tasks = TASKS, macs = MACS, bytes = BYTES);
    same!(RawEvent, event: start_ns = START, duration_ns = DURATION, name = NAME, op = OP, results = RESULTS);
    same!(RawEvent, event: result_count = RESULT_COUNT, step = STEP, set = SET, level = LEVEL);
    same!(RawOptions, options: struct_size = STRUCT_SIZE, threads = THREADS, max_level = MAX_LEVEL, workspace = WORKSPACE);
    same!(RawOptions, options: workspace_bytes = WORKSPACE_BYTES, parallel_for = PARALLEL_FOR, clock = CLOCK);
    same!(RawOptions, options: parallel_user = PARALLEL_USER, clock_user = CLOCK_USER);
    same!(Bounds, bounds: arena_bytes = ARENA, scratch_bytes = SCRATCH, stack_bytes = STACK, code_bytes = CODE);
    same!(RawState, state: tensor = TENSOR, offset = OFFSET, role = ROLE, reserved = RESERVED);
    same!(RawStateHeader, header: magic = MAGIC, version = VERSION, bytes = BYTES, hash = HASH, seed = SEED, steps = STEPS);
    assert_eq!(size_of::<ffi::RawState>(), abi::state::SIZE as usize);
    same!(Bounds, bounds: weight_bytes = WEIGHTS, macs = MACS, imports = IMPORTS);
    assert_eq!(size_of::<ffi::Bounds>(), abi::bounds::SIZE as usize);
    assert_eq!(size_of::<ffi::RawTensor>(), abi::tensor::SIZE as usize);
    assert_eq!(size_of::<ffi::RawOptions>(), abi::options::SIZE as usize);
    assert_eq!(size_of::<ffi::RawEvent>(), abi::event::SIZE as usize);
    assert_eq!(ffi::ABI_VERSION, abi::VERSION);
    for dtype in nncc_ir::DType::ALL {
        let ours = DType::from_code(abi::dtype_code(dtype)).unwrap();
        assert_eq!((ours.to_string().as_str(), ours.size()), (dtype.name(), dtype.bytes()));
    }
    for (error, ..) in abi::ERRORS.iter().skip(1) {
        assert_eq!(format!("{:?}", ErrorKind::from_code(*error as i32)), format!("{error:?}"));
    }
}

#[test]
fn file_and_memory_describe_and_run_alike() {
    let dir = TempDir::new("alike");
    for library in [in_memory(), in_file(&dir)] {
        assert_eq!((library.name(), library.set_count()), ("affine", 2));
        assert_eq!(library.inputs(1)[0].shape, [9, ROW]);
        assert_eq!((library.outputs(0)[0].name.as_str(), library.outputs(0)[0].dtype), ("y", DType::F32));
        let level = library.best_level().unwrap();
        assert_eq!(library.levels().len(), host().0.targets.len());
        assert_eq!(library.steps(0, level)[1].name, "add");
        assert_eq!(library.bounds(1, level).unwrap().weight_bytes, 512);
        let mut context = Context::new(&library).unwrap();
        assert_eq!(context.level(), level);
        for rows in [9, 4, 9] {
            let x = input(rows);
            let outputs = context.run_owned(&[TensorView::new(&x, &[rows, ROW])]).unwrap();
            assert_eq!(outputs[0].as_slice::<f32>().unwrap(), want(rows));
        }
    }
}

#[test]
fn levels_can_be_forced() {
    let library = in_memory();
    let mut context = Context::with_options(&library, ContextOptions { max_level: 1, ..Default::default() }).unwrap();
    assert_eq!(context.level(), 0);
    let x = input(4);
    assert_eq!(context.run_owned(&[TensorView::new(&x, &[4, ROW])]).unwrap()[0].as_slice::<f32>().unwrap(), want(4));
}

#[test]
fn wrong_calls_give_typed_errors() {
    let library = in_memory();
    let mut context = Context::new(&library).unwrap();
    let (x, y) = (input(4), [0_i32; 4 * ROW]);
    let shape = [4, ROW];
    let mut out = vec![0.0_f32; 4 * ROW];
    let mut fail = |input: TensorView, shape_out: &[usize]| {
        let error = context.run(&[input], &mut [TensorViewMut::new(&mut out, shape_out)]).unwrap_err();
        (error.kind, error.message)
    };
    assert_eq!(
        fail(TensorView::new(&y, &shape), &shape),
        (ErrorKind::Dtype, "input 0 \"x\": the element type must be f32".into())
    );
    let odd = "input 0 \"x\": the shape must be [4, 64] or [9, 64]";
    assert_eq!(fail(TensorView::new(&x, &[2, 128]), &shape), (ErrorKind::Shape, odd.into()));
    assert_eq!(fail(TensorView::new(&x[1..], &shape), &shape).0, ErrorKind::Size);
    assert_eq!(fail(TensorView::new(&x, &shape), &[9, ROW]).0, ErrorKind::Size);
    let error = context.run_owned(&[TensorView::new(&x, &[2, 128])]).unwrap_err();
    assert_eq!(error.to_string(), "input shapes [2, 128] were given; compiled for [4, 64]; [9, 64]");
    assert_eq!(context.run_owned(&[]).unwrap_err().to_string(), "the model has 1 inputs, 0 were given");
    let many = Context::with_options(&library, ContextOptions { threads: 70_000, ..Default::default() });
    assert_eq!(many.unwrap_err().kind, ErrorKind::Options);
}

#[test]
fn files_that_are_no_library_are_refused() {
    let dir = TempDir::new("no-library");
    let path = dir.0.join("text.so");
    std::fs::write(&path, "not an ELF file").unwrap();
    // SAFETY: no library, so nothing is loaded.
    assert!(matches!(unsafe { Library::open(&path) }, Err(LoadError::Open { .. })));
    // SAFETY: libc is trusted.
    let foreign = unsafe { Library::open("/lib/x86_64-linux-gnu/libm.so.6") };
    assert!(matches!(foreign, Err(LoadError::Missing("nncc_abi_version") | LoadError::Open { .. })));
}

#[test]
fn threads_of_the_caller_and_of_the_library_agree() {
    let library = in_memory();
    let x = input(9);
    let calls = Arc::new(AtomicU32::new(0));
    let mut results = Vec::new();
    for threads in 1..=4 {
        let mut context = Context::with_options(&library, ContextOptions { threads, ..Default::default() }).unwrap();
        results.push(context.run_owned(&[TensorView::new(&x, &[9, ROW])]).unwrap());
    }
    let counter = calls.clone();
    let parallel_for = Box::new(move |count: u32, task: &(dyn Fn(u32) + Sync)| {
        counter.fetch_add(1, Ordering::Relaxed);
        std::thread::scope(|scope| (0..count).for_each(|i| drop(scope.spawn(move || task(i)))));
    });
    let options = ContextOptions { threads: 3, parallel_for: Some(parallel_for), ..Default::default() };
    let mut context = Context::with_options(&library, options).unwrap();
    results.push(context.run_owned(&[TensorView::new(&x, &[9, ROW])]).unwrap());
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    assert!(results.iter().all(|result| result[0].as_slice::<f32>().unwrap() == want(9)));
}

#[test]
fn contexts_run_in_threads_of_their_own() {
    let library = in_memory();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut context = Context::new(&library).unwrap();
                let x = input(9);
                for _ in 0..200 {
                    let y = context.run_owned(&[TensorView::new(&x, &[9, ROW])]).unwrap();
                    assert_eq!(y[0].as_slice::<f32>().unwrap(), want(9));
                }
            });
        }
    });
}

#[test]
fn trace_hook_sees_each_step_and_can_stop() {
    let library = in_memory();
    let mut context = Context::new(&library).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    context.set_trace(Some(Box::new(move |event| {
        let values = event.results.iter().map(|result| (result.name.clone(), result.bytes.len())).collect::<Vec<_>>();
        sink.lock().unwrap().push((event.step, event.name.clone(), values));
        true
    })));
    let x = input(4);
    let inputs = [TensorView::new(&x, &[4, ROW])];
    context.run_owned(&inputs).unwrap();
    let step = |i, name: &str, value: &str| (i, name.to_owned(), vec![(value.to_owned(), 4 * 4 * ROW)]);
    assert_eq!(*seen.lock().unwrap(), [step(0, "mul", "t"), step(1, "add", "y")]);
    context.set_trace(Some(Box::new(|_| false)));
    assert_eq!(context.run_owned(&inputs).unwrap_err().kind, ErrorKind::Stopped);
    context.set_trace(Some(Box::new(|_| panic!("in the hook"))));
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| context.run_owned(&inputs))).unwrap_err();
    assert_eq!(panic.downcast_ref::<&str>(), Some(&"in the hook"));
    context.set_trace(None);
    assert!(context.run_owned(&inputs).is_ok());
}

/// States through the run time: steps, the same in several contexts, saved and loaded, wrong blocks.
#[test]
fn states_are_learnt_saved_and_loaded() {
    let (program, code) = learner(if cfg!(target_arch = "x86_64") { x86_64() } else { aarch64() });
    let dir = TempDir::new("states");
    let path = dir.0.join("learner.so");
    emit::emit_shared(&program, &code, &EmitOptions::default(), &path).unwrap();
    // SAFETY: just written.
    let library = unsafe { Library::open(path) }.unwrap();
    assert_eq!(library.states()[1].port.shape, [3]);
    assert_eq!((library.purpose(0), library.inputs(0).len(), library.inputs(2).len()), (Purpose::Step, 3, 1));
    let mut states = StateBlock::new(&library, 5).unwrap();
    let fresh = states.bytes().to_vec();
    let mut context = Context::new(&library).unwrap();
    let (x, target, rate) = (input(4), vec![1.0_f32; ROW], [0.1_f32]);
    let row = [1, ROW];
    let all = [TensorView::new(&x, &[4, ROW]), TensorView::new(&target, &row), TensorView::new(&rate, &[])];
    let run = |context: &mut Context, states: &mut StateBlock, count: usize| {
        let (mut y, mut sum) = (vec![0.0_f32; 4 * ROW], vec![0.0_f32; ROW]);
        let mut outputs = [TensorViewMut::new(&mut y, &[4, ROW]), TensorViewMut::new(&mut sum, &row)];
        match count {
            3 => context.run_learning(states, &all, &mut outputs)?,
            _ => context.run_learnt(states, &all[..count], &mut outputs[..count])?,
        }
        Ok::<_, nncc_runtime::RunError>(sum[1])
    };
    assert_eq!(run(&mut context, &mut states, 3), Ok(weight(1)));
    assert_eq!((run(&mut context, &mut states, 2), states.steps(), states.seed()), (Ok(2.0 * weight(1)), 1, 5));
    run(&mut context, &mut states, 1).unwrap();
    assert_eq!(states.get(0).bytes()[4..8], (2.0 * weight(1)).to_le_bytes());
    let refused = context.run_learnt(&states, &all, &mut []).unwrap_err();
    assert_eq!((refused.kind, states.steps()), (ErrorKind::State, 1));
    assert_eq!(context.run_owned(&all).unwrap_err().kind, ErrorKind::State, "no block is left attached");

    let learnt = states.bytes().to_vec();
    states.load(&fresh).unwrap();
    assert_eq!((run(&mut context, &mut states, 2), states.steps()), (Ok(weight(1)), 0));
    assert!(states.get_mut(0).copy_from_bytes(&[0; 4 * ROW]) && !states.get_mut(0).copy_from_bytes(&[0; 4]));
    assert_eq!(run(&mut context, &mut states, 2), Ok(0.0));
    states.load(&learnt).unwrap();
    let kind = |result: Result<(), nncc_runtime::RunError>| result.unwrap_err().kind;
    assert_eq!(kind(states.load(&learnt[..learnt.len() - 1])), ErrorKind::Size);
    assert_eq!(kind(states.load(&learnt[..20])), ErrorKind::Size);
    assert_eq!(kind(states.load(&vec![1; learnt.len()])), ErrorKind::State);
    assert_eq!(states.bytes(), learnt);

    let none = in_memory();
    assert_eq!((kind(StateBlock::new(&none, 0).map(drop)), none.states().len()), (ErrorKind::State, 0));
    let other = run(&mut Context::new(&none).unwrap(), &mut states, 3);
    assert_eq!(other.unwrap_err().to_string(), "the library does not learn");
}

/// A library of before a description function came still loads and runs; one without a function that runs need does not.
#[test]
fn only_later_description_functions_may_be_missing() {
    let (program, code) = host();
    let jit = emit::jit(&program, &code, &EmitOptions::default()).unwrap();
    let without = |missing: &str| {
        // SAFETY: as in `in_memory`.
        unsafe { AbiTable::resolve(|name| (name != missing).then(|| jit.symbol(name)).flatten()) }
    };
    for needed in ["nncc_step", "nncc_run", "nncc_destroy"] {
        assert_eq!(without(needed).err(), Some(needed));
    }
    let mut old = without("nncc_step_weights").unwrap();
    (old.step_cycles, old.step_moved) = (None, None);
    // SAFETY: as in `in_memory`.
    let library = unsafe { Library::from_abi(old, jit).unwrap() };
    let (known, unknown) = (in_memory().steps(0, 0), library.steps(0, 0));
    assert!(known.iter().any(|step| step.weight_bytes > 0 && step.cycles == 1234 && step.moved > 0));
    let untold = known.into_iter().map(|step| nncc_runtime::Step { weight_bytes: 0, cycles: 0, moved: 0, ..step });
    assert!(untold.eq(unknown), "the rest is told as before");
    Context::new(&library).unwrap();
}

#[test]
fn code_of_another_architecture_is_not_put_in_memory() {
    let (program, code) = affine(if cfg!(target_arch = "x86_64") { aarch64() } else { x86_64() });
    let error = emit::jit(&program, &code, &EmitOptions::default()).err().unwrap();
    assert!(error.to_string().contains("it cannot run in memory here"), "{error}");
}

/// A library for a CPU that this is not.
#[test]
fn missing_cpu_level_is_an_error() {
    if !cfg!(target_arch = "x86_64") || nncc_codegen::target::host_has(Level::X86V4) {
        return;
    }
    let (program, code) = affine(vec![Target::x86_64_v4()]);
    let jit = emit::jit(&program, &code, &EmitOptions::default()).unwrap();
    // SAFETY: as in `in_memory`.
    let library = unsafe { Library::from_abi(AbiTable::resolve(|name| jit.symbol(name)).unwrap(), jit).unwrap() };
    assert_eq!(library.best_level(), None);
    assert_eq!(Context::new(&library).unwrap_err().kind, ErrorKind::Cpu);
}

/// Weights made when they are written: a ramp that starts at a given value.
struct Ramp(usize);

impl ConstSource for Ramp {
    fn len(&self) -> usize {
        self.0
    }

    fn write(&self, out: &mut [u8]) {
        for (i, word) in out.chunks_exact_mut(4).enumerate() {
            word.copy_from_slice(&(i as f32).to_le_bytes());
        }
    }
}

/// Loading maps the weights, it does not read them: 100 MB load in the time of a few pages.
#[test]
fn large_weights_load_without_being_read() {
    let dir = TempDir::new("large");
    let (mut program, code) = host();
    let bytes = 100 << 20;
    program.consts.push(Const { data: ConstData::Deferred(Arc::new(Ramp(bytes))), align: 64 });
    program
        .consts
        .push(Const { data: ConstData::Splat { pattern: Arc::from(1.5_f32.to_le_bytes()), count: ROW }, align: 64 });
    for plan in program.sets.iter_mut().flat_map(|set| &mut set.levels) {
        plan.steps[0].args[1] = Arg::Const(ConstId(2), bytes - 4 * ROW);
        plan.steps[1].args[1] = Arg::Const(ConstId(3), 0);
    }
    let path = dir.0.join("large.so");
    let emitted = emit::emit_shared(&program, &code, &EmitOptions::default(), &path).unwrap();
    let overhead = std::fs::metadata(&path).unwrap().len() - emitted.weight_bytes;
    assert!(overhead < 100_000, "{overhead} bytes beside the weights");
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/statm").unwrap();
        status.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    };
    let before = resident();
    // SAFETY: just written.
    let library = unsafe { Library::open(&path) }.unwrap();
    let mut context = Context::new(&library).unwrap();
    let x = input(4);
    let y = context.run_owned(&[TensorView::new(&x, &[4, ROW])]).unwrap();
    // Other tests run in this process meanwhile, none of which takes tens of megabytes but the emission of another library.
    assert!(resident() < before + (50 << 20), "the weights were read");
    let start = (bytes / 4 - ROW) as f32;
    let want: Vec<f32> = x.iter().enumerate().map(|(i, x)| x * (start + (i % ROW) as f32) + 1.5).collect();
    assert_eq!(y[0].as_slice::<f32>().unwrap(), want);
}
