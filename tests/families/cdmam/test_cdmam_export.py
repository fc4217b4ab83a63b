import json
import zipfile
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from made_once import copied
from tiny_bundle import TYPICAL_CURVE_UM

from radlens.archives import archive
from radlens.engines import Golden, parity, relative_error
from radlens.errors import BundleError, InvalidInput, InvalidParameter
from radlens.families.cdmam.export import _spread_like_curve, export_bundle
from radlens.families.cdmam.manifest import GRADIENT_ONNX, MEMBERS_ONNX, PREDICTION_ONNX, WEIGHTS, Bundle
from radlens.families.cdmam.model import open_bundle
from radlens.families.cdmam.training import TrainedRun, load_run
from radlens.networks import CdmamEnsemble, CdmamNet, FoldedCdmamEnsemble


@pytest.fixture
def copy(exported, tmp_path):
    """A copy of the bundle that a test may damage."""
    import shutil

    return shutil.copytree(exported.path, tmp_path / "bundle")


def test_parity_holds_every_form_against_float64(exported):
    """Traced and folded forms are no further from float64 than ten times eager float32, or kinks in some pixels."""
    errors_of = exported.manifest.parity
    assert set(errors_of["prediction"]) == {"eager", "traced", "folded"}
    assert set(errors_of["gradient"]) == {"eager", "folded"}
    for quantity, least in (("prediction", 1e-5), ("gradient", 1e-2)):
        errors = errors_of[quantity]
        assert all(0 <= error <= max(10 * errors["eager"], least) for error in errors.values())


@pytest.mark.parametrize("graph", [PREDICTION_ONNX, GRADIENT_ONNX])
def test_parity_holds_every_engine_against_float64(exported, graph):
    """All float32 engines pass; torch in float64 is the reference itself, to the rounding of the folded weights."""
    found = {each.form: each for each in parity.stored(exported.manifest.parity, graph)}
    assert {"onnxruntime f32", "openvino f32", "torch f32", "torch f64"} <= set(found)
    assert [form for form, each in found.items() if each.precision == "f32" and each.reason] == []
    # The weights in the file are float32, folded: a few maxima and ReLUs decide otherwise.
    assert found["torch f64"].error < 5e-3
    if graph == GRADIENT_ONNX:
        for form in ("openvino f32", "onnxruntime f32", "torch f32"):
            gradient = found[form].deviations["gradient"]
            assert gradient.correlation > 0.9999
            assert gradient.body < 1e-5
    assert found["torch bf16"].error > 10 * found["torch f32"].error


@pytest.mark.slow
def test_the_same_run_gives_the_same_bundle(exported, smallest_folder, tmp_path):
    """Its hash does not depend on time, on folders, or on what the process did before."""
    again = export_bundle(load_run(smallest_folder), tmp_path)
    assert again.manifest.files == exported.manifest.files
    assert again.bundle_hash == exported.bundle_hash


def test_the_traced_module_takes_any_batch(exported, smallest_folder):
    """One traced module gives mean, aleatoric and epistemic of five images as the eager ensemble does (float32)."""
    images = torch.randn(5, 1, 250, 250, generator=torch.Generator().manual_seed(0))
    traced = torch.jit.load(exported.traced)
    with torch.no_grad():
        found = traced(images)
    expected = CdmamEnsemble(load_run(smallest_folder).members).predict(images)[:3]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_graphs_have_names_and_a_dynamic_batch(exported):
    """Prediction and gradient graphs name their ends, leave the batch open and hold only standard operations."""
    ends = {
        exported.prediction_onnx: (["images"], ["mean", "aleatoric", "epistemic"]),
        exported.gradient_onnx: (["images"], ["score", "gradient"]),
    }
    for file, (inputs, outputs) in ends.items():
        model = onnx.load(file)
        onnx.checker.check_model(model)
        assert [end.name for end in model.graph.input] == inputs
        assert [end.name for end in model.graph.output] == outputs
        assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
        assert {node.domain for node in model.graph.node} == {""}


