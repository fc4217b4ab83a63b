import logging
import sys
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnx_graphs import filtered, images, save

from radlens import engines
from radlens.engines import (
    GraphFile,
    OnnxRuntimeCudaEngine,
    OnnxRuntimeTensorRtEngine,
    Options,
    golden_file,
    golden_values,
)
from radlens.engines import base as base_module
from radlens.engines import onnxruntime as onnxruntime_module
from radlens.errors import BundleError, InvalidInput, InvalidParameter, MissingDependency

CPU = ("onnxruntime", "openvino", "torch")


@pytest.fixture
def graph(tmp_path):
    """A graph with golden values beside it."""
    path = filtered(tmp_path / "graph.onnx")
    golden_values(path, {"images": images(2)}).save(path)
    return path


@pytest.mark.parametrize("name", [*CPU, "auto"])
def test_every_engine_computes_any_batch(graph, name):
    """Batches smaller, equal to and larger than a part give what one sample after the other gives (float32)."""
    engine = engines.open(graph, name, batch_size=4)
    assert engine.name in CPU
    assert engine.precision == "f32"
    given = images(9)
    alone = [engine.run({"images": given[i : i + 1]}) for i in range(9)]
    for n in (1, 4, 9):
        found = engine.run({"images": given[:n]})
        assert found["map"].shape == (n, 1, 8, 8)
        for output in ("map", "value"):
            np.testing.assert_allclose(found[output], np.concatenate([each[output] for each in alone[:n]]), atol=1e-5)


@pytest.mark.parametrize("name", CPU)
def test_results_are_the_callers_own(graph, name):
    """The next call does not change what an earlier one returned, though buffers are used again."""
    engine = engines.open(graph, name)
    first = engine.run({"images": images(2)})
    kept = {output: value.copy() for output, value in first.items()}
    engine.run({"images": images(2, seed=1)})
    assert all(np.array_equal(first[output], kept[output]) for output in kept)


def test_strided_and_read_only_inputs_are_fine(graph):
    """A view of something else, and an array that nobody may write to."""
    wide = np.repeat(images(2), 2, axis=3)
    wide.flags.writeable = False
    for name in CPU:
        found = engines.open(graph, name).run({"images": wide[..., ::2]})
        np.testing.assert_allclose(found["map"], engines.open(graph, name).run({"images": images(2)})["map"], atol=1e-5)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "inputs must be images, got none"),
        ({"picture": images(1)}, "inputs must be images, got picture"),
        ({"images": images(1), "mask": images(1)}, "inputs must be images, got images, mask"),
        ({"images": [1.0]}, r"images \(batch, 1, 8, 8\) float32 must be a NumPy array, got list"),
        ({"images": images(1).astype(np.float64)}, r"must be images \(batch, 1, 8, 8\) float32, got .* float64"),
        ({"images": images(1)[0]}, r"must be images .* got \(1, 8, 8\) float32"),
        ({"images": np.zeros((1, 1, 8, 9), np.float32)}, r"got \(1, 1, 8, 9\)"),
        ({"images": np.zeros((0, 1, 8, 8), np.float32)}, r"no dimension empty, got \(0, 1, 8, 8\)"),
    ],
)
def test_wrong_inputs_are_named(graph, inputs, message):
    """Names, kinds, shapes and numbers: what was expected and what came."""
    with pytest.raises(InvalidInput, match=message):
        engines.open(graph, "onnxruntime").run(inputs)


def _two_inputs(path):
    add = helper.make_node("Add", ["x", "y"], ["sum"])
    scaled = helper.make_node("Mul", ["sum", "scale"], ["z"])
    inputs = {"x": ["n", 3], "y": ["n", 3], "scale": [3]}
    return save(path, [add, scaled], inputs, {"z": ["n", 3]})


@pytest.mark.parametrize("name", [*CPU, "auto"])
def test_inputs_with_and_without_a_batch(tmp_path, name):
    """What has no batch goes into every part whole; those that have one must agree."""
    engine = engines.open(_two_inputs(tmp_path / "graph.onnx"), name, batch_size=2)
    x, scale = np.arange(15, dtype=np.float32).reshape(5, 3), np.float32([1, 2, 3])
    assert np.array_equal(engine.run({"x": x, "y": x, "scale": scale})["z"], 2 * x * scale)
    with pytest.raises(InvalidInput, match=r"y \(n, 3\) float32 with n = 5, no dimension empty, got \(4, 3\)"):
        engine.run({"x": x, "y": x[:4], "scale": scale})


