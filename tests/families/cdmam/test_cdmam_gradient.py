import math
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made_once import made

from radlens import engines
from radlens.families.cdmam.export import write_onnx
from radlens.families.cdmam.gradient import (
    CdmamGradient,
    CdmamMemberGradients,
    interleaved,
    joined_groups,
    largest,
    overlapped,
    patch_kernels,
    routed,
    turned,
)
from radlens.networks import CdmamEnsemble, CdmamNet, FoldedCdmamEnsemble

OUTPUTS = ["score", "gradient"]

KINDS = [(2, False), (4, True), (16, True)]
"""Rank and logarithm: as in the paper, as the registered recipe leaves them, and unfactored logarithms."""


def _members(n_members: int, rank: int = 2) -> list[CdmamNet]:
    torch.manual_seed(0)
    return [CdmamNet(rank).double().eval() for _ in range(n_members)]


def _windows(x: torch.Tensor) -> list[torch.Tensor]:
    return [x[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)]


@pytest.mark.parametrize("n_members", [1, 2, 3])
@pytest.mark.parametrize(("rank", "logarithmic"), KINDS)
def test_written_out_backward_equals_autograd(n_members, rank, logarithmic):
    """Midpoint and R(x) of random members equal autograd's, member by member (float64, rounding only)."""
    members = _members(n_members, rank)
    ensemble = CdmamEnsemble(members, logarithmic=logarithmic)
    images = torch.randn(2, 1, 250, 250, dtype=torch.float64)
    with torch.no_grad():
        graph = CdmamGradient(FoldedCdmamEnsemble.from_members(members, logarithmic=logarithmic))
        score, gradient = graph(images)
        torch.testing.assert_close(score, ensemble.score(images), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradient, ensemble.gradient(images), rtol=1e-8, atol=1e-14)


def test_the_gradient_of_logarithms_depends_on_the_thresholds():
    """Twice the thresholds, a bias of log 2, are twice the score and the gradient; a linear ensemble's would stay."""
    members = _members(2, 4)
    images = torch.randn(1, 1, 250, 250, dtype=torch.float64)
    before = FoldedCdmamEnsemble.from_members(members, logarithmic=True)
    after = deepcopy(before)
    after.bias += math.log(2)
    with torch.no_grad():
        for a, b in zip(CdmamGradient(before)(images), CdmamGradient(after)(images), strict=True):
            torch.testing.assert_close(2 * a, b)


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "logarithmic"), KINDS)
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino", "torch"])
def test_exported_graphs_compute_the_same(graphs, engine, rank, logarithmic):
    """Both graphs in the engines, at batches other than the exported one (float32 against autograd in float64)."""
    folder, members = graphs[rank, logarithmic]
    images = torch.randn(3, 2, 250, 250, generator=torch.Generator().manual_seed(1))
    first = images[:, :1].contiguous()
    found = engines.open(folder / "gradient.onnx", engine=engine).run({"images": first.numpy()})
    ensemble = CdmamEnsemble(members, logarithmic=logarithmic)
    _assert_float32(found, ensemble.score(first.double()), ensemble.gradient(first.double()))
    found = engines.open(folder / "members.onnx", engine=engine).run({"images": images.numpy()})
    alone = [CdmamEnsemble([member], logarithmic=logarithmic) for member in members]
    own = list(zip(alone, images.double().split(1, dim=1), strict=True))
    scores = torch.stack([member.score(image) for member, image in own], dim=1)
    _assert_float32(found, scores, torch.cat([member.gradient(image) for member, image in own], dim=1))


def _assert_float32(found: dict[str, np.ndarray], score: torch.Tensor, gradient: torch.Tensor) -> None:
    torch.testing.assert_close(torch.from_numpy(found["score"]).double(), score, rtol=1e-5, atol=1e-5)
    # Float32 decides a few ReLUs and maxima differently.
    assert (torch.from_numpy(found["gradient"]) - gradient).norm() < 1e-2 * gradient.norm()


@pytest.fixture(scope="module")
def graphs() -> dict[tuple[int, bool], tuple[Path, list[CdmamNet]]]:
    """Two exported members of each kind and the folder of their graphs."""
    found = {}
    for rank, logarithmic in KINDS:
        members = _members(2, rank)
        singles = [deepcopy(member).float() for member in members]
        folded = FoldedCdmamEnsemble.from_members(singles, logarithmic=logarithmic)

        def make(folder: Path, folded: FoldedCdmamEnsemble = folded) -> None:
            write_onnx(CdmamGradient(folded), torch.zeros(2, 1, 250, 250), folder / "gradient.onnx", OUTPUTS)
            write_onnx(CdmamMemberGradients(folded), torch.zeros(2, 2, 250, 250), folder / "members.onnx", OUTPUTS)

        found[rank, logarithmic] = made(f"gradients-of-rank-{rank}", make), members
    return found


def test_saturated_areas_get_the_gradient_that_autograd_gives_them():
    """Where all pixels of a window are equal, the first one gets the gradient: a plate partly at full scale."""
    folded = FoldedCdmamEnsemble.from_members(_members(2))
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
@pytest.mark.parametrize(("rank", "logarithmic"), KINDS)
def test_members_at_different_points_equal_each_by_itself(n_members, rank, logarithmic):
    """Each member's midpoint and gradient at its own image, against autograd of an ensemble of one (float64)."""
    members = _members(n_members, rank)
    images = torch.randn(2, n_members, 250, 250, dtype=torch.float64)
    with torch.no_grad():
        folded = FoldedCdmamEnsemble.from_members(members, logarithmic=logarithmic)
        scores, gradients = CdmamMemberGradients(folded)(images)
    for k, member in enumerate(members):
        alone, own = CdmamEnsemble([member], logarithmic=logarithmic), images[:, k : k + 1]
        torch.testing.assert_close(scores[:, k], alone.score(own), rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(gradients[:, k : k + 1], alone.gradient(own), rtol=1e-8, atol=1e-14)
