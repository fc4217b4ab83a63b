import numpy as np
import pytest
from onnx_graphs import filtered, images

from radlens.engines import Golden, TorchEngine, golden_values, parity
from radlens.engines.golden import Deviation, body_error, correlation, deviation, limit, relative_error
from radlens.errors import BundleError


@pytest.fixture
def graph(tmp_path):
    """A graph with golden values beside it."""
    path = filtered(tmp_path / "graph.onnx")
    golden_values(path, {"images": images(2)}).save(path)
    return path


def test_every_engine_is_measured_in_each_precision(graph):
    """Errors of all outputs, correlation of maps."""
    found = {each.form: each for each in parity.measure(graph)}
    assert {"onnxruntime f32", "openvino f32", "torch f32", "torch f64", "torch bf16"} <= set(found)
    assert found["torch f64"].error == 0
    assert 1e-4 < found["torch bf16"].error < 2e-2
    assert found["torch bf16"].deviations["map"].correlation == pytest.approx(1, abs=1e-3)
    assert found["torch bf16"].deviations["value"].correlation is None
    assert all(each.reason is None for each in found.values())
    only = parity.measure(graph, ("f64",))
    assert [each.form for each in only] == ["torch f64"]


def test_an_engine_that_fails_is_in_the_report_with_the_reason(graph, monkeypatch):
    """Its numbers, or none if it cannot run at all."""
    golden = Golden.load(graph)
    golden.outputs["value"][...] *= 1.5
    golden.save(graph)
    assert all("value must be within" in each.reason for each in parity.measure(graph))

    def broken(self, inputs):
        raise BundleError("no")

    monkeypatch.setattr(TorchEngine, "compute", broken)
    (found,) = parity.measure(graph, ("f64",))
    assert (found.reason, found.deviations, found.error) == ("no", {}, float("inf"))


def test_a_report_needs_golden_values(tmp_path):
    """There is nothing else to hold an engine against."""
    with pytest.raises(BundleError, match=r"graph\.onnx must have golden values beside it, got none"):
        parity.measure(filtered(tmp_path / "graph.onnx"))


def test_reports_are_stored_as_json_and_read_back(graph):
    """And tell whether an engine is allowed."""
    found = parity.measure(graph, ("f32", "bf16"))
    report = {parity.ENGINES: {"graph.onnx": [each.as_json() for each in found]}}
    assert parity.stored(report, "graph.onnx") == found
    assert parity.stored({}, "graph.onnx") == []
    assert parity.disallowed(report, "graph.onnx", "torch", "bf16") is None
    for entry in report[parity.ENGINES]["graph.onnx"]:
        entry["reason"] = "map must correlate with float64 by 0.99, got 0.450"
    expected = "precision bf16: map must correlate with float64 by 0.99, got 0.450"
    assert parity.disallowed(report, "graph.onnx", "torch", "bf16") == expected
    assert parity.disallowed(report, "graph.onnx", "elsewhere", "bf16") is None
    # What fails in float32 is left to the golden check: the machine of the export may have been at fault.
    assert parity.disallowed(report, "graph.onnx", "torch", "f32") is None


@pytest.mark.parametrize(
    ("precision", "found", "objection"),
    [
        ("f32", Deviation(9e-3, 0.5), None),
        ("f32", Deviation(1.1e-2, 1.0), r"map must be within 1.0e-02 of the golden values, got 1.1e-02"),
        ("f32", Deviation(float("nan"), 1.0), "got nan"),
        ("bf16", Deviation(0.14, 0.991), None),
        ("bf16", Deviation(0.14, 0.989), r"map must correlate with float64 by 0.99, got 0.989"),
        ("bf16", Deviation(0.14, float("nan")), "got nan"),
        ("f16", Deviation(0.16, 1.0), r"map must be within 1.5e-01"),
        ("tf32", Deviation(0.03, None), r"map must be within 2.0e-02"),
    ],
)
def test_the_rule(precision, found, objection):
    """Ten times torch float32 in full precision; correlation and error in less."""
    golden = Golden({}, {"map": np.zeros(1)}, {"map": 1e-3})
    found = golden.objection(precision, {"map": found})
    assert found == objection if objection is None else objection in found


