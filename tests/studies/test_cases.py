"""Images of a study: the same as training's test part, with their truth, kept in a store."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from study_runs import N_TEST, tiny_recipe

from radlens.datasets import ModelInput
from radlens.errors import InvalidInput, InvalidParameter
from radlens.families.classifier.training_data import build_sets
from radlens.phantoms import mammogram, ultrasound
from radlens.studies import CaseSet, CaseSource, Store, StudyModel, open_cases
from radlens.studies.cases import CASES

MODELS = ("patch-resnet50", "mammogram-efficientnet-b0", "mammogram-mobilenet", "ultrasound-resnet", "nodule-resnet18")


def source(name: str, **changes: object) -> CaseSource:
    """Return the source of the images that a recipe is tested with."""
    recipe = tiny_recipe(name)
    given = {"n_simulated": N_TEST, "p_calcifications": recipe.p_calcifications, "masses": recipe.masses, **changes}
    return CaseSource(recipe.task, recipe.input, recipe.classes, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", MODELS)
def test_simulated_images_are_the_test_part_of_training(name: str, store: Store, tmp_path: Path) -> None:
    """Pixel for pixel, up to the half precision that training keeps; boxes and masks are where the lesions are."""
    cases = open_cases(source(name), store)
    # Studies draw the images of seed 1; second classifiers are trained with seed 2 and have seen none of them.
    tested = build_sets(tmp_path / "data", tiny_recipe(name, seed=1), n_workers=1)["test"]
    assert cases.labels.tolist() == tested.labels.tolist() == [0, 1] * (N_TEST // 2)
    for case, image in zip(cases, tested.images, strict=True):
        np.testing.assert_array_equal(case.image.numpy().astype(np.float16), image)
        assert case.sample.pixels.shape == case.mask.shape == (32, 32)
        if case.label:
            # A mass may be benign.
            assert case.sample.labels[0] == "malignant" or name == "mammogram-mobilenet"
            assert case.mask.any()
            x0, y0, x1, y1 = case.boxes[0]
            rows, columns = np.nonzero(case.sample.masks[0])
            # Masks are moved by nearest pixels, boxes exactly.
            np.testing.assert_allclose((columns.min(), rows.min()), (x0, y0), atol=1)
            np.testing.assert_allclose((columns.max() + 1, rows.max() + 1), (x1, y1), atol=1)
        elif name not in ("ultrasound-resnet", "nodule-resnet18"):
            assert case.boxes == ()
            assert not case.mask.any()
    assert [case.name for case in cases] == ["1", "2", "3", "4", "5", "6"]


def test_images_are_drawn_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second look reads them; more images of the same source draw what is new alone."""
    told: list[tuple[str, float, float]] = []
    first = open_cases(source("ultrasound-resnet", n_simulated=4), store, on_progress=lambda *at: told.append(at))
    assert told[0][1:] == (0, 4)
    assert told[-1] == ("simulated breast ultrasound images", 4, 4)
    drawn = []
    real = ultrasound.sample
    monkeypatch.setattr(ultrasound, "sample", lambda *a, **k: (drawn.append(k["seed"]), real(*a, **k))[1])
    again = open_cases(source("ultrasound-resnet"), Store(store.folder))
    assert drawn == [(1, 2, 4), (1, 2, 5)]
    np.testing.assert_array_equal(first[1].sample.pixels, again[1].sample.pixels)
    assert first.key(1) == again[1].key
    assert [case.name for case in again[1:3]] == ["2", "3"]


class PicklingPool(ThreadPoolExecutor):
    """Stands for a pool of processes: what it is given and what it returns can be sent."""

    def __init__(self, n_workers: int) -> None:
        super().__init__(n_workers)

    def map(self, function: Any, jobs: Any, chunksize: int) -> Any:
        """Send the jobs to where they already are."""
        return map(function, pickle.loads(pickle.dumps(list(jobs))))


