"""The hash of the weights of a classifier."""

import pytest
import torch
from small_classifier import make_network
from torch import nn

from radlens.families.classifier.fingerprint import network_hash


def test_equal_weights_have_one_hash_wherever_they_are():
    """Inside another module, after a trip through TorchScript, and in another type; other weights have another."""
    network = make_network(0)
    known = network_hash([network])
    assert len(known) == 64
    assert network_hash([make_network(0)]) == known
    assert network_hash([nn.Sequential(network, nn.Softmax(1))]) == known
    assert network_hash([torch.jit.trace(network, torch.zeros(2, 1, 32, 24))]) == known
    assert network_hash([make_network(0).double()]) == known
    assert network_hash([make_network(1)]) != known
    changed = make_network(0)
    with torch.no_grad():
        changed[-1].bias[0] += 1e-6
    assert network_hash([changed]) != known


def test_the_order_and_the_number_of_members_count():
    """An ensemble is another classifier than its member."""
    one, other = make_network(0), make_network(1)
    found = {network_hash(members) for members in ([one], [one, one], [one, other], [other, one])}
    assert len(found) == 4


@pytest.mark.parametrize("part", ["running_mean", "weight"])
def test_statistics_of_norms_count_as_weights(part):
    """They decide about the output as the weights do."""
    norm, other = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    getattr(other, part).data += 0.1
    assert network_hash([norm]) != network_hash([other])
