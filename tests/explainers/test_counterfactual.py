"""Counterfactual impact analysis against the optimisation written from the paper in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from small_classifier import make_network

from radlens.errors import InvalidInput, InvalidParameter, UnsupportedOperation
from radlens.explainers import Counterfactual, EagerClassifier, create
from radlens.explainers.counterfactual import SETTINGS, organ_mask, overlap, total_variation
from radlens.graphs import classifier_graphs
from radlens.graphs.counterfactual import log_odds
from radlens.networks import PartialConvInpainter

SHAPE = (48, 32)


def breast_image(seed=0):
    """Return a bright half disc with texture on a dark background, ``(1, h, w)`` float64."""
    rows, columns = torch.meshgrid(torch.arange(SHAPE[0]), torch.arange(SHAPE[1]), indexing="ij")
    inside = (rows - 24) ** 2 + columns**2 < 20**2
    noise = torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.where(inside, 2 + 0.5 * noise, torch.zeros(()).double())[None], inside


@pytest.fixture(scope="module")
def inpainter():
    """A small inpainter with random weights."""
    torch.manual_seed(1)
    return PartialConvInpainter(1, 2).eval().double().requires_grad_(False)


def network(n_outputs):
    """Return a small classifier in float64."""
    return make_network(3, n_outputs).double()


def model(n_outputs, inpainter):
    """Return the classifier with the inpainter as companion."""
    return EagerClassifier(network(n_outputs), (1, *SHAPE), companions={"inpainter": inpainter})


def odds_by_hand(logits, target):
    """Return log(p / (1 - p)) of a class from its probability."""
    if logits.shape[1] == 1:
        p = torch.sigmoid(logits[:, 0])
        p = p if target == 1 else 1 - p
    else:
        p = logits.softmax(dim=1)[:, target]
    return torch.log(p) - torch.log1p(-p)


def by_the_paper(classifier, inpainter, image, target, setting, n_steps, weights=(1.0, 0.1, 0.1)):
    """Optimise the mask with autograd through the whole loss; return R, and the terms of each step."""
    organ = organ_mask(image).double()
    scale = math.sqrt(SHAPE[0] * SHAPE[1] / (144 * 112)) if setting.is_scaled else 1.0
    hole, pitch = max(1, round(setting.hole * scale)), max(2, round(setting.pitch * scale))
    start = torch.full(SHAPE, setting.start[1], dtype=torch.float64)
    for row in range(SHAPE[0]):
        for column in range(SHAPE[1]):
            if row % pitch < hole and column % pitch < hole:
                start[row, column] = setting.start[0]
    relaxed = (start * organ).requires_grad_()
    kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[setting.optimizer]
    optimizer = kind([relaxed], lr=setting.learning_rate)
    before = odds_by_hand(classifier(image[None]), target)
    total, losses = torch.zeros_like(start), []
    for step in range(n_steps):
        binary = (relaxed > 0.5).double()
        if n_steps - step <= setting.n_averaged:
            total += binary.detach() / min(setting.n_averaged, n_steps)
        straight = binary + relaxed - relaxed.detach()
        shown = {"soft": relaxed, "binary": straight, "blend": relaxed}[setting.relaxation][None, None]
        hidden = {"soft": relaxed, "binary": straight, "blend": binary.detach()}[setting.relaxation][None, None]
        drawn = inpainter(image[None], 1 - hidden)
        if setting.relaxation == "blend":
            drawn = drawn.detach()
        odds = odds_by_hand(classifier(image[None] * (1 - shown) + shown * drawn), target)
        phi = -torch.log(1 - torch.sigmoid(odds))
        psi = odds - before
        tv = sum(abs(relaxed[i + 1, j] - relaxed[i, j]) for i in range(SHAPE[0] - 1) for j in range(SHAPE[1]))
        tv = tv + sum(abs(relaxed[i, j + 1] - relaxed[i, j]) for i in range(SHAPE[0]) for j in range(SHAPE[1] - 1))
        dice = 2 * (relaxed * organ).sum() / (relaxed.sum() + organ.sum())
        weight = weights[1] / scale * (setting.tv_end if step >= n_steps / 2 else 1.0)
        loss = weights[0] * (phi + psi) + weight * tv + weights[2] * dice
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            relaxed.clamp_(0, 1)
            relaxed *= organ
    return total if setting.n_averaged else relaxed.detach(), losses


@pytest.mark.slow
@pytest.mark.parametrize(("setting", "n_outputs", "target"), [
    ("paper", 2, 1), ("paper-working", 3, 2), ("gradient", 1, 0), ("gradient", 3, 0), ("cheap", 2, 0),
])  # fmt: skip
def test_the_optimisation_is_that_of_the_paper(inpainter, setting, n_outputs, target):
    """Map and losses equal autograd through the whole loss, whatever the classes."""
    image, _ = breast_image()
    method = Counterfactual(setting=setting, n_steps=6)
    (found,) = method.explain(model(n_outputs, inpainter), image[None], [target])
    expected, losses = by_the_paper(network(n_outputs), inpainter, image, target, SETTINGS[setting], 6)
    torch.testing.assert_close(found.map[0], expected, rtol=0, atol=1e-9)
    assert found.numbers["steps"]["loss"] == pytest.approx(losses, abs=1e-8)


@pytest.mark.parametrize("setting", ["gradient", "recommended"])
def test_results_are_those_of_the_binary_mask(inpainter, setting):
    """The inpainted picture is the image outside the binary mask and the inpainter's inside, and is scored so."""
    image, inside = breast_image()
    classifier = network(2)
    (found,) = Counterfactual(setting=setting, n_steps=4).explain(model(2, inpainter), image[None], [1])
    mask = found.pictures["mask"]
    assert {*mask.unique().tolist()} <= {0.0, 1.0}
    assert torch.equal(mask > 0, (found.map > 0.5) & organ_mask(image))
    filled = torch.where(mask > 0, inpainter(image[None], 1 - mask[None])[0], image)
    torch.testing.assert_close(found.pictures["inpainted"], filled)
    torch.testing.assert_close(found.pictures["change"], filled - image)
    numbers = found.numbers
    assert numbers["log_odds_before"] == pytest.approx(float(odds_by_hand(classifier(image[None]), 1)))
    assert numbers["log_odds_after"] == pytest.approx(float(odds_by_hand(classifier(filled[None]), 1)))
    assert numbers["area_of_organ"] == pytest.approx(float(mask.sum() / organ_mask(image).sum()))
    assert not found.map[0][~inside].any()


