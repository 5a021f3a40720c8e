"""An ONNX classifier of pictures as a PyTorch module with the same weights under the same names, to be taught beside nncc.

What does not depend on the input (shape arithmetic, paddings) is computed once by onnx's reference evaluator. Operators are
those of EfficientNet-Lite0; another one is an error that names it. A model that was exported for a batch of one takes any:
a Reshape to [1, -1] flattens each sample. A padding with the same zeros on both sides is the convolution's own, as
PyTorch's users write it.
"""
import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch.nn import functional as F


def constants(graph, opset):
    """The nodes that need the input, in order, and the values of what the others give them."""
    depends, nodes, others = {graph.input[0].name}, [], []
    for node in graph.node:
        if depends.intersection(node.input):
            depends.update(node.output)
            nodes.append(node)
        else:
            others.append(node)
    needed = {name for node in nodes for name in node.input}
    outputs = [helper.make_empty_tensor_value_info(name) for node in others for name in node.output if name in needed]
    if not outputs:
        return nodes, {}
    folded = helper.make_graph(others, "constants", [], outputs, initializer=list(graph.initializer))
    evaluator = ReferenceEvaluator(helper.make_model(folded, opset_imports=opset))
    return nodes, dict(zip((o.name for o in outputs), evaluator.run(None, {})))


class Classifier(torch.nn.Module):
    def __init__(self, path):
        super().__init__()
        model = onnx.load(path)
        graph = model.graph
        nodes, self.values = constants(graph, model.opset_import)
        self.input, self.output = graph.input[0].name, graph.output[0].name
        self.attributes = [{a.name: helper.get_attribute_value(a) for a in node.attribute} for node in nodes]
        self.nodes = [(node.op_type, list(node.input), node.output[0]) for node in nodes]
        floats = {t.name: t for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
        statistics = {name for op, inputs, _ in self.nodes if op == "BatchNormalization" for name in inputs[3:]}
        tensors = {name: torch.from_numpy(numpy_helper.to_array(t).copy()) for name, t in floats.items()}
        self.weights = {name: torch.nn.Parameter(t) for name, t in tensors.items() if name not in statistics}
        self.statistics = {name: t for name, t in tensors.items() if name in statistics}
        self.list = torch.nn.ParameterList(self.weights.values())  # so that `parameters()` finds them
        self.values |= {t.name: numpy_helper.to_array(t) for t in graph.initializer if t.name not in floats}
        self.join_paddings()
        # Where each value is used last, so that it is not kept longer than in a network written by hand.
        self.last = {name: i for i, (_, inputs, _) in enumerate(self.nodes) for name in inputs}

    def join_paddings(self):
        """Takes away each padding in front of one convolution that can pad so itself."""
        users = [name for _, inputs, _ in self.nodes for name in inputs]
        for i, (op, inputs, output) in reversed(list(enumerate(self.nodes))):
            if op != "Pad" or self.nodes[i + 1][:1] != ("Conv",) or users.count(output) != 1:
                continue
            pads = self.padding(i)
            if pads[0] == pads[1] and pads[2] == pads[3] and output == self.nodes[i + 1][1][0]:
                own = self.attributes[i + 1].get("pads", [0, 0, 0, 0])
                added = [pads[2], pads[0], pads[3], pads[1]]
                self.attributes[i + 1]["pads"] = [a + b for a, b in zip(own, added)]
                self.nodes[i + 1][1][0] = inputs[0]
                del self.nodes[i], self.attributes[i]

    def padding(self, i):
        """As `F.pad` takes it: the last axis first, begin and end of each."""
        pads = [int(n) for n in self.values[self.nodes[i][1][1]]]
        if any(pads[:2]) or any(pads[4:6]) or self.attributes[i].get("mode", b"constant") != b"constant":
            raise ValueError(f"{self.nodes[i][2]}: a padding of more than the height and width by zeros")
        return [pads[3], pads[7], pads[2], pads[6]]

    def replace_head(self, classes):
        """A new last layer, drawn as `torch.nn.Linear` is."""
        _, inputs, _ = self.nodes[-1]
        linear = torch.nn.Linear(self.weights[inputs[1]].shape[1], classes)
        self.weights |= {inputs[1]: linear.weight, inputs[2]: linear.bias}
        self.list = torch.nn.ParameterList(self.weights.values())
        return inputs[1:3]

    def forward(self, x):
        values = {self.input: x}
        for i, ((op, inputs, output), a) in enumerate(zip(self.nodes, self.attributes)):
            get = lambda name: values[name] if name in values else self.weights.get(name, self.statistics.get(name))
            x = get(inputs[0])
            if op == "Pad":
                y = F.pad(x, self.padding(i))
            elif op == "Conv":
                (top, left, bottom, right) = a.get("pads", [0, 0, 0, 0])
                if (top, left) != (bottom, right):
                    raise ValueError(f"{output}: padding on one side")
                bias = get(inputs[2]) if len(inputs) > 2 else None
                y = F.conv2d(x, get(inputs[1]), bias, a["strides"], (top, left), a["dilations"], a["group"])
            elif op == "BatchNormalization":
                scale, bias, mean, var = map(get, inputs[1:])
                y = F.batch_norm(x, mean, var, scale, bias, eps=a["epsilon"])
            elif op == "Clip":
                low, high = (float(self.values[name]) for name in inputs[1:])
                y = F.hardtanh(x, low, high)
            elif op == "Add":
                y = x + get(inputs[1])
            elif op == "GlobalAveragePool":
                y = F.adaptive_avg_pool2d(x, 1)
            elif op == "Reshape":
                if list(self.values[inputs[1]]) != [1, -1]:
                    raise ValueError(f"{output}: a reshape that does not flatten")
                y = x.flatten(1)
            elif op == "Gemm":
                if (a.get("transA", 0), a.get("transB", 0), a.get("alpha", 1.0), a.get("beta", 1.0)) != (0, 1, 1.0, 1.0):
                    raise ValueError(f"{output}: a product other than a linear layer")
                y = F.linear(x, get(inputs[1]), get(inputs[2]))
            else:
                raise ValueError(f"{output}: {op} is not written in PyTorch here")
            values[output] = y
            for name in inputs:
                if self.last[name] == i:
                    values.pop(name, None)
            x = y = None
        return values[self.output]


def check(path):
    """The largest difference from onnxruntime on one random picture, relative to the output's range."""
    import onnxruntime
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    x = np.random.default_rng(0).standard_normal(session.get_inputs()[0].shape).astype(np.float32)
    expected = session.run(None, {session.get_inputs()[0].name: x})[0]
    with torch.no_grad():
        off = np.abs(Classifier(path)(torch.from_numpy(x)).numpy() - expected).max()
    return float(off / np.ptp(expected))


if __name__ == "__main__":
    import sys
    print(f"{check(sys.argv[1]):.1e} of the output's range from onnxruntime")