@pytest.fixture(scope="module")
def logarithms(smallest_folder, tmp_path_factory):
    """A run whose members predict logarithms of um, random ones of rank 4, and its bundle."""
    torch.manual_seed(0)
    members = tuple(CdmamNet(rank=4).eval() for _ in range(2))
    for member in members:
        member.scale_output(torch.tensor(TYPICAL_CURVE_UM).log(), torch.full((12,), 0.2))
    run = TrainedRun(members, load_run(smallest_folder).record | {"output": "log um"})
    folder = tmp_path_factory.mktemp("logarithms") / "bundle"
    return run, Bundle.load(copied("logarithms", lambda made: export_bundle(run, made), folder))


@pytest.mark.slow
def test_a_run_of_logarithms_is_exported_as_such(logarithms):
    """The manifest says what members predict; model and engines give the eager ensemble's um (float32)."""
    run, made = logarithms
    assert (made.manifest.rank, made.manifest.logarithmic) == (4, True)
    assert Bundle.load(made.path) == made
    images = torch.randn(3, 1, 250, 250, generator=torch.Generator().manual_seed(0))
    reference = CdmamEnsemble(run.members, logarithmic=True)
    expected = reference.predict(images)
    for model in (made.model(), open_bundle(made)):
        found = model.predict(images)
        assert found.logarithmic
        torch.testing.assert_close(found.interval, expected.interval, rtol=1e-4, atol=0)
        torch.testing.assert_close(model.score(images), expected.mean.mean(dim=1), rtol=1e-4, atol=0)
        gradient = reference.gradient(images)
        assert (model.gradient(images) - gradient).norm() < 1e-2 * gradient.norm()


@pytest.mark.slow
@pytest.mark.parametrize("graph", [PREDICTION_ONNX, GRADIENT_ONNX, MEMBERS_ONNX])
def test_every_engine_computes_logarithms(logarithms, graph):
    """All float32 engines reproduce the golden values; the kernel computes the gradient."""
    found = parity.stored(logarithms[1].manifest.parity, graph)
    assert [each.form for each in found if each.precision == "f32" and each.reason] == []
    engines = {each.engine for each in found}
    assert engines >= {"onnxruntime", "openvino", "torch"}
    assert ("llvm" in engines) == (graph == GRADIENT_ONNX)


@pytest.mark.parametrize(("spread", "expected"), [(0.01, 1e-4), (2.0, 5e-6), (0.0, 2e-6)])
def test_the_spread_of_members_is_as_exact_as_the_curve(spread, expected):
    """In um of gold: a hundredth of the curve may be off by a hundred times as much, relative to itself."""
    outputs = {"mean": np.ones((2, 12)), "epistemic": np.full((2, 12), spread)}
    golden = Golden({}, outputs, {"mean": 1e-7, "epistemic": 5e-6 if spread > 1 else 2e-6})
    assert _spread_like_curve(golden).float32_errors == {"mean": 1e-7, "epistemic": pytest.approx(expected)}


