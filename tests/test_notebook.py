"""The library from a notebook."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sample_images import noise
from small_classifier import SHAPE, EagerMember, make_network
from small_inpainter import inpainter_files
from torch import nn

import radlens
from radlens.archives import archive
from radlens.errors import BundleError, InvalidInput, InvalidParameter
from radlens.images import to_npy, to_png
from radlens.phantoms import cdmam

DOCS = Path(__file__).parents[1] / "docs"
PNG_START = b"\x89PNG"


def test_the_package_itself_is_light():
    """``import radlens`` takes neither torch nor NumPy; names that are not there are errors as in any module."""
    code = "import sys, radlens; print([name for name in ('torch', 'numpy', 'httpx') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="has no attribute 'tea_leaves'"):
        getattr(radlens, "tea_" + "leaves")


def test_images_are_read_from_anything(tmp_path):
    """A path, its text, bytes and an array; the picture is small enough for a page."""
    pixels = noise((300, 1900))
    (tmp_path / "image.npy").write_bytes(to_npy(pixels))
    path = tmp_path / "image.npy"
    for given in (path, str(path), path.read_bytes(), pixels, radlens.read(path)):
        np.testing.assert_array_equal(radlens.read(given).pixels, pixels)
    drawn = radlens.read(path)._repr_png_()
    assert drawn.startswith(PNG_START)
    assert radlens.read(drawn).pixels.shape == (100, 634)
    with pytest.raises(InvalidInput, match=r"image must be a file, got 'nothing\.dcm', which does not exist"):
        radlens.read("nothing.dcm")


def test_a_classifier_answers_as_its_endpoint(classifier):
    """Classes as a table, a map laid over the image."""
    image = to_png((noise(SHAPE) / 10).astype(np.uint8))
    with radlens.load(classifier.path) as model:
        assert "saliency" in model.methods()
        assert repr(model).startswith("<lesions 1.0, classification; methods: ")
        prediction = model.predict(image)
        assert prediction.assessable
        table = prediction._repr_html_()
        assert all(name in table for name in ("normal", "benign", "malignant"))
        assert prediction._repr_png_() is None
        found = model.explain(image, method="saliency", absolute=False)
        assert found.answer["explanation"]["method"] == "saliency"
        expected = EagerMember(0)
        assert found.map.shape == SHAPE
        assert found._repr_png_().startswith(PNG_START)
        assert expected.n_outputs == len(prediction.answer["prediction"]["classes"])
        with pytest.raises(InvalidInput, match="method must be one of"):
            model.explain(image, method="tea_leaves")


@pytest.mark.slow
def test_a_curve_draws_itself(bundle, tmp_path):
    """From an archive as well as from a folder."""
    file = archive(bundle, tmp_path)
    with radlens.load(file) as model:
        phantom = cdmam.to_dicom(cdmam.simulate(cdmam.SCENARIOS["1"], cdmam.Layout.with_margin(1, 0.1)))
        prediction = model.predict([phantom])
        assert prediction._repr_html_().count("<tr>") == 13
        assert prediction._repr_png_().startswith(PNG_START)
        assert model.explain(noise((300, 260)), method="sensitivity", n_samples=2).map.shape == (300, 260)


def test_what_cannot_be_judged_says_so(classifier):
    """In place of a picture."""
    with radlens.load(classifier.path) as model:
        blank = np.full(SHAPE, 7, np.float32)
        assert "Not assessable" in model.predict(blank)._repr_html_()


def test_a_missing_bundle_is_an_error(tmp_path):
    """The same as everywhere."""
    with pytest.raises(BundleError):
        radlens.load(tmp_path)


class Counting(nn.Module):
    """A network with dropout, which would show in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.network, self.dropout = make_network(0), nn.Dropout(0.5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits."""
        return self.dropout(self.network(images))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["saliency", "integrated_gradients", "deep_lift", "guided_grad_cam", "occlusion"])
def test_a_bare_module_is_left_as_it_was(method):
    """Training mode, hooks and gradients; under inference mode the map is the same."""
    torch.manual_seed(0)
    module, images = Counting().train(), torch.rand(2, 1, *SHAPE)
    next(module.parameters()).requires_grad_(True)
    parameters = {"window": 8, "stride": 8} if method == "occlusion" else {}
    maps = radlens.explain(module, images, method, targets=1, **parameters)
    assert maps.shape == images.shape
    assert module.training
    assert module.dropout.training
    assert all(parameter.grad is None for parameter in module.parameters())
    assert not any(part._forward_hooks or part._backward_hooks for part in module.modules())
    with torch.inference_mode():
        again = radlens.explain(module, torch.rand(2, 1, *SHAPE) * 0 + images, method, targets=1, **parameters)
    torch.testing.assert_close(again, maps)


def test_bad_requests_are_named():
    """Methods and images."""
    module = make_network(0)
    with pytest.raises(InvalidParameter, match="method must be one of"):
        radlens.explain(module, torch.rand(1, 1, *SHAPE), "tea_leaves")
    with pytest.raises(InvalidInput, match="images must have 4 dimensions"):
        radlens.explain(module, torch.rand(1, *SHAPE), "saliency")


def test_the_notebook_runs(exported, tmp_path, monkeypatch):
    """Every cell of docs/notebook.ipynb, with a small bundle and image in place of the demo's."""
    image = tmp_path / "phantom.npy"
    image.write_bytes(to_npy(noise((300, 260))))
    places = {"../model_store/bundles/cdmam-1.0": str(exported.path), "../demo/phantom.dcm": str(image)}
    scope: dict[str, Any] = {}
    cells = json.loads((DOCS / "notebook.ipynb").read_text())["cells"]
    for cell in cells:
        if cell["cell_type"] != "code":
            continue
        source = "".join(cell["source"])
        for shown, here in places.items():
            source = source.replace(shown, here)
        exec(source, scope)
        assert cell["outputs"] == []
    assert scope["maps"].shape == (2, 1, 64, 64)


def test_an_inpainter_takes_a_mask(tmp_path):
    """An array, a picture or a file; it has no methods, and says so."""
    pixels = np.random.default_rng(0).normal(1000, 100, (40, 30)).astype(np.float32)
    mask = np.eye(40, 30, dtype=bool)
    (tmp_path / "mask.npy").write_bytes(to_npy(mask))
    with radlens.load(inpainter_files()) as model:
        assert model.methods() == ()
        assert repr(model) == "<inpainter 1.0, inpainting; methods: none>"
        found = [model.predict(pixels, mask=each) for each in (mask, mask.astype(np.uint8), tmp_path / "mask.npy")]
        filled = [each.answer["prediction"]["filled"] for each in found]
        assert all(np.array_equal(each, filled[0]) for each in filled)
        assert np.array_equal(filled[0][~mask], pixels[~mask])
        assert "pixels in holes" in found[0]._repr_html_()
        assert found[0]._repr_png_().startswith(PNG_START)
        with pytest.raises(InvalidInput, match="an inpainter has no explanations"):
            model.explain(pixels)
