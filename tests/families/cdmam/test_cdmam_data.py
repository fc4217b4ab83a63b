import numpy as np
import pytest

from radlens import images
from radlens.errors import InvalidInput, TrainingError
from radlens.families.cdmam.training_data import recorded_set, scenario_set, simulated_set
from radlens.phantoms import cdmam


def test_scenarios_have_one_label_and_all_margins():
    """Images of a scenario differ, their curve is that of the scenario."""
    drawn = scenario_set("2", 3, seed=5)
    assert drawn.images.shape == (3, 250, 250)
    assert drawn.images.dtype == np.uint16
    expected = cdmam.expected_cdc([cdmam.SCENARIOS["2"]])[0]
    np.testing.assert_allclose(drawn.labels, np.tile(expected, (3, 1)))
    assert not np.array_equal(drawn.images[0], drawn.images[1])


def test_the_same_seed_draws_the_same_images():
    """And another seed others."""
    first = simulated_set(2, seed=1)
    np.testing.assert_array_equal(first.images, simulated_set(2, seed=1).images)
    assert not np.array_equal(first.images, simulated_set(2, seed=9).images)


def test_an_empty_set_is_refused():
    """There is nothing to train on."""
    with pytest.raises(TrainingError, match="at least 1 image, got 0"):
        simulated_set(0, seed=1)


def test_recordings_are_read_from_disk(tmp_path):
    """Images of a folder are sampled in turn and keep the curves of cdc.csv."""
    rng = np.random.default_rng(0)
    lines = ["file," + ",".join(str(d) for d in cdmam.CDC_DIAMETERS_MM)]
    for i in range(2):
        pixels = rng.integers(0, 4096, (260, 300)).astype(np.uint16)
        (tmp_path / f"{i}.png").write_bytes(images.to_png(pixels))
        lines.append(f"{i}.png," + ",".join(str(0.1 * (i + 1)) for _ in range(12)))
    (tmp_path / "cdc.csv").write_text("\n".join(lines) + "\n")
    found = recorded_set(tmp_path, 4, seed=1)
    assert found.images.shape == (4, 250, 250)
    np.testing.assert_allclose(found.labels[:, 0], [0.1, 0.2, 0.1, 0.2])
    assert (found.steps == 3).all()


def test_bad_recordings_are_refused(tmp_path):
    """A missing table, a table of another form, and an image that is not there."""
    with pytest.raises(InvalidInput, match=r"cdc.csv, which is missing"):
        recorded_set(tmp_path, 1, seed=1)
    (tmp_path / "cdc.csv").write_text("file\na.png,1\n")
    with pytest.raises(InvalidInput, match="a file name and 12 thresholds"):
        recorded_set(tmp_path, 1, seed=1)
    (tmp_path / "cdc.csv").write_text("file\na.png" + ",1" * 12 + "\n")
    with pytest.raises(InvalidInput, match="names an image that is not in its folder"):
        recorded_set(tmp_path, 1, seed=1)
