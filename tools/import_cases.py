#!/usr/bin/env python3
"""Writes small models that are hard to import rather than to compute, as cases in the form of onnx_cases.py.

    import_cases.py OUT

The ONNX backend tests are clean, static, and of the newest opsets; files in the wild are not. These have symbolic
dimensions, shapes computed by the graph, external data, every encoding of an initializer, opsets 1 to 6 with their
`axis`/`broadcast` and `consumed_inputs` attributes, functions, and ten thousand nodes. The listing is OUT/cases.json;
the cases' names begin with "import/". Expected results are written out in numpy here, never taken from an engine:
onnxruntime refuses the oldest opsets.
"""

import shutil
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import convert_model_to_external_data

from onnx_cases import save_case, save_listing

CASES = {}
RTOL, ATOL = 1e-5, 1e-6  # sums of a few dozen terms near 1, in f32


def case(function):
    """Registers a function that gives (model, inputs, outputs); its name is the case's, its docstring says the point."""
    CASES[function.__name__] = function
    return function


def rand(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape, np.float32)


def info(name, array_or_shape, dtype=None):
    if isinstance(array_or_shape, np.ndarray):
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array_or_shape.dtype), array_or_shape.shape)
    return helper.make_tensor_value_info(name, dtype or TensorProto.FLOAT, array_or_shape)


def model_of(nodes, inputs, outputs, initializers=(), opset=17, functions=(), extra_opsets=()):
    """A model; `initializers` are arrays by name or finished TensorProtos."""
    if isinstance(initializers, dict):
        initializers = [numpy_helper.from_array(np.asarray(v), k) for k, v in initializers.items()]
    old = opset < 9  # IR version 3 wants initializers among the inputs
    listed = {i.name for i in inputs}
    inputs = list(inputs) + [info(i.name, list(i.dims), i.data_type) for i in initializers if old and i.name not in listed]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, list(initializers))
    opsets = [helper.make_opsetid("", opset), *extra_opsets]
    return helper.make_model(graph, opset_imports=opsets, functions=list(functions), ir_version=3 if old else 8)


def node(op, inputs, outputs, **attrs):
    return helper.make_node(op, inputs.split(",") if inputs else [], outputs.split(","), **attrs)


def one_node(op, x, y, operands=None, opset=17, **attrs):
    """The case of a single node: inputs x, x1, x2, ... and one output y."""
    xs = {"x": x} | (operands or {})
    model = model_of([node(op, ",".join(xs), "y", **attrs)], [info(k, v) for k, v in xs.items()], [info("y", y)], opset=opset)
    return model, list(xs.values()), [y]


# --- symbolic dimensions and computed shapes ---------------------------------------------------------------------------

@case
def symbolic_batch_flatten():
    """x.reshape(x.shape[0], -1) on [N, 3, 4], as Shape, Gather, Unsqueeze, Concat, Reshape."""
    x = rand(2, 3, 4)
    nodes = [node("Shape", "x", "s"), node("Gather", "s,zero", "n", axis=0), node("Unsqueeze", "n,axis", "n1"),
             node("Concat", "n1,rest", "shape", axis=0), node("Reshape", "x,shape", "y")]
    constants = {"zero": np.int64(0), "axis": np.array([0]), "rest": np.array([-1])}
    return model_of(nodes, [info("x", ["N", 3, 4])], [info("y", ["N", 12])], constants), [x], [x.reshape(2, 12)]