def test_terms_of_the_loss_by_hand():
    """Total variation and overlap of a small mask."""
    mask = torch.tensor([[0.0, 1.0], [0.5, 1.0]])
    assert float(total_variation(mask)) == pytest.approx(0.5 + 0 + 1 + 0.5)
    assert float(overlap(mask, torch.tensor([[1.0, 1.0], [0.0, 0.0]]))) == pytest.approx(2 * 1 / (2.5 + 2))


@pytest.mark.parametrize("n_outputs", [1, 2, 4])
def test_log_odds_are_those_of_the_probability(n_outputs):
    """For one output and several; finite where the probability is 0 or 1 in float32."""
    logits = torch.randn(5, n_outputs, generator=torch.Generator().manual_seed(0)).double()
    for target in range(max(2, n_outputs)):
        if n_outputs == 1:
            weights = torch.full((5, 1), 1.0 if target else -1.0).double()
        else:
            weights = F.one_hot(torch.full((5,), target), n_outputs).double()
        torch.testing.assert_close(log_odds(logits, weights), odds_by_hand(logits, target))
        assert log_odds(1e3 * logits.float(), weights.float()).isfinite().all()


@pytest.mark.parametrize("setting", ["cheap", "recommended"])
def test_several_images_are_one_batch_and_get_what_they_get_alone(inpainter, setting):
    """The map of each image does not depend on the others."""
    images = torch.stack([breast_image(seed)[0] for seed in range(3)])
    method = Counterfactual(setting=setting, n_steps=3)
    together = method.explain(model(2, inpainter), images, [1, 0, 1])
    for k, target in enumerate([1, 0, 1]):
        (alone,) = method.explain(model(2, inpainter), images[k : k + 1], [target])
        torch.testing.assert_close(together[k].map, alone.map)


