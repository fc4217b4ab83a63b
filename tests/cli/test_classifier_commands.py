"""Commands with classifiers: ``radlens predict``, ``explain``, ``engines`` and ``parity``."""

import json
import os

import numpy as np
import PIL.Image
import pydicom
import pytest
from archives import make_archive
from local_server import serving
from sample_images import dicom, noise

from radlens import local
from radlens.families import open_service
from radlens.families.classifier.manifest import ClassifierBundle, save_classifier
from radlens.images import to_npy
from radlens.server import Pid, Ports, State


@pytest.fixture(autouse=True, scope="module")
def _engine():
    """No time is spent on measuring engines."""

    def opened(bundle, **options):
        return open_service(bundle, engine="onnxruntime" if isinstance(bundle, ClassifierBundle) else None, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "open_service", opened)
        yield


@pytest.fixture(scope="module")
def url(classifier):
    """A server of the classifier; its key is ``secret``."""
    with serving(classifier) as found:
        yield found


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """A DICOM image."""
    file = tmp_path_factory.mktemp("images") / "scan.dcm"
    file.write_bytes(dicom(noise((50, 40))))
    return file


@pytest.fixture(scope="module")
def array(tmp_path_factory):
    """The same pixels without a header."""
    file = tmp_path_factory.mktemp("images") / "scan.npy"
    file.write_bytes(to_npy(noise((50, 40))))
    return file


def rows_of(text):
    """Return the cells of every row of a table."""
    return [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if line[:1] == "│"]


OCCLUSION = ("--method", "occlusion", "--window", "8", "--stride", "5")


def test_predict_prints_a_table_of_classes(run, scan, classifier):
    """The most probable first; the note on stderr says which model it was."""
    result = run("predict", scan, "--bundle", classifier.path)
    assert result.exit_code == 0, result.stderr
    found = rows_of(result.stdout)
    assert {name for name, _ in found} == {"normal", "benign", "malignant"}
    probabilities = [float(value) for _, value in found]
    assert probabilities == sorted(probabilities, reverse=True)
    assert sum(probabilities) == pytest.approx(1, abs=2e-4)
    assert f"Predicted: {found[0][0]}" in result.stdout
    assert f"computing here with lesions 1.0 ({classifier.bundle_hash[:12]})" in result.stderr


def test_predict_prints_the_spread_of_members(run, scan, classifier_pair):
    """And the warnings of the service."""
    result = run("predict", scan, "--bundle", classifier_pair.path)
    assert result.exit_code == 0, result.stderr
    assert all(0 <= float(spread) < 0.5 for _, _, spread in rows_of(result.stdout))
    assert any(float(spread) > 0 for _, _, spread in rows_of(result.stdout))


def test_predictions_of_classes_are_json(run, scan, classifier, tmp_path):
    """On stdout and in files; there is no curve to draw."""
    result = run("predict", scan, "--bundle", classifier.path, "--json", "-o", "new/p.json")
    assert json.loads(result.stdout) == json.loads((tmp_path / "new" / "p.json").read_text())
    assert json.loads(result.stdout)["prediction"]["classes"] == ["normal", "benign", "malignant"]
    refused = run("predict", scan, "--bundle", classifier.path, "-o", "p.png")
    assert refused.exit_code == 2
    assert "error: --output must be .json for models of task classification, which draw no picture" in refused.stderr


