"""Evaluates an ONNX model in float64: what its f32 result should have been.

    apply(node, inputs)     one node; inputs and outputs are numpy arrays (None for an absent optional input)
    evaluate(model, feeds)  a whole model; {output name: array}

Every float tensor is widened to float64 when it enters, so that the difference between this and an f32 engine is that
engine's rounding. Integers and booleans stay what they are. Convolutions are one matrix product per tap of the kernel:
no im2col buffer, and BLAS does the work, so that VGG-16 takes seconds.

Written from the operator specification (opsets 9 to 17), for inference. It has the operators that the networks of
tools/networks.py and of the trained models in the tests use; another one is a KeyError that names it. It is an oracle
for whole networks only: single operators are tested against the ONNX backend tests and nncc's own reference evaluator.
"""

import math

import numpy as np
import onnx
from onnx import helper, numpy_helper

FLOATS = (np.float16, np.float32)


def widened(array):
    """The array, in float64 if it holds floats."""
    return array.astype(np.float64) if array.dtype in FLOATS else array


def apply(node, inputs):
    """The outputs of one node, in order."""
    attrs = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    result = OPS[node.op_type](attrs, *inputs)
    return list(result) if isinstance(result, (list, tuple)) else [result]


def evaluate(model, feeds):
    """The outputs of a model for `feeds`, {input name: array}. Values are dropped after their last use."""
    graph = model.graph
    values = {i.name: widened(numpy_helper.to_array(i)) for i in graph.initializer}
    values |= {name: widened(np.asarray(array)) for name, array in feeds.items()}
    outputs = [o.name for o in graph.output]
    uses = {}
    for name in [n for node in graph.node for n in node.input] + outputs:
        uses[name] = uses.get(name, 0) + 1
    for node in graph.node:
        results = apply(node, [values[n] if n else None for n in node.input])
        values |= {name: value for name, value in zip(node.output, results) if name}
        for name in node.input:
            uses[name] -= 1
            if name and not uses[name]:
                del values[name]
    return {name: values[name] for name in outputs}


# --- convolution and pooling ------------------------------------------------------------------------------------------

