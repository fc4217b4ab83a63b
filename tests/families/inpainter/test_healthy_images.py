"""Images to learn from: simulated, or the healthy ones of a data set on disk."""

from dataclasses import replace

import numpy as np
import pytest
from dataset_files import OmiDb, breast, mark, rsna, rsna_rows, surgery
from small_inpainter import tiny_recipe

from radlens.datasets import ModelInput
from radlens.errors import DatasetError, InvalidInput, TrainingError
from radlens.families.inpainter import training_data
from radlens.families.inpainter.training_data import build_parts
from radlens.images.breast import breast_region
from radlens.phantoms import mammogram

PRESET = tiny_recipe(n_training=3)


def quiet(*stage):
    """Report nothing."""


def test_simulated_images_are_healthy(tmp_path):
    """Each is the simulator's normal image of its seed, prepared; regions are the breast in it."""
    parts = build_parts(tmp_path, PRESET, n_workers=1, on_progress=quiet)
    assert {name: len(part) for name, part in parts.items()} == {"training": 3, "validation": 2}
    for number, part in enumerate(parts.values()):
        for k, (image, region) in enumerate(zip(part.images, part.regions, strict=True)):
            drawn = mammogram.sample("normal", image_shape=(64, 48), seed=(3, number, k))
            expected = PRESET.input.prepare(drawn.pixels).pixels
            # Half precision has 11 bits.
            np.testing.assert_allclose(image, expected, rtol=2**-11, atol=1e-4)
            assert np.array_equal(region, breast_region(image[0].astype(np.float32)))
            assert 0 < region.mean() < 1


def test_images_are_made_once(tmp_path, monkeypatch):
    """Files that are there are opened, and only the missing part is made."""
    first = build_parts(tmp_path, PRESET, n_workers=1, on_progress=quiet)
    (tmp_path / "validation-images.npy").unlink()
    stages = []
    again = build_parts(tmp_path, PRESET, n_workers=1, on_progress=lambda *stage: stages.append(stage))
    assert stages == [("validation images", 1, 2), ("validation images", 2, 2)]
    assert all(np.array_equal(first[name].images, again[name].images) for name in first)
    monkeypatch.setattr(training_data, "_simulated", None)
    build_parts(tmp_path, PRESET, n_workers=1, on_progress=quiet)


def test_an_image_without_contrast_is_a_region_as_a_whole():
    """Where no breast is found, holes may lie anywhere."""
    assert training_data._region(np.zeros((1, 20, 30), dtype=np.float16)).all()


def used(folder, preset, data, root):
    """Return all images of both parts."""
    parts = build_parts(folder, preset, data=data, root=root, n_workers=1, on_progress=quiet)
    assert all(len(part) for part in parts.values())
    return np.concatenate([part.images for part in parts.values()])


WHOLE = replace(PRESET, input=ModelInput((60, 40), scaling="fixed", std=(1000.0,)))
"""Takes the images of the data sets as they are."""


def test_omi_db_gives_its_normal_images(tmp_path):
    """Neither cancers nor benign lesions, nor marked images."""
    files = OmiDb(tmp_path / "omi")
    files.client("optm1", {"1.1": {}, "1.2": {"marks": {"1": mark(lesion="9")}}})
    files.client("optm2", {"2.1": {}})
    files.client("optm3", {"3.1": {"marks": {"1": mark()}}}, surgery("H5", "H5"))
    files.client("demd4", {"4.1": {}}, surgery("H2", "H2"))
    images = used(tmp_path / "run", WHOLE, "omi-db", tmp_path / "omi")
    assert len(images) == 2


def test_rsna_gives_its_images_without_cancer(tmp_path):
    """Those of one patient are in one part; the pixels are those of the files."""
    first, second, sick = rsna_rows()
    root = rsna(tmp_path / "rsna", [first, second | {"patient_id": 10011}, sick])
    (root / "train_images/10006/1459541791.dcm").rename(root / "train_images/10011/1459541791.dcm")
    images = used(tmp_path / "run", WHOLE, "rsna-2022", root)
    expected = [breast(side=side, seed=seed) for side, seed in (("left", 462822612), ("right", 1459541791))]
    found = sorted(images[:, 0].astype(np.float32).sum(axis=(1, 2)))
    assert found == pytest.approx(sorted(each.sum() / 1000 for each in expected), rel=1e-3)


def test_data_without_healthy_images_are_refused(tmp_path):
    """Cancers alone; healthy images of a single patient; no data set at all."""
    root = rsna(tmp_path / "sick", [row | {"cancer": 1} for row in rsna_rows()])
    with pytest.raises(TrainingError, match="rsna-2022 must have images that are non-malignant, got none"):
        build_parts(tmp_path / "a", PRESET, data="rsna-2022", root=root, on_progress=quiet)
    with pytest.raises(InvalidInput, match="expected at least two patients to split, got 1"):
        build_parts(tmp_path / "b", PRESET, data="rsna-2022", root=rsna(tmp_path / "one"), on_progress=quiet)
    with pytest.raises(DatasetError, match="the data set's root must be a folder that exists"):
        build_parts(tmp_path / "c", PRESET, data="rsna-2022", root=tmp_path / "nothing", on_progress=quiet)


@pytest.mark.slow
def test_several_processes_read_the_same_images(tmp_path):
    """In the same order."""
    found = [build_parts(tmp_path / str(n), PRESET, n_workers=n, on_progress=quiet) for n in (1, 2)]
    assert all(np.array_equal(found[0][name].images, found[1][name].images) for name in found[0])
