import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx_graphs import filtered, images, save

from radlens.engines import GraphFile, Options, TorchCudaEngine, TorchEngine, golden_values
from radlens.engines.torch_operations import OPERATIONS
from radlens.errors import BundleError, InvalidParameter, MissingDependency

I64 = np.int64


def _x(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _ints(*values: int) -> np.ndarray:
    return np.array(values, I64)


UNARY = ("Abs", "Ceil", "Cos", "Elu", "Erf", "Exp", "Floor", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN")
UNARY += ("LeakyRelu", "Mish", "Neg", "Reciprocal", "Relu", "Round", "Sigmoid", "Sign", "Sin", "Softplus", "Softsign")
UNARY += ("Tan", "Tanh", "GlobalMaxPool", "GlobalAveragePool", "Flatten", "Transpose", "Shape", "Size", "Gelu")
UNARY += ("Softmax", "LogSoftmax", "Asinh", "Atan", "Cosh", "Selu", "Sinh", "Celu", "ThresholdedRelu")
BINARY = ("Add", "Mul", "Sub", "Div", "Max", "Min", "Sum", "Mean", "PRelu")
COMPARISONS = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
REDUCTIONS = (
    "ReduceL1",
    "ReduceL2",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceProd",
    "ReduceSum",
    "ReduceSumSquare",
)
REDUCTIONS += ("ReduceLogSumExp",)

CASES = [
    *[(name, [_x(2, 3, 4, 5)], {}) for name in UNARY],
    *[(name, [_x(2, 3, 4), _x(3, 4, seed=1)], {}) for name in BINARY],
    *[(name, [_x(2, 3).round(), _x(2, 3, seed=1).round()], {}) for name in COMPARISONS],
    *[(name, [_x(2, 3, 4), _ints(1, -1)], {"keepdims": 0}) for name in REDUCTIONS],
    ("ReduceSum", [_x(2, 3)], {}),
    ("ReduceSum", [_x(2, 3)], {"noop_with_empty_axes": 1}),
    *[(name, [np.abs(_x(3, 4)) + 0.1], {}) for name in ("Log", "Sqrt")],
    *[(name, [np.tanh(_x(3, 4))], {}) for name in ("Acos", "Asin", "Atanh")],
    ("Acosh", [np.abs(_x(3, 4)) + 1], {}),
    ("ThresholdedRelu", [_x(9)], {"alpha": 0.3}),
    ("Celu", [_x(9)], {"alpha": 0.3}),
    *[(name, [_x(5) > 0, _x(5, seed=1) > 0], {}) for name in ("And", "Or", "Xor")],
    ("Not", [_x(5) > 0], {}),
    ("Div", [_ints(7, -7, 9), _ints(2, 2, -4)], {}),
    ("Mod", [_ints(7, -7, 9), _ints(4, 4, -4)], {}),
    ("Mod", [_x(5), _x(5, seed=1)], {"fmod": 1}),
    ("Pow", [np.abs(_x(4)), np.float32([2.0])], {}),
    ("Clip", [_x(9), np.float32(-0.5), np.float32(0.5)], {}),
    ("Clip", [_x(9)], {}),
    ("Where", [_x(3, 4) > 0, _x(3, 4, seed=1), _x(4, seed=2)], {}),
    ("Cast", [_x(4) * 9], {"to": TensorProto.INT64}),
    ("CastLike", [_x(4) * 9, _ints(1)], {}),
    ("Elu", [_x(4)], {"alpha": 0.3}),
    ("Gelu", [_x(4)], {"approximate": "tanh"}),
    ("Softmax", [_x(2, 3, 4)], {"axis": 1}),
    ("MatMul", [_x(2, 3, 4), _x(4, 5)], {}),
    ("Gemm", [_x(4, 3), _x(5, 4), _x(5)], {"transA": 1, "transB": 1, "alpha": 0.5, "beta": 2.0}),
    ("Gemm", [_x(3, 4), _x(4, 5)], {}),
    ("Einsum", [_x(2, 3), _x(3, 4)], {"equation": "ij,jk->ki"}),
    ("Conv", [_x(2, 4, 9, 8), _x(6, 2, 3, 3), _x(6)], {"group": 2, "pads": [1, 0, 2, 1], "strides": [2, 1]}),
    ("Conv", [_x(2, 4, 9, 8), _x(6, 4, 3, 3)], {"dilations": [2, 1], "pads": [1, 1, 1, 1]}),
    ("Conv", [_x(1, 2, 9), _x(3, 2, 4)], {"auto_pad": "SAME_UPPER", "strides": [2]}),
    ("Conv", [_x(1, 2, 9), _x(3, 2, 4)], {"auto_pad": "SAME_LOWER", "strides": [2]}),
    ("Conv", [_x(1, 2, 5, 5, 5), _x(3, 2, 2, 2, 2)], {"auto_pad": "VALID"}),
    ("ConvTranspose", [_x(2, 4, 5, 6), _x(4, 3, 3, 3), _x(3)], {"strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("ConvTranspose", [_x(2, 4, 5, 6), _x(4, 3, 3, 3)], {"strides": [2, 2], "pads": [1, 0, 0, 1]}),
    ("ConvTranspose", [_x(1, 2, 5), _x(2, 3, 3)], {"strides": [2], "output_padding": [1], "pads": [1, 0]}),
    ("MaxPool", [_x(2, 3, 7, 7)], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("MaxPool", [_x(2, 3, 7, 7)], {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}),
    ("AveragePool", [_x(2, 3, 7, 7)], {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}),
    ("AveragePool", [_x(2, 3, 7)], {"kernel_shape": [2], "pads": [0, 1]}),
    ("AveragePool", [_x(2, 3, 7)], {"kernel_shape": [2], "pads": [0, 1], "count_include_pad": 1}),
    ("BatchNormalization", [_x(2, 3, 4), _x(3), _x(3), _x(3), np.abs(_x(3))], {"epsilon": 1e-3}),
    ("InstanceNormalization", [_x(2, 3, 4, 4), _x(3), _x(3)], {}),
    ("LayerNormalization", [_x(2, 3, 4), _x(3, 4), _x(3, 4)], {"axis": 1}),
    ("LayerNormalization", [_x(2, 3, 4), _x(4)], {}),
    ("GroupNormalization", [_x(2, 4, 3, 3), _x(4), _x(4)], {"num_groups": 2}),
    ("LpPool", [_x(2, 3, 7, 7)], {"kernel_shape": [2, 3], "strides": [2, 1], "p": 3}),
    ("LpNormalization", [_x(2, 3, 4)], {"axis": 1}),
    ("Dropout", [_x(2, 3)], {}),
    ("Dropout", [_x(2, 3), np.float32(0.5), np.array(False)], {}),
    ("Shrink", [_x(9)], {"lambd": 0.3, "bias": 0.1}),
    ("ArgMax", [_x(3, 4)], {"axis": 1}),
    ("ArgMin", [_x(3, 4)], {"axis": 0, "keepdims": 0}),
    ("CumSum", [_x(3, 4), np.array(1, I64)], {}),
    ("TopK", [_x(3, 6), _ints(2)], {}),
    ("Shape", [_x(2, 3, 4)], {"start": 1, "end": -1}),
    ("ConstantOfShape", [_ints(2, 3)], {}),
    ("ConstantOfShape", [_ints(2, 3)], {"value": numpy_helper.from_array(_ints(4))}),
    ("Range", [np.array(2, I64), np.array(9, I64), np.array(3, I64)], {}),
    ("Reshape", [_x(2, 3, 4), _ints(0, -1)], {}),
    ("Flatten", [_x(2, 3, 4)], {"axis": 2}),
    ("Transpose", [_x(2, 3, 4)], {"perm": [1, 2, 0]}),
    ("Squeeze", [_x(2, 1, 4, 1), _ints(1)], {}),
    ("Squeeze", [_x(2, 1, 4, 1)], {}),
    ("Unsqueeze", [_x(2, 4), _ints(0, -1)], {}),
    ("Concat", [_x(2, 3), _x(2, 4)], {"axis": 1}),
    ("Split", [_x(7, 2), _ints(3, 4)], {}),
    ("Split", [_x(2, 7)], {"axis": 1, "num_outputs": 2}),
    ("Slice", [_x(6, 7, 3), _ints(1, -2), _ints(2**62, -(2**62)), _ints(0, 1), _ints(2, -3)], {}),
    ("Slice", [_x(6, 7), _ints(1, 2), _ints(4, 5)], {}),
    ("Pad", [_x(3, 4), _ints(1, 0, 0, 2), np.float32(7)], {}),
    *[("Pad", [_x(3, 4), _ints(2, 0, 1, 3)], {"mode": mode}) for mode in ("reflect", "edge", "wrap")],
    ("Expand", [_x(3, 1), _ints(2, 1, 4)], {}),
    ("Tile", [_x(2, 3), _ints(2, 3)], {}),
    ("Gather", [_x(3, 4, 5), np.array([[0, -1], [2, 1]], I64)], {"axis": 1}),
    ("Gather", [_x(3, 4), np.array(1, I64)], {}),
    ("Gather", [_ints(3, 4), np.array(1, I64)], {}),
    ("GatherElements", [_x(3, 4), np.array([[0, -1, 2, 1]], I64)], {}),
    ("ScatterND", [_x(5, 3), np.array([[1], [3]], I64), _x(2, 3, seed=1)], {}),
    ("ScatterND", [_x(5, 3), np.array([[1], [1]], I64), _x(2, 3, seed=1)], {"reduction": "add"}),
    ("ScatterElements", [_x(3, 4), np.array([[0, -1, 2, 1]], I64), _x(1, 4, seed=1)], {}),
    ("ScatterElements", [_x(3, 4), np.array([[0, 0], [0, 0]], I64), _x(2, 2, seed=1)], {"axis": 1, "reduction": "add"}),
    ("DepthToSpace", [_x(2, 8, 3, 4)], {"blocksize": 2}),
    ("DepthToSpace", [_x(2, 8, 3, 4)], {"blocksize": 2, "mode": "CRD"}),
    ("SpaceToDepth", [_x(2, 2, 4, 6)], {"blocksize": 2}),
    ("Trilu", [_x(4, 4), np.array(1, I64)], {}),
    ("Trilu", [_x(4, 4)], {"upper": 0}),
    ("Resize", [_x(1, 2, 3, 4), None, np.float32([1, 1, 2, 3])], {}),
    ("Resize", [_x(1, 2, 5, 4), None, None, _ints(1, 2, 3, 9)], {"mode": "linear"}),
    *[
        ("Resize", [_x(1, 1, 4, 5), None, np.float32([1, 1, 2.5, 0.6])], {"mode": mode, **rest})
        for mode, rest in (
            ("nearest", {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}),
            ("nearest", {"nearest_mode": "ceil"}),
            ("nearest", {"nearest_mode": "round_prefer_ceil"}),
            ("linear", {"coordinate_transformation_mode": "align_corners"}),
            ("linear", {"coordinate_transformation_mode": "pytorch_half_pixel"}),
            ("linear", {"coordinate_transformation_mode": "half_pixel_symmetric"}),
            ("cubic", {"cubic_coeff_a": -0.5}),
        )
    ],
    (
        "Resize",
        [_x(1, 1, 4, 5), None, None, _ints(1, 9)],
        {"mode": "linear", "axes": [2, 3], **{"coordinate_transformation_mode": "pytorch_half_pixel"}},
    ),
]


def _single(operation: str, values: list, attributes: dict, opset: int = 21) -> onnx.ModelProto:
    """A graph of one node; all inputs but the first floating one are weights."""
    names = [f"in_{i}" if value is not None else "" for i, value in enumerate(values)]
    outputs = ["out_0", "out_1"] if operation in ("TopK", "Split") else ["out_0"]
    node = helper.make_node(operation, names, outputs, name="layer/node", **attributes)
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in zip(names, values, strict=True)
        if value is not None
    ]
    ends = [onnx.ValueInfoProto(name=name) for name in outputs]
    graph = helper.make_graph([node], "graph", inputs, ends)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def _engine(model: onnx.ModelProto, path, precision: str = "f32") -> TorchEngine:
    inferred = onnx.shape_inference.infer_shapes(model)
    for value in inferred.graph.output:
        if not value.type.tensor_type.elem_type:
            value.type.CopyFrom(helper.make_tensor_type_proto(TensorProto.FLOAT, []))
    onnx.save(inferred, path)
    return TorchEngine(GraphFile.load(path), precision, Options())


@pytest.mark.parametrize(
    ("operation", "values", "attributes"), CASES, ids=[f"{i}-{case[0]}" for i, case in enumerate(CASES)]
)
def test_operations_equal_the_reference_of_onnx(tmp_path, operation, values, attributes):
    """Every operation gives what ONNX's own evaluator does, with the same shape and kind of number (float32)."""
    values = [None if value is None else np.asarray(value) for value in values]
    model = _single(operation, values, attributes)
    given = {f"in_{i}": value for i, value in enumerate(values) if value is not None}
    expected = ReferenceEvaluator(model).run(None, given)
    found = _engine(model, tmp_path / "one.onnx").compute(dict(given))
    for a, b in zip(found.values(), expected, strict=True):
        assert a.shape == np.shape(b)
        assert a.dtype.kind == np.asarray(b).dtype.kind
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_forms_that_the_reference_gets_wrong(tmp_path):
    """Pads on one side only, and negative ones: ONNX's specification, by hand."""
    x = np.float32([[[1, 3, 2, -5]]])
    pool = _engine(_single("MaxPool", [x], {"kernel_shape": [2], "pads": [0, 1]}), tmp_path / "pool.onnx")
    assert pool.compute({"in_0": x})["out_0"].tolist() == [[[3, 3, 2, -5]]]
    values = [x, _ints(-1, 2), np.float32(9), _ints(2)]
    pad = _engine(_single("Pad", values, {}), tmp_path / "pad.onnx")
    found = pad.compute({f"in_{i}": np.asarray(value) for i, value in enumerate(values)})["out_0"]
    assert found.tolist() == [[[3, 2, -5, 9, 9]]]


def test_every_operation_is_tested():
    """The list above holds all that the engine claims to know."""
    # ONNX's evaluator lacks Swish, and differs from ONNX Runtime for LRN: tests/graphs/onnx_corpus.py has both.
    assert set(OPERATIONS) == {name for name, *_ in CASES} | {"LRN", "Swish"}


@pytest.mark.parametrize(
    ("operation", "values", "attributes", "message"),
    [
        ("ConvTranspose", [_x(1, 2, 5), _x(2, 3, 3)], {"output_shape": [9]}, "output_shape"),
        ("AveragePool", [_x(1, 2, 5)], {"kernel_shape": [2], "dilations": [2]}, "dilations"),
        ("BatchNormalization", [_x(2, 3), _x(3), _x(3), _x(3), _x(3)], {"training_mode": 1}, "training_mode"),
        ("ArgMax", [_x(3)], {"select_last_index": 1}, "select_last_index"),
        ("CumSum", [_x(3), np.array(0, I64)], {"reverse": 1}, "reverse"),
        ("ScatterND", [_x(5), np.array([[1]], I64), _x(1)], {"reduction": "mul"}, "reduction mul"),
        ("ScatterElements", [_x(5), _ints(1), _x(1)], {"reduction": "max"}, "reduction max"),
        ("Resize", [_x(4), None, np.float32([2])], {"mode": "cubic", "antialias": 1}, "mode cubic"),
        ("Resize", [_x(4), None, None, _ints(8)], {"keep_aspect_ratio_policy": "not_larger"}, "keep_aspect"),
        (
            "Resize",
            [_x(4), None, np.float32([2])],
            {"coordinate_transformation_mode": "tf_crop_and_resize"},
            "coordinates tf_crop",
        ),
    ],
)
def test_unknown_forms_are_named(tmp_path, operation, values, attributes, message):
    """The message names the operation, the form and the node."""
    engine = _engine(_single(operation, values, attributes), tmp_path / "one.onnx")
    given = {f"in_{i}": value for i, value in enumerate(values) if value is not None}
    with pytest.raises(BundleError, match=rf"got {operation} with .*{message}.* in 'layer/node'"):
        engine.compute(given)


def test_second_outputs_of_pools_and_norms_are_refused(tmp_path):
    """Indices of a maximum, mean of a layer: nobody needs them here."""
    for operation, values, attributes in (
        ("MaxPool", [_x(1, 2, 5)], {"kernel_shape": [2]}),
        ("LayerNormalization", [_x(2, 3), _x(3)], {}),
    ):
        model = _single(operation, values, attributes)
        model.graph.node[0].output.append("second")
        engine = _engine(model, tmp_path / "one.onnx")
        with pytest.raises(BundleError, match=f"got {operation} with"):
            engine.compute({f"in_{i}": value for i, value in enumerate(values)})


def test_unknown_operations_are_named_when_the_graph_is_opened(tmp_path):
    """Operation and node; so for another domain, element type and constant."""
    with pytest.raises(BundleError, match=r"every operation of one.onnx, got NonZero in 'layer/node'"):
        _engine(_single("NonZero", [_x(3)], {}), tmp_path / "one.onnx")
    constant = helper.make_node("Constant", [], ["c"], name="text", value_string="a")
    with pytest.raises(BundleError, match="got Constant with a value that is not a tensor in 'text'"):
        TorchEngine(GraphFile.load(_constant(tmp_path, constant)), "f32", Options())
    strange = helper.make_node(
        "Constant", [], ["c"], name="c", value=helper.make_tensor("c", TensorProto.COMPLEX64, [1], [1j])
    )
    with pytest.raises(BundleError, match="every element type, got ONNX type 14"):
        TorchEngine(GraphFile.load(_constant(tmp_path, strange)), "f32", Options())


def _constant(folder, node: onnx.NodeProto):
    add = helper.make_node("Add", ["x", "c"], ["y"], name="add")
    graph = helper.make_graph(
        [node, add],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b"])],
    )
    path = folder / "constant.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


@pytest.mark.parametrize("attributes", [{"value_float": 2.0}, {"value_floats": [2.0]}])
def test_constants_may_be_plain_numbers(tmp_path, attributes):
    """ONNX has a form of them without a tensor."""
    node = helper.make_node("Constant", [], ["c"], **attributes)
    engine = TorchEngine(GraphFile.load(_constant(tmp_path, node)), "f32", Options())
    assert engine.run({"x": np.float32([1, 2])})["y"].tolist() == [3, 4]
    shape = helper.make_node("Constant", [], ["c"], value_ints=[2, 1])
    reshape = helper.make_node("Reshape", ["x", "c"], ["y"])
    path = save(tmp_path / "ints.onnx", [shape, reshape], {"x": [2]}, {"y": [2, 1]})
    assert TorchEngine(GraphFile.load(path), "f32", Options()).run({"x": _x(2)})["y"].shape == (2, 1)


def test_what_torch_cannot_compute_names_the_node(tmp_path):
    """A shape that does not fit."""
    path = save(
        tmp_path / "graph.onnx",
        [helper.make_node("Reshape", ["x", "shape"], ["y"], name="block/view")],
        {"x": ["n"]},
        {"y": ["m", 3]},
        {"shape": _ints(-1, 3)},
    )
    with pytest.raises(BundleError, match="Reshape in 'block/view' must be computable, got RuntimeError"):
        TorchEngine(GraphFile.load(path), "f32", Options()).run({"x": _x(4)})


def test_float64_is_exact_to_float64(tmp_path):
    """Against NumPy in float64, 1e-14; float32 is not."""
    path = filtered(tmp_path / "graph.onnx")
    kernel = numpy_helper.to_array(onnx.load(path).graph.initializer[0]).astype(np.float64)
    given = images(3)
    padded = np.pad(given.astype(np.float64), ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded[:, 0], (3, 3), axis=(1, 2))
    expected = np.maximum(np.einsum("bhwij,cij->bchw", windows, kernel[:, 0]), 0).sum(1, keepdims=True)
    for precision, worst in (("f64", 1e-14), ("f32", 1e-5)):
        found = TorchEngine(GraphFile.load(path), precision, Options()).run({"images": given})["map"]
        assert np.abs(found - expected).max() < worst * np.abs(expected).max()
    assert found.dtype == np.float32
    exact = TorchEngine(GraphFile.load(path), "f64", Options())
    assert exact.run({"images": given})["map"].dtype == np.float64
    assert np.array_equal(exact.run({"images": given.astype(np.float64)})["map"], exact.run({"images": given})["map"])
    coarse = TorchEngine(GraphFile.load(path), "bf16", Options()).run({"images": given})["map"]
    assert 1e-4 < np.abs(coarse - expected).max() / np.abs(expected).max() < 3e-2


def test_golden_values_come_from_the_file_itself(tmp_path):
    """Outputs in float64, with float32's own error."""
    golden = golden_values(filtered(tmp_path / "graph.onnx"), {"images": images(2)})
    assert golden.outputs["map"].dtype == np.float64
    assert 0 < golden.float32_errors["map"] < 1e-6


def test_weights_in_another_file_are_read_and_missed(tmp_path):
    """ONNX keeps large weights beside the graph."""
    path = filtered(tmp_path / "graph.onnx")
    expected = TorchEngine(GraphFile.load(path), "f32", Options()).run({"images": images(1)})
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    graph = GraphFile.load(path)
    found = TorchEngine(graph, "f32", Options()).run({"images": images(1)})
    assert np.array_equal(found["map"], expected["map"])
    before = graph.sha256
    (tmp_path / "weights.bin").write_bytes(bytes(len((tmp_path / "weights.bin").read_bytes())))
    assert GraphFile.load(path).sha256 != before
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(BundleError, match="weights of kernel must be readable"):
        TorchEngine(GraphFile.load(path), "f32", Options())


def test_local_functions_are_opened_up(tmp_path):
    """A node may stand for a graph of its own."""
    doubled = helper.make_function(
        "own", "Double", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])], [helper.make_opsetid("", OPSETS)]
    )
    graph = helper.make_graph(
        [helper.make_node("Double", ["x"], ["y"], domain="own")],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b"])],
    )
    opsets = [helper.make_opsetid("", OPSETS), helper.make_opsetid("own", 1)]
    model = helper.make_model(graph, functions=[doubled], opset_imports=opsets, ir_version=10)
    onnx.save(model, tmp_path / "graph.onnx")
    engine = TorchEngine(GraphFile.load(tmp_path / "graph.onnx"), "f32", Options())
    assert engine.run({"x": np.float32([1, 2])})["y"].tolist() == [2, 4]


OPSETS = 20


def test_other_precisions_are_refused(tmp_path):
    """TF32 is a GPU's; and so is the engine that has it."""
    graph = GraphFile.load(filtered(tmp_path / "graph.onnx"))
    with pytest.raises(InvalidParameter, match="precision of engine torch must be one of f32, f64, bf16, got 'tf32'"):
        TorchEngine(graph, "tf32", Options())
    if not torch.cuda.is_available():
        with pytest.raises(MissingDependency, match="engine torch-cuda needs an NVIDIA GPU"):
            TorchCudaEngine(graph, "tf32", Options())
