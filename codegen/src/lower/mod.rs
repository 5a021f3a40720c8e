//! Lowering: graphs with a memory plan in, a [`Program`] of kernels and steps out.
//!
//! Every node becomes zero or more steps, for each shape set and each CPU level on its own; packed weights and equal kernels
//! are shared by all of them. What an operator becomes is decided in `lower/<family>.rs`, the file of the same name as the
//! operator's home in `ir/src/ops/`: a function `lower(op, cx)` that reads its operands from the [`LowerCx`], asks a template
//! in `kernels/` for a kernel and appends steps. Dispatch is the one `match` in `lower_op`.
//!
//! ```text
//! Graph + Placement ──> lower_op ──> lower/<family>.rs ──> kernels/<template>.rs ──> Kernel
//!    (one a set)          │                │                                            │ deduplicated by content
//!                         │                └── cx.packed / cx.constant ──> Const        │ deduplicated by content
//!                         └── cx.step ──> Step {kernel, args, tasks}  ──────────────────┘
//! ```
//!
//! What a lowering may rely on: dimensions are known numbers; operand and output places do not overlap unless the plan
//! computes in place, and then they are equal. What it must keep: a step writes only its outputs and workspace, and works
//! for any partition of its tasks over threads.
//!
//! Memory beyond the plan: `scratch` is per thread and holds nothing between tasks of different threads or steps;
//! [`LowerCx::workspace`] is shared by all threads and holds between the steps of one node. The workspace lies behind the
//! planned arena and is as large as the largest demand of one node, which may differ by CPU level.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | the driver, dispatch, errors |
//! | [`movement`] | what operators share that only move elements: boxes as strided copies |
//! | [`cx`] | what a lowering sees: operands, constants, kernels, steps |
//! | `fused` | an operator with an elementwise program behind it |
//! | `panels` | weights for the templates: constants, or packed by a step |
//! | [`bands`] | which layers are computed depth first, in bands of rows |
//! | [`tiles`] | which poolings are computed in the tiles of the convolution before them |
//! | [`algorithm`] | which convolutions Winograd computes, chosen for the whole model |
//! | [`placement`] | where values lie: what is asked of a memory plan |
//! | [`pools`] | constants and kernels, each once |

pub mod algorithm;
pub mod attention;
pub mod bands;
mod batch_norm;
mod chain;
pub mod concat;
mod conv;
pub mod cx;
mod dropout;
pub mod einsum;
pub mod elementwise;
pub mod expand;
pub mod fold;
mod fused;
pub mod gather;
mod matmul;
pub mod movement;
pub mod norm;
pub mod one_hot;
pub mod pad;
mod panels;
pub mod placement;
mod pool;
mod pool_gradient;
pub mod pools;
pub mod reduce;
pub mod reshape;
pub mod resize;
mod rows;
mod rrelu;
pub mod scan;
pub mod scatter;
pub mod slice;
pub mod softmax;
pub mod space_depth;
pub mod tiles;
pub mod top_k;
pub mod transpose;
pub mod trilu;
mod weight_gradient;

pub use algorithm::{AlgorithmOptions, Algorithms, WinogradUse};
pub use cx::{Call, LowerCx, Operand};
pub use placement::{Placement, Separate};

use crate::pack::Packed;
use crate::program::{LevelPlan, Port, Program, ProgramError, Purpose, ShapeSet};
use crate::state::{self, Binding, StateSource};
use crate::target::Target;
use nncc_ir::{Graph, Layout, Op, Pointwise, TensorType, ValueId};
use pools::Pools;

/// Why a graph could not be lowered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LowerError {
    /// nncc has no kernel for this.
    #[error("unsupported: {op}: {what}\n  --> node \"{node}\"")]
    Unsupported {
        /// The model's name for the node.
        node: String,
        /// The operator.
        op: String,
        /// What about it, with the offending type or attribute.
        what: String,
    },
    /// A dimension is still a symbol.
    #[error("{value} has the unknown dimension {dim}\n  --> node \"{node}\"\n  help: fix it with --dim {dim}=NUMBER")]
    Symbolic {
        /// The model's name for the node.
        node: String,
        /// The value.
        value: String,
        /// The symbol.
        dim: String,
    },
    /// A tensor beyond what can be addressed.
    #[error("{value} is too large: {ty}\n  --> node \"{node}\"")]
    TooLarge {
        /// The model's name for the node.
        node: String,
        /// The value.
        value: String,
        /// Its type.
        ty: String,
    },
    /// Constants of one repeated element, which take no place in a model's file, would make a library without bounds.
    #[error(
        "constants of one repeated element take {bytes} bytes here, {MAX_EXPANDED} are allowed\n  --> node \"{node}\""
    )]
    TooMuchExpanded {
        /// The model's name for the node at which the limit is passed.
        node: String,
        /// All of them so far.
        bytes: usize,
    },
    /// The graph or its plan breaks a promise: a bug in nncc.
    #[error("internal error: lowering of node \"{node}\": {what}")]
    Internal {
        /// The model's name for the node.
        node: String,
        /// Which promise.
        what: String,
    },
    /// What came out is malformed: a bug in nncc.
    #[error(transparent)]
    Program(#[from] ProgramError),
}

