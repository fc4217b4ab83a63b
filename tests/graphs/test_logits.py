"""Networks that return probabilities: the logits before them, or an error with the remedy."""

import onnx_corpus as corpus
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from radlens import explainers
from radlens.errors import InvalidInput
from radlens.explainers.eager import EagerClassifier
from radlens.graphs.forms import as_module, read_onnx
from radlens.graphs.logits import logits_of_file, logits_of_module
from radlens.graphs.onnx_module import OnnxModule

IMAGES = torch.randn(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def plain(n_outputs):
    """Return a network of logits."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Dropout(), nn.Flatten(), nn.Linear(72, n_outputs)).eval()


class Then(nn.Module):
    """A network and a function of what it returns."""

    def __init__(self, network, function):
        """Take both."""
        super().__init__()
        self.network, self.function = network, function

    def forward(self, images):
        """Return what the function makes of the logits."""
        return self.function(self.network(images))


ENDS = [
    (1, nn.Sigmoid()),
    (3, nn.Softmax(1)),
    (3, nn.Softmax(-1)),
    (3, nn.LogSoftmax(dim=1)),
    (1, nn.Sequential(nn.Sigmoid(), nn.Unflatten(1, (1, 1)), nn.Flatten())),
]


@pytest.mark.parametrize(("n_outputs", "end"), ENDS)
def test_a_layer_at_the_end_is_left_out(n_outputs, end, caplog):
    """The logits are those of the network without it, which is said; the module is left as it is."""
    network = plain(n_outputs)
    whole = nn.Sequential(network, end).eval()
    before = whole(IMAGES)
    made, ending = logits_of_module(whole, IMAGES)
    with torch.no_grad():
        torch.testing.assert_close(made(IMAGES), network(IMAGES))
    assert ending in ("Sigmoid", "Softmax", "LogSoftmax")
    assert ending in str(end)
    assert "is left out: radlens explains the logits before it" in caplog.text
    torch.testing.assert_close(whole(IMAGES), before)
    traced = as_module(torch.jit.trace(whole, IMAGES), IMAGES)
    made, traced_ending = logits_of_module(traced, IMAGES)
    with torch.no_grad():
        torch.testing.assert_close(made(IMAGES), network(IMAGES))
    assert traced_ending == ending


def test_a_sigmoid_no_longer_makes_every_image_positive():
    """Classes and probabilities are those that the network means."""
    network = plain(1)
    whole = nn.Sequential(*network, nn.Sigmoid()).eval()
    found, meant = EagerClassifier(whole, (1, 8, 8)).outputs(IMAGES), whole(IMAGES)[:, 0]
    assert explainers.predicted(found).tolist() == (meant > 0.5).long().tolist()
    assert 0 < explainers.predicted(found).sum() < len(IMAGES)
    torch.testing.assert_close(explainers.probabilities(found)[:, 1].float(), meant)
    as_it_is = EagerClassifier(whole, (1, 8, 8), as_is=True)
    torch.testing.assert_close(as_it_is.outputs(IMAGES)[:, 0], meant)


def test_networks_of_logits_are_left_alone():
    """Whether their last operation is a product, a mean of maps or something else, and also within [0, 1]."""
    small = plain(2)
    with torch.no_grad():
        small[-1].weight.mul_(1e-6)
        small[-1].bias.fill_(0.5)
    pooled = Then(nn.Conv2d(1, 3, 3), lambda x: x.mean((2, 3)))
    for network in (plain(1), small, pooled, Then(plain(2), lambda x: 2 * x)):
        made, ending = logits_of_module(network, IMAGES)
        assert made is network
        assert ending is None


PROBABILITIES = [
    (3, lambda x: F.softmax(x, 1), "got what softmax returns, which its forward calls: let it return the argument"),
    (1, torch.sigmoid, "got what sigmoid returns, which its forward calls"),
    (1, lambda x: torch.cat([1 - x.sigmoid(), x.sigmoid()], 1), "values that are all from 0 to 1"),
    (3, lambda x: x.exp() / x.exp().sum(1, keepdim=True), "values that are all from 0 to 1"),
    (3, lambda x: torch.stack([x.softmax(1), (2 * x).softmax(1)]).mean(0), "values that are all from 0 to 1"),
    (3, nn.Softmax(0), "along another axis than that of the classes"),
    (
        3,
        nn.Sigmoid(),
        "classes must exclude each other, got a sigmoid of 3 outputs, .*: bundle the network once for each",
    ),
    (1, nn.Softmax(1), "got a softmax of one output, which is constant"),
]


@pytest.mark.parametrize(("n_outputs", "function", "message"), PROBABILITIES)
def test_other_probabilities_are_refused_with_the_remedy(n_outputs, function, message):
    """Functions, probabilities made by hand, several findings."""
    with pytest.raises(InvalidInput, match=message):
        logits_of_module(Then(plain(n_outputs), function), IMAGES)


@pytest.mark.parametrize(("exporter", "opset"), [("old", 9), ("old", 12), ("old", 17), ("new", 18)])
@pytest.mark.parametrize(("n_outputs", "end"), [(1, nn.Sigmoid()), (3, nn.Softmax(1)), (3, nn.LogSoftmax(1))])
def test_the_end_of_a_file_is_left_out(n_outputs, end, exporter, opset, tmp_path):
    """From both exporters, whatever the axis of a softmax means in the version of the file."""
    network = plain(n_outputs)
    path = corpus.export(nn.Sequential(network, end).eval(), tmp_path / "m.onnx", exporter, opset, example=IMAGES[:2])
    file = logits_of_file(read_onnx(path, IMAGES), IMAGES.numpy())
    assert file.ending == type(end).__name__
    with torch.no_grad():
        torch.testing.assert_close(OnnxModule(file, IMAGES)(IMAGES), network(IMAGES))


@pytest.mark.parametrize(("n_outputs", "function", "message"), PROBABILITIES[2:5] + PROBABILITIES[6:])
def test_files_of_other_probabilities_are_refused(n_outputs, function, message, tmp_path):
    """As the modules are."""
    path = corpus.export(Then(plain(n_outputs), function).eval(), tmp_path / "m.onnx", "old", 17, example=IMAGES[:2])
    with pytest.raises(InvalidInput, match=message):
        logits_of_file(read_onnx(path, IMAGES), IMAGES.numpy())


def test_the_end_of_a_file_of_a_fixed_batch_is_left_out(tmp_path):
    """Also inside the loop over the images."""
    network = corpus.network("Transformer")
    whole = nn.Sequential(network, nn.Softmax(1)).eval()
    path = corpus.export(whole, tmp_path / "m.onnx", "old", 17, fixed=True, example=corpus.images(1))
    file, images = logits_of_file(read_onnx(path, corpus.images(2)), corpus.images(2).numpy()), corpus.images(3, seed=4)
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(file.run(images.numpy())), network(images), rtol=1e-4, atol=1e-5)