def test_processes_draw_what_one_draws(cases: CaseSet, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images that come from other processes are the same, in the same order."""
    monkeypatch.setattr("radlens.studies.cases._FEW", 2)
    monkeypatch.setattr("radlens.studies.cases.process_pool", PicklingPool)
    found = open_cases(source("ultrasound-resnet", n_simulated=3), store, n_workers=2)
    for i in range(3):
        np.testing.assert_array_equal(found[i].sample.pixels, cases[i].sample.pixels)
    assert store.seconds[CASES] > 0


def test_malignant_boxes_come_first(cases: CaseSet) -> None:
    """Where lesions are malignant, benign ones beside them are not what is looked for; otherwise all are."""
    from dataclasses import replace

    case = cases[1]
    boxes = ((1.0, 1.0, 5.0, 5.0), (8.0, 8.0, 12.0, 12.0))
    for labels, expected in ((("benign", "malignant"), boxes[1:]), (("benign", "benign"), boxes)):
        sample = replace(case.sample, boxes=boxes, masks=(), labels=labels)
        assert replace(case, sample=sample).boxes == expected


def test_patients_of_the_test_part(store: Store, tmp_path: Path) -> None:
    """Of a data set the test patients are those that training leaves out; all are there on request."""
    from PIL import Image

    for kind, label in (("benign", 60), ("malignant", 200), ("normal", 20)):
        (tmp_path / "busi" / kind).mkdir(parents=True)
        for i in range(1, 6):
            pixels = np.full((40, 50), label, dtype=np.uint8)
            pixels[10 : 12 + i, 20:30] = 90 + i
            Image.fromarray(pixels).save(tmp_path / "busi" / kind / f"{kind} ({i}).png")
            mask = np.zeros((40, 50), dtype=np.uint8)
            mask[10 : 12 + i, 20:30] = 0 if kind == "normal" else 255
            Image.fromarray(mask).save(tmp_path / "busi" / kind / f"{kind} ({i})_mask.png")
    found = {"data": "busi", "root": tmp_path / "busi"}
    cases = open_cases(source("ultrasound-resnet", **found), store)
    recipe = tiny_recipe("ultrasound-resnet")
    tested = build_sets(tmp_path / "data", recipe, data="busi", root=tmp_path / "busi", n_workers=1)["test"]
    np.testing.assert_array_equal(cases.labels, tested.labels)
    for case, image in zip(cases, tested.images, strict=True):
        np.testing.assert_array_equal(case.image.numpy().astype(np.float16), image)
        assert len(case.boxes) == 1
    everyone = open_cases(source("ultrasound-resnet", part="all", **found), store)
    assert len(everyone) == 10 > len(cases)
    assert everyone.source.title == "breast ultrasound images of busi"
    assert cases.source.title == "breast ultrasound images of busi, test patients"


def test_patches_of_a_data_set_keep_their_boxes() -> None:
    """A lesion of the image lies in its patch, in pixels of the patch; what is outside of it is left out."""
    from radlens.datasets import Patch, Sample
    from radlens.studies.cases import patch_with_boxes

    pixels = np.zeros((100, 100), dtype=np.float32)
    sample = Sample(pixels, ((30.0, 40.0, 50.0, 60.0), (90.0, 90.0, 95.0, 99.0)), (), ("malignant", "benign"))
    patch = Patch(np.zeros((20, 20), dtype=np.float32), (20, 30, 60, 70), "lesion", "malignant")
    found = patch_with_boxes(patch, sample)
    assert found.boxes == ((5.0, 5.0, 15.0, 15.0),)
    assert found.labels == ("malignant",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_simulated": 1}, "simulated images must be at least 2, got 1"),
        ({"data": "busi"}, "data and root must be given together, got one of them"),
        ({"data": "omi-db", "root": Path()}, "data for ultrasound must be one of busi, oasbud, got omi-db"),
    ],
)
def test_sources_that_cannot_be(changes: dict[str, object], message: str) -> None:
    """Too few images, half an address, a data set of something else."""
    with pytest.raises(InvalidParameter, match=message):
        source("ultrasound-resnet", **changes)


def test_one_class_is_refused(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing can be measured of images of one class."""
    monkeypatch.setattr("radlens.studies.cases._draw", _only_benign)
    with pytest.raises(InvalidInput, match="cases must be of both classes, got 2 of 1"):
        open_cases(source("ultrasound-resnet", n_simulated=2), store)


def _only_benign(of: CaseSource, i: int) -> list[tuple[int, object]]:
    from radlens.studies.cases import simulated_sample

    return [(0, simulated_sample(of, "benign", (i,)))]


def test_a_missing_mask_is_no_lesion(model: StudyModel, store: Store) -> None:
    """A normal mammogram has no boxes, no masks and a spacing."""
    of = CaseSource("mammograms", ModelInput((64, 32)), ("normal", "malignant"), n_simulated=2)
    normal = open_cases(of, store)[0]
    assert normal.boxes == ()
    assert normal.sample.masks == ()
    assert normal.sample.spacing_mm == pytest.approx((mammogram.FIELD_HEIGHT_MM / 64,) * 2)


def test_data_sets_do_not_fit_the_classes_of_masses(tmp_path: Path) -> None:
    """They do not tell masses from calcifications, or have no healthy mammograms."""
    with pytest.raises(InvalidParameter, match="classes healthy and mass need simulated images, got cbis-ddsm"):
        CaseSource("mammograms", ModelInput((64, 48)), ("healthy", "mass"), data="cbis-ddsm", root=tmp_path)