@pytest.mark.slow
def test_the_step_is_one_graph(inpainter):
    """The compiled graph of inpainter, classifier and gradient equals autograd for binary and relaxed masks."""
    torch.manual_seed(0)
    classifier = network(3)
    graphs = classifier_graphs(
        classifier, torch.zeros(2, 1, *SHAPE).double(), n_outputs=3, companions={"inpainter": inpainter}
    )
    images = torch.stack([breast_image(seed)[0] for seed in range(2)])
    masks = (torch.rand(2, 1, *SHAPE) > 0.2).double()
    masks[1] = torch.rand(SHAPE).double()
    weights = torch.eye(3)[[2, 0]].double()
    found, gradient = graphs["counterfactual"](images, masks, weights)
    masks.requires_grad_()
    filled = masks * images + (1 - masks) * inpainter(images, masks)
    expected = torch.stack([odds_by_hand(classifier(filled)[k : k + 1], t)[0] for k, t in enumerate([2, 0])])
    torch.testing.assert_close(found, expected.detach())
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.sum(), masks)[0])


def test_the_printed_setting_does_not_move_the_mask(inpainter):
    """With gradient descent and the printed learning rate no pixel crosses the threshold."""
    image, _ = breast_image()
    (first,) = Counterfactual(setting="paper", n_steps=1).explain(model(2, inpainter), image[None], [1])
    (last,) = Counterfactual(setting="paper", n_steps=20).explain(model(2, inpainter), image[None], [1])
    assert torch.equal(first.pictures["mask"], last.pictures["mask"])


def test_a_heavy_mask_is_empty_and_said_so(inpainter):
    """Where nothing is worth its cost, the mask is empty, the image stays, and a sentence says so."""
    image, _ = breast_image()
    method = Counterfactual(setting="gradient", n_steps=40, weight_score=0.0, weight_overlap=1000.0)
    (found,) = method.explain(model(2, inpainter), image[None], [1])
    assert not found.map.any()
    torch.testing.assert_close(found.pictures["inpainted"], image)
    assert found.numbers["sentence"].startswith("nothing in this image, replaced, lowers the score below 0.")
    assert not found.numbers["changes_class"]


def test_bad_input_is_named(inpainter):
    """No inpainter, no breast, and parameters out of range."""
    image, _ = breast_image()
    with pytest.raises(UnsupportedOperation, match="companion network, inpainter"):
        Counterfactual().explain(EagerClassifier(network(2), (1, *SHAPE)), image[None], [1])
    with pytest.raises(InvalidInput, match="a breast on a darker background, got pixels of one value"):
        Counterfactual().explain(model(2, inpainter), torch.ones_like(image)[None], [1])
    with pytest.raises(InvalidParameter, match=r"threshold must be above 0 and below 1, got 1.0"):
        create("counterfactual", threshold=1.0)
    with pytest.raises(InvalidParameter, match="setting must be one of recommended, paper, paper-working"):
        create("counterfactual", setting="best")


class Bright(torch.nn.Module):
    """Classifier whose log-odds grow with the brightness of a spot."""

    def __init__(self, spot):
        super().__init__()
        self.register_buffer("spot", spot.double())
        self.slope = torch.nn.Parameter(torch.tensor(3.0).double(), requires_grad=False)

    def forward(self, images):
        """Return logits ``(b, 1)``: positive where the spot is brighter than 4 on average."""
        return self.slope * ((images[:, 0] * self.spot).sum((1, 2)) / self.spot.sum() - 4)[:, None]