def test_explain_writes_map_and_pictures(run, scan, classifier, tmp_path):
    """All on the grid of the image; a DICOM image gets a Secondary Capture of its study."""
    result = run("explain", scan, *OCCLUSION, "--target", "malignant", "-o", "out", "--bundle", classifier.path)
    assert result.exit_code == 0, result.stderr
    out = tmp_path / "out"
    files = {"map.npy", "map.png", "overlay.png", "overlay.dcm", "explanation.json"}
    assert {file.name for file in out.iterdir()} == files
    assert np.load(out / "map.npy").shape == (50, 40)
    for name in ("map.png", "overlay.png"):
        with PIL.Image.open(out / name) as drawn:
            assert (drawn.size, drawn.mode) == ((40, 50), "RGB")
    answer = json.loads((out / "explanation.json").read_text())
    assert answer["explanation"]["target_class"] == "malignant"
    assert answer["provenance"]["explainer"]["parameters"]["window"] == 8
    assert "map" not in answer["explanation"]
    made = pydicom.dcmread(out / "overlay.dcm")
    assert made.StudyInstanceUID == pydicom.dcmread(scan).StudyInstanceUID
    assert made.SeriesDescription == "radlens Occlusion of malignant (picture)"


def test_explain_shows_where_members_disagree(run, array, classifier_pair, tmp_path):
    """Their maps, mean and standard deviation; an image without a header gets no DICOM answer."""
    result = run("explain", array, *OCCLUSION, "--members", "each", "-o", "out", "--bundle", classifier_pair.path)
    assert result.exit_code == 0, result.stderr
    out = tmp_path / "out"
    assert {file.name for file in out.iterdir()} == {
        *("map.npy", "map.png", "overlay.png", "explanation.json"),
        *("members.npy", "members.png", "disagreement.npy", "disagreement.png"),
    }
    maps = np.load(out / "members.npy")
    np.testing.assert_allclose(np.load(out / "map.npy"), maps.mean(axis=0), rtol=1e-5, atol=1e-9)
    np.testing.assert_allclose(np.load(out / "disagreement.npy"), maps.std(axis=0), atol=1e-7)
    assert "members" not in json.loads((out / "explanation.json").read_text())["explanation"]


@pytest.fixture(scope="module")
def recorded(classifier, tmp_path_factory):
    """The classifier with a parity report, and what its export found when weights were randomised."""
    import shutil
    from dataclasses import replace

    folder = shutil.copytree(classifier.path, tmp_path_factory.mktemp("recorded") / "bundle")
    record = {"layers": ["7", "3", "0"], "spearman": [0.5, 0.2, 0.125], "ssim": [0.4, 0.1, None]}
    return save_classifier(
        folder,
        replace(
            classifier.manifest,
            randomisation={"integrated_gradients": record},
            parity={"member-0": {"prediction": 1.5e-7, "gradient": 2.5e-6}},
        ),
    )


def test_explain_prints_the_trust_card(run, array, recorded, tmp_path):
    """On stderr, and as a file; what the bundle knows of the method is among it."""
    result = run("explain", array, "--n-steps", "5", "--trust", "-o", "out", "--bundle", recorded.path)
    assert result.exit_code == 0, result.stderr
    card = json.loads((tmp_path / "out" / "trust.json").read_text())
    printed = {name: value for name, value, _ in rows_of(result.stderr)}
    assert float(printed["deletion"]) == pytest.approx(card["deletion"], abs=1e-4)
    assert float(printed["insertion"]) == pytest.approx(card["insertion"], abs=1e-4)
    assert float(printed["infidelity"]) == pytest.approx(card["infidelity"], rel=0.01)
    assert float(printed["convergence delta"]) == pytest.approx(card["convergence_delta"], rel=0.01)
    assert (printed["randomised, spearman"], printed["randomised, ssim"]) == ("0.125", "none")
    assert result.stdout == ""


def test_a_card_without_delta_and_record_is_shorter(run, array, classifier, tmp_path):
    """Three measures every map has, and what is known of the method itself."""
    result = run("explain", array, "--method", "cam", "--trust", "-o", "out", "--bundle", classifier.path)
    names = [name for name, *_ in rows_of(result.stderr) if name]
    assert names[:3] == ["deletion", "insertion", "infidelity"]
    assert all(name.startswith("planted cause, ") for name in names[3:])


