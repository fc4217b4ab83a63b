import torch

from radlens.graphs import CdmamGradient
from radlens.graphs.cdmam_gradient import turned, unpooled
from radlens.networks import CdmamNet, FoldedCdmamEnsemble


def test_written_out_backward_equals_autograd():
    """Midpoint and R(x) of three random members equal autograd's (float64, rounding only)."""
    torch.manual_seed(0)
    folded = FoldedCdmamEnsemble.from_members([CdmamNet(rank=2).double().eval() for _ in range(3)])
    images = torch.randn(2, 1, 250, 250, dtype=torch.float64)
    with torch.no_grad():
        score, gradient = CdmamGradient(folded)(images)
        torch.testing.assert_close(score, folded.score(images), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradient, folded.gradient(images), rtol=1e-8, atol=1e-14)


def test_turned_kernels_go_back_through_a_grouped_convolution():
    """The adjoint of a grouped convolution: <conv(x), y> = <x, back(y)> for random x and y (float64)."""
    torch.manual_seed(1)
    weight = torch.randn(6, 2, 3, 3, dtype=torch.float64)
    x, y = torch.randn(1, 4, 9, 8, dtype=torch.float64), torch.randn(1, 6, 9, 8, dtype=torch.float64)
    forward = torch.nn.functional.conv2d(x, weight, padding=1, groups=2)
    back = torch.nn.functional.conv2d(y, turned(weight, 2), padding=1, groups=2)
    torch.testing.assert_close((forward * y).sum(), (x * back).sum())


def test_unpooling_gives_each_gradient_to_its_maximum():
    """Pooled gradients land on the positive maximum of their window; negative windows and odd borders get none."""
    before = torch.tensor([[1.0, 2.0, 9.0], [4.0, 3.0, 9.0], [9.0, 9.0, 9.0]])[None, None]
    pooled = torch.nn.functional.max_pool2d(before.relu(), 2)
    found = unpooled(torch.full((1, 1, 1, 1), 5.0), before, pooled)
    assert found[0, 0].tolist() == [[0.0, 0.0, 0.0], [5.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    negative = -before
    assert unpooled(torch.ones(1, 1, 1, 1), negative, negative.relu()[:, :, :1, :1]).abs().sum() == 0