class Dark(torch.nn.Module):
    """Inpainter that fills with 2."""

    def forward(self, images, masks):
        """Return an even image."""
        return torch.full_like(images, 2.0) + 0 * masks


def spotted(row=20, column=6, side=8):
    """Return an image with a bright square, and the square."""
    image, _ = breast_image()
    spot = torch.zeros(SHAPE, dtype=torch.bool)
    spot[row : row + side, column : column + side] = True
    return torch.where(spot, 6.0, image.clamp(0, 3)), spot


def by_windows(image, spot):
    """Search by hand: windows, joined until the log-odds are below 0, without the cells that are not needed."""
    scale = math.sqrt(SHAPE[0] * SHAPE[1] / (144 * 112))
    side, cell = round(16 * scale), max(2, round(4 * scale))
    organ = organ_mask(image)

    def odds(mask):
        return float(Bright(spot)(torch.where(mask, torch.tensor(2.0).double(), image[0])[None, None])[0, 0])

    windows = []
    for row in range(0, SHAPE[0] - side + 1, side // 2):
        for column in range(0, SHAPE[1] - side + 1, side // 2):
            mask = torch.zeros(SHAPE, dtype=torch.bool)
            mask[row : row + side, column : column + side] = True
            if 2 * int((mask & organ).sum()) >= side * side:
                windows.append(mask & organ)
    windows.sort(key=odds)
    mask, lowest = torch.zeros(SHAPE, dtype=torch.bool), odds(torch.zeros(SHAPE, dtype=torch.bool))
    for window in windows[:12]:
        if lowest > 0 and odds(mask | window) < lowest - 0.05:
            mask, lowest = mask | window, odds(mask | window)
    for _ in range(2):
        cells = []
        for row in range(0, SHAPE[0], cell):
            for column in range(0, SHAPE[1], cell):
                part = torch.zeros(SHAPE, dtype=torch.bool)
                part[row : row + cell, column : column + cell] = True
                if (part & mask).any():
                    cells.append(part & mask)
        cells.sort(key=lambda part: odds(mask & ~part))
        count, limit = len(cells) - 1, max(lowest, 0.0)
        while count:
            less = mask.clone()
            for part in cells[:count]:
                less &= ~part
            if odds(less) <= limit:
                mask, lowest = less, odds(less)
                break
            count //= 2
    return mask


@pytest.mark.parametrize(("row", "column", "side"), [(20, 6, 8), (10, 2, 10), (30, 10, 5)])
def test_windows_find_what_must_be_replaced(row, column, side):
    """The mask is that of the search written as loops; it changes the class, and lies on the spot."""
    image, spot = spotted(row, column, side)
    eager = EagerClassifier(Bright(spot), (1, *SHAPE), companions={"inpainter": Dark()})
    (found,) = Counterfactual().explain(eager, image[None], [1])
    mask = found.pictures["mask"][0] > 0
    assert torch.equal(mask, by_windows(image, spot))
    assert found.numbers["changes_class"]
    assert found.numbers["log_odds_after"] <= 0 < found.numbers["log_odds_before"]
    assert found.numbers["steps"]["log_odds"][-1] == pytest.approx(found.numbers["log_odds_after"])
    # Half of the brightness must go, and cells of 2 pixels need no more.
    assert int((mask & spot).sum()) >= 0.5 * int(spot.sum())
    assert float((mask & ~spot).sum() / mask.sum()) < 0.3


def test_windows_leave_an_image_without_the_class_alone():
    """Where the class is not predicted, nothing has to change, and the sentence says so."""
    image, spot = spotted()
    dim = image.clamp(0, 3)
    eager = EagerClassifier(Bright(spot), (1, *SHAPE), companions={"inpainter": Dark()})
    (found,) = Counterfactual().explain(eager, dim[None], [1])
    assert found.numbers["log_odds_before"] < 0
    assert not found.map.any()
    assert "nothing in this image, replaced, lowers the score below" in found.numbers["sentence"]
