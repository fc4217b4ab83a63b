"""``radlens engines`` and ``radlens parity``."""

from dataclasses import replace

import pytest

from radlens.engines.golden import Deviation
from radlens.engines.parity import ENGINES, Measurement, disallowed
from radlens.errors import BundleError
from radlens.families.cdmam.manifest import save
from radlens.families.cdmam.model import open_bundle


def test_engines_of_this_machine(run):
    """Name, precisions, versions; those that cannot run say what is missing."""
    result = run("engines")
    assert result.exit_code == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith("│")]
    found = {row[1]: row[-2] for row in rows}
    assert {"onnxruntime", "openvino", "tensorrt", "torch", "torch-cuda"} <= set(found)
    assert found["torch-cuda"] == "no"
    assert found["openvino"] != "no"
    assert "engine torch-cuda needs an NVIDIA GPU" in result.stderr


def test_engines_are_measured_with_a_bundle(run, bundle):
    """Each graph has rows; the bundle without graphs is computed from its weights, and the others say why not."""
    result = run("engines", bundle.path, "--memory-limit", "2G", "--again")
    assert result.exit_code == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines() if line.startswith("│")]
    assert {(row[1], row[3], row[5]) for row in rows} >= {
        ("gradient.onnx", "torch", "1"),
        ("prediction.onnx", "torch", "8"),
    }
    assert "onnxruntime is refused for gradient.onnx: bundle must hold gradient.onnx" in result.stderr
    assert "the first engine of each graph computes it, in f32" in result.stderr


def test_wrong_options_are_named(run, bundle):
    """Exit code 2."""
    for arguments, message in (
        (("--memory-limit", "much"), "memory must be a size such as 512M or 2G, got 'much'"),
        (("--precision", "int8"), "precision must be one of"),
    ):
        result = run("engines", bundle.path, *arguments)
        assert result.exit_code == 2
        assert message in result.stderr


@pytest.fixture
def reported(bundle, tmp_path):
    """A bundle with a parity report that refuses bfloat16."""
    import shutil

    refused = Measurement(
        "openvino",
        "bf16",
        {"gradient": Deviation(0.9, 0.45)},
        "gradient must correlate with float64 by 0.99, got 0.450",
    )
    fine = Measurement("openvino", "f32", {"gradient": Deviation(2e-3, 0.99999), "score": Deviation(1e-6, None)}, None)
    parity = {
        "gradient": {"eager": 1.5e-3},
        "prediction": {},
        ENGINES: {"gradient.onnx": [fine.as_json(), refused.as_json()]},
    }
    folder = shutil.copytree(bundle.path, tmp_path / "reported")
    return save(folder, replace(bundle.manifest, parity=parity))


def test_parity_of_a_bundle(run, reported):
    """What the export measured: errors, correlation, and what is not allowed and why."""
    result = run("parity", reported.path)
    assert result.exit_code == 0, result.stderr
    rows = [[word for word in line.split() if word != "│"] for line in result.stdout.splitlines() if line[0] == "│"]
    assert ["eager", "1.5e-03", "yes"] in rows
    assert ["openvino", "f32", "2.0e-03", "0.99999", "yes"] in rows
    assert ["openvino", "bf16", "9.0e-01", "0.45000", "no"] in rows
    assert "openvino bf16 is refused: gradient must correlate" in result.stderr


def test_parity_on_this_machine_needs_graphs(run, reported):
    """The small bundle has none."""
    result = run("parity", reported.path, "--here")
    assert result.exit_code == 3
    assert "prediction.onnx must be a graph in ONNX form" in result.stderr


def test_less_than_float32_only_where_the_report_allows_it(reported):
    """The error holds the numbers."""
    assert disallowed(reported.manifest.parity, "gradient.onnx", "openvino", "bf16") is not None
    with pytest.raises(BundleError, match=r"openvino: precision bf16: gradient must correlate .* got 0\.450"):
        open_bundle(reported, "openvino", "bf16")