def test_any_parameter_can_be_given(run, array, classifier, tmp_path):
    """By name, where there is no option of its own."""
    given = ("-p", "n_draws=3", "--parameter", "noise=0.2", "--seed", "4")
    result = run("explain", array, "--method", "smooth_grad", *given, "-o", "out", "--bundle", classifier.path)
    assert result.exit_code == 0, result.stderr
    stated = json.loads((tmp_path / "out" / "explanation.json").read_text())["provenance"]["explainer"]
    parameters = {"n_draws": 3, "noise": 0.2, "absolute": False, "seed": 4, "internal_batch_size": None}
    assert (stated["method"], stated["parameters"]) == ("smooth_grad", parameters)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--method", "deep_lift"], "method deep_lift does not work with this model: the model has no graph of what"),
        (["--method", "lrb"], "method must be one of cam, grad_cam, integrated_gradients, lime, occlusion"),
        (["--target", "healthy"], "target must be predicted, or one of normal, benign, malignant, or its number"),
        (["--members", "each"], "members must be mean and output must not be disagreement for a model with one member"),
        (["--members", "some"], "members must be one of mean, each, got 'some'"),
        (["--upsample", "5"], "parameters of explanations by integrated_gradients are method, target, members"),
        (["-p", "colour=red"], "parameters of explanations by integrated_gradients are method, target, members"),
        (["-p", "n_steps"], "--parameter must be NAME=VALUE, got 'n_steps'"),
        (["-p", "n steps=3"], "--parameter must be NAME=VALUE, got 'n steps=3'"),
        (["-p", "n_steps=3", "--n-steps", "4"], "n_steps must be given once, got it twice"),
        (["-p", "n_steps=3", "-p", "n_steps=4"], "n_steps must be given once, got it twice"),
        (["-p", "n_steps=ä"], "n_steps must be printable ASCII"),
        (["--checkpoint", "run.npz"], "checkpoint must not be given for models of task classification"),
        (["--upsample", "9", "--workers", "2"], "--workers needs a model that is explained with many samples"),
    ],
)
def test_refuses_what_the_model_does_not_know(run, array, classifier, tmp_path, options, message):
    """The service's message is the command's, the exit code 2, and nothing is written."""
    result = run("explain", array, *options, "-o", "out", "--bundle", classifier.path)
    assert result.exit_code == 2, result.stderr
    assert result.stderr.splitlines()[-1].startswith(f"error: {message}")
    assert not (tmp_path / "out").exists()


def test_options_of_classes_are_refused_by_other_models(run, noise, bundle):
    """By the service of CDMAM."""
    for options in (["--trust"], ["--target", "1"]):
        result = run("explain", noise, *options, "-o", "out", "--bundle", bundle.path)
        assert result.exit_code == 2
        assert f"parameters of explanations by omig are .*; got {options[0][2:]!r}".split(" .*")[0] in result.stderr


def test_server_and_local_give_the_same(run, scan, classifier, url, tmp_path):
    """The model is named, or the server is asked which one it has."""
    server = ("--server", url, "--token", "secret", "--model", "lesions")
    asked = run("predict", scan, *server, "--json")
    assert asked.exit_code == 0, asked.stderr
    here = run("predict", scan, "--bundle", classifier.path, "--json")
    assert json.loads(asked.stdout)["prediction"] == json.loads(here.stdout)["prediction"]
    for folder, source in (("asked", server), ("here", ("--bundle", classifier.path))):
        assert run("explain", scan, "--method", "cam", "--trust", "-o", folder, *source).exit_code == 0
    np.testing.assert_array_equal(*(np.load(tmp_path / folder / "map.npy") for folder in ("asked", "here")))
    assert (tmp_path / "asked" / "trust.json").exists()
    refused = run("explain", scan, "--method", "deep_lift", "-o", "no", *server)
    assert (refused.exit_code, "methods that do are cam, grad_cam" in refused.stderr) == (2, True)
    ranges = run("explain", scan, "--checkpoint", "run.npz", "-o", "no", *server)
    assert (ranges.exit_code, "got 'n_samples' and 1 more" in ranges.stderr) == (2, True)
    unnamed = run("predict", scan, *server[:-2], "--json")
    assert json.loads(unnamed.stdout)["prediction"] == json.loads(here.stdout)["prediction"]
    unknown = run("predict", scan, *server[:-1], "cdmam")
    assert unknown.exit_code == 2
    assert "model must be lesions/1.0, the model of this bundle, got cdmam" in unknown.stderr


