#!/usr/bin/env python3
"""Writes every backend test case of the PyPI package `onnx` as plain files.

    onnx_cases.py OUT

The package holds its operator tests as Python code and protobuf files; this script turns them into something that a
test in any language can read: for each case a folder with the model and its arrays, and one list of all cases.

    OUT/cases.json                          {"onnx": version, "totals": {kind: n}, "expanded": n, "cases": [case, ...]}
    OUT/KIND/NAME/model.onnx
    OUT/KIND/NAME/setI/inJ.npy, outJ.npy    data set I, argument J in the order of the graph's inputs or outputs

A case is

    name      "KIND/NAME"; kinds are node, simple, pytorch-converted, pytorch-operator and light
    expanded  true for the cases that spell an operator out as its function body (counted apart)
    ops       operator types of the graph and its subgraphs, sorted
    opset     version of the default domain
    rtol atol |out - expected| <= atol + rtol * |expected|, as the suite's own runner compares
    inputs    [{"name", "dtype", "shape"}, ...] of the values fed; initializers that old files list as inputs are not
    outputs   the same for the expected results
    sets      number of data sets
    why       null, or why the case cannot be run from .npy files: "sequence", "optional", "map", "string",
              "bfloat16", ... Such a case is listed and has its model, but no arrays.

The nine `light` models keep their architecture and replace their weights by constants; the package ships their
outputs for the input 0/n, 1/n, ..., (n-1)/n, which is generated here as `onnx.backend.test.runner` does.

Nothing is left out silently: the totals of the pinned version are asserted.
"""

import json
import os
import re
import shutil
import sys
import warnings

warnings.filterwarnings("ignore")  # the cases of some operators overflow on purpose

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test import loader

ONNX_VERSION = "1.23"
TOTALS = {"node": 1884, "simple": 23, "pytorch-converted": 82, "pytorch-operator": 35, "light": 9}
KINDS = ["node", "simple", "pytorch-converted", "pytorch-operator", "real"]  # "real" holds the light models
NPY_DTYPES = {"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
              "float16", "float32", "float64", "complex64", "complex128"}


def ops_of(graph):
    """The operator types of a graph and of the graphs in its attributes."""
    ops = set()
    for node in graph.node:
        ops.add(node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}")
        for attribute in node.attribute:
            for sub in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                ops |= ops_of(sub)
    return ops


def fed_inputs(graph):
    """The graph's inputs that a caller gives: old files list their initializers as inputs too."""
    initializers = {i.name for i in graph.initializer}
    return [i for i in graph.input if i.name not in initializers]


def read_pb(path, value_type):
    """A value of a test data file, or the word that says why it is not a tensor."""
    with open(path, "rb") as file:
        data = file.read()
    kind = value_type.WhichOneof("value")
    if kind == "tensor_type":
        return numpy_helper.to_array(onnx.TensorProto.FromString(data))
    return kind.removesuffix("_type")


def data_sets_on_disk(folder, model):
    """[(inputs, outputs), ...] of the test_data_set_* folders of a case, as arrays or reasons."""
    sets = []
    for name in sorted(n for n in os.listdir(folder) if n.startswith("test_data_set_")):
        path = os.path.join(folder, name)
        load = lambda stem, values: [
            read_pb(os.path.join(path, f"{stem}_{i}.pb"), value.type)
            for i, value in enumerate(values)
            if os.path.exists(os.path.join(path, f"{stem}_{i}.pb"))
        ]
        sets.append((load("input", fed_inputs(model.graph)), load("output", model.graph.output)))
        files = sum(n.endswith(".pb") for n in os.listdir(path))
        assert files == len(sets[-1][0]) + len(sets[-1][1]), f"{path}: {files} files do not match the graph's values"
    return sets


def light_case(case):
    """The model, input and shipped output of a case of kind `real`, whose url names a file of the package."""
    path = os.path.join(os.path.dirname(onnx.__file__), os.path.relpath(case.url, "onnx"))
    model = onnx.load(path)
    inputs = []
    for value in fed_inputs(model.graph):
        shape = [d.dim_value if d.HasField("dim_value") else 1 for d in value.type.tensor_type.shape.dim]
        n = np.prod(shape)
        inputs.append((np.arange(n).reshape(shape) / n).astype(np.float32))
    outputs = [read_pb(f"{path.removesuffix('.onnx')}_output_{i}.pb", value.type)
               for i, value in enumerate(model.graph.output)]
    return model, [(inputs, outputs)]


