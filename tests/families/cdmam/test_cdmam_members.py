"""The members of a CDMAM ensemble one by one, held against ensembles of one."""

import numpy as np
import pytest
import torch
from fake_model import FakeModel
from tiny_bundle import make_bundle

from radlens import explainers
from radlens.errors import InvalidInput
from radlens.families.cdmam.model import open_bundle
from radlens.networks import FoldedCdmamEnsemble

METHODS = {
    "omig": {"n_steps": 3},
    "sensitivity": {},
    "occlusion": {"window": 100, "stride": 75, "effect": "rise"},
    "saliency": {},
}


@pytest.fixture(scope="module")
def logarithms(tmp_path_factory):
    """A bundle of members that predict logarithms."""
    return make_bundle(tmp_path_factory.mktemp("logarithms"), rank=4, logarithmic=True)


@pytest.fixture(scope="module")
def images(bundle):
    """Two normalised images."""
    return bundle.preprocess(np.random.default_rng(0).normal(1000, 100, (2, 250, 250)))


class Alone(FakeModel):
    """An ensemble of one member, by autograd."""

    def __init__(self, ensemble):
        self._ensemble = ensemble

    def score(self, images):
        """Midpoints."""
        with torch.no_grad():
            return self._ensemble.score(images)

    def gradient(self, images):
        """Their gradients."""
        return self._ensemble.gradient(images)


def alone(ensemble, k):
    """Return member k as a model of one score."""
    single = FoldedCdmamEnsemble(1, ensemble.rank, ensemble.logarithmic)
    for layer, n in (("conv1", 8), ("conv2", 16), ("conv3", 32)):
        for name in ("weight", "bias"):
            whole, part = (getattr(getattr(each, layer), name) for each in (ensemble, single))
            part.copy_(whole[k * n : (k + 1) * n])
    for name in ("weight", "head", "bias", "sigma"):
        getattr(single, name).copy_(getattr(ensemble, name)[k : k + 1])
    return Alone(single)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("engine", ["torch", "auto"])
@pytest.mark.parametrize("kind", ["bundle", "logarithms"])
def test_each_member_equals_an_ensemble_of_one(request, kind, images, method, engine):
    """Every method, of every member at every image, to float32 rounding; auto has no graph here and takes torch."""
    bundle = request.getfixturevalue(kind)
    explainer, ensemble = explainers.create(method, **METHODS[method]), bundle.model()
    found = open_bundle(bundle, engine).each.attribute_each(explainer, images)
    assert found.shape == (2, bundle.manifest.n_members, 250, 250)
    for k in range(bundle.manifest.n_members):
        expected = explainer.attribute(alone(ensemble, k), images)[:, 0]
        assert (found[:, k] - expected).norm() < 1e-4 * expected.norm()


@pytest.mark.slow
def test_the_exported_graph_computes_them(exported, images):
    """An engine other than torch runs members.onnx; sensitivity is linear, so the mean is the ensemble's map."""
    engine = open_bundle(exported)
    sensitivity = explainers.create("sensitivity")
    found = engine.each.attribute_each(sensitivity, images)
    expected = sensitivity.attribute(engine, images)
    torch.testing.assert_close(
        found.mean(1, keepdim=True), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())
    )
    assert {each["engine"] for each in exported.manifest.parity["engines"]["members.onnx"]} >= {"openvino"}


def test_images_of_several_channels_are_refused(bundle, images):
    """They would be taken for members."""
    members = open_bundle(bundle, "torch").each
    with pytest.raises(InvalidInput, match=r"images must have shape \(b, 1, h, w\), got \(2, 2, 250, 250\)"):
        members.attribute_each(explainers.create("omig"), images.expand(-1, 2, -1, -1))
