#!/usr/bin/env python3
"""Builds well-known networks as ONNX files with seeded weights, each with an input and its exact output.

    networks.py OUT [NAME ...] [--check] [--list]

For each network (all of them without NAME) it writes

    OUT/NAME.onnx      opset 17, f32, as PyTorch's exporter writes the architecture: BatchNormalization kept as nodes,
                       constants as Constant nodes, shape arithmetic left in, the exporter's names
    OUT/NAME.in.npy    the input, f32, standard normal
    OUT/NAME.f64.npy   the output for that input, evaluated in float64 by onnx_f64.py

and skips what is there already and was written by the same scripts. --check runs onnxruntime too, if it is installed, and
prints how far its f32 result is from the exact one, as a share of the output's range.

Only numpy and `onnx` are needed. A network is built and evaluated at once, node by node, so that a BatchNormalization
can take its statistics from the activations that it will meet (then perturbed: folding it must change something), and
activations keep a sane scale to the last layer, as in a trained network. The number of learnable parameters of each
network is asserted to be the published one (torchvision's documentation, timm's for SE-ResNet-50; LeNet-5's, U-Net's
and those of BERT's encoder are counted by hand).
"""

import argparse
import os
import sys
import zlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import onnx_f64

OPSET = 17


class Net:
    """A network under construction. A value is known by its name; `value(name)` is what it holds for the seeded input."""

    def __init__(self, name, shape):
        self.name = name
        self.rng = np.random.default_rng(zlib.crc32(name.encode()))
        self.nodes, self.initializers, self.values, self.learnable = [], [], {}, 0
        self.node_names = set()
        self.input = self.rng.standard_normal(shape, np.float32)
        self.values["input"] = self.input

    def value(self, name):
        return onnx_f64.widened(self.values[name])

    def shape(self, name):
        return self.values[name].shape

    def param(self, name, array, learnable=True):
        """An initializer. Widened to f64 only while a node reads it: VGG-16's are half a gigabyte in f32."""
        self.initializers.append(numpy_helper.from_array(array, name))
        self.values[name] = array
        self.learnable += array.size if learnable else 0
        return name

    def normal(self, name, shape, std, mean=0.0):
        return self.param(name, self.rng.standard_normal(shape, np.float32) * np.float32(std) + np.float32(mean))

    def op(self, scope, op_type, *inputs, outputs=1, **attrs):
        """Adds a node, evaluates it, and returns the name of its output, or a list of names if there are several."""
        stem = "/" + "/".join(s for s in (scope, op_type) if s)
        name, n = stem, 0
        while name in self.node_names:
            n += 1
            name = f"{stem}_{n}"
        self.node_names.add(name)
        names = [f"{name}_output_{i}" for i in range(outputs)]
        node = helper.make_node(op_type, inputs, names, name, **attrs)
        self.nodes.append(node)
        results = onnx_f64.apply(node, [self.value(i) if i else None for i in inputs])
        self.values |= dict(zip(names, results))
        return names[0] if outputs == 1 else names

    def const(self, scope, value, dtype=np.int64):
        return self.op(scope, "Constant", value=numpy_helper.from_array(np.array(value, dtype)))

    def finish(self, output, out):
        """Renames the last value to `output` and writes the three files."""
        assert self.nodes[-1].output[0] == output
        self.nodes[-1].output[0] = "output"
        exact = self.values[output]
        info = lambda name, shape: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        graph = helper.make_graph(self.nodes, "main_graph", [info("input", self.input.shape)], [info("output", exact.shape)],
                                  self.initializers)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8,
                                  producer_name="networks.py")
        base = os.path.join(out, self.name)
        onnx.save(model, base + ".onnx")
        np.save(base + ".in.npy", self.input)
        np.save(base + ".f64.npy", exact)


# --- layers, under PyTorch's parameter names --------------------------------------------------------------------------

def pair(n):
    return list(n) if isinstance(n, tuple) else [n, n]


