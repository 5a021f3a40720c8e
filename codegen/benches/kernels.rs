//! The kernels at named shapes, as machine code of this machine's best CPU level.
//!
//! ```text
//! cargo bench -p nncc-codegen --bench kernels                            # all, half a minute
//! cargo bench -p nncc-codegen --bench kernels -- conv3x3                 # those with this in their name
//! cargo bench -p nncc-codegen --bench kernels -- --save-baseline before  # then, on the change: --baseline before
//! ```
//!
//! A case is a graph of one operator, optimized and lowered as in a network: values in channel blocks where the operator
//! takes them so, weights packed, the tile that the target's numbers give. What is timed is the operator's own steps, by
//! the library's trace hook: the Relayouts at the graph's ends are none of its. Throughput is FLOPs (two a multiply-add of
//! the direct algorithm), which criterion shows as elements: read `Gelem/s` as GFLOP/s. Softmax counts its elements.
//!
//! Shapes are layers of real networks. `nncc bench --roofline` measures the peak that they are to be seen against.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nncc_codegen::emit::{self, EmitOptions};
use nncc_codegen::lower::{AlgorithmOptions, Algorithms, SetSource, WinogradUse, lower};
use nncc_codegen::target::Target;
use nncc_ir::ops::conv::Conv;
use nncc_ir::ops::matmul::MatMul;
use nncc_ir::ops::softmax::Softmax;
use nncc_ir::{Constant, DType, Graph, Op, Origin, Tensor, TensorType};
use nncc_passes::{Options, PassCx, optimize, plan_memory};
use nncc_runtime::ffi::AbiTable;
use nncc_runtime::{Context, Library};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The operator's name in the graph: steps of this name are timed.
const LAYER: &str = "layer";

/// What a trace says of a Relayout that was inserted for the operator.
const RELAYOUT: &str = "relayout";

/// A graph compiled into memory, with its input.
struct Compiled {
    context: Context,
    input: nncc_runtime::Tensor,
    /// Nanoseconds of the operator's steps since this was last set to 0.
    spent: Arc<AtomicU64>,
    macs: u64,
}

impl Compiled {
    fn new(mut graph: Graph, winograd: WinogradUse) -> Compiled {
        let mut cx = PassCx::new(Options::default());
        optimize(&mut graph, &mut cx).expect("a graph of one operator");
        let plan = plan_memory(&graph, &mut cx).expect("known shapes");
        let targets = [Target::host().expect("a backend for this machine")];
        let sources = [SetSource { graph: &graph, plan: &plan }];
        let options = AlgorithmOptions { winograd, ..AlgorithmOptions::default() };
        let algorithms = Algorithms::choose(&sources, &targets, options);
        let program = lower("case", &sources, &targets, &algorithms).expect("an operator with a kernel");
        let macs = program.sets[0].levels[0].steps.iter().map(|s| s.macs).sum();
        let code = emit::compile_kernels(&program).expect("kernels compile");
        let jit = emit::jit(&program, &code, &EmitOptions::default()).expect("memory for code");
        // SAFETY: the symbols are those of a library that was compiled just now, under the names of the ABI.
        let abi = unsafe { AbiTable::resolve(|name| jit.symbol(name)) }.expect("every function of the ABI");
        // SAFETY: as above; the code lives as long as `jit`, which goes along as the owner.
        let library = unsafe { Library::from_abi(abi, jit) }.expect("a library that describes itself");
        let port = &library.inputs(0)[0];
        let elems: usize = port.shape.iter().product();
        // Small numbers of both signs: no denormals, no infinities.
        let values: Vec<u8> = (0..elems).flat_map(|i| ((i % 17) as f32 / 8.0 - 1.0).to_le_bytes()).collect();
        let input = nncc_runtime::Tensor::from_bytes(port.dtype, &values, &port.shape).expect("what the shape says");
        let mut context = Context::new(&library).expect("memory for a context");
        let spent = Arc::new(AtomicU64::new(0));
        let sum = spent.clone();
        context.set_trace(Some(Box::new(move |event| {
            if event.name == LAYER && event.op != RELAYOUT {
                sum.fetch_add(event.duration_ns, Ordering::Relaxed);
            }
            true
        })));
        Compiled { context, input, spent, macs }
    }

