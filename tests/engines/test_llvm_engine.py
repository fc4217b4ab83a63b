import sys
from copy import deepcopy

import numpy as np
import pytest
import torch
from gradient_file import write_gradient

from radlens.engines.llvm import LlvmEngine
from radlens.errors import InvalidInput, MissingDependency
from radlens.families.cdmam.gradient import CdmamGradient


@pytest.fixture(scope="module", params=[(1, 2, False), (3, 2, False), (1, 4, True), (3, 4, True), (2, 16, True)])
def exported(request, tmp_path_factory):
    """A graph of some members of a rank, of um or of logarithms, with its ensemble."""
    file = tmp_path_factory.mktemp("graph") / "gradient.onnx"
    n_members, rank, logarithmic = request.param
    return file, write_gradient(file, n_members, rank, logarithmic=logarithmic)


def _images(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 1, 250, 250)).astype(np.float32)


def _expected(ensemble, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    reference, inputs = deepcopy(ensemble).double(), torch.from_numpy(images).double()
    return reference.score(inputs).numpy(), reference.gradient(inputs).numpy()


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [1, 2, 4])
def test_the_kernel_computes_midpoint_and_gradient(exported, at_once):
    """It equals autograd in float64, in every form that processors get."""
    file, ensemble = exported
    images = _images(2)
    found = LlvmEngine(file, at_once=at_once).run({"images": images})
    score, gradient = _expected(ensemble, images)
    # float32: 1e-7 a number; a few of 10 million ReLUs and windows fall to the other side, each a pixel's worth.
    np.testing.assert_allclose(found["score"], score, rtol=1e-4, atol=1e-5)
    assert np.linalg.norm(found["gradient"] - gradient) < 5e-3 * np.linalg.norm(gradient)
    worst = np.abs(found["gradient"] - gradient) > 1e-4 * np.abs(gradient).max()
    assert worst.mean() < 1e-3


def test_borders_and_saturated_areas(exported):
    """A gradient on one pixel in each corner, and ties between equal pixels, come out as the graph's."""
    file, ensemble = exported
    images = np.zeros((3, 1, 250, 250), np.float32)
    images[0, 0, [0, 0, -1, -1], [0, -1, 0, -1]] = 5.0
    images[1] = np.minimum(_images(1)[0], 0.25)
    images[2, 0, 100:, :130] = 3.0
    found = LlvmEngine(file).run({"images": images})["gradient"]
    with torch.no_grad():
        _, expected = CdmamGradient(ensemble)(torch.from_numpy(images))
    # Equal sums of equal numbers may round differently where the order differs; then ties fall otherwise.
    difference = np.abs(found - expected.numpy()) > 1e-4 * np.abs(expected.numpy()).max()
    assert difference.mean() < 2e-2
    assert not difference[:, :, [0, -1]][..., [0, -1]].any()


def test_an_image_does_not_depend_on_its_batch_or_on_threads(exported):
    """Bit for bit: alone or as the last of 18, with one thread or with three."""
    file, _ = exported
    images = _images(18, seed=1)
    together = LlvmEngine(file, n_threads=3).run({"images": images})
    alone = LlvmEngine(file, n_threads=1).run({"images": images[17:]})
    for name, values in together.items():
        assert np.array_equal(values[17:], alone[name])
        assert len(values) == 18


def test_an_empty_batch_gives_empty_results(exported):
    """No images, no gradients, right shapes."""
    found = LlvmEngine(exported[0]).run({"images": _images(0)})
    assert found["score"].shape == (0,)
    assert found["gradient"].shape == (0, 1, 250, 250)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "inputs must be images, got none"),
        ({"images": np.zeros((1, 1, 250, 250))}, r"images must be \(b, 1, 250, 250\) float32, got .* float64"),
        ({"images": np.zeros((1, 250, 250), np.float32)}, r"got \(1, 250, 250\) float32"),
    ],
)
def test_wrong_inputs_are_named(exported, inputs, message):
    """The message says what was expected and what came."""
    with pytest.raises(InvalidInput, match=message):
        LlvmEngine(exported[0]).run(inputs)


def test_without_llvmlite_the_package_is_named(exported, monkeypatch):
    """A machine without the wheel gets to know its name."""
    monkeypatch.setitem(sys.modules, "llvmlite.binding", None)
    with pytest.raises(MissingDependency, match="llvmlite"):
        LlvmEngine(exported[0])