def conv(net, scope, x, c_out, kernel, stride=1, padding=0, group=1, bias=False):
    kernel, padding = pair(kernel), pair(padding)
    shape = [c_out, net.shape(x)[1] // group, *kernel]
    operands = [x, net.normal(f"{scope}.weight", shape, np.sqrt(2 / np.prod(shape[1:])))]
    if bias:
        operands.append(net.normal(f"{scope}.bias", [c_out], 0.02))
    return net.op(scope, "Conv", *operands, dilations=[1, 1], group=group, kernel_shape=kernel, pads=padding * 2,
                  strides=pair(stride))


def conv_transpose(net, scope, x, c_out, kernel, stride):
    c_in = net.shape(x)[1]
    weight = net.normal(f"{scope}.weight", [c_in, c_out, kernel, kernel], np.sqrt(stride * stride / (c_in * kernel * kernel)))
    return net.op(scope, "ConvTranspose", x, weight, net.normal(f"{scope}.bias", [c_out], 0.02), dilations=[1, 1], group=1,
                  kernel_shape=[kernel, kernel], pads=[0] * 4, strides=[stride, stride])


def batch_norm(net, scope, x, eps=1e-5):
    """Statistics of this very input, perturbed; a channel that is (nearly) dead gets a usual variance."""
    n, activations = net.shape(x)[1], net.value(x)
    mean, var = activations.mean((0, 2, 3)), activations.var((0, 2, 3))
    var = np.maximum(var, 0.05 * var.mean())
    mean = mean + 0.05 * np.sqrt(var) * net.rng.standard_normal(n)
    var = var * net.rng.uniform(0.8, 1.25, n)
    return net.op(scope, "BatchNormalization", x,
                  net.param(f"{scope}.weight", net.rng.uniform(0.8, 1.2, n).astype(np.float32)),
                  net.normal(f"{scope}.bias", [n], 0.1),
                  net.param(f"{scope}.running_mean", mean.astype(np.float32), learnable=False),
                  net.param(f"{scope}.running_var", var.astype(np.float32), learnable=False),
                  epsilon=eps, momentum=0.9, training_mode=0)


def linear(net, scope, x, c_out, gain=1.0):
    c_in = net.shape(x)[1]
    return net.op(scope, "Gemm", x, net.normal(f"{scope}.weight", [c_out, c_in], np.sqrt(gain / c_in)),
                  net.normal(f"{scope}.bias", [c_out], 0.02), alpha=1.0, beta=1.0, transB=1)


def relu(net, scope, x):
    return net.op(scope, "Relu", x)


def silu(net, scope, x):
    return net.op(scope, "Mul", x, net.op(scope, "Sigmoid", x))


def relu6(net, scope, x):
    low, high = net.const(scope, 0, np.float32), net.const(scope, 6, np.float32)
    return net.op(scope, "Clip", x, low, high)


def max_pool(net, scope, x, kernel, stride, padding=0, ceil=0):
    return net.op(scope, "MaxPool", x, ceil_mode=ceil, dilations=[1, 1], kernel_shape=pair(kernel), pads=[padding] * 4,
                  strides=pair(stride))


def avg_pool(net, scope, x, kernel, stride, padding=0):
    return net.op(scope, "AveragePool", x, ceil_mode=0, count_include_pad=1, kernel_shape=pair(kernel), pads=[padding] * 4,
                  strides=pair(stride))


def pooled(net, x):
    """Adaptive pooling to 1x1, flattened."""
    return net.op("", "Flatten", net.op("avgpool", "GlobalAveragePool", x), axis=1)


def conv_bn(net, scope, x, c_out, kernel, stride=1, padding=0, group=1, act=relu, names=("conv", "bn"), eps=1e-5):
    dot = "." if scope else ""
    x = conv(net, f"{scope}{dot}{names[0]}", x, c_out, kernel, stride, padding, group)
    x = batch_norm(net, f"{scope}{dot}{names[1]}", x, eps)
    return act(net, scope, x) if act else x


# --- networks ---------------------------------------------------------------------------------------------------------

def lenet5(net, x):
    x = max_pool(net, "2", relu(net, "1", conv(net, "0", x, 6, 5, padding=2, bias=True)), 2, 2)
    x = max_pool(net, "5", relu(net, "4", conv(net, "3", x, 16, 5, bias=True)), 2, 2)
    x = net.op("6", "Flatten", x, axis=1)
    x = relu(net, "8", linear(net, "7", x, 120, gain=2))
    x = relu(net, "10", linear(net, "9", x, 84, gain=2))
    return linear(net, "11", x, 10)


def classifier_4096(net, x, size, names):
    """The three dense layers of AlexNet and VGG, after adaptive pooling to a size that the map already has."""
    x = avg_pool(net, "avgpool", x, 1, 1)
    assert net.shape(x)[2:] == (size, size)
    x = net.op("", "Flatten", x, axis=1)
    for name in names[:2]:
        x = relu(net, "classifier", linear(net, f"classifier.{name}", x, 4096, gain=2))
    return linear(net, f"classifier.{names[2]}", x, 1000)


def alexnet(net, x):
    for name, c_out, kernel, stride, padding, pool in ((0, 64, 11, 4, 2, True), (3, 192, 5, 1, 2, True), (6, 384, 3, 1, 1, False),
                                                       (8, 256, 3, 1, 1, False), (10, 256, 3, 1, 1, True)):
        x = relu(net, "features", conv(net, f"features.{name}", x, c_out, kernel, stride, padding, bias=True))
        x = max_pool(net, "features", x, 3, 2) if pool else x
    return classifier_4096(net, x, 6, (1, 4, 6))


def vgg16(net, x):
    name = 0
    for c_out, n in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(n):
            x = relu(net, "features", conv(net, f"features.{name}", x, c_out, 3, padding=1, bias=True))
            name += 2
        x = max_pool(net, "features", x, 2, 2)
        name += 1
    return classifier_4096(net, x, 7, (0, 3, 6))


def googlenet(net, x):
    basic = lambda scope, x, c_out, k, s=1, p=0: conv_bn(net, scope, x, c_out, k, s, p, eps=1e-3)

    def inception(scope, x, c1, c3_reduce, c3, c5_reduce, c5, pool):
        # the "5x5" branch is 3x3 in torchvision
        b1 = basic(f"{scope}.branch1", x, c1, 1)
        b2 = basic(f"{scope}.branch2.1", basic(f"{scope}.branch2.0", x, c3_reduce, 1), c3, 3, p=1)
        b3 = basic(f"{scope}.branch3.1", basic(f"{scope}.branch3.0", x, c5_reduce, 1), c5, 3, p=1)
        b4 = basic(f"{scope}.branch4.1", max_pool(net, scope, x, 3, 1, 1, ceil=1), pool, 1)
        return net.op(scope, "Concat", b1, b2, b3, b4, axis=1)

    x = max_pool(net, "maxpool1", basic("conv1", x, 64, 7, 2, 3), 3, 2, ceil=1)
    x = max_pool(net, "maxpool2", basic("conv3", basic("conv2", x, 64, 1), 192, 3, p=1), 3, 2, ceil=1)
    x = inception("inception3a", x, 64, 96, 128, 16, 32, 32)
    x = inception("inception3b", x, 128, 128, 192, 32, 96, 64)
    x = max_pool(net, "maxpool3", x, 3, 2, ceil=1)
    x = inception("inception4a", x, 192, 96, 208, 16, 48, 64)
    x = inception("inception4b", x, 160, 112, 224, 24, 64, 64)
    x = inception("inception4c", x, 128, 128, 256, 24, 64, 64)
    x = inception("inception4d", x, 112, 144, 288, 32, 64, 64)
    x = inception("inception4e", x, 256, 160, 320, 32, 128, 128)
    x = max_pool(net, "maxpool4", x, 2, 2, ceil=1)
    x = inception("inception5a", x, 256, 160, 320, 32, 128, 128)
    x = inception("inception5b", x, 384, 192, 384, 48, 128, 128)
    return linear(net, "fc", pooled(net, x), 1000)


def inception_v3(net, x):
    basic = lambda scope, x, c_out, k, s=1, p=0: conv_bn(net, scope, x, c_out, k, s, p, eps=1e-3)
    concat = lambda scope, *xs: net.op(scope, "Concat", *xs, axis=1)

    def chain(scope, x, *layers):
        for name, args in layers:
            x = basic(f"{scope}.{name}", x, *args)
        return x

    def pool_branch(scope, x, c_out):
        return basic(f"{scope}.branch_pool", avg_pool(net, scope, x, 3, 1, 1), c_out, 1)

    def block_a(scope, x, pool):
        return concat(scope, basic(f"{scope}.branch1x1", x, 64, 1),
                      chain(scope, x, ("branch5x5_1", (48, 1)), ("branch5x5_2", (64, 5, 1, 2))),
                      chain(scope, x, ("branch3x3dbl_1", (64, 1)), ("branch3x3dbl_2", (96, 3, 1, 1)),
                            ("branch3x3dbl_3", (96, 3, 1, 1))),
                      pool_branch(scope, x, pool))

    def block_b(scope, x):
        return concat(scope, basic(f"{scope}.branch3x3", x, 384, 3, 2),
                      chain(scope, x, ("branch3x3dbl_1", (64, 1)), ("branch3x3dbl_2", (96, 3, 1, 1)),
                            ("branch3x3dbl_3", (96, 3, 2))),
                      max_pool(net, scope, x, 3, 2))

    def block_c(scope, x, c7):
        row, column = ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))
        return concat(scope, basic(f"{scope}.branch1x1", x, 192, 1),
                      chain(scope, x, ("branch7x7_1", (c7, 1)), ("branch7x7_2", (c7, *row)), ("branch7x7_3", (192, *column))),
                      chain(scope, x, ("branch7x7dbl_1", (c7, 1)), ("branch7x7dbl_2", (c7, *column)),
                            ("branch7x7dbl_3", (c7, *row)), ("branch7x7dbl_4", (c7, *column)), ("branch7x7dbl_5", (192, *row))),
                      pool_branch(scope, x, 192))

    def block_d(scope, x):
        return concat(scope, chain(scope, x, ("branch3x3_1", (192, 1)), ("branch3x3_2", (320, 3, 2))),
                      chain(scope, x, ("branch7x7x3_1", (192, 1)), ("branch7x7x3_2", (192, (1, 7), 1, (0, 3))),
                            ("branch7x7x3_3", (192, (7, 1), 1, (3, 0))), ("branch7x7x3_4", (192, 3, 2))),
                      max_pool(net, scope, x, 3, 2))

    def block_e(scope, x):
        def fork(name, x):
            return concat(scope, basic(f"{scope}.{name}a", x, 384, (1, 3), 1, (0, 1)),
                          basic(f"{scope}.{name}b", x, 384, (3, 1), 1, (1, 0)))
        return concat(scope, basic(f"{scope}.branch1x1", x, 320, 1),
                      fork("branch3x3_2", basic(f"{scope}.branch3x3_1", x, 384, 1)),
                      fork("branch3x3dbl_3", chain(scope, x, ("branch3x3dbl_1", (448, 1)), ("branch3x3dbl_2", (384, 3, 1, 1)))),
                      pool_branch(scope, x, 192))

    x = basic("Conv2d_2b_3x3", basic("Conv2d_2a_3x3", basic("Conv2d_1a_3x3", x, 32, 3, 2), 32, 3), 64, 3, p=1)
    x = max_pool(net, "maxpool1", x, 3, 2)
    x = max_pool(net, "maxpool2", basic("Conv2d_4a_3x3", basic("Conv2d_3b_1x1", x, 80, 1), 192, 3), 3, 2)
    for name, pool in (("5b", 32), ("5c", 64), ("5d", 64)):
        x = block_a(f"Mixed_{name}", x, pool)
    x = block_b("Mixed_6a", x)
    for name, c7 in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
        x = block_c(f"Mixed_{name}", x, c7)
    x = block_e("Mixed_7c", block_e("Mixed_7b", block_d("Mixed_7a", x)))
    return linear(net, "fc", pooled(net, x), 1000)


