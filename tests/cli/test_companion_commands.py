"""``radlens companion proposer``: from a bundle and a folder of images to a companion."""

import numpy as np
import pytest
from small_classifier import make_classifier
from spots import draw, spots_bundle

from radlens.families.companions.proposer import load_proposer
from radlens.images import to_npy


@pytest.fixture
def images(tmp_path):
    """A folder with twelve images in two subfolders."""
    for number in range(12):
        file = tmp_path / "images" / f"part-{number % 2}" / f"{number}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(to_npy(draw(number)[0]))
    return tmp_path / "images"


@pytest.mark.slow
def test_a_proposer_is_trained_and_compared_with_the_search(run, images, tmp_path):
    """A table, the next command, and a run that loads; the same command again trains nothing."""
    asked = ("companion", "proposer", spots_bundle().path, "proposer", "--images", images, "--n", 12, "--epochs", 2)
    result = run(*asked, "--engine", "torch")
    assert result.exit_code == 0, result.stderr
    for word in ("spot: 2 unseen images", "searched", "proposed", "refined", "class changes"):
        assert word in result.stdout
    assert "--companion proposer=proposer" in " ".join((result.stdout + result.stderr).split())
    network, record = load_proposer(tmp_path / "proposer")
    assert network.classes == (1,)
    assert record["classifier"]["bundle_hash"] == spots_bundle().bundle_hash
    written = (tmp_path / "proposer" / "training.json").stat().st_mtime_ns
    assert run(*asked).exit_code == 0
    assert (tmp_path / "proposer" / "training.json").stat().st_mtime_ns == written


@pytest.mark.slow
def test_what_cannot_be_learned_is_said(run, images, tmp_path):
    """No inpainter, no simulator, too few images, a file that is no image, and an unknown class."""
    bundle = spots_bundle().path
    said = {
        (
            "companion",
            "proposer",
            make_classifier(tmp_path / "alone").path,
            "a",
            "--images",
            images,
            "--n",
            12,
        ): "made with --companion inpainter",
        ("companion", "proposer", bundle, "b"): "--images must name a folder: images of spots cannot be simulated",
        (
            "companion",
            "proposer",
            bundle,
            "c",
            "--images",
            images,
        ): "must hold at least 240 images (or give a smaller --n), got 12",
        (
            "companion",
            "proposer",
            bundle,
            "d",
            "--images",
            images,
            "--n",
            12,
            "--classes",
            "spot,mass",
        ): "of plain, spot, got mass",
    }
    for asked, message in said.items():
        result = run(*asked)
        assert result.exit_code != 0
        assert message in " ".join(result.stderr.split())
    (images / "notes.npy").write_bytes(b"no image")
    result = run("companion", "proposer", bundle, "e", "--images", images, "--n", 13)
    assert result.exit_code != 0
    assert "every file of --images must be an image, got notes.npy" in " ".join(result.stderr.split())


def test_images_of_a_folder_are_taken_in_a_mixed_order(run, images, tmp_path):
    """Both subfolders are among the first images, which are kept with their masks."""
    asked = ("companion", "proposer", spots_bundle().path, "mixed", "--images", images, "--n", 10, "--epochs", 1)
    assert run(*asked, "--engine", "torch").exit_code == 0
    with np.load(tmp_path / "mixed/masks/000000.npz") as first, np.load(tmp_path / "mixed/masks/000003.npz") as other:
        assert first["image"].shape == other["image"].shape == (1, 48, 32)
    masks = [np.load(file)["masks"].any() for file in sorted((tmp_path / "mixed/masks").glob("*.npz"))[:8]]
    assert any(masks)
    assert not all(masks)
