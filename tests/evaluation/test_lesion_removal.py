"""The causal record of classifiers."""

import numpy as np
import pytest

from radlens.errors import InvalidInput
from radlens.evaluation.lesion_removal import removal_record, without_piece

PIECE = np.zeros((40, 60), bool)
PIECE[15:25, 20:30] = True


@pytest.mark.parametrize("same_depth", [True, False])
def test_a_piece_is_replaced_and_the_rest_stays(same_depth):
    """Within the piece the pixels are those of a place beside it; far away none changes."""
    pixels = np.random.default_rng(0).normal(size=PIECE.shape)
    found = without_piece(pixels, PIECE, np.ones_like(PIECE), same_depth=same_depth)
    far = np.ones_like(PIECE)
    far[5:35, 10:40] = False
    np.testing.assert_allclose(found[far], pixels[far], atol=1e-6)
    # 18 pixels: the piece and four pixels of rim on both sides.
    np.testing.assert_allclose(found[18:22, 23:27], pixels[18:22, 41:45], atol=0.05)


def test_tissue_of_layers_comes_from_the_same_rows():
    """Rows of equal value stay as they are."""
    pixels = np.repeat(np.arange(40.0)[:, None], 60, axis=1)
    np.testing.assert_allclose(without_piece(pixels, PIECE, np.ones_like(PIECE), same_depth=True), pixels)


def test_without_free_tissue_nothing_is_replaced():
    """A piece whose surroundings may not be copied gives no image."""
    allowed = np.zeros_like(PIECE)
    allowed[11:29, 16:34] = True
    assert without_piece(np.zeros(PIECE.shape), PIECE, allowed, same_depth=False) is None


def test_the_record_counts_falls_and_means():
    """Two of three scores fall by one; the control rises once and is unknown once."""
    found = removal_record([2, 2, 2], [1, 1, 3], [1, 1, np.nan], [1, 2, np.nan], seed=5)
    assert (found["lesion"]["n_lowered"], found["lesion"]["n"]) == (2, 3)
    assert found["lesion"]["fall"] == pytest.approx(1 / 3, abs=1e-3)
    assert (found["control"]["n_lowered"], found["control"]["n"], found["control"]["fall"]) == (0, 2, -0.5)
    # Falls of 1 and 1 against 0 and -1: of four sign patterns one is as large.
    assert found["p"] == 0.25
    assert found["seed"] == 5


def test_a_record_without_any_control_says_so():
    """The control is None if no tissue could be replaced."""
    found = removal_record([1, 2], [0, 0], [np.nan] * 2, [np.nan] * 2)
    assert found["control"] is None
    assert found["p"] is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: removal_record([1], [1, 2], [1], [1]), r"scores must be four arrays \(n,\) of one length, got \(1,\)"),
        (lambda: without_piece(np.zeros((9, 9)), PIECE, PIECE, same_depth=True), r"must have the shape of the image"),
        (
            lambda: without_piece(np.zeros((9, 9)), np.zeros((9, 9)), np.ones((9, 9)), same_depth=True),
            r"piece must hold at least one pixel",
        ),
    ],
)
def test_bad_values_get_a_clear_error(call, message):
    """Each error names what was expected."""
    with pytest.raises(InvalidInput, match=message):
        call()
