"""Maps of a study: what each method gives alone, kept, and computed once."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_model import FakeModel
from study_runs import N_TEST

from radlens.errors import InvalidParameter
from radlens.studies import CaseSet, Store, StudyModel, explain_cases, methods_of, score_cases, targets_of
from radlens.studies.maps import MapSet, method_parameters

METHODS = ("saliency", "integrated_gradients", "occlusion", "cam", "lime")
PARAMETERS = {
    "integrated_gradients": {"n_steps": 5},
    "occlusion": {"window": 8, "stride": 4},
    "lime": {"n_evaluations": 12, "n_segments": 9},
}


class Silent:
    """A classifier that must not be asked."""

    def __getattr__(self, name: str) -> None:
        pytest.fail(f"{name} was asked for")


def explained(model: StudyModel, cases: CaseSet, store: Store, targets: dict[int, int]) -> MapSet:
    """Return the maps of a few methods."""
    return explain_cases(model, cases, targets, methods_of(METHODS, PARAMETERS), store)


def test_maps_are_what_each_method_gives_alone(model: StudyModel, cases: CaseSet, store: Store) -> None:
    """Methods that are computed together share calls, not results; each image has its own target."""
    targets = {1: 1, 2: 0}
    found = explained(model, cases, store, targets)
    for name, method in methods_of(METHODS, PARAMETERS).items():
        for index, target in targets.items():
            alone = method.explain(model.classifier, cases[index].image[None], target)[0]
            # Calls of another size sum in another order.
            np.testing.assert_allclose(found.map(name, index), alone.map[0], rtol=1e-4, atol=1e-6)
            assert found.parts(name, index).shape == (1, 32, 32)
            delta = found.delta(name, index)
            assert delta is None if alone.delta is None else delta == pytest.approx(alone.delta, abs=1e-5)


def test_maps_are_computed_once(model: StudyModel, cases: CaseSet, store: Store) -> None:
    """A second run asks the model nothing; another parameter, target or model is another map."""
    told: list[tuple[str, float, float]] = []
    methods = methods_of(METHODS, PARAMETERS)
    first = explain_cases(model, cases, {0: 1, 1: 1}, methods, store, on_progress=lambda *at: told.append(at))
    assert told == [("maps of ResNet-18", done, 2) for done in (0, 1, 2)]
    silent = replace(model, classifier=Silent())
    again = explained(silent, cases, Store(store.folder), {0: 1, 1: 1})
    for name in METHODS:
        np.testing.assert_array_equal(first.map(name, 1), again.map(name, 1))
    n_files = len(list(store.folder.rglob("*.npz")))
    changes = [
        explain_cases(model, cases, {0: 1}, methods_of(["lime"], {"lime": {"seed": 1}}), store),
        explain_cases(model, cases, {0: 0}, methods_of(["saliency"]), store),
        explain_cases(replace(model, identity="another"), cases, {0: 1}, methods_of(["saliency"]), store),
    ]
    assert len(list(store.folder.rglob("*.npz"))) == n_files + len(changes)


def test_the_size_of_calls_is_no_part_of_a_map() -> None:
    """Parameters that do not change a map do not tell maps apart."""
    (method,) = methods_of(["integrated_gradients"], {"integrated_gradients": {"internal_batch_size": 3}}).values()
    assert method_parameters(method) == {"n_steps": 200, "baseline": 0.0}


def test_quick_methods_explain_several_images_together(model: StudyModel, cases: CaseSet, store: Store) -> None:
    """All images share a call; what one of them has already is not asked for."""
    asked: list[int] = []

    class Counting(FakeModel):
        def gradient(self, images: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
            """Count the images."""
            asked.append(len(images))
            return model.classifier.gradient(images, classes)

    methods = methods_of(["saliency"])
    alone = explain_cases(model, cases, {2: 1}, methods, store)
    together = explain_cases(replace(model, classifier=Counting()), cases, dict.fromkeys(range(6), 1), methods, store)
    assert asked == [5]
    np.testing.assert_array_equal(alone.map("saliency", 2), together.map("saliency", 2))


def test_an_interrupted_run_goes_on(
    model: StudyModel, cases: CaseSet, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was finished before the interruption is kept; the rest is computed."""
    monkeypatch.setattr("radlens.studies.maps._CALLS_TOGETHER", 1)

    def interrupt(stage: str, done: float, total: float) -> None:
        if done == 2:
            raise KeyboardInterrupt

    targets = dict.fromkeys(range(4), 1)
    methods = methods_of(["saliency"])
    with pytest.raises(KeyboardInterrupt):
        explain_cases(model, cases, targets, methods, store, on_progress=interrupt)
    assert len(list(store.folder.rglob("*.npz"))) == 2
    asked: list[int] = []

    class Counting(FakeModel):
        def gradient(self, images: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
            """Count the images."""
            asked.append(len(images))
            return model.classifier.gradient(images, classes)

    explain_cases(replace(model, classifier=Counting()), cases, targets, methods, store)
    assert asked == [1, 1]


def test_logits_are_kept(model: StudyModel, cases: CaseSet, store: Store) -> None:
    """Logits of all images, asked for once; they decide what is predicted."""
    logits = score_cases(model, cases, store)
    assert logits.shape == (N_TEST, 1)
    expected = model.classifier.outputs(torch.stack([case.image for case in cases])).numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(score_cases(replace(model, classifier=Silent()), cases, store), logits)
    assert targets_of(model, logits, [0, 3], "positive") == {0: 1, 3: 1}
    shifted = logits - np.median(logits)
    assert targets_of(model, shifted, range(6), "predicted") == {i: int(shifted[i, 0] > 0) for i in range(6)}


def test_methods_explain_classes() -> None:
    """A method for models of one score is refused, as is an unknown one."""
    with pytest.raises(InvalidParameter, match="methods must explain classes, got omig"):
        methods_of(["saliency", "omig"])
    with pytest.raises(InvalidParameter, match="method must be one of"):
        methods_of(["magic"])