@case
def symbolic_upsample_to_skip():
    """Resize to the size of another value, both of symbolic height and width: Shape, Slice, Concat, Resize, Add."""
    x, skip = rand(1, 2, 3, 4), rand(1, 2, 6, 8)
    nodes = [node("Shape", "x", "sx"), node("Slice", "sx,zero,two", "nc"), node("Shape", "skip", "ss"),
             node("Slice", "ss,two,four", "hw"), node("Concat", "nc,hw", "sizes", axis=0),
             node("Resize", "x,,,sizes", "up", mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"),
             node("Add", "up,skip", "y")]
    constants = {"zero": np.array([0]), "two": np.array([2]), "four": np.array([4])}
    inputs = [info("x", ["N", 2, "H", "W"]), info("skip", ["N", 2, "H2", "W2"])]
    return model_of(nodes, inputs, [info("y", ["N", 2, "H2", "W2"])], constants), [x, skip], [x.repeat(2, 2).repeat(2, 3) + skip]


@case
def symbolic_split_in_half():
    """Channels halved by arithmetic on the shape: Div, Mul, Slice with computed ends, on [N, C, T]."""
    x = rand(1, 6, 5)
    nodes = [node("Shape", "x", "s"), node("Gather", "s,one", "c", axis=0), node("Div", "c,two", "half"),
             node("Unsqueeze", "half,axis", "h1"), node("Unsqueeze", "c,axis", "c1"), node("Slice", "x,zero,h1,one1", "a"),
             node("Slice", "x,h1,c1,one1", "b"), node("Sub", "a,b", "y")]
    constants = {"one": np.int64(1), "two": np.int64(2), "axis": np.array([0]), "zero": np.array([0]), "one1": np.array([1])}
    return model_of(nodes, [info("x", ["N", "C", "T"])], [info("y", ["N", "M", "T"])], constants), [x], [x[:, :3] - x[:, 3:]]


@case
def symbolic_expand_and_range():
    """Positions 0..T from Range over a dimension, expanded over the batch: what position embeddings export as."""
    x, table = rand(2, 5, 3), rand(7, 3, seed=1)
    nodes = [node("Shape", "x", "s"), node("Gather", "s,one", "t", axis=0), node("Range", "zero,t,one", "r"),
             node("Unsqueeze", "r,axis", "r1"), node("Gather", "s,zero", "n", axis=0), node("Unsqueeze", "n,axis", "n1"),
             node("Unsqueeze", "t,axis", "t1"), node("Concat", "n1,t1", "nt", axis=0), node("Expand", "r1,nt", "ids"),
             node("Gather", "table,ids", "e", axis=0), node("Add", "x,e", "y")]
    constants = {"zero": np.int64(0), "one": np.int64(1), "axis": np.array([0]), "table": table}
    return model_of(nodes, [info("x", ["N", "T", 3])], [info("y", ["N", "T", 3])], constants), [x], [x + table[:5]]


@case
def tensorflow_same_pad():
    """Stride 2 with "SAME" padding computed from the shape in f32 and back: Ceil, Max, Floor, Concat, Pad, Conv."""
    x, w = rand(1, 2, 7, 6), rand(3, 2, 3, 3, seed=1)
    nodes = [node("Shape", "x", "s"), node("Slice", "s,two,four", "hw"), node("Cast", "hw", "f", to=TensorProto.FLOAT),
             node("Div", "f,stride", "q"), node("Ceil", "q", "out"), node("Sub", "out,onef", "o1"), node("Mul", "o1,stride", "span"),
             node("Add", "span,kernel", "need"), node("Sub", "need,f", "gap"), node("Max", "gap,zerof", "total"),
             node("Mul", "total,half", "h"), node("Floor", "h", "before"), node("Sub", "total,before", "after"),
             node("Cast", "before", "b64", to=TensorProto.INT64), node("Cast", "after", "a64", to=TensorProto.INT64),
             node("Concat", "nopad,b64,nopad,a64", "pads", axis=0), node("Pad", "x,pads", "p"),
             node("Conv", "p,w", "y", strides=[2, 2], kernel_shape=[3, 3])]
    f = lambda v: np.array([v], np.float32)
    constants = {"two": np.array([2]), "four": np.array([4]), "stride": f(2), "onef": f(1), "kernel": f(3), "zerof": f(0), "half": f(0.5),
                 "nopad": np.array([0, 0]), "w": w}
    # 7 rows: 4 out, total 2, one on each side; 6 columns: 3 out, total 1, after
    padded = np.pad(x, [(0, 0), (0, 0), (1, 1), (0, 1)])
    y = np.array([[[[(padded[0, :, 2 * i:2 * i + 3, 2 * j:2 * j + 3] * w[o]).sum() for j in range(3)] for i in range(4)]
                   for o in range(3)]], np.float32)
    return model_of(nodes, [info("x", ["N", 2, "H", "W"])], [info("y", ["N", 3, "Ho", "Wo"])], constants), [x], [y]


@case
def shape_input_is_an_operand():
    """Reshape whose target is a graph input: known only to who runs it, so that it must be fixed at compile time."""
    x, shape = rand(2, 6), np.array([3, 4])
    return model_of([node("Reshape", "x,shape", "y")], [info("x", x), info("shape", shape)], [info("y", ["a", "b"])]), [x, shape], [x.reshape(3, 4)]


# --- initializers and constants ----------------------------------------------------------------------------------------

def typed(name, dtype, shape, values):
    """A TensorProto with the values in the typed field of its dtype, not raw."""
    return helper.make_tensor(name, dtype, shape, values)


@case
def initializers_in_typed_fields():
    """float_data, double_data, int32_data (i32, i16, i8, u8, u16, bool, f16), int64_data, uint64_data (u32, u64)."""
    half = [int(v) for v in np.array([0.5, -2], np.float16).view(np.uint16)]
    f16 = TensorProto(name="f16", data_type=TensorProto.FLOAT16, dims=[2], int32_data=half)
    table = [("f32", TensorProto.FLOAT, [1.5, -2.5]), ("f64", TensorProto.DOUBLE, [0.25, 4.0]), ("i32", TensorProto.INT32, [-7, 9]),
             ("i16", TensorProto.INT16, [-300, 300]), ("i8", TensorProto.INT8, [-128, 127]), ("u8", TensorProto.UINT8, [0, 255]),
             ("u16", TensorProto.UINT16, [1, 65535]), ("bool", TensorProto.BOOL, [1, 0]), ("i64", TensorProto.INT64, [-5, 5]),
             ("u32", TensorProto.UINT32, [0, 70000]), ("u64", TensorProto.UINT64, [3, 4])]
    tensors = [typed(name, dtype, [2], values) for name, dtype, values in table] + [f16]
    expected = [np.array(values, np.float32) for _, _, values in table] + [np.array([0.5, -2], np.float32)]
    nodes = [node("Cast", t.name, f"c_{t.name}", to=TensorProto.FLOAT) for t in tensors]
    nodes.append(node("Concat", ",".join(f"c_{t.name}" for t in tensors), "all", axis=0))
    nodes.append(node("Mul", "x,all", "y"))
    x = rand(24)
    return model_of(nodes, [info("x", x)], [info("y", x)], tensors), [x], [x * np.concatenate(expected)]


@case
def initializers_in_raw_data():
    """The same dtypes as little-endian bytes."""
    arrays = {"f32": np.array([1.5, -2.5], np.float32), "f64": np.array([0.25, 4.0]), "i32": np.array([-7, 9], np.int32),
              "i16": np.array([-300, 300], np.int16), "i8": np.array([-128, 127], np.int8), "u8": np.array([0, 255], np.uint8),
              "u16": np.array([1, 65535], np.uint16), "bool": np.array([True, False]), "i64": np.array([-5, 5]),
              "u32": np.array([0, 70000], np.uint32), "u64": np.array([3, 4], np.uint64), "f16": np.array([0.5, -2], np.float16)}
    nodes = [node("Cast", name, f"c_{name}", to=TensorProto.FLOAT) for name in arrays]
    nodes += [node("Concat", ",".join(f"c_{name}" for name in arrays), "all", axis=0), node("Mul", "x,all", "y")]
    x = rand(24)
    y = x * np.concatenate([a.astype(np.float32) for a in arrays.values()])
    return model_of(nodes, [info("x", x)], [info("y", x)], arrays), [x], [y]


@case
def external_data_one_file():
    """Two weights in one file beside the model, the second at an offset."""
    x, w, b = rand(3, 40), rand(40, 30, seed=1), rand(30, seed=2)
    model = model_of([node("MatMul", "x,w", "m"), node("Add", "m,b", "y")], [info("x", x)], [info("y", [3, 30])], {"w": w, "b": b})
    convert_model_to_external_data(model, all_tensors_to_one_file=True, location="weights.bin", size_threshold=0)
    return model, [x], [x @ w + b]


@case
def external_data_many_files():
    """A file for each weight."""
    x, w, b = rand(3, 40), rand(40, 30, seed=1), rand(30, seed=2)
    model = model_of([node("MatMul", "x,w", "m"), node("Add", "m,b", "y")], [info("x", x)], [info("y", [3, 30])], {"w": w, "b": b})
    convert_model_to_external_data(model, all_tensors_to_one_file=False, size_threshold=0)
    return model, [x], [x @ w + b]


@case
def constant_node_attributes():
    """Constant by value, value_float, value_floats, value_int and value_ints."""
    x = rand(2, 3)
    nodes = [helper.make_node("Constant", [], ["a"], value_float=2.5), helper.make_node("Constant", [], ["b"], value_floats=[1.0, 2.0, 3.0]),
             helper.make_node("Constant", [], ["c"], value_int=-1), helper.make_node("Constant", [], ["d"], value_ints=[3, 2]),
             helper.make_node("Constant", [], ["e"], value=numpy_helper.from_array(np.array([[1], [10]], np.float32))),
             node("Mul", "x,a", "p"), node("Add", "p,b", "q"), node("Mul", "q,e", "r"), node("Cast", "c", "cf", to=TensorProto.FLOAT),
             node("Mul", "r,cf", "t"), node("Reshape", "t,d", "y")]
    y = (x * np.float32(2.5) + np.array([1, 2, 3], np.float32)) * np.array([[1], [10]], np.float32) * -1
    return model_of(nodes, [info("x", x)], [info("y", [3, 2])]), [x], [y.reshape(3, 2)]


@case
def splat_weights():
    """Weights made by ConstantOfShape, as in the `light` models: a convolution with every weight 1/16."""
    x = rand(1, 4, 5, 5)
    nodes = [node("ConstantOfShape", "shape", "w", value=numpy_helper.from_array(np.array([1 / 16], np.float32))), node("Conv", "x,w", "y")]
    total = x.sum(1, keepdims=True)
    window = sum(total[:, :, i:i + 3, j:j + 3] for i in range(3) for j in range(3)) / np.float32(16)
    return model_of(nodes, [info("x", x)], [info("y", [1, 8, 3, 3])], {"shape": np.array([8, 4, 3, 3])}), [x], [np.repeat(window, 8, 1)]


# --- graphs of unusual form --------------------------------------------------------------------------------------------

@case
def initializers_listed_as_inputs():
    """IR version 3: weights stand in the graph's inputs too, before the real one."""
    x, w = rand(2, 3), rand(3, 4, seed=1)
    model = model_of([node("MatMul", "x,w", "y")], [info("w", w), info("x", x)], [info("y", [2, 4])], {"w": w}, opset=8)
    return model, [x], [x @ w]


@case
def outputs_of_every_kind():
    """An output that is an input, one that is an initializer, one that another node reads too, and one value twice."""
    x, c = rand(2, 2), rand(3, seed=1)
    nodes = [node("Relu", "x", "r"), node("Neg", "r", "n"), node("Identity", "x", "same"), node("Identity", "c", "constant")]
    outputs = [info("same", x), info("constant", c), info("r", x), info("n", x)]
    r = np.maximum(x, 0)
    return model_of(nodes, [info("x", x)], outputs, {"c": c}), [x], [x, c, r, -r]


@case
def absent_optional_operands():
    """Clip without its minimum, Resize without roi and scales, an unused output of MaxPool: empty names."""
    x = rand(1, 1, 4, 4)
    nodes = [node("Clip", "x,,high", "c"), helper.make_node("MaxPool", ["c"], ["m", ""], kernel_shape=[2, 2], strides=[2, 2]),
             node("Resize", "m,,,sizes", "y", mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric")]
    m = np.minimum(x, np.float32(0.5)).reshape(1, 1, 2, 2, 2, 2).max((3, 5))
    return model_of(nodes, [info("x", x)], [info("y", x)], {"high": np.float32(0.5), "sizes": np.array([1, 1, 4, 4])}), [x], [m.repeat(2, 2).repeat(2, 3)]


@case
def names_of_every_kind():
    """Names with spaces, slashes, quotes, unicode, C keywords; two nodes of one name; no node name at all."""
    x = rand(2, 2)
    nodes = [helper.make_node("Neg", ["an input"], ["/π/Neg_output_0"], name="\"quoted\"\n"), helper.make_node("Abs", ["/π/Neg_output_0"], ["int"], name="same"),
             helper.make_node("Exp", ["int"], ["%1"], name="same"), helper.make_node("Neg", ["%1"], ["out:0"])]
    return model_of(nodes, [info("an input", x)], [info("out:0", x)]), [x], [-np.exp(np.abs(x))]


@case
def scalars_and_empty_tensors():
    """A rank-0 input, and a concatenation with an empty one."""
    x, empty, s = rand(2, 3), np.zeros((0, 3), np.float32), np.float32(3).reshape(())
    nodes = [node("Concat", "x,empty", "c", axis=0), node("Mul", "c,s", "y"), node("Neg", "empty", "e")]
    inputs = [info("x", x), info("empty", empty), info("s", np.asarray(s))]
    return model_of(nodes, inputs, [info("y", x), info("e", empty)]), [x, empty, s], [x * s, empty]


@case
def functions_of_the_model():
    """A function defined in the file, with an attribute that its body refers to, used twice."""
    body = [helper.make_node("LeakyRelu", ["a"], ["t"]), helper.make_node("Add", ["t", "b"], ["c"])]
    body[0].attribute.append(onnx.AttributeProto(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT))
    function = helper.make_function("here", "LeakyAdd", ["a", "b"], ["c"], body, [helper.make_opsetid("", 17)], ["slope"])
    x = rand(3, 3)
    nodes = [helper.make_node("LeakyAdd", ["x", "x"], ["u"], domain="here", slope=0.5), helper.make_node("LeakyAdd", ["u", "x"], ["y"], domain="here", slope=0.25)]
    leaky = lambda v, a: np.where(v < 0, v * np.float32(a), v)
    model = model_of(nodes, [info("x", x)], [info("y", x)], functions=[function], extra_opsets=[helper.make_opsetid("here", 1)])
    return model, [x], [leaky(leaky(x, 0.5) + x, 0.25) + x]


@case
def ten_thousand_nodes():
    """A chain of 10 000 nodes, a third of them with a constant: every pass must be linear."""
    x = rand(4, 8)
    y, nodes, constants, last = x.copy(), [], {}, "x"
    for i in range(10_000):
        out = "y" if i == 9_999 else f"v{i}"
        if i % 3 == 0:
            c = np.float32(np.sin(i))
            constants[f"c{i}"] = c
            nodes.append(node("Add", f"{last},c{i}", out))
            y = y + c
        elif i % 3 == 1:
            nodes.append(node("Abs", last, out))
            y = np.abs(y)
        else:
            nodes.append(node("Neg", last, out))
            y = -y
        last = out
    return model_of(nodes, [info("x", x)], [info("y", x)], constants), [x], [y]


# --- opsets 1 to 6 -----------------------------------------------------------------------------------------------------

@case
def opset6_add_broadcast_axis():
    """Add-6 with axis=1: b of [3, 4] meets axes 1 and 2 of [2, 3, 4, 5]."""
    x, b = rand(2, 3, 4, 5), rand(3, 4, seed=1)
    return one_node("Add", x, x + b[None, :, :, None], {"b": b}, 6, broadcast=1, axis=1)


@case
def opset6_mul_broadcast_suffix():
    """Mul-6 without an axis: b meets the last axes."""
    x, b = rand(2, 3, 4), rand(3, 4, seed=1)
    return one_node("Mul", x, x * b, {"b": b}, 6, broadcast=1)


@case
def opset1_sub_broadcast_scalar():
    """Sub-1 with a tensor of one element, and the legacy consumed_inputs."""
    x, b = rand(2, 3), rand(1, seed=1)
    return one_node("Sub", x, x - b, {"b": b}, 1, broadcast=1, consumed_inputs=[0, 0])


@case
def opset1_pow_and_div_axis():
    """Pow-1 and Div-6 with broadcast on axis 0."""
    x, b = np.abs(rand(3, 4)), np.abs(rand(3, seed=1)) + np.float32(0.5)
    nodes = [node("Pow", "x,b", "p", broadcast=1, axis=0), node("Div", "p,b", "y", broadcast=1, axis=0)]
    return model_of(nodes, [info("x", x), info("b", b)], [info("y", x)], opset=6), [x, b], [x ** b[:, None] / b[:, None]]


@case
def opset1_greater_and_or():
    """Greater-1, Or-1 and Equal-1 with broadcast."""
    x, b = rand(2, 3), rand(3, seed=1)
    nodes = [node("Greater", "x,b", "g", broadcast=1), node("Less", "x,b", "l", broadcast=1), node("Or", "g,l", "y")]
    return model_of(nodes, [info("x", x), info("b", b)], [info("y", x.shape, TensorProto.BOOL)], opset=6), [x, b], [(x > b) | (x < b)]


@case
def opset6_batch_normalization():
    """BatchNormalization-6: is_test and spatial, five outputs in training are absent."""
    x, scale, bias, mean, var = rand(2, 3, 4, 4), rand(3, seed=1), rand(3, seed=2), rand(3, seed=3), np.abs(rand(3, seed=4)) + np.float32(0.1)
    c = lambda v: v[None, :, None, None]
    y = (x - c(mean)) / np.sqrt(c(var) + np.float32(1e-5)) * c(scale) + c(bias)
    return one_node("BatchNormalization", x, y, {"scale": scale, "bias": bias, "mean": mean, "var": var}, 6, is_test=1, spatial=1)


@case
def opset1_batch_normalization():
    """BatchNormalization-1 with its required consumed_inputs."""
    x, scale, bias, mean, var = rand(2, 3, 4, 4), rand(3, seed=1), rand(3, seed=2), rand(3, seed=3), np.abs(rand(3, seed=4)) + np.float32(0.1)
    c = lambda v: v[None, :, None, None]
    y = (x - c(mean)) / np.sqrt(c(var) + np.float32(1e-3)) * c(scale) + c(bias)
    return one_node("BatchNormalization", x, y, {"scale": scale, "bias": bias, "mean": mean, "var": var}, 1, is_test=1, epsilon=1e-3,
                    consumed_inputs=[0, 0, 0, 1, 1])


@case
def opset1_dropout_is_test():
    """Dropout-1 at inference."""
    x = rand(2, 3)
    return one_node("Dropout", x, x, opset=1, is_test=1, ratio=0.7)


@case
def opset1_reshape_attribute():
    """Reshape-1: the shape is an attribute, with 0 and -1."""
    x = rand(2, 3, 4)
    return one_node("Reshape", x, x.reshape(2, 12), opset=1, shape=[0, -1])


@case
def opset1_pad_paddings():
    """Pad-1: the attribute is called paddings."""
    x = rand(2, 3)
    return one_node("Pad", x, np.pad(x, [(0, 1), (2, 0)], constant_values=7), opset=1, mode="constant", paddings=[0, 2, 1, 0], value=7.0)


@case
def opset2_pad_reflect():
    """Pad-2 by reflection."""
    x = rand(2, 5)
    return one_node("Pad", x, np.pad(x, [(0, 0), (2, 3)], mode="reflect"), opset=2, mode="reflect", pads=[0, 2, 0, 3])


@case
def opset6_clip_attributes():
    """Clip-6: min and max are attributes."""
    x = rand(3, 4)
    return one_node("Clip", x, np.clip(x, np.float32(-0.5), np.float32(0.25)), opset=6, min=-0.5, max=0.25)


@case
def opset1_softmax_flattens():
    """Softmax-1 with its default axis 1 on rank 3: over the product of the last two axes."""
    x = rand(2, 3, 4)
    e = np.exp(x - x.max((1, 2), keepdims=True))
    return one_node("Softmax", x, e / e.sum((1, 2), keepdims=True), opset=1)


@case
def opset1_concat_default_axis():
    """Concat-1: the axis defaults to 1."""
    x, b = rand(2, 3), rand(2, 2, seed=1)
    return one_node("Concat", x, np.concatenate([x, b], 1), {"b": b}, 1)


@case
def opset1_split_by_operand():
    """Split-1: the sizes are the second operand, of the data's own type."""
    x = rand(5, 2)
    nodes = [node("Split", "x,sizes", "a,b", axis=0), node("ReduceSum", "a", "s", axes=[0], keepdims=0),
             node("Add", "b,s", "y", broadcast=1, axis=1)]
    model = model_of(nodes, [info("x", x)], [info("y", [3, 2])], {"sizes": np.array([2, 3], np.float32)}, opset=1)
    return model, [x], [x[2:] + x[:2].sum(0)]


@case
def opset2_split_attribute():
    """Split-2: the sizes are an attribute."""
    x = rand(5, 2)
    model = model_of([node("Split", "x", "a,b", axis=0, split=[1, 4])], [info("x", x)], [info("a", [1, 2]), info("b", [4, 2])], opset=2)
    return model, [x], [x[:1], x[1:]]


@case
def opset1_slice_attributes():
    """Slice-1: starts, ends and axes are attributes, ends beyond the axis and negative."""
    x = rand(4, 5, 6)
    return one_node("Slice", x, x[1:, :, :-2], opset=1, starts=[1, 0], ends=[1000, -2], axes=[0, 2])


@case
def opset1_squeeze_unsqueeze_transpose():
    """Squeeze-1 and Unsqueeze-1 with axes as attributes, Transpose-1 without a perm."""
    x = rand(1, 3, 4)
    nodes = [node("Squeeze", "x", "s", axes=[0]), node("Transpose", "s", "t"), node("Unsqueeze", "t", "y", axes=[0, 2])]
    return model_of(nodes, [info("x", x)], [info("y", [1, 4, 1, 3])], opset=1), [x], [x[0].T[None, :, None, :]]


@case
def opset1_cast_by_name():
    """Cast-1: the type is a string."""
    x = rand(3) * 5
    return one_node("Cast", x, x.astype(np.int32), opset=1, to="INT32")


@case
def opset1_gemm_broadcast():
    """Gemm-1: C is broadcast only when it says so."""
    x, b, c = rand(2, 3), rand(4, 3, seed=1), rand(4, seed=2)
    y = np.float32(0.5) * (x @ b.T) + np.float32(2) * c
    return one_node("Gemm", x, y, {"b": b, "c": c}, 1, alpha=0.5, beta=2.0, transB=1, broadcast=1)


@case
def opset1_upsample_height_scale():
    """Upsample-1: height_scale and width_scale."""
    x = rand(1, 2, 2, 3)
    return one_node("Upsample", x, x.repeat(2, 2).repeat(3, 3), opset=1, height_scale=2.0, width_scale=3.0, mode="nearest")


@case
def opset7_upsample_scales():
    """Upsample-7: scales are an attribute."""
    x = rand(1, 2, 2, 3)
    return one_node("Upsample", x, x.repeat(2, 2).repeat(2, 3), opset=7, scales=[1.0, 1.0, 2.0, 2.0], mode="nearest")


@case
def opset1_topk_attribute():
    """TopK-1: k is an attribute."""
    x = rand(3, 5)
    order = np.argsort(-x, 1)[:, :2]
    model = model_of([node("TopK", "x", "v,i", k=2, axis=1)], [info("x", x)], [info("v", [3, 2]), info("i", [3, 2], TensorProto.INT64)], opset=1)
    return model, [x], [np.take_along_axis(x, order, 1), order]


@case
def opset1_activations_consumed_inputs():
    """Relu-1, LeakyRelu-1, Elu-1, Sigmoid-1, Tanh-1, HardSigmoid-1, Selu-1 with consumed_inputs and their old defaults."""
    x = rand(4, 5)
    ops = [("LeakyRelu", {"alpha": 0.1}, lambda v: np.where(v < 0, np.float32(0.1) * v, v)),
           ("Elu", {"alpha": 0.5}, lambda v: np.where(v < 0, np.float32(0.5) * np.expm1(v), v)),
           ("HardSigmoid", {}, lambda v: np.clip(np.float32(0.2) * v + np.float32(0.5), 0, 1)),
           ("Selu", {}, lambda v: np.float32(1.0507) * np.where(v <= 0, np.float32(1.6732) * np.expm1(v), v)),
           ("Tanh", {}, np.tanh), ("Sigmoid", {}, lambda v: 1 / (1 + np.exp(-v))), ("Relu", {}, lambda v: np.maximum(v, 0))]
    nodes, y, last = [], x, "x"
    for i, (op, attrs, function) in enumerate(ops):
        out = "y" if i == len(ops) - 1 else f"v{i}"
        nodes.append(node(op, last, out, consumed_inputs=[0], **attrs))
        y, last = function(y).astype(np.float32), out
    return model_of(nodes, [info("x", x)], [info("y", x)], opset=1), [x], [y]


@case
def opset1_sum_max_mean():
    """Sum-1, Max-1 and Mean-1 of three equal shapes."""
    x, b, c = rand(2, 3), rand(2, 3, seed=1), rand(2, 3, seed=2)
    nodes = [node("Sum", "x,b,c", "s", consumed_inputs=[0, 0, 0]), node("Max", "s,b,c", "m"), node("Mean", "m,x,c", "y")]
    y = (np.maximum(np.maximum(x + b + c, b), c) + x + c) / np.float32(3)
    return model_of(nodes, [info(n, x) for n in "xbc"], [info("y", x)], opset=1), [x, b, c], [y]


@case
def opset6_prelu_slope_by_channel():
    """PRelu-6: a slope of [C] is one a channel, not one a column."""
    x, slope = rand(2, 3, 4), rand(3, seed=1)
    return one_node("PRelu", x, np.where(x < 0, x * slope[None, :, None], x), {"slope": slope}, 6)


@case
def opset6_tile_repeats():
    """Tile-6: one repeat for each axis."""
    x, repeats = rand(2, 3), np.array([2, 2])
    model = model_of([node("Tile", "x,repeats", "y")], [info("x", x)], [info("y", [4, 6])], {"repeats": repeats}, opset=6)
    return model, [x], [np.tile(x, (2, 2))]


@case
def opset1_global_lp_pool_and_reduce():
    """GlobalLpPool-1 takes p as a float; ReduceMean-1 keeps dimensions by default."""
    x = rand(2, 3, 4, 4)
    nodes = [node("GlobalLpPool", "x", "g", p=2.0), node("ReduceMean", "g", "y", axes=[1])]
    y = np.sqrt((x ** 2).sum((2, 3), keepdims=True)).mean(1, keepdims=True)
    return model_of(nodes, [info("x", x)], [info("y", [2, 1, 1, 1])], opset=1), [x], [y]


# --- operands of different types ---------------------------------------------------------------------------------------


@case
def opset15_integer_to_a_float_power():
    """The result is an integer, and exact where the power is: 9^3 is 729, 27^(1/3) rounded to f32 lies above 3."""
    x, p = np.array([9, 27, -7, 1000, 2, 10, 0, 5], np.int32), np.array([3, 1 / 3, 3, 3, 0.5, 9, 0, -1], np.float32)
    return one_node("Pow", x, np.power(x.astype(np.float64), p.astype(np.float64)).astype(np.int32), {"p": p})


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = sys.argv[1]
    shutil.rmtree(out, ignore_errors=True)
    cases = []
    for name in sorted(CASES):
        model, inputs, outputs = CASES[name]()
        cases.append(save_case(out, "import", name, model, [(inputs, outputs)], RTOL, ATOL))
    save_listing(out, cases, {"import": len(cases)})
    print(f"{len(cases)} import cases")


if __name__ == "__main__":
    main()