def test_a_graph_without_a_batch_is_computed_whole(tmp_path):
    """The sum over everything cannot be computed in parts."""
    node = helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)
    path = save(tmp_path / "graph.onnx", [node], {"x": ["n", 2]}, {"y": []})
    assert GraphFile.load(path).batch is None
    for name in (*CPU, "auto"):
        assert engines.open(path, name, batch_size=1).run({"x": np.ones((5, 2), np.float32)})["y"] == 10


def test_dimensions_without_a_name_are_open(tmp_path):
    """Each for itself; nothing can be measured without an example, so the first engine serves."""
    path = save(
        tmp_path / "graph.onnx", [helper.make_node("Relu", ["x"], ["y"])], {"x": [None, None]}, {"y": ["a", "b"]}
    )
    engine = engines.open(path)
    assert engine.run({"x": np.float32([[-1, 2]])})["y"].tolist() == [[0, 2]]


def test_names_and_versions_are_known():
    """Engines by name, sorted; those on this machine with versions."""
    assert set(CPU) < set(engines.names())
    assert list(engines.names()) == sorted(engines.names())
    assert {"torch", "onnxruntime", "openvino"} <= set(engines.engine_versions())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"engine": "tpu"}, r"engine must be one of auto, .*onnxruntime, .*torch.*, got 'tpu'"),
        ({"precision": "int8"}, "precision must be one of f64, f32, tf32, f16, bf16, got 'int8'"),
        ({"engine": "onnxruntime", "precision": "bf16"}, "engine onnxruntime must be one of f32, got 'bf16'"),
        ({"engine": "onnxruntime", "batch_size": -1}, "batch_size must be at least 1, got -1"),
        ({"engine": "onnxruntime", "n_threads": 0}, "n_threads must be at least 1, got 0"),
        ({"memory_limit": 0}, "memory_limit must be at least 1 byte, got 0"),
        ({"engine": "llvm"}, "engine llvm must be given a graph that it supports, got graph.onnx"),
    ],
)
def test_wrong_parameters_are_named(graph, arguments, message):
    """The message lists what there is."""
    with pytest.raises(InvalidParameter, match=message):
        engines.open(graph, **arguments)


@pytest.mark.parametrize("content", [None, b"", b"not a graph", b"\x08\x07"])
def test_files_that_hold_no_graph_are_refused(tmp_path, content):
    """Missing, empty, damaged, and one without outputs."""
    path = tmp_path / "graph.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BundleError, match=r"graph\.onnx must be a graph in ONNX form, got"):
        engines.open(path)


@pytest.mark.parametrize("name", CPU)
def test_graphs_that_an_engine_cannot_run_are_refused(tmp_path, name):
    """An operation that nobody knows."""
    x, y = (helper.make_tensor_value_info(end, 1, ["b"]) for end in "xy")
    made = helper.make_graph([helper.make_node("Unheard", ["x"], ["y"], name="node")], "graph", [x], [y])
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 20)]), tmp_path / "graph.onnx")
    with pytest.raises(BundleError, match=r"graph.onnx must be a graph that|every operation of graph.onnx"):
        engines.open(tmp_path / "graph.onnx", name)
    with pytest.raises(BundleError, match="must reproduce the golden values of the graph, got none that does"):
        engines.open(tmp_path / "graph.onnx")


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_missing_runtime_names_its_extra(graph, monkeypatch, name):
    """By name an error; otherwise the others serve."""
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingDependency, match=r"pip install 'radlens\[cpu\]'"):
        engines.open(graph, name)
    assert engines.open(graph).name in set(CPU) - {name}


def test_a_second_engine_of_one_name_is_refused():
    """The registry holds each name once."""
    with pytest.raises(InvalidParameter, match="engine torch must be registered once"):
        base_module.register("torch")(engines.TorchEngine)


@pytest.mark.parametrize("name", CPU)
def test_what_fails_while_it_runs_is_an_error_of_the_graph(tmp_path, monkeypatch, name):
    """A shape that does not fit: no runtime's own exception comes through."""
    node = helper.make_node("Add", ["x", "six"], ["y"], name="add")
    path = save(tmp_path / "graph.onnx", [node], {"x": ["n"]}, {"y": ["m"]}, {"six": np.ones(6, np.float32)})
    engine = engines.open(path, name)
    assert engine.run({"x": np.zeros(6, np.float32)})["y"].tolist() == [1] * 6
    if name == "openvino":
        # It does not look at shapes when it runs.
        failing = SimpleNamespace(infer=lambda *_, **__: (_ for _ in ()).throw(RuntimeError))
        monkeypatch.setattr(engine, "_request", failing)
    with pytest.raises(BundleError, match="must be computable"):
        engine.run({"x": np.zeros(4, np.float32)})