def pads_of(attrs, sizes, kernel, strides, dilations):
    """[(before, after), ...] per spatial axis, from `pads` or `auto_pad`."""
    rank = len(sizes)
    auto = attrs.get("auto_pad", b"NOTSET").decode()
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        pads = []
        for size, k, s, d in zip(sizes, kernel, strides, dilations):
            total = max((-(-size // s) - 1) * s + (k - 1) * d + 1 - size, 0)
            small = total // 2
            pads.append((small, total - small) if auto == "SAME_UPPER" else (total - small, small))
        return pads
    flat = attrs.get("pads", [0] * 2 * rank) if auto == "NOTSET" else [0] * 2 * rank
    return list(zip(flat[:rank], flat[rank:]))


def windows_of(attrs, sizes, kernel):
    """(strides, dilations, pads, output sizes) of a sliding window; honours `ceil_mode`."""
    rank = len(sizes)
    strides, dilations = attrs.get("strides", [1] * rank), attrs.get("dilations", [1] * rank)
    pads = pads_of(attrs, sizes, kernel, strides, dilations)
    out = []
    for size, k, s, d, (before, after) in zip(sizes, kernel, strides, dilations, pads):
        span = size + before + after - ((k - 1) * d + 1)
        n = (-(-span // s) if attrs.get("ceil_mode", 0) else span // s) + 1
        if attrs.get("ceil_mode", 0) and (n - 1) * s >= size + before:
            n -= 1  # the last window would start in the padding after the data
        out.append(n)
    return strides, dilations, pads, out


def taps(kernel, strides, dilations, out):
    """For each position in the kernel: (its index, the slices of the padded input that it meets)."""
    for tap in np.ndindex(*kernel):
        yield tap, tuple(slice(t * d, t * d + (n - 1) * s + 1, s)
                         for t, s, d, n in zip(tap, strides, dilations, out))


def padded(x, pads, out, kernel, strides, dilations, value):
    """x with its padding, and as much more behind it as the last (ceil_mode) window reaches over."""
    spatial = []
    for size, (before, after), n, k, s, d in zip(x.shape[2:], pads, out, kernel, strides, dilations):
        spatial.append((before, max(after, (n - 1) * s + (k - 1) * d + 1 - size - before)))
    return np.pad(x, [(0, 0), (0, 0)] + spatial, constant_values=value)


def by_tap(weights, rank):
    """[group, out, in, *kernel] as contiguous [*kernel, group, out, in]: strided operands would miss BLAS."""
    return np.ascontiguousarray(np.moveaxis(weights, range(3, 3 + rank), range(rank)))


def conv(attrs, x, w, bias=None):
    kernel, group = w.shape[2:], attrs.get("group", 1)
    strides, dilations, pads, out = windows_of(attrs, x.shape[2:], kernel)
    x = padded(x, pads, out, kernel, strides, dilations, 0)
    n, c_out, c_in = x.shape[0], w.shape[0], w.shape[1]
    pixels = math.prod(out)
    y = np.zeros((n, group, c_out // group, pixels))
    weights = by_tap(w.reshape(group, c_out // group, c_in, *kernel), len(kernel))
    for tap, at in taps(kernel, strides, dilations, out):
        rows = np.ascontiguousarray(x[(slice(None), slice(None)) + at]).reshape(n, group, c_in, pixels)
        y += weights[tap] * rows if c_in == 1 else weights[tap] @ rows  # one input channel a group: a product, not a matrix product
    y = y.reshape(n, c_out, *out)
    return y if bias is None else y + bias.reshape(-1, *[1] * len(out))


def conv_transpose(attrs, x, w, bias=None):
    kernel, group = w.shape[2:], attrs.get("group", 1)
    rank = len(kernel)
    strides, dilations = attrs.get("strides", [1] * rank), attrs.get("dilations", [1] * rank)
    extra, pads = attrs.get("output_padding", [0] * rank), attrs.get("pads", [0] * 2 * rank)
    assert "output_shape" not in attrs and attrs.get("auto_pad", b"NOTSET") == b"NOTSET"
    n, c_in, c_out, sizes = x.shape[0], x.shape[1], w.shape[1] * group, x.shape[2:]
    whole = [(i - 1) * s + (k - 1) * d + 1 + e for i, s, k, d, e in zip(sizes, strides, kernel, dilations, extra)]
    y = np.zeros((n, c_out, *whole))
    rows = x.reshape(n, group, c_in // group, -1)
    weights = by_tap(w.reshape(group, c_in // group, w.shape[1], *kernel).swapaxes(1, 2), rank)
    for tap, at in taps(kernel, strides, dilations, sizes):
        y[(slice(None), slice(None)) + at] += (weights[tap] @ rows).reshape(n, c_out, *sizes)
    y = y[(slice(None), slice(None)) + tuple(slice(b, size - a) for b, a, size in zip(pads[:rank], pads[rank:], whole))]
    return y if bias is None else y + bias.reshape(-1, *[1] * rank)


def max_pool(attrs, x):
    kernel = attrs["kernel_shape"]
    strides, dilations, pads, out = windows_of(attrs, x.shape[2:], kernel)
    x = padded(x, pads, out, kernel, strides, dilations, -np.inf)
    y = np.full((*x.shape[:2], *out), -np.inf)
    for _, at in taps(kernel, strides, dilations, out):
        y = np.maximum(y, x[(slice(None), slice(None)) + at])
    return y


def average_pool(attrs, x):
    kernel = attrs["kernel_shape"]
    strides, dilations, pads, out = windows_of(attrs, x.shape[2:], kernel)
    counted = np.ones((1, 1, *x.shape[2:]))
    if attrs.get("count_include_pad", 0):
        counted = np.pad(counted, [(0, 0), (0, 0)] + pads, constant_values=1)
        x, pads = np.pad(x, [(0, 0), (0, 0)] + pads), [(0, 0)] * len(kernel)
    total = count = 0
    x, counted = [padded(v, pads, out, kernel, strides, dilations, 0) for v in (x, counted)]
    for _, at in taps(kernel, strides, dilations, out):
        total = total + x[(slice(None), slice(None)) + at]
        count = count + counted[(slice(None), slice(None)) + at]
    return total / count


# --- normalization ----------------------------------------------------------------------------------------------------

def batch_norm(attrs, x, scale, bias, mean, var):
    column = lambda v: v.reshape(-1, *[1] * (x.ndim - 2))
    return (x - column(mean)) / np.sqrt(column(var) + attrs.get("epsilon", 1e-5)) * column(scale) + column(bias)


def layer_norm(attrs, x, scale, bias=None):
    axes = tuple(range(attrs.get("axis", -1) % x.ndim, x.ndim))
    y = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + attrs.get("epsilon", 1e-5)) * scale
    return y if bias is None else y + bias


def softmax(attrs, x):
    e = np.exp(x - x.max(attrs.get("axis", -1), keepdims=True))
    return e / e.sum(attrs.get("axis", -1), keepdims=True)


# --- data movement ----------------------------------------------------------------------------------------------------

def axes_of(attrs, operand):
    return tuple(int(a) for a in (attrs["axes"] if operand is None else operand))


def reshape(attrs, x, shape):
    return x.reshape([x.shape[i] if n == 0 and not attrs.get("allowzero", 0) else int(n) for i, n in enumerate(shape)])


def slice_(attrs, x, starts=None, ends=None, axes=None, steps=None):
    starts = attrs.get("starts") if starts is None else starts
    ends = attrs.get("ends") if ends is None else ends
    axes = attrs.get("axes", range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    index = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps):
        end = None if step < 0 and end < -x.shape[axis] else int(end)
        index[int(axis)] = slice(int(start), end, int(step))
    return x[tuple(index)]


def split(attrs, x, sizes=None):
    axis = attrs.get("axis", 0)
    sizes = attrs.get("split") if sizes is None else sizes
    if sizes is None:
        sizes = [x.shape[axis] // 2] * 2  # every Split of these networks without sizes has two outputs
    return np.split(x, np.cumsum(sizes)[:-1], axis)


def unsqueeze(attrs, x, axes=None):
    return np.expand_dims(x, axes_of(attrs, axes))


def squeeze(attrs, x, axes=None):
    return np.squeeze(x, axes_of(attrs, axes) if axes is not None or "axes" in attrs else None)


def pad(attrs, x, pads=None, value=None):
    pads = attrs["pads"] if pads is None else pads
    assert attrs.get("mode", b"constant") == b"constant"
    value = attrs.get("value", 0.0) if value is None else value
    return np.pad(x, list(zip(map(int, pads[:x.ndim]), map(int, pads[x.ndim:]))), constant_values=value)


def resize(attrs, x, roi=None, scales=None, sizes=None):
    mode = attrs.get("mode", b"nearest").decode()
    where = attrs.get("coordinate_transformation_mode", b"half_pixel").decode()
    if sizes is None or not sizes.size:
        sizes = [int(n * s) for n, s in zip(x.shape, scales)]
    for axis, size in enumerate(sizes):
        old, size = x.shape[axis], int(size)
        if size == old:
            continue
        i = np.arange(size)
        scale = float(scales[axis]) if scales is not None and scales.size else size / old
        at = {"asymmetric": i / scale, "half_pixel": (i + 0.5) / scale - 0.5,
              "pytorch_half_pixel": (i + 0.5) / scale - 0.5 if size > 1 else i * 0.0,
              "align_corners": i * (old - 1) / max(size - 1, 1)}[where]
        if mode == "nearest":
            rule = attrs.get("nearest_mode", b"round_prefer_floor")
            near = {b"floor": np.floor(at), b"ceil": np.ceil(at), b"round_prefer_floor": np.ceil(at - 0.5)}[rule]
            x = np.take(x, np.clip(near, 0, old - 1).astype(int), axis)
        else:
            assert mode == "linear"
            low = np.floor(at).astype(int)
            t = (at - low).reshape([-1 if a == axis else 1 for a in range(x.ndim)])
            pick = lambda index: np.take(x, np.clip(index, 0, old - 1), axis)
            x = pick(low) * (1 - t) + pick(low + 1) * t
    return x


def constant_of_shape(attrs, shape):
    value = widened(numpy_helper.to_array(attrs["value"])) if "value" in attrs else np.zeros(1)
    return np.full([int(n) for n in shape], value.reshape(()))


def constant(attrs):
    if "value" in attrs:
        return widened(numpy_helper.to_array(attrs["value"]))
    (name, value), = attrs.items()
    return np.array(value, np.float64 if "float" in name else np.int64)


def cast(attrs, x):
    dtype = helper.tensor_dtype_to_np_dtype(attrs["to"])
    return x.astype(np.float64 if dtype in FLOATS else dtype)


# --- arithmetic -------------------------------------------------------------------------------------------------------

def gemm(attrs, a, b, c=None):
    y = attrs.get("alpha", 1.0) * ((a.T if attrs.get("transA") else a) @ (b.T if attrs.get("transB") else b))
    return y if c is None else y + attrs.get("beta", 1.0) * c


def div(attrs, a, b):
    return a / b if a.dtype.kind == "f" else np.trunc(a / b).astype(a.dtype)


def reduce(function):
    def op(attrs, x, axes=None):
        axes = axes_of(attrs, axes) if axes is not None or "axes" in attrs else None
        return function(x, axis=axes, keepdims=bool(attrs.get("keepdims", 1)))
    return op


def clip(attrs, x, low=None, high=None):
    low = attrs.get("min", -np.inf) if low is None else low
    high = attrs.get("max", np.inf) if high is None else high
    return np.clip(x, low, high)


def unary(function):
    return lambda attrs, x: function(x)


def binary(function):
    return lambda attrs, a, b: function(a, b)


OPS = {
    "Add": binary(np.add),
    "AveragePool": average_pool,
    "BatchNormalization": batch_norm,
    "Cast": cast,
    "Clip": clip,
    "Concat": lambda attrs, *xs: np.concatenate(xs, attrs["axis"]),
    "Constant": constant,
    "ConstantOfShape": constant_of_shape,
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "Div": div,
    "Dropout": lambda attrs, x, *_: x,
    "Equal": binary(np.equal),
    "Erf": unary(lambda x: np.fromiter(map(math.erf, x.ravel()), np.float64, x.size).reshape(x.shape)),
    "Exp": unary(np.exp),
    "Expand": lambda attrs, x, shape: np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(map(int, shape)))),
    "Flatten": lambda attrs, x: x.reshape(math.prod(x.shape[:attrs.get("axis", 1)]), -1),
    "Gather": lambda attrs, x, index: np.take(x, index, attrs.get("axis", 0)),
    "Gemm": gemm,
    "GlobalAveragePool": unary(lambda x: x.mean(tuple(range(2, x.ndim)), keepdims=True)),
    "HardSigmoid": lambda attrs, x: np.clip(attrs.get("alpha", 0.2) * x + attrs.get("beta", 0.5), 0, 1),
    "HardSwish": unary(lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    "Identity": unary(lambda x: x),
    "LayerNormalization": layer_norm,
    "MatMul": binary(np.matmul),
    "MaxPool": max_pool,
    "Mul": binary(np.multiply),
    "Pad": pad,
    "Pow": binary(np.power),
    "ReduceMean": reduce(np.mean),
    "ReduceSum": reduce(np.sum),
    "Relu": unary(lambda x: np.maximum(x, 0)),
    "Reshape": reshape,
    "Resize": resize,
    "Shape": lambda attrs, x: np.array(x.shape, np.int64)[attrs.get("start", 0):attrs.get("end", x.ndim)],
    "Sigmoid": unary(lambda x: 1 / (1 + np.exp(-x))),
    "Slice": slice_,
    "Softmax": softmax,
    "Split": split,
    "Sqrt": unary(np.sqrt),
    "Squeeze": squeeze,
    "Sub": binary(np.subtract),
    "Tanh": unary(np.tanh),
    "Transpose": lambda attrs, x: np.transpose(x, attrs.get("perm")),
    "Unsqueeze": unsqueeze,
    "Where": lambda attrs, c, a, b: np.where(c, a, b),
}