    /// The time of the operator's steps in so many runs.
    fn run(&mut self, times: u64) -> Duration {
        self.spent.store(0, Ordering::Relaxed);
        for _ in 0..times {
            self.context.run_owned(&[self.input.view()]).expect("an input of the model's own shape");
        }
        let spent = self.spent.load(Ordering::Relaxed);
        assert!(spent > 0, "no step is called {LAYER}");
        Duration::from_nanos(spent)
    }
}

/// `y = op(x, constants)`.
fn graph(op: impl Into<Op>, x: &[usize], constants: &[&[usize]]) -> Graph {
    let mut g = Graph::new("case");
    let mut operands = vec![Some(g.add_input("x", TensorType::fixed(DType::F32, x)))];
    for dims in constants {
        let numbers = (0..dims.iter().product()).map(|i: usize| (i % 13) as f32 / 64.0 - 0.09).collect();
        let constant = Constant::from_tensor(&Tensor::f32(dims, numbers));
        operands.push(Some(g.add_constant("w", constant)));
    }
    let node = g.add(op, &operands, Origin::named(LAYER), &["y"]).expect("well-typed operands");
    let y = g.results(node).next().expect("one result");
    g.add_output("y", y);
    g
}

/// Of one image, padded to keep its size (divided by the stride), with a bias.
fn conv(channels: [usize; 2], size: usize, kernel: usize, stride: usize, group: usize) -> Graph {
    let [inputs, outputs] = channels;
    let op = Conv { strides: vec![stride; 2], dilations: vec![1; 2], pads: vec![kernel / 2; 4], group };
    graph(op, &[1, inputs, size, size], &[&[outputs, inputs / group, kernel, kernel], &[outputs]])
}

fn matmul(rows: usize, inner: usize, columns: usize) -> Graph {
    graph(MatMul {}, &[rows, inner], &[&[inner, columns]])
}

/// A bench: its group, its shape, and what to compile when it runs.
type Case = (&'static str, &'static str, fn() -> Compiled);

const CASES: &[Case] = &[
    ("gemm", "256x256x256", || direct(matmul(256, 256, 256))),
    ("gemm", "197x768x3072 ViT", || direct(matmul(197, 768, 3072))),
    ("gemm", "1x4096x4096 VGG", || direct(matmul(1, 4096, 4096))),
    ("conv1x1", "64-256 56x56", || direct(conv([64, 256], 56, 1, 1, 1))),
    ("conv1x1", "1024-256 14x14", || direct(conv([1024, 256], 14, 1, 1, 1))),
    ("conv3x3", "64-64 56x56", || direct(conv([64, 64], 56, 3, 1, 1))),
    ("conv3x3", "256-256 14x14", || direct(conv([256, 256], 14, 3, 1, 1))),
    ("conv3x3", "128-128 56x56 stride 2", || direct(conv([128, 128], 56, 3, 2, 1))),
    ("conv7x7", "3-64 224x224 stride 2", || direct(conv([3, 64], 224, 7, 2, 1))),
    ("depthwise3x3", "144 56x56", || direct(conv([144, 144], 56, 3, 1, 144))),
    ("depthwise3x3", "960 7x7", || direct(conv([960, 960], 7, 3, 1, 960))),
    ("winograd", "64-64 56x56", || winograd(conv([64, 64], 56, 3, 1, 1))),
    ("winograd", "256-256 14x14", || winograd(conv([256, 256], 14, 3, 1, 1))),
    ("softmax", "12x197x197 ViT", || direct(graph(Softmax { axis: 2 }, &[12, 197, 197], &[]))),
    ("softmax", "1x1000", || direct(graph(Softmax { axis: 1 }, &[1, 1000], &[]))),
];

fn direct(graph: Graph) -> Compiled {
    Compiled::new(graph, WinogradUse::Off)
}

fn winograd(graph: Graph) -> Compiled {
    Compiled::new(graph, WinogradUse::Aggressive)
}

fn kernels(c: &mut Criterion) {
    for (group, shape, compile) in CASES {
        let mut compiled = compile();
        let elems = compiled.input.shape().iter().product::<usize>() as u64;
        let mut group = c.benchmark_group(*group);
        group.throughput(Throughput::Elements(if compiled.macs > 0 { 2 * compiled.macs } else { elems }));
        group.bench_function(BenchmarkId::from_parameter(shape), |b| b.iter_custom(|times| compiled.run(times)));
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_secs(1));
    targets = kernels
}
criterion_main!(benches);
