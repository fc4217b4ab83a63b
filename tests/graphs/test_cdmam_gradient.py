import pytest
import torch
import torch.nn.functional as F

from radlens.graphs import CdmamGradient, CdmamMemberGradients
from radlens.graphs.cdmam_gradient import (
    interleaved,
    joined_groups,
    largest,
    overlapped,
    patch_kernels,
    routed,
    turned,
)
from radlens.networks import CdmamNet, FoldedCdmamEnsemble


def _folded(n_members: int) -> FoldedCdmamEnsemble:
    torch.manual_seed(0)
    return FoldedCdmamEnsemble.from_members([CdmamNet(rank=2).double().eval() for _ in range(n_members)])


def _windows(x: torch.Tensor) -> list[torch.Tensor]:
    return [x[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)]


@pytest.mark.parametrize("n_members", [1, 2, 3])
def test_written_out_backward_equals_autograd(n_members):
    """Midpoint and R(x) of random members equal autograd's (float64, rounding only)."""
    folded = _folded(n_members)
    images = torch.randn(2, 1, 250, 250, dtype=torch.float64)
    with torch.no_grad():
        score, gradient = CdmamGradient(folded)(images)
        torch.testing.assert_close(score, folded.score(images), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradient, folded.gradient(images), rtol=1e-8, atol=1e-14)


def test_saturated_areas_get_the_gradient_that_autograd_gives_them():
    """Where all pixels of a window are equal, the first one gets the gradient: a plate partly at full scale."""
    folded = _folded(2)
    images = torch.randn(1, 1, 250, 250, dtype=torch.float64).clamp(max=0.3)
    images[:, :, :120, 60:] = 4.0
    with torch.no_grad():
        _, gradient = CdmamGradient(folded)(images)
    # Rounding may decide a tie between sums of the same numbers in another order; with few it cannot hide a factor.
    expected = folded.gradient(images)
    assert (gradient - expected).norm() < 1e-6 * expected.norm()


def test_turned_kernels_go_back_through_a_grouped_convolution():
    """The adjoint of a grouped convolution: <conv(x), y> = <x, back(y)> for random x and y (float64)."""
    torch.manual_seed(1)
    weight = torch.randn(6, 2, 3, 3, dtype=torch.float64)
    x, y = torch.randn(1, 4, 9, 8, dtype=torch.float64), torch.randn(1, 6, 9, 8, dtype=torch.float64)
    forward = F.conv2d(x, weight, padding=1, groups=2)
    back = F.conv2d(y, turned(weight, 2), padding=1, groups=2)
    torch.testing.assert_close((forward * y).sum(), (x * back).sum())


def test_joined_groups_compute_the_same():
    """Four groups as two, as one, and as they were."""
    torch.manual_seed(2)
    weight, x = torch.randn(8, 3, 3, 3, dtype=torch.float64), torch.randn(2, 12, 6, 5, dtype=torch.float64)
    expected = F.conv2d(x, weight, groups=4)
    for n_joined in (1, 2, 4):
        torch.testing.assert_close(F.conv2d(x, joined_groups(weight, 4, n_joined), groups=n_joined), expected)


def test_the_largest_phase_is_the_pooled_value_and_gets_the_gradient():
    """Values and gradients of max pooling equal autograd's on small integers, where most windows have ties."""
    torch.manual_seed(3)
    x = torch.randint(0, 3, (2, 3, 8, 10), dtype=torch.float64).requires_grad_()
    pooled = F.max_pool2d(x, 2)
    gradient = torch.randn_like(pooled)
    (expected,) = torch.autograd.grad(pooled, x, gradient)
    phases = _windows(x.detach())
    assert torch.equal(largest(phases), pooled.detach())
    assert torch.equal(interleaved(routed(phases, gradient)), expected)


def test_interleaving_undoes_the_split_into_phases():
    """Phases put back give the array they came from."""
    x = torch.randn(2, 3, 6, 4)
    assert torch.equal(interleaved(_windows(x)), x)


def test_patches_go_back_through_the_first_convolution():
    """The sum over phases and taps equals autograd's gradient of a 3x3 convolution with padding 1 (float64)."""
    torch.manual_seed(4)
    weight = torch.randn(5, 1, 3, 3, dtype=torch.float64)
    x = torch.randn(2, 1, 8, 6, dtype=torch.float64, requires_grad=True)
    output = F.conv2d(x, weight, padding=1)
    gradient = torch.randn_like(output)
    (expected,) = torch.autograd.grad(output, x, gradient)
    kernels = patch_kernels(weight)
    patches = sum(F.conv2d(phase, kernel) for phase, kernel in zip(_windows(gradient), kernels, strict=True))
    torch.testing.assert_close(overlapped(patches), expected)


@pytest.mark.parametrize("n_members", [1, 2, 3])
def test_members_at_different_points_equal_each_by_itself(n_members):
    """Each member's midpoint and gradient at its own image, against autograd of an ensemble of one (float64)."""
    torch.manual_seed(0)
    members = [CdmamNet(rank=2).double().eval() for _ in range(n_members)]
    images = torch.randn(2, n_members, 250, 250, dtype=torch.float64)
    with torch.no_grad():
        scores, gradients = CdmamMemberGradients(FoldedCdmamEnsemble.from_members(members))(images)
    for k, member in enumerate(members):
        alone, own = FoldedCdmamEnsemble.from_members([member]), images[:, k : k + 1]
        torch.testing.assert_close(scores[:, k], alone.score(own), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(gradients[:, k : k + 1], alone.gradient(own), rtol=1e-8, atol=1e-14)
