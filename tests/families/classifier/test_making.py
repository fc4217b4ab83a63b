"""From networks to bundles, and what they answer."""

import json

import numpy as np
import pytest
import torch
from made_once import copied
from torch import nn

from radlens import explainers
from radlens.datasets import ModelInput
from radlens.errors import BundleError, InvalidInput
from radlens.explainers.eager import EagerClassifier
from radlens.families import family_of, load
from radlens.families.classifier import open_model
from radlens.families.classifier.making import (
    TRACED,
    allowed_methods,
    bundle_classifier,
    randomisation_record,
    write_traced,
)
from radlens.families.classifier.manifest import ClassifierBundle

INPUT = ModelInput((24, 20))

EXPORT = {
    "dynamo": False,
    "input_names": ["x"],
    "output_names": ["y"],
    "dynamic_axes": {"x": {0: "b"}, "y": {0: "b"}},
}
"""How a network is exported."""


GRAPHS = ("prediction", "gradient", "guided", "features", "deep_lift", "lrp_epsilon", "lrp_deep_taylor")
"""Graphs of a network without companions."""


class Network(nn.Module):
    """Feature maps, global average pooling, a dense layer."""

    def __init__(self, seed, n_outputs=2):
        """Draw random weights."""
        super().__init__()
        torch.manual_seed(seed)
        self.features = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3), nn.ReLU()
        )
        self.head = nn.Linear(6, n_outputs)

    def forward(self, images):
        """Return the logits."""
        return self.head(self.features(images).mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A bundle; its graphs take seconds each to write."""

    def make(folder):
        names = {"name": "tiny", "version": "1.0", "classes": ("benign", "malignant")}
        bundle_classifier([Network(0)], folder, **names, model_input=INPUT)

    return load(copied("bundle-of-a-network", make, tmp_path_factory.mktemp("store") / "bundle"))


def test_a_bundle_comes_back_as_it_was_made(made):
    """Every field of the manifest, and the model that answers."""
    loaded = load(made.path)
    assert isinstance(loaded, ClassifierBundle)
    assert loaded.manifest == made.manifest
    assert loaded.manifest.graphs == GRAPHS
    assert loaded.manifest.refused.keys() == {"counterfactual", "counterfactual_fast", "cycle_activation"}
    others = {"omig", "sensitivity", "counterfactual", "counterfactual_fast", "cycle_activation"}
    assert set(loaded.manifest.explainers) == set(explainers.names()) - others
    assert loaded.manifest.defaults == {"occlusion": {"window": 2, "stride": 1}}
    images = torch.randn(3, 1, 24, 20, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(open_model(loaded).outputs(images), Network(0)(images).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_same_network_gives_the_same_bundle(made, tmp_path):
    """Its hash does not depend on time, on folders, or on what the process did before."""
    given = {"name": "tiny", "version": "1.0", "classes": ("benign", "malignant"), "model_input": INPUT}
    again = bundle_classifier([Network(0)], tmp_path, **given)
    assert again.manifest.files == made.manifest.files
    assert again.bundle_hash == made.bundle_hash


def test_the_traced_module_gives_the_logits_of_each_member(made):
    """Of any batch."""
    images = torch.randn(3, 1, 24, 20, generator=torch.Generator().manual_seed(2))
    found = torch.jit.load(made.path / TRACED)(images)
    torch.testing.assert_close(found, Network(0)(images).detach()[:, None])
    assert TRACED in made.manifest.files


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # this exporter is announced to go
def test_a_bundle_states_what_was_left_out_of_each_member(made, tmp_path):
    """A network without a softmax has no entry; older bundles do not have the field."""
    softmax = nn.Sequential(Network(0), nn.Softmax(1))
    torch.onnx.export(softmax, torch.zeros(2, 1, 24, 20), tmp_path / "m.onnx", **EXPORT)
    given = {"name": "tiny", "version": "1.0", "classes": ("benign", "malignant"), "model_input": INPUT}
    bundle = load(bundle_classifier([tmp_path / "m.onnx"], tmp_path / "bundle", **given).path)
    assert bundle.manifest.left_out == {"member-0": "Softmax"}
    assert "member-0 ended in a softmax, which was left out" in family_of(bundle.manifest.task).bundle_tables(bundle)
    assert made.manifest.left_out == {}
    document = json.loads((bundle.path / "bundle.json").read_text())
    del document["left_out"]
    (bundle.path / "bundle.json").write_text(json.dumps(document))
    assert ClassifierBundle.load(bundle.path).manifest.left_out == {}


# The 480 values of an image can be seen as 4 images, not as 3.
@pytest.mark.parametrize("n_images", [3, 4])
def test_a_trace_that_fixes_the_batch_is_left_out(n_images, tmp_path, caplog, recwarn):
    """The graphs compute every batch; nothing is said about the internals of a trace."""

    class Turned(Network):
        def forward(self, images):
            # The trace keeps the number.
            return self.head(self.features(images).view(int(images.shape[0]), 6, -1).mean(dim=2))

    file = tmp_path / TRACED
    write_traced(file, [Turned(0)], torch.randn(n_images, 1, 24, 20))
    assert not file.exists()
    assert f"a trace of the network computes batches of {n_images} only" in caplog.text
    assert not [each for each in recwarn if issubclass(each.category, torch.jit.TracerWarning)]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["guided_grad_cam", "deep_lift", "deep_shap", "lrp", "cam", "integrated_gradients"])
def test_the_graphs_give_the_maps_of_the_networks(made, name):
    """To rounding, also of methods whose graphs Captum has no part in."""
    images = torch.randn(2, 1, 24, 20, generator=torch.Generator().manual_seed(3))
    method = explainers.create(name)
    expected = method.attribute(EagerClassifier(Network(0), (1, 24, 20), layer="features"), images, 1)
    torch.testing.assert_close(method.attribute(open_model(made), images, 1), expected, rtol=1e-3, atol=1e-5)


def test_the_randomisation_check_is_kept(made):
    """Maps of a sound method change when the weights do."""
    stored = made.manifest.randomisation
    assert {"saliency", "cam", "deep_lift", "deep_shap", "lrp"} <= set(stored) <= set(made.manifest.explainers)
    assert stored["saliency"]["layers"][-1].startswith("features")
    assert stored["saliency"]["spearman"][-1] < 0.9


def test_other_altered_files_are_refused(made, tmp_path):
    """The model is what was bundled, or it is nothing; only graphs can be done without."""
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in made.path.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / TRACED).write_bytes(b"something else")
    with pytest.raises(BundleError, match=rf"{TRACED} is not the file this bundle was made with"):
        load(folder)


def test_a_manifest_of_something_else_is_refused(made, tmp_path):
    """The message says what is wrong with it."""
    document = json.loads((made.path / "bundle.json").read_text())
    del document["classes"]
    (tmp_path / "bundle.json").write_text(json.dumps(document))
    with pytest.raises(BundleError, match=r"bundle must hold a readable bundle.json: no field 'classes'"):
        ClassifierBundle.load(tmp_path)
    (tmp_path / "bundle.json").write_text(json.dumps(document | {"task": "cdmam-cdc"}))
    with pytest.raises(BundleError, match="task must be 'classification', got 'cdmam-cdc'"):
        ClassifierBundle.load(tmp_path)


def test_methods_without_their_graphs_are_refused_with_the_reason():
    """A model that cannot be differentiated still has the methods that only predict."""
    model = EagerClassifier(Network(0), (1, 24, 20))
    allowed, refused = allowed_methods(model, torch.zeros(1, 1, 24, 20), ("prediction",), {"gradient": "no rule for x"})
    assert allowed == ("lime", "occlusion", "shap")
    assert refused["saliency"] == "no rule for x"
    assert refused["grad_cam"] == "it needs the graph features"


def test_cam_is_refused_where_the_head_is_none():
    """The other methods that use feature maps work."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 480, 2))
    model = EagerClassifier(net, (1, 24, 20), layer="1")
    allowed, refused = allowed_methods(model, torch.ones(1, 1, 24, 20), GRAPHS, {})
    assert "grad_cam" in allowed
    assert refused == {
        "cam": "cam must be given a network of global average pooling and one dense layer",
        "counterfactual": "it needs a companion network, inpainter, which the bundle does not have",
        "counterfactual_fast": "it needs a companion network, proposer, which the bundle does not have",
        "cycle_activation": "it needs a companion network, generators, which the bundle does not have",
    }


def test_a_rule_without_its_graph_is_refused_by_itself():
    """Swish has no rule of deep Taylor decomposition; the method works by its other rule, and the reason is kept."""
    reason = "deep_taylor has no rule for aten.silu (layer features.1)"
    graphs, missing = tuple(name for name in GRAPHS if name != "lrp_deep_taylor"), {"lrp_deep_taylor": reason}
    model, images = EagerClassifier(Network(0), (1, 24, 20)), torch.zeros(1, 1, 24, 20)
    allowed, refused = allowed_methods(model, images, graphs, missing)
    assert "lrp" in allowed
    assert refused["lrp rule=deep_taylor"] == reason
    missing |= {"lrp_epsilon": "lrp has no rule for aten.exp (layer head)"}
    allowed, refused = allowed_methods(model, images, ("prediction", "gradient"), missing)
    assert "lrp" not in allowed
    assert refused["lrp"] == "lrp has no rule for aten.exp (layer head)"
    assert "lrp rule=deep_taylor" not in refused


def test_a_network_that_cannot_be_randomised_has_no_record():
    """It has no parameters; one with a parameter outside its layers has a record."""

    class Scaled(Network):
        def __init__(self):
            super().__init__(0)
            self.scale = nn.Parameter(torch.ones(1))

    images = torch.randn(1, 1, 24, 20)
    record = randomisation_record(Scaled(), ("saliency", "occlusion"), images, None)
    assert [record[name]["layers"] for name in ("saliency", "occlusion")] == [
        ["head", "features.3", "features.0", ""]
    ] * 2
    assert None not in record["occlusion"]["spearman"]
    mean = nn.Sequential(nn.AdaptiveAvgPool2d((1, 2)), nn.Flatten())
    assert randomisation_record(mean, ("saliency",), images, None) == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ("benign",)}, "classes must be 2 different names for a network of 2 outputs, got benign"),
        ({"classes": ("a", "a")}, "classes must be 2 different names for a network of 2 outputs, got a, a"),
        ({"members": []}, "members must be at least one, got none"),
        ({"examples": np.zeros((2, 1, 5, 5))}, r"examples must be at least two images of shape \(1, 24, 20\)"),
        ({"members": [nn.Conv2d(1, 2, 3)]}, r"the network must map \(2, 1, 24, 20\) to logits \(b, n\)"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, change, message):
    """The message says what was expected and what came."""
    given = {"members": [Network(0)], "classes": ("benign", "malignant"), "model_input": INPUT} | change
    with pytest.raises(InvalidInput, match=message):
        bundle_classifier(given.pop("members"), tmp_path, name="tiny", version="1.0", **given)


def test_a_folder_that_is_not_empty_is_refused(tmp_path):
    """Nothing of an older bundle may be left in a new one."""
    (tmp_path / "old.onnx").write_bytes(b"")
    with pytest.raises(InvalidInput, match="the folder of a new bundle must be empty"):
        bundle_classifier(
            [Network(0)], tmp_path, name="tiny", version="1.0", classes=("benign", "malignant"), model_input=INPUT
        )
