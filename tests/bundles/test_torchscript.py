"""TorchScript files that depend on the module alone."""

import zipfile

import torch
from torch import nn

from radlens.bundles.torchscript import save_traced


def make_network():
    """Layers of one kind that differ, nested."""
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Conv2d(2, 2, 3), nn.ReLU(), nn.ConvTranspose2d(2, 2, 3))
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3), inner, nn.Flatten(), nn.LazyLinear(3)
    ).eval()


def test_a_file_depends_on_the_module_alone(tmp_path):
    """What the process traced before does not matter, and no path of this machine is in the file."""
    images = torch.randn(2, 1, 12, 12)
    network, same = make_network(), make_network()
    network(images), same(images)
    same.load_state_dict(network.state_dict())
    save_traced(network, images, tmp_path / "first.pt")
    torch.jit.trace(nn.Sequential(nn.Tanh(), nn.Conv2d(1, 1, 1)), images)
    save_traced(same, images, tmp_path / "other.pt")
    content = (tmp_path / "first.pt").read_bytes()
    assert content == (tmp_path / "other.pt").read_bytes()
    assert b"test_torchscript" not in content
    with zipfile.ZipFile(tmp_path / "first.pt") as entries:
        assert not [name for name in entries.namelist() if name.endswith("debug_pkl")]


def test_a_file_comes_back_as_the_module(tmp_path):
    """Any batch gives what the module gives."""
    images, network = torch.randn(2, 1, 12, 12), make_network()
    network(images)
    save_traced(network, images, tmp_path / "network.pt")
    torch.testing.assert_close(torch.jit.load(tmp_path / "network.pt")(images[:1]), network(images[:1]))