@pytest.mark.parametrize(
    ("n_moved", "by", "objection"),
    [
        (0, 0.0, None),
        (50, 0.04, None),
        (50, 0.06, "map must be within 1.0e-02 of the golden values, got 1.3e-02"),
        (51, 0.04, "95% of map must be within 1.0e-05 of the golden values, got 1.3e-03"),
        (1000, 2e-5, "95% of map must be within 1.0e-05 of the golden values, got 1.9e-05"),
        (1, np.nan, "map must be within 1.0e-02 of the golden values, got nan"),
        (51, np.nan, "95% of map must be within 1.0e-05 of the golden values, got nan"),
    ],
)
def test_a_few_values_may_lie_beyond_a_kink(n_moved, by, objection):
    """A twentieth of a map may be off by what rounding at kinks does; the rest is held to float32, and none is nan."""
    exact = np.ones((1, 1000))
    found = exact.copy()
    found[:, :n_moved] += by
    golden = Golden({}, {"map": exact}, {"map": 1e-7}, {"map": 1e-7})
    assert golden.objection("f32", {"map": deviation(found, exact)}) == objection
    assert golden.objection("bf16", {"map": Deviation(0.1, 0.999, 0.05)}) is None


def test_golden_values_keep_the_errors_of_the_body(tmp_path):
    """What a graph is held to comes back from its file, also without such errors."""
    for body in ({}, {"map": 2e-7}):
        golden = Golden({"images": np.ones((1, 2))}, {"map": np.ones((1, 64))}, {"map": 1e-4}, body)
        golden.save(tmp_path / "graph.onnx")
        assert Golden.load(tmp_path / "graph.onnx").body_errors == body


def test_measured_golden_values_know_the_body():
    """The larger of two computations in float32, over the nearest 95 % of each sample."""

    def function(dtype, inputs):
        return (inputs["images"].exp(),)

    images = np.random.default_rng(0).standard_normal((2, 100)).astype(np.float32)
    golden = Golden.measure(function, {"images": images}, ["map"], ["map"])
    assert 0 < golden.body_errors["map"] < golden.float32_errors["map"] < 1e-6
    moved = golden.outputs["map"].copy()
    moved[0, 7] += 100
    assert body_error(moved, golden.outputs["map"]) == 0


def test_limits_have_a_floor():
    """Where float32 happens to be exact, sums in another order are not."""
    assert limit("f32", 0.0, is_map=True) == 1e-5
    assert limit("f64", 1e-3, is_map=True) == 1e-2


def test_errors_and_correlations():
    """Half as large again is an error of one half; a constant has no correlation; nothing correlates with zeros."""
    assert relative_error(np.array([1.5, 3.0]), np.array([1.0, 2.0])) == pytest.approx(0.5)
    assert relative_error(np.array([0.5]), np.array([0.0])) == 0.5
    assert correlation(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 6.0])) == pytest.approx(1)
    assert correlation(np.array([3.0, 2.0, 1.0]), np.array([2.0, 4.0, 6.0])) == pytest.approx(-1)
    assert correlation(np.array([1.0, 2.0]), np.array([5.0, 5.0])) == 1
    assert correlation(np.zeros(3), np.array([2.0, 4.0, 6.0])) == 0
    for value in (np.nan, np.inf):
        strange = np.array([value, 1.0])
        assert not relative_error(strange, np.array([1.0, 2.0])) < np.inf
        assert np.isnan(correlation(strange, np.array([1.0, 2.0])))
    assert np.isnan(relative_error(np.array([np.inf]), np.array([np.inf])))
