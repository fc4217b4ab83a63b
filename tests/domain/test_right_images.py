"""What looks unusual but shows a phantom of the training range is judged."""

import numpy as np
import pytest
from phantom_judge import why_not

from radlens.evaluation.wrong_phantoms import RIGHT, Source


@pytest.fixture(scope="module")
def source() -> Source:
    """Another exposure than that of the wrong images, at the largest pixels of training."""
    return Source(2, 0.1)


KINDS = [kind if k % 6 == 0 else pytest.param(kind, marks=pytest.mark.slow) for k, kind in enumerate(RIGHT)]
"""All kinds; most are slow tests."""


@pytest.mark.parametrize("kind", KINDS)
def test_right_image_is_judged(source: Source, kind: str) -> None:
    """Pixel scale, orientation, place, grid, writing and spacing do not keep a phantom from being judged."""
    assert why_not(*RIGHT[kind](source)) == ()


def test_kinds_do_not_depend_on_their_order() -> None:
    """An image follows from the seed and its kind alone."""
    first, second = Source(3, 0.4), Source(3, 0.4)
    RIGHT["without writing"](first)
    np.testing.assert_array_equal(RIGHT["as trained"](first)[0], RIGHT["as trained"](second)[0])
