#!/usr/bin/env python3
"""Records gradients by PyTorch, for what finite differences cannot tell: kinks, ties, poles, and PyTorch's definitions.

    gradient_cases.py > passes/tests/gradients_pytorch.txt

Needs torch, only to record again. Each case is a graph in nncc's text form and the same computation in PyTorch; recorded
are the inputs, a gradient for each output, and the gradients of the inputs:

    == name
    graph name(%x: f32[2]) { ... }
    input x 0.5 -1.0
    upstream 1.0 2.0          one line for each output
    gradient x 1.0 0.0
"""

import numpy as np
import torch
import torch.nn.functional as F

CASES = []


def case(inputs, *lines, names="x", outputs="y"):
    """Registers a function of tensors under its own name; `lines` are the body of the graph, `inputs` shapes or numbers."""
    def register(function):
        CASES.append((function.__name__, names.split(), inputs, lines, outputs.split(), function))
        return function
    return register


def values(given, rng):
    """Numbers as they are given, or a random tensor of a shape."""
    if isinstance(given, tuple):
        return torch.tensor(rng.standard_normal(given).astype(np.float32))
    return torch.tensor(given, dtype=torch.float32)


KINKS = [[-4.0, -3.0, -1.0, -0.5, -0.0, 0.0, 0.5, 1.0, 3.0, 6.0, 7.0, 100.0]]
TAIL = KINKS[0] + [-100.0, 1e4, -1e4]


def activation(name, text, function, points=None):
    CASES.append((name, ["x"], [points or KINKS[0]], [f"%y = {text}"], ["y"], function))


activation("relu", "relu %x", F.relu)
activation("leaky_relu", "leaky_relu %x, alpha=0.1", lambda x: F.leaky_relu(x, 0.1))
activation("elu", "elu %x, alpha=0.7", lambda x: F.elu(x, 0.7), TAIL)
activation("selu", "selu %x, alpha=1.6732632423543772, gamma=1.0507009873554805", F.selu, TAIL)
activation("celu", "celu %x, alpha=0.5", lambda x: F.celu(x, 0.5), TAIL)
activation("hard_sigmoid", "hard_sigmoid %x, alpha=0.16666666666666666, beta=0.5", F.hardsigmoid)
activation("threshold", "thresholded_relu %x, alpha=1.0", lambda x: F.threshold(x, 1.0, 0.0))
activation("hardshrink", "shrink %x, bias=0.0, lambd=0.5", lambda x: F.hardshrink(x, 0.5))
activation("softshrink", "shrink %x, bias=0.5, lambd=0.5", lambda x: F.softshrink(x, 0.5))
activation("softplus", "softplus %x", F.softplus, TAIL)
activation("softsign", "softsign %x", F.softsign)
activation("mish", "mish %x", F.mish, TAIL)
activation("gelu", "gelu %x, approximate=false", F.gelu)
activation("gelu_tanh", "gelu %x, approximate=true", lambda x: F.gelu(x, approximate="tanh"))
activation("silu", "silu %x", F.silu)
activation("sigmoid", "sigmoid %x", torch.sigmoid, TAIL)
activation("tanh", "tanh %x", torch.tanh, TAIL)
activation("absolute", "abs %x", torch.abs)
activation("rounding", "floor %x", torch.floor)
activation("error_function", "erf %x", torch.erf)


@case([KINKS[0]], "@low: f32[] = {-1.0}", "@high: f32[] = {6.0}", "%y = clip %x, @low, @high")
def hardtanh(x):
    return F.hardtanh(x, -1.0, 6.0)


@case([KINKS[0], [0.25]], "%y = prelu %x, %slope", names="x slope")
def prelu(x, slope):
    return F.prelu(x, slope)


@case([[1.0, 2.0, 2.0, -1.0], [2.0, 2.0, 1.0, -1.0]], "%y = max %a, %b", "%z = min %a, %b", names="a b", outputs="y z")
def extremes_of_two(a, b):
    return torch.maximum(a, b), torch.minimum(a, b)


@case([[0.0, 2.0, 0.0, 3.0], [2.0, 0.0, 0.0, -1.0]], "%y = pow %a, %b", names="a b")
def powers_at_zero(a, b):
    return torch.pow(a, b)


@case([[5.5, -5.5, 5.5], [2.0, 2.0, -2.0]], "%y = mod %a, %b", "%z = fmod %a, %b", names="a b", outputs="y z")
def remainders(a, b):
    return torch.remainder(a, b), torch.fmod(a, b)


TIES = [[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]]