def test_manifests_of_the_first_releases_are_of_um(copy):
    """Without rank and kind, the weights are 12 columns for each member and predict um of gold."""
    made = Bundle.load(copy)
    linear = made.model()
    full = FoldedCdmamEnsemble(linear.n_members)
    state = linear.state_dict() | {"weight": linear.weight @ linear.head}
    full.load_state_dict({name: state[name] for name in full.state_dict()})
    assert "head" not in full.state_dict()
    torch.save(full.state_dict(), copy / WEIGHTS)
    manifest = copy / "bundle.json"
    document = json.loads(manifest.read_text())
    del document["rank"], document["logarithmic"]
    manifest.write_text(json.dumps(document))
    old = Bundle.load(copy, verify=False)
    assert (old.manifest.rank, old.manifest.logarithmic) == (None, False)
    images = torch.randn(1, 1, 250, 250, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(old.model().predict(images).mean, linear.predict(images).mean, rtol=1e-4, atol=1e-6)


def test_relative_error_is_a_norm():
    """Half as large again is an error of one half."""
    assert relative_error(np.array([1.5, 3.0]), np.array([1.0, 2.0])) == pytest.approx(0.5)


def test_a_bundle_comes_back_as_it_was_saved(exported):
    """Loading reads the same manifest and hash; the training record travels along."""
    again = Bundle.load(exported.path)
    assert again == exported
    assert again.manifest.training["evaluation"]["random"]["n_images"] == 6
    assert len(again.bundle_hash) == 64


def test_preprocessing_normalises(exported):
    """``(pixels - mean) / std`` as float32 in the shape the network wants; other shapes are refused."""
    spec = exported.manifest.input
    pixels = np.full((2, 250, 250), spec.mean + 2 * spec.std)
    found = exported.preprocess(pixels)
    assert found.shape == (2, 1, 250, 250)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.full_like(found, 2.0), rtol=1e-4, atol=0)
    with pytest.raises(InvalidInput, match=r"shape \(b, 250, 250\), got \(250, 251\)"):
        exported.preprocess(np.zeros((250, 251)))


def test_altered_bundles_are_refused(copy):
    """A changed byte, a missing file, another format, no JSON, and weights of another ensemble."""
    weights = copy / WEIGHTS
    intact = weights.read_bytes()
    weights.write_bytes(intact[:-1] + bytes([intact[-1] ^ 1]))
    with pytest.raises(BundleError, match="not the file this bundle was made with"):
        Bundle.load(copy)
    weights.write_bytes(b"")
    unverified = Bundle.load(copy, verify=False)
    with pytest.raises(BundleError, match=r"weights.pt must hold 2 CDMAM members"):
        unverified.model()
    weights.write_bytes(intact)
    for rank in (13, 3):
        other = replace(unverified, manifest=replace(unverified.manifest, rank=rank))
        with pytest.raises(BundleError, match=r"weights.pt must hold 2 CDMAM members"):
            other.model()
    weights.unlink()
    with pytest.raises(BundleError, match=r"must hold weights.pt, which is missing"):
        Bundle.load(copy)
    manifest = copy / "bundle.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format_version": 9}))
    with pytest.raises(BundleError, match="format must be 2, got 9"):
        Bundle.load(copy)
    manifest.write_text("{")
    with pytest.raises(BundleError, match=r"readable bundle.json, got JSONDecodeError"):
        Bundle.load(copy)


@pytest.mark.parametrize("form", ["zip", "directory"])
def test_archives_carry_handler_bundle_and_library(exported, tmp_path, form):
    """Both forms hold TorchServe's manifest, the handler, every file of the bundle and the library's code."""
    made = archive(exported, tmp_path / "store", form=form)
    if form == "zip":
        assert made.name == "cdmam-1.0.mar"
        with zipfile.ZipFile(made) as opened:
            names, manifest = set(opened.namelist()), opened.read("MAR-INF/MANIFEST.json")
    else:
        names = {str(file.relative_to(made)) for file in made.rglob("*") if file.is_file()}
        manifest = (made / "MAR-INF" / "MANIFEST.json").read_bytes()
    assert json.loads(manifest)["model"]["modelVersion"] == "1.0"
    expected = {
        "model_handler.py",
        "model-config.yaml",
        "bundle.json",
        "radlens/bundles/__init__.py",
        "radlens/families/cdmam/service.py",
    }
    assert expected | set(exported.manifest.files) <= names


def test_archives_that_cannot_be_made_are_refused(exported, tmp_path, monkeypatch):
    """Unknown form, no handler, no archiver, and an archiver that fails."""
    with pytest.raises(InvalidParameter, match="one of zip, directory, got 'tar'"):
        archive(exported, tmp_path, form="tar")
    with pytest.raises(BundleError, match=r"must hold model_handler.py, which is missing"):
        archive(exported, tmp_path, handlers=tmp_path)
