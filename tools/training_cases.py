#!/usr/bin/env python3
"""Records what PyTorch's losses and optimizers compute, in passes/tests/training_pytorch.txt: `training_cases.py > FILE`.

Needs torch and numpy, to regenerate only. Everything is computed in f64 from numbers that f32 holds, so that a test can
tell a wrong definition from rounding. A line is a word and numbers:

    loss NAME                       then: x, t (the prediction and the target), value, gradient (of x)
    optimizer NAME                  then: losses (of STEPS steps), and each parameter behind them
    model                           once, in front of the optimizers: x, t, and each parameter before the first step

The model is tanh(x . w1^T + b1) . w2^T + b2 with cross-entropy; step k sees x * (1 + k / 10). What a case's options are
stands here and in passes/tests/training.rs, under one name.
"""
import numpy as np
import torch
import torch.nn.functional as F

STEPS = 6


def line(word, numbers):
    flat = np.asarray(numbers, dtype=np.float64).ravel()
    print(word, *(f"{v:.12g}" for v in flat))


def numbers(seed, *shape):
    """Normal numbers that f32 holds."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32).astype(np.float64))


def loss_case(name, x, t, f):
    x = x.clone().requires_grad_()
    value = f(x, t)
    value.backward()
    print("loss", name)
    line("x", x.detach())
    line("t", t)
    line("value", value.detach())
    line("gradient", x.grad)


def losses():
    x, t = numbers(1, 5, 4), torch.tensor([0, 3, 1, 1, 2])
    w = torch.tensor([1.0, 0.5, 2.0, 0.25], dtype=torch.float64)
    loss_case("cross_entropy", x, t, F.cross_entropy)
    loss_case("cross_entropy_smoothed", x, t, lambda x, t: F.cross_entropy(x, t, label_smoothing=0.125))
    loss_case("cross_entropy_weighted", x, t, lambda x, t: F.cross_entropy(x, t, weight=w))
    loss_case("cross_entropy_ignored", x, t, lambda x, t: F.cross_entropy(x, t, ignore_index=1))
    loss_case("cross_entropy_all", x, t,
              lambda x, t: F.cross_entropy(x, t, weight=w, ignore_index=1, label_smoothing=0.125))
    loss_case("cross_entropy_ignored_smoothed", x, t,
              lambda x, t: F.cross_entropy(x, t, ignore_index=-100, label_smoothing=0.125))
    pixels = torch.from_numpy(np.random.default_rng(2).integers(0, 4, (2, 3, 2)))
    loss_case("cross_entropy_pixels", numbers(3, 2, 4, 3, 2), pixels, lambda x, t: F.cross_entropy(x, t, weight=w))
    p = torch.softmax(numbers(4, 5, 4), 1).float().double()
    loss_case("cross_entropy_probabilities", x, p,
              lambda x, t: F.cross_entropy(x, t, weight=w, label_smoothing=0.125))
    loss_case("cross_entropy_probabilities_plain", x, p, F.cross_entropy)

    def focal(x, t, gamma=2.0):
        ce = F.cross_entropy(x, t, reduction="none")
        return ((1 - torch.exp(-ce)) ** gamma * ce).mean()
    loss_case("focal", x, t, focal)
    loss_case("hinge", x, t, F.multi_margin_loss)
    loss_case("hinge_wide", x, t, lambda x, t: F.multi_margin_loss(x, t, margin=2.5))
    labels = torch.from_numpy(np.random.default_rng(5).integers(0, 2, (5, 4)).astype(np.float64))
    loss_case("bce", 3 * x, labels, F.binary_cross_entropy_with_logits)
    loss_case("bce_positive", 3 * x, labels, lambda x, t: F.binary_cross_entropy_with_logits(x, t, pos_weight=w))
    y = numbers(6, 5, 4)
    loss_case("mse", x, y, F.mse_loss)
    loss_case("l1", x, y, F.l1_loss)
    loss_case("huber", 2 * x, y, lambda x, t: F.huber_loss(x, t, delta=0.75))
    loss_case("smooth_l1", 2 * x, y, lambda x, t: F.smooth_l1_loss(x, t, beta=0.75))


DIMS = {"fc1.weight": (5, 4), "fc1.bias": (5,), "fc2.weight": (3, 5), "fc2.bias": (3,)}


def start():
    return {name: (0.5 * numbers(10 + i, *dims)).requires_grad_() for i, (name, dims) in enumerate(DIMS.items())}


def train(name, make, clip=None, average=None, penalty=None):
    p = start()
    opt = make(p)
    x, t = numbers(20, 6, 4), torch.tensor([0, 2, 1, 1, 0, 2])
    averages = {k: v.detach().clone() for k, v in p.items()}
    measured = []
    for k in range(STEPS):
        opt.zero_grad()
        h = torch.tanh(F.linear(x * (1 + k / 10), p["fc1.weight"], p["fc1.bias"]))
        loss = F.cross_entropy(F.linear(h, p["fc2.weight"], p["fc2.bias"]), t)
        if penalty:
            loss = loss + penalty(p)
        loss.backward()
        if clip:
            clip([v for v in p.values() if v.grad is not None])
        opt.step(lambda: loss)
        measured.append(loss.item())
        if average is not None:
            for key, v in p.items():
                averages[key] = average * averages[key] + (1 - average) * v.detach()
    print("optimizer", name)
    line("losses", measured)
    for key, v in p.items():
        line(key, v.detach())
    if average is not None:
        for key, v in averages.items():
            line("average/" + key, v)


def optimizers():
    print("model")
    line("x", numbers(20, 6, 4))
    line("t", [0, 2, 1, 1, 0, 2])
    for name, v in start().items():
        line(name, v.detach())
    o = torch.optim
    plain = lambda cls, **options: lambda p: cls(list(p.values()), **options)
    train("sgd", plain(o.SGD, lr=0.5))
    train("sgd_decay", plain(o.SGD, lr=0.5, weight_decay=0.125))
    train("momentum", plain(o.SGD, lr=0.5, momentum=0.9))
    train("momentum_dampened", plain(o.SGD, lr=0.5, momentum=0.9, dampening=0.5))
    train("nesterov", plain(o.SGD, lr=0.5, momentum=0.9, nesterov=True, weight_decay=0.125))
    train("adagrad", plain(o.Adagrad, lr=0.25))
    train("adagrad_decay", plain(o.Adagrad, lr=0.25, lr_decay=0.5, initial_accumulator_value=0.125, weight_decay=0.125))
    train("rmsprop", plain(o.RMSprop, lr=0.0625))
    train("rmsprop_centered", plain(o.RMSprop, lr=0.0625, momentum=0.5, centered=True, alpha=0.75))
    train("adadelta", plain(o.Adadelta, lr=1.0, weight_decay=0.125))
    train("adam", plain(o.Adam, lr=0.125, weight_decay=0.125))
    train("adam_amsgrad", plain(o.Adam, lr=0.125, amsgrad=True, betas=(0.5, 0.75)))
    train("adamw", plain(o.AdamW, lr=0.125, weight_decay=0.125))
    train("adamax", plain(o.Adamax, lr=0.125))
    train("nadam", plain(o.NAdam, lr=0.125, weight_decay=0.125))
    train("lbfgs", plain(o.LBFGS, lr=0.5, max_iter=1, history_size=3))
    norm = lambda p: torch.nn.utils.clip_grad_norm_(p, 0.25)
    train("clip_norm", plain(o.SGD, lr=0.5), clip=norm)
    train("clip_value", plain(o.SGD, lr=0.5), clip=lambda p: torch.nn.utils.clip_grad_value_(p, 0.03125))
    train("average", plain(o.SGD, lr=0.5), average=0.75)
    train("penalties", plain(o.SGD, lr=0.5),
          penalty=lambda p: sum(0.0625 * v.abs().sum() + 0.03125 * (v ** 2).sum() for v in p.values() if v.dim() > 1))
    train("groups", lambda p: o.AdamW([
        dict(params=[p["fc1.weight"]], lr=0.0625),
        dict(params=[p["fc2.weight"]], lr=0.125),
        dict(params=[p["fc2.bias"]], lr=0.125, weight_decay=0.0)], lr=0.125, weight_decay=0.125))


losses()
optimizers()
