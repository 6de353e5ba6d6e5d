"""Small ONNX files with the interface of the released face models, which see a face where a red blob (the
image-left eye) and a blue one (the image-right eye) are."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hellomeme.face.landmarks import RELEASED
from hellomeme.face.nanodet import DEVIATION, MEAN

# Where the 222 landmarks are for eyes at (-1, 0) and (1, 0), y down
TEMPLATE = np.zeros((222, 2))
TEMPLATE[:33] = [(1.6 * np.cos(a), 0.7 + 1.6 * np.sin(a)) for a in np.linspace(np.pi, 0, 33)]
for indices, centre in zip(RELEASED.parts, [(-0.8, -0.1), (0.8, -0.1), (0, 1.4)], strict=True):
    TEMPLATE[list(indices)] = centre
for name, place in {
    "image-left eye's outer corner": (-1, 0),
    "image-right eye's outer corner": (1, 0),
    "image-left mouth corner": (-0.6, 1.4),
    "image-right mouth corner": (0.6, 1.4),
    "image-left pupil": (-0.6, 0),
    "image-right pupil": (0.6, 0),
    "between the eyes": (0, 0),
    "nose tip": (0, 0.7),
}.items():
    TEMPLATE[RELEASED.points[name]] = place
ANGLES, DISTANCE = (0.1, -0.2, 0.3), 5.0  # rad, m: what the pose model always says


def placed(left, right):
    """(222, 2): the landmarks for eyes at `left` and `right`."""
    middle, half = (np.add(left, right)) / 2, np.subtract(right, left) / 2
    across = np.array([-half[1], half[0]])
    return middle + TEMPLATE[:, :1] * half + TEMPLATE[:, 1:] * across


class Graph:
    """Collects nodes; a method gives the name of its result."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def constant(self, value, kind=np.float32):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, kind), name))
        return name

    def add(self, kind, *inputs, output=None, **attributes):
        names = [x if isinstance(x, str) else self.constant(x) for x in inputs]
        output = output or f"n{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, names, [output], **attributes))
        return output

    def sums(self, value):
        """(1, 1) sum of a (1, 1, S, S) value."""
        axes = self.constant([2, 3], np.int64)
        return self.add(
            "Reshape", self.add("ReduceSum", value, axes, keepdims=0), self.constant([1, 1], np.int64)
        )

    def centres(self, red, blue, size):
        """(1, 4): x and y of red, x and y of blue in shares of the picture; and (1, 1): how much red."""
        x, y = np.meshgrid(np.arange(size) / size, np.arange(size) / size)
        values, amounts = [], []
        for channel in (red, blue):
            picture = self.add("Gather", "picture", self.constant([channel], np.int64), axis=1)
            amounts.append(self.sums(picture))
            whole = self.add("Add", amounts[-1], [[1e-6]])
            values += [
                self.add("Div", self.sums(self.add("Mul", picture, g[None, None])), whole) for g in (x, y)
            ]
        return self.add("Concat", *values, axis=1), amounts[0]

    def linear(self, values, matrix, bias, output=None):
        """values (1, N) @ matrix (N, M) + bias (M,)."""
        return self.add("Add", self.add("MatMul", values, matrix), bias, output=output)

    def save(self, path, size, outputs):
        inputs = [helper.make_tensor_value_info("picture", TensorProto.FLOAT, [1, 3, *size])]
        results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "face", inputs, results, self.constants)
        model = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 17)])
        onnx.save(model, path)


def detector(path, width=160, height=272, reach=6):
    """Finds what is bright over 64 px; a box reaches `reach` cells of 8 px to each side."""
    graph = Graph()
    scale, shift = (v.reshape(1, 3, 1, 1) for v in (DEVIATION / 255, MEAN / 255))
    bright = graph.add("Add", graph.add("Mul", "picture", scale), shift)
    grey = graph.add("ReduceMean", bright, axes=[1])
    pooled = grey
    for stride in (1, 8):  # twice, so that the score has a peak in the middle of what is bright
        window = {"kernel_shape": [32, 32], "strides": [stride] * 2, "pads": [16] * 4}
        pooled = graph.add("AveragePool", pooled, count_include_pad=1, **window)
    rows, columns = height // 8, width // 8
    limits = [graph.constant(v, np.int64) for v in ([0, 0], [rows, columns], [2, 3])]
    graph.add("Mul", graph.add("Slice", pooled, *limits), [80.0], output="raw")
    graph.add("Reshape", "raw", graph.constant([1, rows * columns, 1], np.int64), output="score8")
    names = ["score8"]
    for stride in (16, 32):
        cells = -(-height // stride) * -(-width // stride)
        names.append(graph.add("Identity", np.zeros((1, cells, 1)), output=f"score{stride}"))
    for stride in (8, 16, 32):
        cells = -(-height // stride) * -(-width // stride)
        logits = np.zeros((1, cells, 4, 8))
        logits[..., reach] = 50
        names.append(graph.add("Identity", logits.reshape(1, cells, 32), output=f"distance{stride}"))
    graph.save(path, (height, width), names)


def landmarks(path, size=128):
    graph = Graph()
    centres, red = graph.centres(2, 0, size)  # blue, green, red
    corners = [
        placed(*eyes) for eyes in (((1, 0), (0, 0)), ((0, 1), (0, 0)), ((0, 0), (1, 0)), ((0, 0), (0, 1)))
    ]
    matrix = np.stack([points.T.ravel() for points in corners])  # all x, then all y
    graph.linear(centres, matrix, np.zeros(444), output="places")
    graph.add("Identity", np.zeros((1, 2)), output="euler")
    graph.add("Clip", red, np.float32(0), np.float32(1), output="probability")
    graph.save(path, (size, size), ["places", "euler", "probability"])


def pose(path, size=224):
    """The head's origin is in the middle between the eyes."""
    graph = Graph()
    centres, _ = graph.centres(0, 2, size)  # red, green, blue
    metres = size * DISTANCE / 4828.6
    matrix, bias = np.zeros((4, 1201)), np.zeros(1201)
    matrix[[0, 2], 1198] = metres / 2
    matrix[[1, 3], 1199] = -metres / 2
    bias[1168:1171] = ANGLES
    bias[1198:] = -metres / 2, metres / 2, -DISTANCE
    graph.linear(centres, matrix, bias, output="coefficients")
    graph.save(path, (size, size), ["coefficients"])


def expression(path, size=224):
    """The first coefficients: x and y of the left eye and of the right one, as shares of the crop; then 2."""
    graph = Graph()
    centres, _ = graph.centres(2, 0, size)
    bias = np.zeros(51)
    bias[4] = 2
    graph.linear(centres, np.eye(4, 51), bias, output="coefficients")
    graph.save(path, (size, size), ["coefficients"])


def write_face_models(folder: Path) -> Path:
    """A folder with the four files."""
    folder.mkdir(parents=True, exist_ok=True)
    detector(folder / "hello_face_det.onnx")
    landmarks(folder / "hello_face_landmark.onnx")
    pose(folder / "hello_3dmm.onnx")
    expression(folder / "hello_arkit_blendshape.onnx")
    return folder