@case([TIES], "%y = reduce %x, kind=max, axes=[1], keepdims=false", "%z = reduce %x, kind=min, axes=[0], keepdims=false", outputs="y z")
def extremes_with_ties(x):
    return torch.amax(x, 1), torch.amin(x, 0)


@case([[[2.0, 0.0, 3.0], [0.0, 0.0, 5.0], [1.0, 2.0, 3.0]]], "%y = reduce %x, kind=prod, axes=[1], keepdims=false")
def products_with_zeros(x):
    return torch.prod(x, 1)


@case([[[0.0, 0.0], [3.0, -4.0]]], "%y = reduce %x, kind=l2, axes=[1], keepdims=false", "%z = reduce %x, kind=l1, axes=[1], keepdims=false", outputs="y z")
def norms_of_zeros(x):
    return torch.linalg.vector_norm(x, 2, 1), torch.linalg.vector_norm(x, 1, 1)


@case([(2, 3, 4)], "%y = reduce %x, kind=log_sum_exp, axes=[1], keepdims=false", "%z = softmax %x, axis=2", "%u = log_softmax %x, axis=1", outputs="y z u")
def probabilities(x):
    return torch.logsumexp(x, 1), torch.softmax(x, 2), torch.log_softmax(x, 1)


WINDOW = [[[[1.0, 5.0, 5.0, 0.0], [5.0, 5.0, 2.0, 2.0], [3.0, 1.0, 2.0, 2.0], [3.0, 3.0, 2.0, 7.0]]]]


@case([WINDOW], "%y = max_pool %x, kernel=[3,2], strides=[1,1], dilations=[1,1], pads=[1,0,1,0], ceil_mode=false, indices=false, storage_order=0")
def overlapping_maxima_with_ties(x):
    return F.max_pool2d(x, (3, 2), 1, (1, 0))


@case([(1, 2, 7, 8)], "%y = max_pool %x, kernel=[2,3], strides=[2,2], dilations=[2,1], pads=[0,0,0,0], ceil_mode=true, indices=false, storage_order=0")
def dilated_maxima(x):
    return F.max_pool2d(x, (2, 3), 2, 0, (2, 1), ceil_mode=True)


@case([(1, 2, 7, 8)],
      "%y = average_pool %x, kernel=[3,3], strides=[2,2], dilations=[1,1], pads=[1,1,1,1], ceil_mode=true, count_include_pad=true",
      "%z = average_pool %x, kernel=[3,3], strides=[2,2], dilations=[1,1], pads=[1,1,1,1], ceil_mode=true, count_include_pad=false", outputs="y z")
def means(x):
    return (F.avg_pool2d(x, 3, 2, 1, True, True), F.avg_pool2d(x, 3, 2, 1, True, False))


@case([(2, 4, 7, 6), (6, 2, 3, 2), (6,)], "%y = conv %x, %w, %b, strides=[2,1], dilations=[1,2], pads=[1,2,1,2], group=2", names="x w b")
def convolution(x, w, b):
    return F.conv2d(x, w, b, (2, 1), (1, 2), (1, 2), 2)


@case([(1, 4, 3, 5), (4, 2, 3, 2), (4,)], "%y = conv_transpose %x, %w, %b, strides=[2,3], dilations=[1,1], pads=[1,0,1,0], output_padding=[1,0], group=2", names="x w b")
def transposed_convolution(x, w, b):
    return F.conv_transpose2d(x, w, b, (2, 3), (1, 0), (1, 0), 2)


def batch_norm(x, scale, bias, mean, var):
    mean, var = mean.detach().clone(), var.detach().clone()
    y = F.batch_norm(x, mean, var, scale, bias, True, 0.1, 1e-3)
    return y, mean, var


CASES.append(("batch_norm", "x scale bias mean var".split(), [(3, 2, 2, 4), (2,), (2,), [0.5, -1.0], [1.5, 2.0]],
              ["%y, %m, %v, %a, %b = batch_norm_training %x, %scale, %bias, %mean, %var, epsilon=0.001, momentum=0.9, unbiased=true"],
              ["y", "m", "v"], batch_norm))


@case([(2, 6, 3), (6,), (6,)], "%y = group_norm %x, %scale, %bias, epsilon=0.001, groups=3", "%z = instance_norm %x, %scale, %bias, epsilon=0.001", names="x scale bias", outputs="y z")
def norms_of_groups(x, scale, bias):
    return F.group_norm(x, 3, scale, bias, 1e-3), F.instance_norm(x, weight=scale, bias=bias, eps=1e-3)


