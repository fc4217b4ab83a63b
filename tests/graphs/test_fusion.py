import pytest
import torch
import torch.nn.functional as F
from conftest import autograd, relative
from torch import Tensor, nn
from zoo import Lambda, SmallResNet, SqueezeExcite, randomised

from radlens.errors import InvalidInput, UnsupportedOperation
from radlens.graphs import fuse_members, gradient_graph
from radlens.networks import CdmamNet


class Loop(nn.Module):
    """Members one after the other: what fusion must equal."""

    def __init__(self, members):
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, *inputs):
        """Stack what the members return."""
        outputs = [member(*inputs) for member in self.members]
        if isinstance(outputs[0], Tensor):
            return torch.stack(outputs)
        return tuple(torch.stack(parts) for parts in zip(*outputs, strict=True))


class Mixed(nn.Module):
    """Group normalisation, gates, concatenation, interpolation, a transposed and a grouped convolution, softmax."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3), nn.GroupNorm(2, 6)
        self.gate = SqueezeExcite(6)
        self.scale = nn.Parameter(torch.rand(6, 1, 1) + 0.5)
        self.deep = nn.Sequential(nn.Conv2d(8, 8, 3, 2, 1, groups=2), nn.BatchNorm2d(8), nn.Tanh(), nn.AvgPool2d(2))
        self.back = nn.ConvTranspose2d(3, 2, 3, 2, 1)

    def forward(self, x):
        """Return two maps of the member and one of the image alone."""
        y = self.gate(F.silu(self.norm(self.conv(x))) * self.scale)
        y = F.interpolate(torch.cat([y, y[:, :2]], dim=1), scale_factor=2)
        y = F.interpolate(self.deep(y), scale_factor=1.5, mode="bilinear").softmax(dim=1)
        return y, self.back(x).mean(dim=1) + self.scale.mean(), x.sum(dim=1)


class Attention(nn.Module):
    """Two heads of self-attention on normalised tokens, and dense layers in rows."""

    def __init__(self):
        super().__init__()
        self.norm, self.inward, self.outward = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 8, bias=False)
        nn.init.normal_(self.norm.weight)

    def forward(self, x):
        """Map tokens ``(b, n, 8)`` to tokens."""
        b, n, c = x.shape
        parts = self.inward(self.norm(x)).reshape(b, n, 3, 2, c // 2).permute(0, 3, 1, 2, 4)
        query, key, value = (parts[:, :, :, k] for k in range(3))
        weights = (query @ key.transpose(-2, -1)).softmax(dim=-1)
        return self.outward((weights @ value).transpose(1, 2).reshape(b, n, c)) + x


def assert_fused(members, x, score):
    """Outputs and gradient of the fused module equal those of the loop (float64, rounding only)."""
    members = [member.double().eval() for member in members]
    fused = fuse_members(members, (x[:1],))
    loop = Loop(members)
    expected = autograd(loop, (x,), score)
    graph = gradient_graph(fused, (x[:1],), score)
    output, gradient = graph(x)
    found = [output, gradient] if isinstance(output, Tensor) else [*output, gradient]
    for value, reference in zip(found, expected, strict=True):
        assert value.shape == reference.shape
        assert relative(value, reference) < 1e-12


@pytest.mark.parametrize("n_members", [1, 2])
def test_cdmam_members_are_fused(n_members):
    """Means and standard deviations of every member, and the gradient of the ensemble's midpoint."""
    members = [randomised(CdmamNet(rank=2), seed) for seed in range(n_members)]
    assert_fused(members, torch.randn(2, 1, 250, 250, dtype=torch.float64), lambda output: output[0].mean((0, 2)))


def test_residual_networks_are_fused():
    """Strided convolutions, ways round, pooling and a dense layer."""
    members = [randomised(SmallResNet(), seed) for seed in range(2)]
    assert_fused(members, torch.randn(2, 3, 32, 32, dtype=torch.float64), lambda output: output[:, :, 1].mean(0))


def test_many_kinds_of_layers_are_fused():
    """Outputs that depend on the member, and one that does not."""
    members = [randomised(Mixed(), seed) for seed in range(2)]
    x = torch.randn(3, 3, 8, 8, dtype=torch.float64)
    assert_fused(members, x, lambda output: (output[0] ** 2).sum((0, 2, 3, 4)) + output[1].sum((0, 2, 3)))


def test_attention_is_fused():
    """Products of activations take members as more samples."""
    assert_fused([Attention() for _ in range(2)], torch.randn(2, 5, 8).double(), lambda y: (y**2).sum((0, 2, 3)))


def test_shared_weights_stay_shared():
    """Members that are one module: a constant that is the same for all is not repeated by members of rank 2."""
    member = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2, bias=False))
    assert_fused([member, member], torch.randn(3, 4).double(), lambda output: output.sum((0, 2)))


def test_members_need_one_architecture():
    """The message names the first difference: a layer of another width, another function, one layer more."""
    x = (torch.zeros(1, 4),)
    narrow, wide = nn.Sequential(nn.Linear(4, 3), nn.ReLU()), nn.Sequential(nn.Linear(4, 5), nn.ReLU())
    with pytest.raises(InvalidInput, match=r"where member 0 has a constant \(3, 4\) \(layer 0\), member 1 has .*5"):
        fuse_members([narrow, wide], x)
    other = nn.Sequential(nn.Linear(4, 3), nn.Tanh())
    with pytest.raises(InvalidInput, match=r"member 0 has aten.relu .*\(layer 1\), member 2 has aten.tanh"):
        fuse_members([narrow, narrow, other], x)


def test_an_ensemble_needs_a_member():
    """None is refused."""
    with pytest.raises(InvalidInput, match="needs at least 1 member, got 0"):
        fuse_members([], (torch.zeros(1, 4),))


def test_what_cannot_be_fused_is_refused_by_operation_and_layer():
    """An operation across the batch of every member's own values."""
    members = [nn.Sequential(nn.Linear(4, 3), Lambda(lambda x: x.flip(0))) for _ in range(2)]
    with pytest.raises(UnsupportedOperation, match=r"aten.flip cannot be fused \(layer 1\)"):
        fuse_members(members, (torch.zeros(1, 4),))
