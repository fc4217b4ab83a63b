"""Models of a study: a training run with or without graphs, or a bundle."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from radlens.engines.golden import golden_file
from radlens.errors import BundleError, TrainingError, UnsupportedOperation
from radlens.families.classifier.manifest import ClassifierBundle
from radlens.graphs import asks
from radlens.studies import CaseSet, StudyModel, bundle_model, class_methods, is_bundle, run_model


def test_a_run_tells_what_it_is(model: StudyModel, run_folder: Path) -> None:
    """Name, classes and task come from its record; weights decide its identity."""
    assert (model.name, model.title, model.task) == ("ultrasound-resnet", "ResNet-18", "ultrasound")
    assert model.classes == ("benign", "malignant")
    assert model.positive == 1
    assert model.methods == class_methods()
    assert {"cam", "lime", "integrated_gradients"} <= set(model.methods)
    assert "omig" not in model.methods
    again = run_model(run_folder)
    assert again.identity == model.identity
    with torch.no_grad():
        again.networks[0].head.bias.add_(1)
    changed = run_model(run_folder)
    assert changed.identity == model.identity
    assert not is_bundle(run_folder)


@pytest.fixture(scope="module")
def compiled(run_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyModel, Path, list[Any]]:
    """The same run with one of its graphs, their folder, and what was told while they were made."""
    folder, told = tmp_path_factory.mktemp("graphs"), []
    with pytest.MonkeyPatch.context() as patch:
        # Each graph takes seconds to make; the others are torch's then.
        patch.setattr("radlens.graphs.asks.answerable", lambda companions: ("prediction",))
        found = run_model(run_folder, folder, engine="onnxruntime", on_progress=lambda *at: told.append(at))
    return found, folder, told


@pytest.mark.slow
def test_graphs_compute_what_the_module_does(
    compiled: tuple[StudyModel, Path, list[Any]], model: StudyModel, cases: CaseSet
) -> None:
    """What the files compute equals torch's; what has no graph is torch's."""
    graphs, _, told = compiled
    images, targets = torch.stack([case.image for case in cases[:3]]), torch.tensor([1, 0, 1])
    for name in ("score", *asks.answerable({})):
        examples = {} if name == asks.SCORE else asks.spec(name).examples
        arrays = {"images": images} | {each: make(images) for each, make in examples.items()}
        answers = (each.classifier.ask(name, targets, **arrays) for each in (graphs, model))
        for found, expected in zip(*answers, strict=True):
            # float32 sums in another order; multipliers of DeepLIFT divide by small differences.
            share = 1e-3 if name == "deep_lift" else 1e-5
            torch.testing.assert_close(found, expected, rtol=1e-3, atol=share * float(expected.abs().max()))
    np.testing.assert_allclose(graphs.probability(images), model.probability(images), rtol=1e-5)
    assert told == [(told[0][0], done, 1) for done in (0, 1)]
    missing = [note.partition(" is computed")[0] for note in graphs.notes]
    assert missing == ["gradient", "guided", "features", "deep_lift", "lrp_epsilon", "lrp_deep_taylor"]


def test_graphs_are_made_once(
    compiled: tuple[StudyModel, Path, list[Any]], run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second opening compiles nothing; no half-written file lies around."""
    _, folder, _ = compiled
    monkeypatch.setattr("radlens.graphs.asks.answerable", lambda companions: ("prediction",))
    monkeypatch.setattr("radlens.graphs.ClassifierGraphs.to_onnx", lambda *_: pytest.fail("it was made before"))
    monkeypatch.setattr("radlens.graphs.ClassifierGraphs.build", lambda *_: pytest.fail("it was made before"))
    run_model(run_folder, folder, engine="onnxruntime")
    assert {file.suffix for file in folder.rglob("*") if file.is_file()} <= {".onnx", ".npz"}


def test_torch_stands_in_for_a_graph(
    run_folder: Path, model: StudyModel, cases: CaseSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a graph cannot be made the module computes, and a reader is told; without a prediction all is torch's."""

    def refuse(self: object, name: str, path: object) -> None:
        raise UnsupportedOperation(f"{name} holds an operation that cannot be compiled")

    images, targets = torch.stack([case.image for case in cases[:2]]), torch.tensor([1, 1])
    monkeypatch.setattr("radlens.graphs.ClassifierGraphs.to_onnx", refuse)
    found = run_model(run_folder, tmp_path)
    assert found.notes == ["computed by torch: prediction holds an operation that cannot be compiled"]
    torch.testing.assert_close(found.classifier.outputs(images), model.classifier.outputs(images))

    real_graphs = {"prediction", "gradient"}

    def some(self: object, name: str, path: Path) -> None:
        if name not in real_graphs:
            refuse(self, name, path)
        path.write_bytes(b"no graph")
        golden_file(path).write_bytes(b"no values")

    monkeypatch.setattr("radlens.graphs.ClassifierGraphs.to_onnx", some)
    found = run_model(run_folder, tmp_path)
    assert [note for note in found.notes if note.startswith("guided is computed by torch: guided holds")]
    guided, expected = (each.classifier.ask("guided", targets, images=images) for each in (found, model))
    torch.testing.assert_close(guided, expected)
    # A file that no engine can run is no graph either.
    torch.testing.assert_close(found.classifier.outputs(images), model.classifier.outputs(images))
    assert found.notes[-1].startswith("prediction is computed by torch: ")
    n_notes = len(found.notes)
    found.classifier.score(images, targets)
    assert len(found.notes) == n_notes


def test_a_bundle_tells_what_it_allows(classifier: ClassifierBundle) -> None:
    """Methods, classes and identity are the bundle's; it has no modules."""
    assert is_bundle(classifier.path)
    found = bundle_model(classifier.path)
    assert found.methods == classifier.manifest.explainers
    assert found.identity == classifier.bundle_hash
    assert found.networks == ()
    assert found.task is None
    assert found.positive == 2
    assert found.probability(torch.zeros(2, *found.input.image_shape)).shape == (2,)


def test_folders_that_are_neither(tmp_path: Path) -> None:
    """No finished run, no bundle."""
    with pytest.raises(TrainingError, match=r"a finished training run must hold training\.json"):
        run_model(tmp_path)
    with pytest.raises(BundleError, match=r"bundle must hold a readable bundle\.json"):
        bundle_model(tmp_path)
