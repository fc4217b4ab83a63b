"""Counterfactual impact analysis with a proposed mask."""

import pytest
import torch
from small_classifier import make_network
from torch import nn

from radlens.errors import InvalidParameter, UnsupportedOperation
from radlens.explainers import CounterfactualFast, EagerClassifier, create
from radlens.graphs import classifier_graphs
from radlens.networks import MaskProposer, PartialConvInpainter

SHAPE = (48, 32)


class Spot(nn.Module):
    """Classifier of one output: positive where more than ``most`` pixels are brighter than 4."""

    def __init__(self, most=20):
        super().__init__()
        self.most = most

    def forward(self, images):
        """Return logits ``(b, 1)``."""
        return ((images[:, 0] > 4).sum((1, 2)).to(images) - self.most)[:, None]


class Even(nn.Module):
    """Inpainter that fills with 2."""

    def forward(self, images, masks):
        """Return an even image."""
        return torch.full_like(images, 2.0) + 0 * masks


class Bright(nn.Module):
    """Proposer: the logit is the distance to the brightness of 5."""

    classes = (1,)

    def forward(self, images):
        """Return logits ``(b, 1, h, w)``."""
        return images - 5


def spotted():
    """Return an image with a spot of 36 pixels, 16 of them bright enough for a proposal, and its organ."""
    image = torch.zeros(1, *SHAPE)
    image[0, 8:40, :24] = 2.0
    image[0, 20:26, 6:12] = 4.5
    image[0, 21:25, 7:11] = 6.0
    return image


def model(most=20, proposer=None):
    """Return the classifier with its companions."""
    companions = {"inpainter": Even(), "proposer": proposer or Bright()}
    return EagerClassifier(Spot(most), (1, *SHAPE), companions=companions)


def test_the_proposed_region_is_replaced_and_scored():
    """Without refinement: the pixels above the threshold, filled, and the score of what results."""
    image = spotted()
    (found,) = CounterfactualFast().explain(model(), image[None], [1])
    mask = found.pictures["mask"][0] > 0
    assert torch.equal(mask, image[0] > 5)
    assert torch.equal(found.pictures["inpainted"][0], torch.where(mask, 2.0, image[0]))
    torch.testing.assert_close(found.map, torch.sigmoid(image - 5) * (image > 0))
    assert (found.numbers["log_odds_before"], found.numbers["log_odds_after"]) == (16, 0)
    assert found.numbers["changes_class"]
    assert found.numbers["area_of_organ"] == pytest.approx(16 / (32 * 24))


def test_refinement_takes_the_smallest_mask_that_changes_the_class():
    """Where the proposal is too small a lower threshold is found; where nothing helps, the lowest score."""
    image = spotted()
    (alone,) = CounterfactualFast().explain(model(most=10), image[None], [1])
    assert not alone.numbers["changes_class"]
    (refined,) = CounterfactualFast(refine=10).explain(model(most=10), image[None], [1])
    assert refined.numbers["changes_class"]
    assert torch.equal(refined.pictures["mask"][0] > 0, image[0] > 4)
    (never,) = CounterfactualFast(refine=10).explain(model(most=-5), image[None], [1])
    assert not never.numbers["changes_class"]
    assert never.numbers["log_odds_after"] == 5
    assert "changes the score from" in never.numbers["sentence"]


def test_nothing_is_replaced_where_the_class_is_not_predicted():
    """The mask is empty and the image stays, whatever is proposed."""
    image = spotted()
    (found,) = CounterfactualFast(refine=4).explain(model(most=40), image[None], [1])
    assert found.map.any()
    assert not found.pictures["mask"].any()
    assert torch.equal(found.pictures["inpainted"], image)
    assert found.numbers["log_odds_after"] == found.numbers["log_odds_before"] == -4
    assert "nothing in this image" in found.numbers["sentence"]


def test_nothing_outside_the_organ_is_replaced():
    """With an organ mask from the user."""
    image, organ = spotted(), torch.zeros(SHAPE, dtype=torch.bool)
    organ[:23] = True
    (found,) = CounterfactualFast().within(organ).explain(model(), image[None], [1])
    assert torch.equal(found.pictures["mask"][0] > 0, (image[0] > 5) & organ)
    assert not found.map[0, 23:].any()


def test_classes_without_proposals_and_missing_companions_are_named():
    """The message names the class, or the companion."""
    with pytest.raises(InvalidParameter, match="a class that the proposer was trained for, got class 0"):
        CounterfactualFast().explain(model(), spotted()[None], [0])
    alone = EagerClassifier(Spot(), (1, *SHAPE), companions={"inpainter": Even()})
    with pytest.raises(UnsupportedOperation, match="companion network, proposer"):
        CounterfactualFast().explain(alone, spotted()[None], [1])
    other = model(proposer=MaskProposer(1, (5,), 2))
    with pytest.raises(InvalidParameter, match="one for a classifier of 2 classes, got class 5"):
        CounterfactualFast().explain(other, spotted()[None], [0])
    with pytest.raises(InvalidParameter, match="refine must be at least 0, got -1"):
        create("counterfactual_fast", refine=-1)


@pytest.mark.slow
@pytest.mark.parametrize(("n_outputs", "classes"), [(1, (0,)), (1, (1, 0)), (3, (2,)), (3, (0, 2))])
def test_the_compiled_questions_equal_the_networks(n_outputs, classes):
    """The map of the class of each image, zero and unknown for classes without proposals; the score of a mask."""
    torch.manual_seed(0)
    proposer = MaskProposer(1, classes, width=2).eval().double()
    inpainter, classifier = PartialConvInpainter(1, 2).eval().double(), make_network(3, n_outputs).double()
    companions = {"inpainter": inpainter, "proposer": proposer}
    images = torch.randn(3, 1, *SHAPE).double()
    graphs = classifier_graphs(classifier, images[:2], n_outputs=n_outputs, companions=companions)
    targets = torch.tensor([0, 1, 0] if n_outputs == 1 else [2, 1, 0])
    weights = torch.where(targets > 0, 1.0, -1.0)[:, None] if n_outputs == 1 else torch.eye(3)[targets]
    mask, known = graphs["proposal"](images, weights.double())
    drawn = torch.sigmoid(proposer(images))
    for k, target in enumerate(targets.tolist()):
        assert float(known[k]) == (target in classes)
        expected = drawn[k, classes.index(target)] if target in classes else torch.zeros(SHAPE).double()
        torch.testing.assert_close(mask[k, 0], expected)
    eager = EagerClassifier(classifier, (1, *SHAPE), companions=companions)
    torch.testing.assert_close(eager.ask("proposal", targets, images=images)[0], mask)
    masks = (torch.rand(3, 1, *SHAPE) > 0.3).double()
    (odds,) = graphs["impact"](images, masks, weights.double())
    expected, _ = graphs["counterfactual"](images, masks, weights.double())
    torch.testing.assert_close(odds, expected)
    torch.testing.assert_close(eager.ask("impact", targets, images=images, masks=masks)[0], odds)