/// Bytes that constants of one repeated element may take in a library, all together. A file of a few hundred bytes can ask for
/// any number; the largest honest ones are whole networks without their weights (VGG-19 in the ONNX suite: 575 MB).
const MAX_EXPANDED: usize = 1 << 30;

/// One combination of input shapes to compile: the graph with these shapes and where its values lie.
#[derive(Clone, Copy)]
pub struct SetSource<'a> {
    /// Optimized, every dimension known.
    pub graph: &'a Graph,
    /// Its memory plan.
    pub plan: &'a dyn Placement,
}

/// Lowers a model: one shape set for each of `sets`, one plan in it for each of `targets` (of one triple, levels rising), with
/// the `algorithms` chosen for both.
///
/// # Errors
/// A node that has no kernel, an unknown dimension, or a bug of an earlier pass.
pub fn lower(
    name: &str,
    sets: &[SetSource<'_>],
    targets: &[Target],
    algorithms: &Algorithms,
) -> Result<Program, LowerError> {
    require_row_major(sets)?;
    lower_any_layout(name, sets, targets, algorithms)
}

/// Callers see inputs, outputs and states in the plain order.
fn require_row_major(sets: &[SetSource<'_>]) -> Result<(), LowerError> {
    for graph in sets.iter().map(|set| set.graph) {
        let ports = graph.inputs().iter().map(|&node| ValueId { node, out: 0 });
        for v in ports.chain(graph.outputs().iter().map(|&(_, v)| v)) {
            if graph.value(v).layout != Layout::RowMajor {
                let what = format!("{}, an input or output of the graph, is not row-major", graph.value(v).name);
                return Err(LowerError::Internal { node: graph.node_name(v.node), what });
            }
        }
    }
    Ok(())
}

/// Lowers a model that learns: `bindings` say for each set which of its graph's inputs and outputs are `states`.
///
/// # Errors
/// As [`lower`]; states beyond what can be addressed.
pub fn lower_learning(
    name: &str,
    sets: &[SetSource<'_>],
    bindings: &[Binding],
    states: &[StateSource],
    targets: &[Target],
    algorithms: &Algorithms,
) -> Result<Program, LowerError> {
    let internal = |what: &str| LowerError::Internal { node: "states".into(), what: what.into() };
    let ports = |set: &SetSource<'_>| (set.graph.inputs().len(), set.graph.outputs().len());
    if !sets.iter().map(ports).eq(bindings.iter().map(|b| (b.inputs.len(), b.outputs.len()))) {
        return Err(internal("bindings that are not those of the sets' inputs and outputs"));
    }
    require_row_major(sets)?;
    let mut program = lower_sets(name, sets, targets, algorithms, |pools| {
        state::lay_out(states, &mut |value| pools.packed(Packed::raw(value)))
            .ok_or_else(|| internal("together larger than memory"))
    })?;
    for (set, binding) in program.sets.iter_mut().zip(bindings) {
        state::bind(set, binding, &program.states);
    }
    program.verify()?;
    Ok(program)
}

/// [`lower`] for graphs whose inputs and outputs may be blocked, as no model's are: for tests of kernels on blocked values.
pub(crate) fn lower_any_layout(
    name: &str,
    sets: &[SetSource<'_>],
    targets: &[Target],
    algorithms: &Algorithms,
) -> Result<Program, LowerError> {
    let program = lower_sets(name, sets, targets, algorithms, |_| Ok(vec![]))?;
    program.verify()?;
    Ok(program)
}

fn lower_sets(
    name: &str,
    sets: &[SetSource<'_>],
    targets: &[Target],
    algorithms: &Algorithms,
    states: impl FnOnce(&mut Pools) -> Result<Vec<state::State>, LowerError>,
) -> Result<Program, LowerError> {
    let mut pools = Pools::default();
    let sets =
        sets.iter().map(|set| lower_set(*set, targets, algorithms, &mut pools)).collect::<Result<Vec<_>, _>>()?;
    let states = states(&mut pools)?;
    let (consts, kernels) = pools.into_parts();
    Ok(Program { name: name.into(), targets: targets.to_vec(), consts, kernels, states, sets })
}

fn lower_set(
    set: SetSource<'_>,
    targets: &[Target],
    algorithms: &Algorithms,
    pools: &mut Pools,
) -> Result<ShapeSet, LowerError> {
    let port = |name: &str, v| {
        let (ty, shape) = (set.graph.ty(v), cx::known_dims(set.graph, v)?);
        Ok(Port { name: name.into(), dtype: ty.dtype, shape })
    };
    let inputs = set.graph.inputs().iter().map(|&n| {
        let v = ValueId { node: n, out: 0 };
        port(&set.graph.value(v).name, v)
    });
    let inputs = inputs.collect::<Result<_, LowerError>>()?;
    let outputs = set.graph.outputs().iter().map(|(name, v)| port(name, *v)).collect::<Result<_, LowerError>>()?;
    let levels = targets.iter().map(|t| lower_level(set, t, algorithms, pools)).collect::<Result<_, _>>()?;
    Ok(ShapeSet { purpose: Purpose::Infer, inputs, outputs, levels })
}

fn lower_level(
    set: SetSource<'_>,
    target: &Target,
    algorithms: &Algorithms,
    pools: &mut Pools,
) -> Result<LevelPlan, LowerError> {
    let mut level = cx::LevelState::new(set, target, algorithms, pools);
    for &node in set.plan.order() {
        if matches!(set.graph.op(node), Op::Input | Op::Constant(_)) {
            continue;
        }
        let mut cx = LowerCx::for_node(&mut level, node)?;
        lower_op(set.graph.op(node), &mut cx)?;
        cx.finish()?;
    }
    copy_outputs(set, &mut level)?;
    Ok(level.finish())
}

/// Lowers one operator: the only list of operators in this crate.
pub(crate) fn lower_op(op: &Op, cx: &mut LowerCx<'_, '_>) -> Result<(), LowerError> {
    match op {
        Op::Input | Op::Constant(_) => Ok(()),
        Op::Conv(op) => conv::lower(op, fused::Behind::default(), cx),
        Op::ConvTranspose(op) => conv::lower_transpose(op, fused::Behind::default(), cx),
        Op::ConvWeightGradient(op) => weight_gradient::lower(op, cx),
        Op::MaxPoolGradient(op) => pool_gradient::lower_max(op, cx),
        Op::AveragePoolGradient(op) => pool_gradient::lower_average(op, cx),
        Op::MatMul(_) => matmul::lower(fused::Behind::default(), cx),
        Op::Gemm(op) => matmul::lower_gemm(op, fused::Behind::default(), cx),
        Op::MaxPool(op) => pool::lower_max(op, cx),
        Op::AveragePool(op) => pool::lower_average(op, cx),
        Op::LpPool(op) => pool::lower_lp(op, cx),
        Op::Fused(op) if op.root.is_some() => fused::lower(op, cx),
        Op::Chain(op) => chain::lower(op, cx),
        Op::Reduce(op) => reduce::lower(op, cx),
        Op::ArgReduce(op) => scan::lower_arg(op, cx),
        Op::CumSum(op) => scan::lower_cum_sum(op, cx),
        Op::CumProd(op) => scan::lower_cum_prod(op, cx),
        Op::Hardmax(op) => scan::lower_hardmax(op, cx),
        Op::Resize(op) => resize::lower(op, cx),
        Op::ResizeGradient(op) => resize::lower_gradient(op, cx),
        Op::Einsum(op) => einsum::lower(op, cx),
        Op::Attention(op) => attention::lower(op, cx),
        Op::Softmax(op) => softmax::lower(op, cx),
        Op::LogSoftmax(op) => softmax::lower_log(op, cx),
        Op::BatchNorm(op) => norm::lower_batch(op, cx),
        Op::BatchNormStatistics(op) => batch_norm::lower(op, cx),
        Op::Dropout(op) => dropout::lower(op, cx),
        Op::RRelu(op) => rrelu::lower(op, cx),
        Op::InstanceNorm(op) => norm::lower_instance(op, cx),
        Op::GroupNorm(op) => norm::lower_group(op, cx),
        Op::LayerNorm(op) => norm::lower_layer(op, cx),
        Op::RmsNorm(op) => norm::lower_rms(op, cx),
        Op::LpNorm(op) => norm::lower_lp(op, cx),
        Op::Lrn(op) => norm::lower_lrn(op, cx),
        Op::Reshape(_) | Op::Identity(_) | Op::Relayout(_) => reshape::lower(cx),
        Op::Transpose(op) => transpose::lower(op, cx),
        Op::Expand(_) => expand::lower_expand(cx),
        Op::Tile(op) => expand::lower_tile(op, cx),
        Op::Concat(op) => concat::lower_concat(op.axis, cx),
        Op::Split(op) => concat::lower_split(op.axis, cx),
        Op::Slice(op) => slice::lower(op, cx),
        Op::Pad(op) => pad::lower(op, cx),
        Op::DepthToSpace(op) => space_depth::lower_depth_to_space(op.block, op.mode, cx),
        Op::SpaceToDepth(op) => space_depth::lower_space_to_depth(op.block, cx),
        Op::Gather(op) => gather::lower_gather(op.axis, cx),
        Op::GatherElements(op) => gather::lower_gather_elements(op.axis, cx),
        Op::GatherNd(op) => gather::lower_gather_nd(op.batch_dims, cx),
        Op::ScatterElements(op) => scatter::lower_elements(op, cx),
        Op::ScatterNd(op) => scatter::lower_nd(op, cx),
        Op::OneHot(op) => one_hot::lower(op, cx),
        Op::TopK(op) => top_k::lower(op, cx),
        Op::Trilu(op) => trilu::lower(op, cx),
        _ => match pointwise_of(op, cx) {
            Some(program) => elementwise::lower(&program, cx),
            None => Err(cx.unsupported("there is no kernel for this operator")),
        },
    }
}

/// What an elementwise operator computes at one element, for the operands that it has here.
fn pointwise_of(op: &Op, cx: &LowerCx<'_, '_>) -> Option<Pointwise> {
    let types: Vec<TensorType> = cx.operands().iter().flatten().map(Operand::ty).collect();
    op.pointwise(&types.iter().collect::<Vec<_>>())
}

/// Copies the graph's outputs that do not lie in their output buffer: a value that is output twice, an input or a constant
/// that is an output as well.
fn copy_outputs(set: SetSource<'_>, level: &mut cx::LevelState<'_>) -> Result<(), LowerError> {
    for (i, &(_, v)) in set.graph.outputs().iter().enumerate() {
        let mut cx = LowerCx::for_output(level, v, i as u32)?;
        let (from, to) = (cx.input(0)?, cx.output(0));
        let src = cx.arg(&from)?;
        if src != cx.arg(&to)? {
            crate::kernels::copy::lower_copy(&mut cx, &from, &to)?;
            cx.finish()?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Algorithms, LowerError, Separate, SetSource, lower_any_layout};
    use crate::target::Target;
    use nncc_ir::ops::conv::Conv;
    use nncc_ir::{Constant, DType, Graph, Layout, Origin, Tensor, TensorType, ValueId};

    /// A convolution of `outputs` channels whose weights are all one number.
    fn lowered(outputs: usize) -> Result<(), LowerError> {
        let mut g = Graph::new("wide");
        let x = g.add_input("x", TensorType::fixed(DType::F32, &[1, 4, 5, 5]));
        let weights = Constant::splat(&Tensor::f32(&[], vec![0.5]), &[outputs, 4, 3, 3]).expect("one element");
        let w = g.add_constant("w", weights);
        let conv = Conv { strides: vec![1, 1], dilations: vec![1, 1], pads: vec![0; 4], group: 1 };
        let node = g.add(conv, &[Some(x), Some(w), None], Origin::named("conv"), &["y"]).expect("fits");
        g.add_output("y", ValueId { node, out: 0 });
        g.set_layout(x, Layout::RowMajor);
        let plan = Separate::plan(&g).expect("a graph that can be planned");
        let set = SetSource { graph: &g, plan: &plan };
        let target = Target::x86_64_v3();
        lower_any_layout("wide", &[set], &[target], &Algorithms::default()).map(|_| ())
    }

    /// The weights would take 193 GB, from a model of 200 bytes.
    #[test]
    fn what_one_number_expands_to_has_a_limit() {
        assert_eq!(lowered(1 << 20), Ok(()));
        let Err(e) = lowered(1_375_731_720) else { panic!("193 GB of weights") };
        let text = e.to_string();
        assert!(text.starts_with("constants of one repeated element take "), "{text}");
        assert!(text.ends_with("bytes here, 1073741824 are allowed\n  --> node \"conv\""), "{text}");
    }
}