@case([(2, 3, 4), (3, 4), (3, 4)], "%y = layer_norm %x, %scale, %bias, axis=1, epsilon=0.001", "%z = rms_norm %x, %scale, axis=1, epsilon=0.001", names="x scale bias", outputs="y z")
def norms_of_layers(x, scale, bias):
    return F.layer_norm(x, (3, 4), scale, bias, 1e-3), F.rms_norm(x, (3, 4), scale, 1e-3)


@case([(2, 5, 3)], "%y = lrn %x, alpha=0.5, beta=0.75, bias=2.0, size=3")
def local_responses(x):
    return F.local_response_norm(x, 3, 0.5, 0.75, 2.0)


@case([(2, 5)], "%y = pad %x, before=[0,2], after=[0,3], mode=reflect, value=0.0", "%z = pad %x, before=[0,2], after=[0,1], mode=edge, value=0.0",
      "%u = pad %x, before=[0,2], after=[0,3], mode=wrap, value=0.0", outputs="y z u")
def paddings(x):
    return tuple(F.pad(x[None], (2, after), mode)[0] for mode, after in [("reflect", 3), ("replicate", 1), ("circular", 3)])


def resize(mode, coordinate, sizes, antialias="false"):
    return (f"resize %x, scales=[], sizes={sizes}, mode={mode}, coordinate={coordinate}, nearest=floor, cubic_coeff_a=-0.75, "
            f"exclude_outside=false, extrapolation_value=0.0, antialias={antialias}, roi=[]")


@case([(1, 2, 4, 5)], "%y = " + resize("nearest", "asymmetric", "[1,2,8,3]"), "%z = " + resize("linear", "half_pixel", "[1,2,7,3]"),
      "%u = " + resize("linear", "align_corners", "[1,2,7,3]"), "%v = " + resize("cubic", "half_pixel", "[1,2,7,9]"), outputs="y z u v")
def resized(x):
    return (F.interpolate(x, (8, 3)), F.interpolate(x, (7, 3), mode="bilinear"),
            F.interpolate(x, (7, 3), mode="bilinear", align_corners=True), F.interpolate(x, (7, 9), mode="bicubic"))


@case([(4, 3)], "@i: i64[5] = {0, 2, 2, 1, 2}", "%y = gather %x, @i, axis=0", "%v, %p = top_k %x, axis=0, k=2, largest=true, sorted=true",
      "%c = cum_sum %x, axis=0, exclusive=false, reverse=false", outputs="y v c")
def lookups(x):
    return x[torch.tensor([0, 2, 2, 1, 2])], torch.topk(x, 2, 0).values, torch.cumsum(x, 0)


@case([(2, 3, 4), (4, 5), (3, 1)], "%y = matmul %a, %b", "%z = einsum %a, %c, equation=\"bij,ik->bj\"", names="a b c", outputs="y z")
def products(a, b, c):
    return a @ b, torch.einsum("bij,ik->bj", a, c)


activation("rrelu", "rrelu %x, lower=0.125, upper=0.3333333333333333, stream=0", lambda x: F.rrelu(x, training=False))


def write(label, tensor):
    print(label, *(str(v) for v in tensor.detach().reshape(-1).numpy()))  # the shortest text of each f32


def main():
    rng = np.random.default_rng(7)
    print("; recorded by tools/gradient_cases.py with torch", torch.__version__.split("+")[0])
    for name, names, given, lines, outputs, function in CASES:
        inputs = [values(g, rng).requires_grad_() for g in given]
        results = function(*inputs)
        results = results if isinstance(results, tuple) else (results,)
        upstream = [torch.tensor(rng.standard_normal(y.shape).astype(np.float32)) for y in results]
        pairs = [(y, d) for y, d in zip(results, upstream) if y.requires_grad]
        gradients = torch.autograd.grad([y for y, _ in pairs], inputs, [d for _, d in pairs], allow_unused=True)
        print(f"== {name}")
        shape = lambda t: "f32[" + ",".join(str(d) for d in t.shape) + "]"
        print(f"graph {name}(" + ", ".join(f"%{n}: {shape(t)}" for n, t in zip(names, inputs)) + ") {")
        print(*(f"  {line}" for line in lines), sep="\n")
        print("  return " + ", ".join(f"%{o}" for o in outputs) + "\n}")
        for n, t in zip(names, inputs):
            write(f"input {n}", t)
        for o, y, d in zip(outputs, results, upstream):
            write(f"output {o}", y)
            if y.requires_grad:
                write(f"upstream {o}", d)
        for n, d in zip(names, gradients):
            if d is not None:
                write(f"gradient {n}", d)


if __name__ == "__main__":
    main()
