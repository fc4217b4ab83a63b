"""Faithfulness of all maps of a study, against the measures of the library called one by one."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from fake_model import FakeModel
from torch import Tensor

from radlens import evaluation
from radlens.explainers import probabilities
from radlens.studies import CaseSet, Effort, MapSet, Store, StudyModel, explain_cases, measure_faithfulness
from radlens.studies.faithfulness import RANDOM, cheaper
from radlens.studies.maps import methods_of

EFFORT = Effort(n_steps=4, n_squares=6, n_noisy=2, seed=3)


@pytest.fixture
def maps(model: StudyModel, cases: CaseSet, store: Store) -> MapSet:
    """Maps of a method with channels and one without, of two images and different targets."""
    methods = methods_of(["saliency", "occlusion"], {"occlusion": {"window": 8, "stride": 8}})
    return explain_cases(model, cases, {1: 1, 2: 0}, methods, store)


def test_measures_are_those_of_the_library(maps: MapSet, model: StudyModel, cases: CaseSet) -> None:
    """Curves are of the probability of the target, infidelity of its logit with maps scaled to fit best."""
    found = measure_faithfulness(maps, [1, 2], EFFORT)
    assert list(found.methods) == ["saliency", "occlusion", RANDOM]
    np.testing.assert_allclose(found.fractions, [0, 0.25, 0.5, 0.75, 1])
    for row, (index, target) in enumerate(maps.targets.items()):
        image = cases[index].image[None]
        classes = torch.tensor([target])

        def probability(copies: Tensor, target: int = target) -> Tensor:
            return probabilities(model.classifier.outputs(copies))[:, target]

        def score(copies: Tensor, classes: Tensor = classes) -> Tensor:
            return model.classifier.score(copies, classes.expand(len(copies)))

        squares = {"n_samples": 6, "seed": 3}
        for name, method in maps.methods.items():
            values, of = torch.from_numpy(maps.parts(name, index))[None], found.methods[name]
            for measure in ("deletion", "insertion"):
                expected = getattr(evaluation, measure)(probability, image, values, n_steps=4).scores[0]
                np.testing.assert_allclose(getattr(of, measure)[row], expected, rtol=1e-5)
            expected = evaluation.infidelity(score, image, values, normalize=True, **squares)
            np.testing.assert_allclose(of.infidelity[row], float(expected), rtol=1e-3)
            noisy = evaluation.max_sensitivity(
                partial(method.attribute, model.classifier, targets=target),
                image,
                n_samples=2,
                seed=3,
            )
            np.testing.assert_allclose(of.max_sensitivity[row], float(noisy), rtol=1e-3)
        expected = evaluation.infidelity(score, image, torch.zeros_like(image), **squares)
        np.testing.assert_allclose(found.infidelity_of_zero[row], float(expected), rtol=1e-3)
    control = found.methods[RANDOM]
    assert control.deletion.shape == (2, 5)
    assert control.infidelity.size == control.max_sensitivity.size == 0


def test_a_map_of_zeros_is_measured(maps: MapSet) -> None:
    """It cannot be scaled to fit, and has the infidelity of no map."""

    class Zeros(MapSet):
        def parts(self, method: str, index: int) -> np.ndarray:
            """Return nothing."""
            return np.zeros((1, 32, 32), dtype=np.float32)

    zeros = Zeros(maps.model, maps.cases, maps.methods, maps.targets, maps.store, "zeros")
    found = measure_faithfulness(zeros, [1], replace(EFFORT, n_noisy=0))
    np.testing.assert_allclose(found.methods["saliency"].infidelity, found.infidelity_of_zero)
    assert found.methods["saliency"].max_sensitivity.size == 0


def test_several_channels_share_a_whole(model: StudyModel, cases: CaseSet, store: Store) -> None:
    """A method that treats channels as one has the same measures for a grey image sent as three channels."""

    class Colour(FakeModel):
        n_outputs, image_shape = 1, (3, 32, 32)

        def outputs(self, images: Tensor) -> Tensor:
            """Look at the mean of the channels."""
            return model.classifier.outputs(images.mean(dim=1, keepdim=True))

        def score(self, images: Tensor, targets: Tensor) -> Tensor:
            """Look at the mean of the channels."""
            return model.classifier.score(images.mean(dim=1, keepdim=True), targets)

    class Colours:
        def __getitem__(self, index: int) -> object:
            """Return an image of three equal channels."""
            case = cases[index]
            return replace(case, image=case.image.expand(3, -1, -1).contiguous())

        key = cases.key

    methods = methods_of(["occlusion"], {"occlusion": {"window": 8, "stride": 8}})
    grey = explain_cases(model, cases, {1: 1}, methods, store)
    colour_model = replace(model, classifier=Colour(), identity="colour")
    colour = explain_cases(colour_model, Colours(), {1: 1}, methods, store)  # type: ignore[arg-type]
    quiet = replace(EFFORT, n_noisy=0)
    first, second = (measure_faithfulness(maps, [1], quiet).methods["occlusion"] for maps in (grey, colour))
    for measure in ("deletion", "insertion", "infidelity"):
        np.testing.assert_allclose(getattr(first, measure), getattr(second, measure), rtol=1e-4)


def test_what_is_kept_is_not_measured_again(maps: MapSet, model: StudyModel) -> None:
    """An interrupted measurement goes on with the next map; another effort is another measurement."""

    def interrupt(stage: str, done: float, total: float) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_faithfulness(maps, [1, 2], EFFORT, on_progress=interrupt)
    stage = maps.store.folder / "faithfulness" / model.name
    assert len(list(stage.iterdir())) == 2
    told: list[tuple[str, float, float]] = []
    first = measure_faithfulness(maps, [1, 2], EFFORT, on_progress=lambda *at: told.append(at))
    assert len(list(stage.iterdir())) == 6
    assert told[-1] == ("faithfulness, ResNet-18", 6, 6)
    silent = replace(maps, model=replace(model, classifier=None))
    again = measure_faithfulness(silent, [1, 2], EFFORT)
    np.testing.assert_array_equal(first.methods["occlusion"].deletion, again.methods["occlusion"].deletion)
    measure_faithfulness(maps, [1], replace(EFFORT, n_steps=3))
    assert len(list(stage.iterdir())) == 9


def test_slow_methods_are_made_cheaper() -> None:
    """Never more costly than what was asked for; other parameters stay."""
    given = {"integrated_gradients": {"n_steps": 50, "baseline": 0.5}, "lime": {"n_evaluations": 30, "seed": 4}}
    methods = methods_of(["integrated_gradients", "lime", "saliency"], given)
    quick = {name: cheaper(method) for name, method in methods.items()}
    assert quick["integrated_gradients"].n_steps == 20  # type: ignore[attr-defined]
    assert quick["integrated_gradients"].baseline == 0.5  # type: ignore[attr-defined]
    assert quick["lime"] == methods["lime"]
    squares = {"occlusion": {"window": 8, "stride": 3}}
    assert cheaper(methods_of(["occlusion"], squares)["occlusion"]).stride == 8  # type: ignore[attr-defined]
    assert quick["saliency"] == methods["saliency"]