def resnet(net, x, blocks, bottleneck, squeeze_excite=False):
    """He et al. 2015, with the stride in the 3x3 convolution as torchvision and timm do."""
    def excite(scope, x):
        c = net.shape(x)[1]
        s = net.op(scope, "ReduceMean", x, axes=[2, 3], keepdims=1)
        s = relu(net, scope, conv(net, f"{scope}.fc1", s, c // 16, 1, bias=True))
        s = net.op(scope, "Sigmoid", conv(net, f"{scope}.fc2", s, c, 1, bias=True))
        return net.op(scope, "Mul", x, s)

    def block(scope, x, width, stride):
        c_out, identity = width * (4 if bottleneck else 1), x
        layers = ([(width, 1, 1, 0), (width, 3, stride, 1), (c_out, 1, 1, 0)] if bottleneck
                  else [(width, 3, stride, 1), (c_out, 3, 1, 1)])
        for i, (c, k, s, p) in enumerate(layers, 1):
            x = conv_bn(net, scope, x, c, k, s, p, act=relu if i < len(layers) else None, names=(f"conv{i}", f"bn{i}"))
        x = excite(f"{scope}.se", x) if squeeze_excite else x
        if stride != 1 or net.shape(identity)[1] != c_out:
            identity = conv_bn(net, f"{scope}.downsample", identity, c_out, 1, stride, act=None, names=("0", "1"))
        return relu(net, scope, net.op(scope, "Add", x, identity))

    x = max_pool(net, "maxpool", conv_bn(net, "", x, 64, 7, 2, 3, names=("conv1", "bn1")), 3, 2, 1)
    for stage, n in enumerate(blocks):
        for i in range(n):
            x = block(f"layer{stage + 1}.{i}", x, 64 << stage, 2 if stage and i == 0 else 1)
    return linear(net, "fc", pooled(net, x), 1000)


def densenet121(net, x):
    def bn_relu_conv(scope, i, x, c_out, kernel, padding=0):
        x = relu(net, scope, batch_norm(net, f"{scope}.norm{i}", x))
        return conv(net, f"{scope}.conv{i}", x, c_out, kernel, padding=padding)

    x = conv_bn(net, "features", x, 64, 7, 2, 3, names=("conv0", "norm0"))
    x = max_pool(net, "features.pool0", x, 3, 2, 1)
    for stage, n in enumerate((6, 12, 24, 16), 1):
        features = [x]
        for i in range(1, n + 1):
            scope = f"features.denseblock{stage}.denselayer{i}"
            x = net.op(scope, "Concat", *features, axis=1)
            features.append(bn_relu_conv(scope, 2, bn_relu_conv(scope, 1, x, 128, 1), 32, 3, 1))
        x = net.op(f"features.denseblock{stage}", "Concat", *features, axis=1)
        if stage < 4:
            scope = f"features.transition{stage}"
            x = avg_pool(net, scope, bn_relu_conv(scope, "", x, net.shape(x)[1] // 2, 1), 2, 2)
    x = relu(net, "", batch_norm(net, "features.norm5", x))
    return linear(net, "classifier", pooled(net, x), 1000)


def squeezenet1_1(net, x):
    def fire(name, x, squeeze, expand):
        scope = f"features.{name}"
        layer = lambda part, x, c, k, p=0: relu(net, scope, conv(net, f"{scope}.{part}", x, c, k, padding=p, bias=True))
        x = layer("squeeze", x, squeeze, 1)
        return net.op(scope, "Concat", layer("expand1x1", x, expand, 1), layer("expand3x3", x, expand, 3, 1), axis=1)

    pool = lambda x: max_pool(net, "features", x, 3, 2, ceil=1)
    x = pool(relu(net, "features", conv(net, "features.0", x, 64, 3, 2, bias=True)))
    x = pool(fire(4, fire(3, x, 16, 64), 16, 64))
    x = pool(fire(7, fire(6, x, 32, 128), 32, 128))
    for name, squeeze, expand in ((9, 48, 192), (10, 48, 192), (11, 64, 256), (12, 64, 256)):
        x = fire(name, x, squeeze, expand)
    return pooled(net, relu(net, "classifier", conv(net, "classifier.1", x, 1000, 1, bias=True)))


def mobilenet_v2(net, x):
    def block(name, x, expand, c_out, stride):
        scope, c_in, identity = f"features.{name}.conv", net.shape(x)[1], x
        i = 0
        if expand != 1:
            x, i = conv_bn(net, f"{scope}.0", x, c_in * expand, 1, act=relu6, names=("0", "1")), 1
        x = conv_bn(net, f"{scope}.{i}", x, c_in * expand, 3, stride, 1, c_in * expand, relu6, ("0", "1"))
        x = conv_bn(net, scope, x, c_out, 1, act=None, names=(f"{i + 1}", f"{i + 2}"))
        return net.op(scope, "Add", identity, x) if stride == 1 and c_in == c_out else x

    x = conv_bn(net, "features.0", x, 32, 3, 2, 1, act=relu6, names=("0", "1"))
    name = 1
    for expand, c_out, n, stride in ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2),
                                     (6, 320, 1, 1)):
        for i in range(n):
            x = block(name, x, expand, c_out, stride if i == 0 else 1)
            name += 1
    x = conv_bn(net, "features.18", x, 1280, 1, act=relu6, names=("0", "1"))
    return linear(net, "classifier.1", pooled(net, x), 1000)


def efficientnet_b0(net, x):
    def block(scope, x, expand, kernel, stride, c_out):
        c_in, identity = net.shape(x)[1], x
        width, i = c_in * expand, 0
        if expand != 1:
            x, i = conv_bn(net, f"{scope}.block.0", x, width, 1, act=silu, names=("0", "1")), 1
        x = conv_bn(net, f"{scope}.block.{i}", x, width, kernel, stride, kernel // 2, width, silu, ("0", "1"))
        se = f"{scope}.block.{i + 1}"
        s = net.op(f"{se}.avgpool", "GlobalAveragePool", x)
        s = silu(net, se, conv(net, f"{se}.fc1", s, c_in // 4, 1, bias=True))
        s = net.op(se, "Sigmoid", conv(net, f"{se}.fc2", s, width, 1, bias=True))
        x = net.op(se, "Mul", s, x)
        x = conv_bn(net, f"{scope}.block.{i + 2}", x, c_out, 1, act=None, names=("0", "1"))
        return net.op(scope, "Add", x, identity) if stride == 1 and c_in == c_out else x

    x = conv_bn(net, "features.0", x, 32, 3, 2, 1, act=silu, names=("0", "1"))
    for stage, (expand, kernel, stride, c_out, n) in enumerate(((1, 3, 1, 16, 1), (6, 3, 2, 24, 2), (6, 5, 2, 40, 2),
                                                                (6, 3, 2, 80, 3), (6, 5, 1, 112, 3), (6, 5, 2, 192, 4),
                                                                (6, 3, 1, 320, 1)), 1):
        for i in range(n):
            x = block(f"features.{stage}.{i}", x, expand, kernel, stride if i == 0 else 1, c_out)
    x = conv_bn(net, "features.8", x, 1280, 1, act=silu, names=("0", "1"))
    return linear(net, "classifier.1", pooled(net, x), 1000)


def shufflenet_v2_x1_0(net, x):
    def size(scope, x, axis):
        return net.op(scope, "Gather", net.op(scope, "Shape", x), net.const(scope, axis), axis=0)

    def shuffle(scope, x):
        """Interleaves two groups of channels, the new shape computed from the old one as a traced `view` does."""
        n, c, h, w = [size(scope, x, axis) for axis in range(4)]
        half = net.op(scope, "Div", c, net.const(scope, 2))
        half = net.op(scope, "Cast", net.op(scope, "Cast", half, to=TensorProto.INT64), to=TensorProto.INT64)
        shape = lambda *dims: net.op(scope, "Concat", *[
            net.const(scope, [d]) if isinstance(d, int) else net.op(scope, "Unsqueeze", d, net.const(scope, [0])) for d in dims], axis=0)
        x = net.op(scope, "Reshape", x, shape(n, 2, half, h, w), allowzero=0)
        x = net.op(scope, "Transpose", x, perm=[0, 2, 1, 3, 4])
        return net.op(scope, "Reshape", x, shape(n, -1, h, w), allowzero=0)

    def branch2(scope, x, c, stride):
        x = conv_bn(net, scope, x, c, 1, names=("0", "1"))
        x = conv_bn(net, scope, x, c, 3, stride, 1, c, act=None, names=("3", "4"))
        return conv_bn(net, scope, x, c, 1, names=("5", "6"))

    x = conv_bn(net, "conv1", x, 24, 3, 2, 1, names=("0", "1"))
    x = max_pool(net, "maxpool", x, 3, 2, 1)
    for stage, n, c_out in ((2, 4, 116), (3, 8, 232), (4, 4, 464)):
        c = c_out // 2
        for i in range(n):
            scope = f"stage{stage}.{i}"
            if i == 0:
                left = conv_bn(net, f"{scope}.branch1", x, net.shape(x)[1], 3, 2, 1, net.shape(x)[1], None, ("0", "1"))
                left = conv_bn(net, f"{scope}.branch1", left, c, 1, names=("2", "3"))
                right = branch2(f"{scope}.branch2", x, c, 2)
            else:
                left, right = net.op(scope, "Split", x, net.const(scope, [c, c]), outputs=2, axis=1)
                right = branch2(f"{scope}.branch2", right, c, 1)
            x = shuffle(scope, net.op(scope, "Concat", left, right, axis=1))
    x = conv_bn(net, "conv5", x, 1024, 1, names=("0", "1"))
    return linear(net, "fc", net.op("", "ReduceMean", x, axes=[2, 3], keepdims=0), 1000)


def unet256(net, x):
    """Ronneberger et al. 2015 at a quarter of the width, same-padded, transposed convolutions on the way up."""
    def block(scope, x, c):
        return conv_bn(net, scope, conv_bn(net, scope, x, c, 3, 1, 1, names=("0", "1")), c, 3, 1, 1, names=("3", "4"))

    skips, widths = [], [16, 32, 64, 128, 256]
    for i, c in enumerate(widths):
        x = block(f"down.{i}", x, c)
        if i < 4:
            skips.append(x)
            x = max_pool(net, "pool", x, 2, 2)
    for i, c in enumerate(reversed(widths[:4])):
        x = net.op("", "Concat", skips.pop(), conv_transpose(net, f"up.{i}", x, c, 2, 2), axis=1)
        x = block(f"dec.{i}", x, c)
    return conv(net, "out", x, 2, 1, bias=True)


def vit_b_16(net, x):
    """Dosovitskiy et al. 2020, with attention as the exporter spells `scaled_dot_product_attention` out: the scale from
    the head's width, q and k scaled apart, heads split and merged by Reshape and Transpose on computed shapes."""
    width, heads, tokens = 768, 12, 197

    def size(scope, x, axis):
        return net.op(scope, "Gather", net.op(scope, "Shape", x), net.const(scope, axis), axis=0)

    def shape(scope, *dims):
        return net.op(scope, "Concat", *[net.const(scope, [d]) if isinstance(d, int) else
                                         net.op(scope, "Unsqueeze", d, net.const(scope, [0])) for d in dims], axis=0)

    def norm(scope, x):
        return net.op(scope, "LayerNormalization", x, net.normal(f"{scope}.weight", [width], 0.1, 1.0),
                      net.normal(f"{scope}.bias", [width], 0.1), axis=-1, epsilon=1e-6)

    def dense(scope, name, x, c_out):
        """A linear layer on three axes: MatMul with a Transpose of the weight, then Add."""
        c_in = net.shape(x)[-1]
        weight = net.normal(f"{scope}.{name}weight", [c_out, c_in], np.sqrt(1 / c_in))
        bias = net.normal(f"{scope}.{name}bias", [c_out], 0.02)
        product = net.op(scope, "MatMul", x, net.op(scope, "Transpose", weight, perm=[1, 0]))
        return net.op(scope, "Add", bias, product)

    def gelu(scope, x):
        e = net.op(scope, "Erf", net.op(scope, "Div", x, net.const(scope, np.sqrt(2), np.float32)))
        e = net.op(scope, "Mul", x, net.op(scope, "Add", e, net.const(scope, 1, np.float32)))
        return net.op(scope, "Mul", e, net.const(scope, 0.5, np.float32))

    def attention(scope, x):
        x = net.op(scope, "Transpose", x, perm=[1, 0, 2])  # the module works on [tokens, batch, width]
        length, batch = size(scope, x, 0), size(scope, x, 1)
        qkv = dense(scope, "in_proj_", x, 3 * width)
        qkv = net.op(scope, "Reshape", qkv, shape(scope, length, batch, 3, width), allowzero=0)
        qkv = net.op(scope, "Unsqueeze", qkv, net.const(scope, [0]))
        qkv = net.op(scope, "Transpose", qkv, perm=[3, 1, 2, 0, 4])
        qkv = net.op(scope, "Squeeze", qkv, net.const(scope, [3]))
        rows = net.op(scope, "Mul", batch, net.const(scope, heads))
        split = []
        for i in range(3):
            part = net.op(scope, "Gather", qkv, net.const(scope, i), axis=0)
            part = net.op(scope, "Reshape", part, shape(scope, length, rows, width // heads), allowzero=0)
            part = net.op(scope, "Transpose", part, perm=[1, 0, 2])
            split.append(net.op(scope, "Reshape", part, shape(scope, batch, heads, length, width // heads), allowzero=0))
        q, k, v = split
        d = net.op(scope, "Slice", net.op(scope, "Shape", q), net.const(scope, [-1]), net.const(scope, [2**63 - 1]))
        d = net.op(scope, "Sqrt", net.op(scope, "Cast", d, to=TensorProto.FLOAT))
        scale = net.op(scope, "Sqrt", net.op(scope, "Div", net.const(scope, [1], np.float32), d))
        k = net.op(scope, "Mul", net.op(scope, "Transpose", k, perm=[0, 1, 3, 2]), scale)
        scores = net.op(scope, "MatMul", net.op(scope, "Mul", q, scale), k)
        y = net.op(scope, "MatMul", net.op(scope, "Softmax", scores, axis=-1), v)
        y = net.op(scope, "Transpose", y, perm=[2, 0, 1, 3])
        flat = net.op(scope, "Mul", length, batch)
        y = net.op(scope, "Reshape", y, shape(scope, flat, width), allowzero=0)
        y = linear(net, f"{scope}.out_proj", y, width)
        y = net.op(scope, "Reshape", y, shape(scope, length, batch, size(scope, y, 1)), allowzero=0)
        return net.op(scope, "Transpose", y, perm=[1, 0, 2])

    batch = size("", x, 0)
    x = conv(net, "conv_proj", x, width, 16, 16, bias=True)
    x = net.op("", "Reshape", x, shape("", batch, width, tokens - 1), allowzero=0)
    x = net.op("", "Transpose", x, perm=[0, 2, 1])
    # `class_token.expand(n, -1, -1)`: where the wanted size is -1, keep 1
    wanted = shape("", batch, -1, -1)
    ones = net.op("", "ConstantOfShape", net.const("", [3]), value=numpy_helper.from_array(np.array([1], np.int64)))
    minus = net.op("", "Mul", ones, net.const("", -1))
    wanted = net.op("", "Where", net.op("", "Equal", wanted, minus), ones, wanted)
    token = net.op("", "Expand", net.normal("class_token", [1, 1, width], 0.5), wanted)
    x = net.op("", "Concat", token, x, axis=1)
    x = net.op("encoder", "Add", x, net.normal("encoder.pos_embedding", [1, tokens, width], 0.3))
    for i in range(12):
        scope = f"encoder.layers.encoder_layer_{i}"
        x = net.op(scope, "Add", attention(f"{scope}.self_attention", norm(f"{scope}.ln_1", x)), x)
        y = gelu(f"{scope}.mlp", dense(f"{scope}.mlp.0", "", norm(f"{scope}.ln_2", x), 4 * width))
        x = net.op(scope, "Add", x, dense(f"{scope}.mlp.3", "", y, width))
    x = net.op("", "Gather", norm("encoder.ln", x), net.const("", 0), axis=1)
    return linear(net, "heads.head", x, 1000)


def bert_mini(net, x):
    """The encoder of Turc et al. 2019's smallest common BERT, behind its embeddings: post-norm, erf GELU, two sentences of
    which the second ends early, so that its last keys are masked. Attention as the exporter writes Hugging Face's module."""
    width, heads, layers, eps = 256, 4, 4, 1e-12
    batch, tokens, _ = net.shape(x)
    seen = np.ones((batch, 1, 1, tokens), np.int64)
    seen[1, ..., tokens - 11:] = 0
    seen = net.op("", "Cast", net.const("", seen), to=TensorProto.FLOAT)
    unseen = net.op("", "Sub", net.const("", 1, np.float32), seen)
    mask = net.op("", "Mul", unseen, net.const("", np.finfo(np.float32).min, np.float32))

    def norm(scope, x):
        return net.op(scope, "LayerNormalization", x, net.normal(f"{scope}.weight", [width], 0.1, 1.0),
                      net.normal(f"{scope}.bias", [width], 0.1), axis=-1, epsilon=eps)

    def dense(scope, x, c_out):
        c_in = net.shape(x)[-1]
        weight = net.normal(f"{scope}.weight", [c_in, c_out], np.sqrt(1 / c_in))
        bias = net.normal(f"{scope}.bias", [c_out], 0.02)
        return net.op(scope, "Add", bias, net.op(scope, "MatMul", x, weight))

    def attention(scope, x):
        def split(name, perm):
            part = net.op(scope, "Reshape", dense(f"{scope}.{name}", x, width),
                          net.const(scope, [batch, tokens, heads, width // heads]))
            return net.op(scope, "Transpose", part, perm=perm)

        q, k, v = split("query", [0, 2, 1, 3]), split("key", [0, 2, 3, 1]), split("value", [0, 2, 1, 3])
        scores = net.op(scope, "MatMul", q, k)
        scores = net.op(scope, "Div", scores, net.const(scope, np.sqrt(width / heads), np.float32))
        weights = net.op(scope, "Softmax", net.op(scope, "Add", scores, mask), axis=-1)
        y = net.op(scope, "Transpose", net.op(scope, "MatMul", weights, v), perm=[0, 2, 1, 3])
        return net.op(scope, "Reshape", y, net.const(scope, [batch, tokens, width]))

    def gelu(scope, x):
        e = net.op(scope, "Erf", net.op(scope, "Div", x, net.const(scope, np.sqrt(2), np.float32)))
        e = net.op(scope, "Mul", x, net.op(scope, "Add", e, net.const(scope, 1, np.float32)))
        return net.op(scope, "Mul", e, net.const(scope, 0.5, np.float32))

    for i in range(layers):
        scope = f"encoder.layer.{i}"
        y = dense(f"{scope}.attention.output.dense", attention(f"{scope}.attention.self", x), width)
        x = norm(f"{scope}.attention.output.LayerNorm", net.op(f"{scope}.attention.output", "Add", y, x))
        y = gelu(f"{scope}.intermediate", dense(f"{scope}.intermediate.dense", x, 4 * width))
        y = dense(f"{scope}.output.dense", y, width)
        x = norm(f"{scope}.output.LayerNorm", net.op(f"{scope}.output", "Add", y, x))
    return x


IMAGE = (1, 3, 224, 224)

# name: (builder, input shape, learnable parameters as published)
NETWORKS = {
    "lenet5": (lenet5, (1, 1, 28, 28), 61_706),
    "alexnet": (alexnet, IMAGE, 61_100_840),
    "vgg16": (vgg16, IMAGE, 138_357_544),
    "googlenet": (googlenet, IMAGE, 6_624_904),
    "inception_v3": (inception_v3, (1, 3, 299, 299), 23_834_568),
    "resnet18": (lambda net, x: resnet(net, x, (2, 2, 2, 2), bottleneck=False), IMAGE, 11_689_512),
    "resnet50": (lambda net, x: resnet(net, x, (3, 4, 6, 3), bottleneck=True), IMAGE, 25_557_032),
    "seresnet50": (lambda net, x: resnet(net, x, (3, 4, 6, 3), bottleneck=True, squeeze_excite=True), IMAGE, 28_088_024),
    "densenet121": (densenet121, IMAGE, 7_978_856),
    "squeezenet1_1": (squeezenet1_1, IMAGE, 1_235_496),
    "mobilenet_v2": (mobilenet_v2, IMAGE, 3_504_872),
    "efficientnet_b0": (efficientnet_b0, IMAGE, 5_288_548),
    "shufflenet_v2_x1_0": (shufflenet_v2_x1_0, IMAGE, 2_278_604),
    "unet256": (unet256, (1, 3, 256, 256), 1_942_594),
    "vit_b_16": (vit_b_16, IMAGE, 86_567_656),
    "bert_mini": (bert_mini, (2, 37, 256), 3_159_040),
}


def distance(out, name):
    """How far onnxruntime's output is from the exact one, as a share of its range; "" where it is not installed."""
    try:
        import onnxruntime
    except ImportError:
        return ""
    base = os.path.join(out, name)
    session = onnxruntime.InferenceSession(base + ".onnx", providers=["CPUExecutionProvider"])
    y, = session.run(None, {"input": np.load(base + ".in.npy")})
    exact = np.load(base + ".f64.npy")
    return f"  onnxruntime {onnxruntime.__version__} {np.abs(y - exact).max() / np.ptp(exact):.1e} of the range"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out", nargs="?")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()
    if args.list or not args.out:
        print("\n".join(NETWORKS))
        return
    os.makedirs(args.out, exist_ok=True)
    version = 0
    for path in (__file__, onnx_f64.__file__):
        with open(path, "rb") as file:
            version = zlib.crc32(file.read(), version)
    for name in args.names or NETWORKS:
        builder, shape, learnable = NETWORKS[name]
        stamp = os.path.join(args.out, f"{name}.stamp")
        if not os.path.exists(stamp) or open(stamp).read() != str(version):
            net = Net(name, shape)
            net.finish(builder(net, "input"), args.out)
            assert net.learnable == learnable, f"{name}: {net.learnable} parameters, {learnable} are published"
            with open(stamp, "w") as file:
                file.write(str(version))
            exact = np.load(os.path.join(args.out, f"{name}.f64.npy"))
            print(f"{name:20s} {len(net.nodes):4d} nodes {net.learnable / 1e6:7.2f} M parameters, output in "
                  f"[{exact.min():.3g}, {exact.max():.3g}] std {exact.std():.3g}", end="")
        else:
            print(f"{name:20s} is up to date", end="")
        print(distance(args.out, name) if args.check else "", flush=True)


if __name__ == "__main__":
    sys.exit(main())