@pytest.mark.parametrize(("models", "code"), [(("lesions",), 0), (("lesions", "other"), 2)])
def test_the_only_model_of_a_server_needs_no_name(run, scan, url, tmp_path, models, code):
    """Of several one must be named: the server is not asked."""
    workdir, me = tmp_path / ".run", Pid.of(os.getpid())
    workdir.mkdir()
    State(workdir, me, me, Ports(gateway=int(url.rpartition(":")[2])), models).save()
    keys = {kind: {"key": "secret"} for kind in ("inference", "management")}
    (workdir / "key_file.json").write_text(json.dumps(keys))
    result = run("predict", scan)
    assert result.exit_code == code, result.stderr
    assert (f"asking {url}" in result.stderr, "Predicted: " in result.stdout) == (code == 0, code == 0)
    assert ("--model must name one of lesions, other" in result.stderr) is (code == 2)


def test_a_model_of_the_store_can_be_named(run, array, classifier, bundle, tmp_path):
    """``--local --model``; without a name the newest bundle of any model computes."""
    store = tmp_path / "model_store"
    store.mkdir()
    make_archive(classifier, store / "a.mar")
    make_archive(bundle, store / "b.mar")
    result = run("predict", array, "--local", "--model", "lesions")
    assert result.exit_code == 0, result.stderr
    assert "Predicted: " in result.stdout
    assert "from model_store/a.mar" in result.stderr
    assert "computing here with cdmam" in run("predict", array, "--local").stderr
    missing = run("predict", array, "--local", "--model", "other")
    assert (missing.exit_code, "model_store must hold a bundle or an archive" in missing.stderr) == (3, True)


def test_commands_of_cdmam_refuse_a_classifier(run, noise, classifier):
    """And say which they got."""
    result = run("figures", noise, "-o", "figures", "--bundle", classifier.path)
    assert result.exit_code == 3
    assert "the bundle must be of a contrast-detail model, got lesions of task classification" in result.stderr


def test_engines_are_measured_with_each_graph(run, classifier):
    """The fastest engine of each graph first; an archive's are those of its bundle."""
    result = run("engines", classifier.path, "--memory-limit", "1G")
    assert result.exit_code == 0, result.stderr
    found = rows_of(result.stdout)
    graphs = [f"member-0.{name}" for name in classifier.manifest.graphs]
    assert list(dict.fromkeys(graph for graph, *_ in found)) == graphs
    for graph in graphs:
        times = [float(ms) for name, _, _, ms, _ in found if name == graph]
        assert times == sorted(times)
    assert {"onnxruntime", "openvino", "torch"} <= {engine for _, engine, *_ in found}
    assert "the first engine of each graph computes it, in f32" in result.stderr


def test_parity_of_a_classifier(run, recorded):
    """What the export measured, by member and graph; or every engine, here."""
    result = run("parity", recorded.path)
    assert result.exit_code == 0, result.stderr
    expected = [["member-0", "prediction", "1.5e-07"], ["member-0", "gradient", "2.5e-06"]]
    assert rows_of(result.stdout) == expected
    result = run("parity", recorded.path, "--here")
    assert result.exit_code == 0, result.stderr
    assert all(f"member-0.{graph}.onnx" in result.stdout for graph in recorded.manifest.graphs)
    assert {"onnxruntime f32", "openvino f32", "torch f32"} <= {form for form, *_ in rows_of(result.stdout)}
