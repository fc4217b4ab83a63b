"""Training of a network that proposes counterfactual masks, from search to service."""

import json

import pytest
import torch
from spots import SHAPE, Even, Spot, draw

from radlens.client import Client
from radlens.datasets import ModelInput
from radlens.errors import InvalidInput, InvalidParameter, TrainingError, UnsupportedMethod
from radlens.explainers import CounterfactualFast, EagerClassifier
from radlens.families.classifier.distilling import Distilling, WithProposer, distil
from radlens.families.classifier.fingerprint import network_hash
from radlens.families.classifier.making import bundle_classifier
from radlens.families.companions import load_companions, trained_for
from radlens.families.companions.proposer import load_proposer
from radlens.images import to_npy
from radlens.local import LocalTransport

INPUT = ModelInput(SHAPE)
RECIPE = Distilling(n_images=20, epochs=12, width=4)
ORIGIN = {
    "classifier": {
        "name": "spots",
        "version": "1.0",
        "network_hash": network_hash([Spot()]),
        "classes": ["plain", "spot"],
    },
    "images": "made here",
    "model_input": INPUT.to_json(),
}


def model():
    """Return the classifier with its inpainter."""
    return EagerClassifier(Spot(), (1, *SHAPE), companions={"inpainter": Even()})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run."""
    folder = tmp_path_factory.mktemp("proposer")
    distil(folder, model(), draw, RECIPE, classes=[1], origin=ORIGIN)
    return folder


def test_proposals_for_unseen_images_replace_the_spot(run):
    """They change the class, lie on the spot, and are empty where there is none."""
    network, record = load_proposer(run)
    found = record["evaluation"]["1"]
    assert found["searched"]["n_of_class"] == 2
    assert found["searched"]["changes_class"] == 1
    assert found["refined"]["changes_class"] == 1
    assert found["refined"]["iou"] > 0.3
    assert found["searched"]["searched_empty"] == 0
    assert record["classifier"] == ORIGIN["classifier"]
    image = draw(101)
    (each,) = CounterfactualFast(refine=8).explain(WithProposer(model(), network), torch.from_numpy(image)[None], [1])
    mask = each.pictures["mask"][0].numpy() > 0
    assert each.numbers["changes_class"]
    assert (image[0][mask] > 5).mean() > 0.5
    # Nothing is proposed for tissue without a spot, before the classifier is asked.
    (plain,) = CounterfactualFast().explain(WithProposer(model(), network), torch.from_numpy(draw(100))[None], [1])
    assert float(plain.map.max()) < 0.5 < float(each.map.max())


def test_a_run_continues_where_it_was_interrupted(run, tmp_path):
    """In the search and in the training; the network is the one of an uninterrupted run."""
    stages = []

    class Stop(Exception):
        """Somebody stopped the run."""

    def stop_at(stage, done):
        def report(told, at, total):
            stages.append((told, at))
            if (told, at) == (stage, done):
                raise Stop

        return report

    for stage, done in (("searching masks", 8), ("training", 5)):
        with pytest.raises(Stop):
            distil(tmp_path, model(), draw, RECIPE, classes=[1], origin=ORIGIN, on_progress=stop_at(stage, done))
    stages.clear()
    distil(tmp_path, model(), draw, RECIPE, classes=[1], origin=ORIGIN, on_progress=lambda *told: stages.append(told))
    assert ("training", 4, 12) not in stages
    assert ("training", 5, 12) in stages
    expected, found = (load_proposer(folder)[0].state_dict() for folder in (run, tmp_path))
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_runs_that_cannot_be_are_named(run, tmp_path):
    """Another recipe, a model without inpainter, nothing to learn, and numbers out of range."""
    with pytest.raises(TrainingError, match="run of another recipe"):
        distil(run, model(), draw, Distilling(n_images=30), classes=[1], origin=ORIGIN)
    alone = EagerClassifier(Spot(), (1, *SHAPE))
    with pytest.raises(UnsupportedMethod, match="companion network, inpainter"):
        distil(tmp_path / "a", alone, draw, RECIPE, classes=[1], origin=ORIGIN)
    few = Distilling(n_images=10)
    with pytest.raises(TrainingError, match="it found none in 10 images"):
        distil(tmp_path / "b", model(), lambda number: draw(2 * number), few, classes=[1], origin=ORIGIN)
    with pytest.raises(InvalidParameter, match="n_images must be at least 10, got 9"):
        Distilling(n_images=9)
    with pytest.raises(InvalidParameter, match="learning_rate must be above 0"):
        Distilling(learning_rate=0.0)
    with pytest.raises(TrainingError, match="finished run of radlens companion proposer"):
        load_proposer(tmp_path / "a")


@pytest.mark.slow
def test_a_proposer_is_a_companion_of_its_classifier(run, tmp_path):
    """From the run to a bundle whose service explains a recording in one pass; other images are refused."""
    beside = load_companions({"proposer": run}, INPUT)
    assert beside["proposer"].origin["name"] == "proposer of spots"
    with pytest.raises(InvalidParameter, match=r"the proposer must take the images.*shape \(64, 32\), got \(48, 32\)"):
        load_companions({"proposer": run}, ModelInput((64, 32)))
    other = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(SHAPE[0] * SHAPE[1], 2))
    assert trained_for(beside) == {"proposer": network_hash([Spot()])} != {"proposer": network_hash([other])}
    bundle = bundle_classifier(
        [Spot()],
        tmp_path / "bundle",
        name="spots",
        version="1.0",
        classes=["plain", "spot"],
        model_input=ModelInput(SHAPE, scaling="fixed", mean=(0.0,), std=(1.0,)),
        companions={"inpainter": Even(), "proposer": beside["proposer"].network},
        trained_for=trained_for(beside),
        origins={"proposer": beside["proposer"].origin},
        randomise=False,
    )
    assert "counterfactual_fast" in bundle.manifest.explainers
    with Client("http://local", model="spots", transport=LocalTransport(bundle)) as client:
        answer = client.explain(to_npy(draw(101)[0]), method="counterfactual_fast", refine=8, target=1)
        assert answer["explanation"]["numbers"]["changes_class"]
        assert answer["explanation"]["pictures"]["mask"].sum() > 0
        with pytest.raises(InvalidInput, match="a class that the proposer was trained for"):
            client.explain(to_npy(draw(101)[0]), method="counterfactual_fast", target=0)


def test_the_record_is_json_that_states_the_recipe(run):
    """Number of images, epochs, seconds and versions."""
    record = json.loads((run / "training.json").read_text("utf-8"))
    assert record["recipe"]["n_images"] == 20
    assert record["seconds"]["search for a mask"] > 0
    assert record["seconds"]["training"] > 0
    assert record["versions"]["torch"] == torch.__version__