def normalized(value):
    """A value of a data set as an array, or the reason why it is not one."""
    if isinstance(value, onnx.TensorProto):
        value = numpy_helper.to_array(value)
    if value is None:
        return "optional"
    if isinstance(value, list):
        return "sequence"
    if isinstance(value, dict):
        return "map"
    if isinstance(value, str):
        return value
    array = np.asarray(value)
    if array.dtype == object or array.dtype.kind in "US":
        return "string"
    return array if array.dtype.name in NPY_DTYPES else array.dtype.name


def described(values, arrays):
    """[{"name", "dtype", "shape"}] for the values of a data set; a value given as a reason has that as its dtype."""
    return [{"name": value.name, "dtype": array if isinstance(array, str) else array.dtype.name,
             "shape": [] if isinstance(array, str) else list(array.shape)}
            for value, array in zip(values, arrays)]


def save_case(out, kind, name, model, sets, rtol, atol):
    """Writes one case and returns its entry of the list. A value of a data set is an array or a reason, a word."""
    graph = model.graph
    sets = [tuple([normalized(v) for v in side] for side in one) for one in sets]
    why = next((v for one in sets for side in one for v in side if isinstance(v, str)), None)
    assert sets, f"{name} has no data"
    folder = os.path.join(out, kind, name)
    os.makedirs(folder)
    onnx.save(model, os.path.join(folder, "model.onnx"))
    for i, one in enumerate(sets):
        for stem, values, arrays in (("in", fed_inputs(graph), one[0]), ("out", graph.output, one[1])):
            if why:
                continue
            assert len(arrays) == len(values), f"{name}: {len(arrays)} {stem} arrays for {len(values)} values"
            os.makedirs(os.path.join(folder, f"set{i}"), exist_ok=True)
            for j, array in enumerate(arrays):
                np.save(os.path.join(folder, f"set{i}", f"{stem}{j}.npy"), np.ascontiguousarray(array).reshape(array.shape))
    return {
        "name": f"{kind}/{name}",
        "expanded": re.search(r"_expanded(_ver\d+)?$", name) is not None,
        "ops": sorted(ops_of(graph)),
        "opset": next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0),
        "rtol": rtol,
        "atol": atol,
        "inputs": described(fed_inputs(graph), sets[0][0]),
        "outputs": described(graph.output, sets[0][1]),
        "sets": len(sets),
        "why": why,
    }


def save_listing(out, cases, totals):
    """Writes OUT/cases.json, the last file of a complete run."""
    cases.sort(key=lambda c: c["name"])
    listing = {"onnx": onnx.__version__, "totals": totals, "expanded": sum(c["expanded"] for c in cases), "cases": cases}
    with open(os.path.join(out, "cases.json"), "w") as file:
        json.dump(listing, file, indent=1)
    return listing


def package_case(out, case, kind):
    """Writes a case of the package and returns its entry."""
    if kind == "light":
        model, sets = light_case(case)
    elif case.model is not None:
        model, sets = case.model, case.data_sets
    else:
        model = onnx.load(os.path.join(case.model_dir, "model.onnx"))
        sets = data_sets_on_disk(case.model_dir, model)
    return save_case(out, kind, case.name, model, sets, case.rtol, case.atol)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    out = sys.argv[1]
    assert onnx.__version__.startswith(ONNX_VERSION), f"onnx {ONNX_VERSION} is wanted, {onnx.__version__} is installed"
    listing = os.path.join(out, "cases.json")
    if os.path.exists(listing):
        os.remove(listing)  # a run that stops half-way must not look complete
    cases = []
    for kind in KINDS:
        name = "light" if kind == "real" else kind
        shutil.rmtree(os.path.join(out, name), ignore_errors=True)
        cases += [package_case(out, case, name) for case in loader.load_model_tests(kind=kind)]
    totals = {kind: sum(c["name"].startswith(f"{kind}/") for c in cases) for kind in TOTALS}
    assert totals == TOTALS, f"the suite has changed: {totals} for {TOTALS}"
    expanded = save_listing(out, cases, totals)["expanded"]
    reasons = {}
    for case in cases:
        if case["why"]:
            reasons[case["why"]] = reasons.get(case["why"], 0) + 1
    print(f"{len(cases)} cases ({', '.join(f'{k} {n}' for k, n in totals.items())}), {expanded} of them expanded; "
          f"not from .npy: {', '.join(f'{k} {n}' for k, n in sorted(reasons.items()))}")


if __name__ == "__main__":
    main()