# What an engine does silently.


def test_a_provider_that_does_not_start_is_no_fallback(graph, monkeypatch):
    """ONNX Runtime warns and computes on the CPU; here it is an error, and another engine serves."""
    import onnxruntime

    real = onnxruntime.InferenceSession

    def on_the_cpu(path, options, providers):
        assert providers[0][0] == "CUDAExecutionProvider"
        return real(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(onnxruntime, "InferenceSession", on_the_cpu)
    with pytest.raises(MissingDependency, match="CUDAExecutionProvider must compute the graph, got CPU"):
        engines.open(graph, "onnxruntime-cuda")


def test_gpu_providers_get_what_precision_and_cache_ask_for(graph, monkeypatch, tmp_path):
    """TF32 is off unless asked for; TensorRT keeps engines and timings, and is built for the batch."""
    seen = []

    def session(path, options, providers):
        seen.append(providers[0][1])
        (name, _), *_ = providers
        return SimpleNamespace(get_providers=lambda: [name], io_binding=lambda: None)

    fake = SimpleNamespace(
        InferenceSession=session,
        SessionOptions=SimpleNamespace,
        get_available_providers=lambda: ["CUDAExecutionProvider", "TensorrtExecutionProvider"],
    )
    monkeypatch.setattr(onnxruntime_module, "_runtime", lambda: fake)
    opened = GraphFile.load(graph)
    OnnxRuntimeCudaEngine(opened, "f32", Options())
    OnnxRuntimeCudaEngine(opened, "tf32", Options())
    assert seen == [{"use_tf32": "0"}, {"use_tf32": "1"}]
    OnnxRuntimeTensorRtEngine(opened, "f16", Options(batch_size=16, cache=tmp_path))
    found = seen[-1]
    assert (found["trt_fp16_enable"], found["trt_bf16_enable"]) == ("True", "False")
    assert found["trt_engine_cache_path"] == found["trt_timing_cache_path"] == str(tmp_path / "onnxruntime-tensorrt")
    assert found["trt_profile_opt_shapes"] == "images:16x1x8x8"
    assert found["trt_profile_max_shapes"] == "images:4096x1x8x8"
    assert "trt_engine_cache_path" not in OnnxRuntimeTensorRtEngine(opened, "tf32", Options())._provider_options()
    monkeypatch.delenv("NVIDIA_TF32_OVERRIDE", raising=False)
    with pytest.raises(MissingDependency, match="NVIDIA_TF32_OVERRIDE=0 in the environment for f32"):
        OnnxRuntimeTensorRtEngine(opened, "f32", Options())


def test_openvino_in_another_precision_is_no_fallback(monkeypatch):
    """A processor that cannot compute in it makes the plugin take float32."""
    from radlens.engines.openvino import require_precision

    require_precision("bf16", "bf16")
    with pytest.raises(MissingDependency, match="precision f16 needs a processor that supports it"):
        require_precision("f32", "f16")


def test_openvino_keeps_compiled_graphs_where_it_is_told(graph, tmp_path):
    """And nowhere else."""
    engines.open(graph, "openvino", cache=tmp_path / "kept")
    assert any((tmp_path / "kept" / "openvino").iterdir())


# Damage.


def _edited(path, edit):
    model = onnx.load(path)
    edit(model.graph)
    onnx.save(model, path)


def _scale_weights(graph):
    weights = numpy_helper.to_array(graph.initializer[0]) * np.float32(1.01)
    graph.initializer[0].CopyFrom(numpy_helper.from_array(weights, graph.initializer[0].name))


def _other_operation(graph):
    graph.node[1].op_type = "Abs"


@pytest.mark.parametrize("edit", [_scale_weights, _other_operation])
@pytest.mark.parametrize("name", CPU)
def test_a_changed_graph_is_refused_by_its_golden_values(graph, name, edit):
    """Weights 1 % larger, or another operation: any engine computes it without a word."""
    engines.open(graph, name)
    _edited(graph, edit)
    with pytest.raises(BundleError, match=r"(map|value) must be within .* of the golden values, got"):
        engines.open(graph, name)
    with pytest.raises(BundleError, match="must reproduce the golden values"):
        engines.open(graph)


def test_a_truncated_graph_is_refused(graph):
    """Half of the file."""
    graph.write_bytes(graph.read_bytes()[:150])
    with pytest.raises(BundleError, match=r"graph\.onnx must be a graph"):
        engines.open(graph)


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04", b"nothing"])
def test_damaged_golden_values_are_refused(graph, damage):
    """They are no reason to trust the graph."""
    golden_file(graph).write_bytes(damage)
    with pytest.raises(BundleError, match=r"graph\.golden\.npz must hold golden values"):
        engines.open(graph)
    np.savez(golden_file(graph), allow_pickle=False, nothing=np.zeros(1))
    with pytest.raises(BundleError, match="must hold outputs and their float32 errors"):
        engines.open(graph)


def test_an_engine_that_computes_something_else_is_passed_over(graph, monkeypatch, caplog):
    """The next one serves, and the log says why."""

    def wrong(self, inputs):
        return {name: value + 0.1 for name, value in right(self, inputs).items()}

    right = engines.OpenVinoEngine.compute
    # Nothing was measured before, or another engine might be known as the fastest and be the only one that is tried.
    monkeypatch.setenv("RADLENS_CACHE", str(graph.parent))
    monkeypatch.setattr(engines.OpenVinoEngine, "compute", wrong)
    with caplog.at_level(logging.WARNING):
        assert engines.open(graph).name in ("onnxruntime", "torch")
    assert "engine openvino is refused: map must be within" in caplog.text
    monkeypatch.setattr(engines.OpenVinoEngine, "compute", lambda self, inputs: {"map": np.zeros((2, 1))})
    with pytest.raises(BundleError, match=r"map must have shape \(2, 1, 8, 8\), got \(2, 1\)"):
        engines.open(graph, "openvino")
    monkeypatch.setattr(engines.OpenVinoEngine, "compute", lambda self, inputs: {})
    with pytest.raises(BundleError, match=r"map must have shape .*, got no such output"):
        engines.open(graph, "openvino")


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """A graph without golden values, never measured before."""
    monkeypatch.setenv("RADLENS_CACHE", str(tmp_path / "cache"))
    return filtered(tmp_path / "graph.onnx")


def _doubled(monkeypatch, engine):
    right = engine.compute
    monkeypatch.setattr(
        engine, "compute", lambda self, given: {name: 2 * value for name, value in right(self, given).items()}
    )


def test_without_golden_values_torch_in_float64_stands_in(alone, monkeypatch, caplog):
    """An engine that computes something else is found, by `auto` and by its name."""
    _doubled(monkeypatch, engines.OpenVinoEngine)
    _doubled(monkeypatch, engines.OnnxRuntimeEngine)
    for _ in range(2):
        caplog.clear()
        assert engines.open(alone).name == "torch"
        assert "engine openvino is refused: map must be within 1.0e-02 of the golden values" in caplog.text
    with pytest.raises(BundleError, match=r"map must be within 1.0e-02 of the golden values"):
        engines.open(alone, "openvino")
    assert engines.open(alone, "torch").name == "torch"


@pytest.mark.parametrize("reason", ["unknown operation", "not finite", "memory"])
def test_where_torch_cannot_stand_in_engines_are_taken_as_they_are(alone, monkeypatch, caplog, reason):
    """An operation that it does not know, numbers that are none, no memory for float64."""
    weights, limit = {}, None
    node = helper.make_node("Identity", ["x"], ["y"])
    if reason == "unknown operation":
        node = helper.make_node("Hardmax", ["x"], ["y"], name="hardmax")
    if reason == "not finite":
        node, weights = helper.make_node("Div", ["x", "zero"], ["y"]), {"zero": np.zeros(1, np.float32)}
    if reason == "memory":
        limit = 16
    path = save(alone, [node], {"x": ["n", 3]}, {"y": ["n", 3]}, weights)
    _doubled(monkeypatch, engines.OpenVinoEngine)
    with caplog.at_level(logging.INFO):
        engines.open(path, memory_limit=limit)
    assert "refused: y must be" not in caplog.text
    assert "graph.onnx is opened unchecked" in caplog.text
    engines.open(path, "openvino", memory_limit=limit)
