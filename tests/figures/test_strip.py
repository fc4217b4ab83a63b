"""Strips of images between two pictures, still and moving."""

import io

import numpy as np
import pytest
from PIL import Image

from radlens.errors import InvalidInput
from radlens.figures import animated_strip, figure_strip

POSITIONS = [-1.0, -0.5, 0.0, 0.5, 1.0]
SCORES = [0.0, 0.2, 0.4, 0.7, 1.0]


def pictures(shape: tuple[int, int] = (32, 24)) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a grey image, a darker and a brighter one."""
    image = np.linspace(0, 100, shape[0] * shape[1]).reshape(shape)
    return image - 50, image, image + 50


def test_a_strip_shows_every_frame_with_its_score():
    """As wide as its frames; a bar below each is as long as the score; one grey scale for all."""
    page = np.asarray(Image.open(io.BytesIO(figure_strip(*pictures(), POSITIONS, SCORES, label="probability"))))
    # Each frame is enlarged six times; between frames are six pixels.
    assert page.shape[1] == 6 + 5 * (24 * 6 + 6)
    frames = [page[18 : 18 + 192, 6 + k * 150 : 150 + k * 150] for k in range(5)]
    means = [frame.mean() for frame in frames]
    assert means == sorted(means)
    assert all((frame[..., 0] == frame[..., 2]).all() for frame in frames)
    middle = 18 + 192 + 6 + 4
    coloured = []
    for k in range(5):
        bar = page[middle, 6 + k * 150 : 150 + k * 150].astype(int)
        coloured.append(int((bar[1:-1].min(axis=1) < 245).sum()))
    assert coloured[0] <= 1
    assert coloured == sorted(coloured)
    assert coloured[3] == pytest.approx(0.7 * 142, abs=3)


def test_an_animation_goes_there_and_back():
    """An animated PNG without end: every frame on the way there, all but the ends on the way back."""
    data = animated_strip(*pictures(), POSITIONS, SCORES, label="probability")
    assert data.startswith(b"\x89PNG")
    assert b"acTL" in data
    with Image.open(io.BytesIO(data)) as found:
        assert getattr(found, "n_frames", 1) == 8
        assert found.info["loop"] == 0
        means = []
        for number in range(8):
            found.seek(number)
            means.append(np.asarray(found.convert("RGB"))[18:210, 6:150].mean())
    assert means[:5] == sorted(means[:5])
    assert means[5:] == sorted(means[5:], reverse=True)
    assert means[5] == pytest.approx(means[3])


def test_large_and_constant_pictures_are_drawn():
    """Large ones are reduced; where all pixels are equal there is no scale."""
    page = Image.open(io.BytesIO(figure_strip(*pictures((1000, 500)), [-1, 0, 1], [0, 0.5, 1], label="p")))
    assert page.width == 6 + 3 * (240 + 6)
    even = np.full((16, 16), 7.0)
    assert figure_strip(even, even, even, [-1, 0, 1], [0.5] * 3, label="p").startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"positions": [-1, 0, 0, 1], "scores": [0] * 4}, "rise from -1 to 1 with a score each"),
        ({"positions": [-1, 0, 0.9], "scores": [0] * 3}, "rise from -1 to 1"),
        ({"positions": [-1, 0, 1], "scores": [0, 1]}, "rise from -1 to 1"),
        ({"first": np.zeros((3, 3))}, "pictures must have the shape of the image"),
        ({"last": np.full((32, 24), np.nan)}, "must be finite"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    """Positions, scores, shapes and values."""
    first, image, last = pictures()
    given = {"first": first, "image": image, "last": last, "positions": POSITIONS, "scores": SCORES, **change}
    with pytest.raises(InvalidInput, match=message):
        figure_strip(**given, label="p")
