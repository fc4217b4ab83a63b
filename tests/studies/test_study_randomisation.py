"""The randomisation check over the methods of a study."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from radlens.evaluation import model_randomisation
from radlens.explainers import IntegratedGradients
from radlens.explainers.eager import EagerClassifier
from radlens.studies import (
    CaseSet,
    MapSet,
    Store,
    StudyModel,
    check_randomisation,
    explain_cases,
    methods_of,
    stored_randomisation,
)

MEASURES = ("spearman", "spearman_absolute", "ssim")


@pytest.fixture
def maps(model: StudyModel, cases: CaseSet, store: Store) -> MapSet:
    """Maps of a quick method and a slow one."""
    methods = methods_of(["cam", "integrated_gradients"], {"integrated_gradients": {"n_steps": 30}})
    return explain_cases(model, cases, {1: 1, 2: 0}, methods, store)


def test_it_is_the_check_of_the_library(maps: MapSet, model: StudyModel, cases: CaseSet) -> None:
    """With the targets of the maps, a few depths, and slow methods with fewer steps."""
    found = check_randomisation(maps, [1, 2], n_points=3, seed=5)
    assert found is not None
    assert found.n_images == 2
    assert found.parameters == {"integrated_gradients": {"n_steps": 20, "baseline": 0.0}}

    def explain(network: nn.Module, images: Tensor) -> Tensor:
        return IntegratedGradients(n_steps=20).attribute(EagerClassifier(network, (1, 32, 32)), images, [1, 0])

    images = torch.stack([cases[1].image, cases[2].image])
    expected = model_randomisation(model.networks[0], explain, images, n_points=3, seed=5)
    for name in MEASURES:
        np.testing.assert_allclose(getattr(found.methods["integrated_gradients"], name), getattr(expected, name))
    assert found.methods["integrated_gradients"].layers == expected.layers
    assert found.methods["cam"].spearman.shape == (3, 2)


def test_what_is_kept_is_not_computed_again(maps: MapSet, model: StudyModel) -> None:
    """Each method is a piece of work; a second check needs no network."""

    def interrupt(stage: str, done: float, total: float) -> None:
        if done > 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_randomisation(maps, [1], n_points=2, on_progress=interrupt)
    stage = maps.store.folder / "randomisation" / model.name
    assert len(list(stage.iterdir())) == 1
    told: list[tuple[str, float, float]] = []
    first = check_randomisation(maps, [1], n_points=2, on_progress=lambda *at: told.append(at))
    assert told[-1] == ("randomisation, ResNet-18", 4, 4)
    again = check_randomisation(replace(maps, model=replace(model, networks=[nn.Identity()])), [1], n_points=2)
    assert first is not None
    assert again is not None
    for name in maps.methods:
        np.testing.assert_array_equal(first.methods[name].ssim, again.methods[name].ssim)


def test_a_bundle_has_what_was_stored(maps: MapSet, model: StudyModel) -> None:
    """There are no modules to randomise; the record holds means over images, and not every measure."""
    assert check_randomisation(replace(maps, model=replace(model, networks=())), [1]) is None
    record = {"cam": {"layers": ["head", "stem"], "spearman": [0.5, None], "ssim": [0.25, 0.0]}}
    found = stored_randomisation(record)["cam"]
    assert found.layers == ("head", "stem")
    np.testing.assert_array_equal(found.spearman, [[0.5], [np.nan]])
    assert np.isnan(found.spearman_absolute).all()
    assert found.ssim.shape == (2, 1)
