"""The study of planted causes, with classifiers of seconds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from radlens.errors import InvalidParameter
from radlens.networks import ClassifierNetwork
from radlens.studies import PlantedOptions, reproduce_planted
from radlens.studies import planted as study
from radlens.studies.planted import RECORD_FILE, Measured, cause_summary

TINY = PlantedOptions(
    causes=("marker",), methods=("cam", "saliency"), n_networks=1, n_training=64, epochs=3, n_test=20, n_explained=3
)


def bright(*_: Any) -> ClassifierNetwork:
    """A network that knows markers: it adds up what is nearly white."""
    network = ClassifierNetwork(nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU()), nn.Linear(1, 2))
    with torch.no_grad():
        network.features[0].weight[:], network.features[0].bias[:] = 1.0, -2.5
        network.head.weight[:], network.head.bias[:] = torch.tensor([[0.0], [1e4]]), torch.tensor([0.0, -1.0])
    return network.eval()


def test_the_study_writes_page_results_and_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record is a module that can replace the shipped one; a second run computes nothing again."""
    monkeypatch.setattr(study, "_trained", bright)
    files = reproduce_planted(tmp_path, TINY)
    assert files[0].name == "index.html"
    space: dict[str, object] = {}
    exec((tmp_path / RECORD_FILE).read_text(encoding="utf-8"), space)
    record = space["RECORD"]
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert record["causes"]["marker"] == results["marker"]  # type: ignore[index]
    found = results["marker"]
    assert found["methods"]["cam"]["n_hits"] == found["methods"]["cam"]["n"] == 3
    assert found["methods"]["cam"]["share"] > 0.9
    assert found["flipped"] > 0.8
    assert set(found["methods"]) == {"cam", "saliency"}
    assert set(found["baselines"]) == {"image", "centre", "random"}
    assert found["n_test"] == 20
    assert found["auc_without_low"] <= found["auc_without"] <= found["auc_without_high"]
    page = files[0].read_text(encoding="utf-8")
    assert "marker in a corner" in page
    assert "baseline: image as map" in page
    monkeypatch.setattr(study, "_measure_network", lambda *_: pytest.fail("nothing is left to compute"))
    reproduce_planted(tmp_path, TINY)


def test_numbers_are_counted_over_all_networks() -> None:
    """Hits, areas and AUC of two networks by hand; without the cause nothing tells the classes."""
    labels = np.array([False, True, False, True])
    guesses = {"image": np.array([0.0, 0.0]), "centre": np.array([1.0, 0.0]), "random": np.array([0.0, 0.0])}
    parts = [
        Measured(
            np.array([-1.0, 2.0, -1.5, 1.0]),
            np.array([-1.0, -1.0, -1.5, -1.5]),
            labels,
            np.array([True, number == 0]),
            np.array([0.1, 0.3]),
            {"cam": np.array([1.0, float(number)]), **guesses},
            {"cam": np.array([0.5, 0.7])},
        )
        for number in range(2)
    ]
    found = cause_summary(parts)
    assert (found["auc"], found["auc_without"], found["flipped"]) == (1.0, 0.5, 0.75)
    assert (found["area"], found["best_baseline"]) == (0.2, "centre")
    assert found["baselines"]["centre"]["rate"] == 0.5
    cam = found["methods"]["cam"]
    assert (cam["n_hits"], cam["n"], cam["share"]) == (3, 4, 0.6)
    assert cam["p"] == 0.5  # one image differs from the baseline: either sign


@pytest.mark.slow
def test_training_learns_the_density() -> None:
    """A network of a few steps tells dense breasts from fatty ones better than chance, whose loss is 0.69."""
    options = PlantedOptions(n_training=96, epochs=8)
    network = study._trained("density", 0, options, lambda *_: None)
    images = study._drawn("density", (0, 0, 1), 96)
    with torch.no_grad():
        logits = network(study._tensor("density", [image.pixels for image in images]))
    labels = torch.tensor([int(image.positive) for image in images])
    assert nn.functional.cross_entropy(logits, labels) < 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"causes": ()}, "causes must be among shadow, margin, marker, density, got none"),
        ({"causes": ("hair",)}, "causes must be among shadow, margin, marker, density, got hair"),
        ({"n_networks": 0}, "n_networks must be at least 1, got 0"),
        ({"n_training": 8}, "n_training must be at least 32, got 8"),
    ],
)
def test_options_out_of_range(options: dict[str, object], message: str) -> None:
    """Each is named with what was expected."""
    with pytest.raises(InvalidParameter, match=message):
        PlantedOptions(**options)  # type: ignore[arg-type]
