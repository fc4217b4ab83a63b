"""A classifier with random generators beside it, as a bundle that is made once."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import torch
from made_once import made
from small_classifier import make_network
from torch import nn

from radlens.datasets import ModelInput
from radlens.families.classifier.fingerprint import network_hash
from radlens.families.classifier.making import bundle_classifier
from radlens.families.companions import load_companions, trained_for
from radlens.families.companions.generators import TASK, WEIGHTS
from radlens.networks import GeneratorPair

SHAPE = (24, 16)
CLASSES = ("benign", "malignant")
INPUT = ModelInput(SHAPE, scaling="fixed", mean=(-1000.0,), std=(1400.0,))


def generators(seed=4):
    """Return random generators whose changes are visible."""
    torch.manual_seed(seed)
    pair = GeneratorPair(1, 2).eval()
    for generator in (pair.plus, pair.minus):
        nn.init.normal_(generator.last.weight, 0, 0.3)
    return pair.requires_grad_(False)


def pixels(seed=0):
    """Return Hounsfield units of a lung with a nodule."""
    image = np.random.default_rng(seed).normal(-850, 40, SHAPE)
    image[8:14, 5:11] = 50
    return image.astype(np.float32)


def write_run(folder, members, **changes):
    """Write the run of a pair, as the training does."""
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / WEIGHTS, **{name: value.numpy() for name, value in generators().state_dict().items()})
    record = {
        "task": TASK,
        "recipe": {"width": 2, "form": "recommended"},
        "classes": [0, 1],
        "classifier": {"name": "nodules", "version": "", "network_hash": network_hash(members), "classes": CLASSES},
        "model_input": INPUT.to_json(),
        **changes,
    }
    (folder / "training.json").write_text(json.dumps(record))
    return folder


def bundled(folder, members, run):
    """Bundle a classifier with the generators of a run."""
    beside = load_companions({} if run is None else {"generators": run}, INPUT)
    graphs = ("prediction", "gradient", *(("generated", "cycled") if beside else ()))
    with patch("radlens.graphs.asks.answerable", lambda companions: graphs):
        return bundle_classifier(
            members,
            folder,
            name="nodules",
            version="1.0",
            classes=CLASSES,
            model_input=INPUT,
            companions={kind: each.network for kind, each in beside.items()},
            origins={kind: each.origin for kind, each in beside.items()},
            trained_for=trained_for(beside),
            randomise=False,
        )


def cycle_bundle():
    """Return the folder of the bundle; nothing in it may be changed."""

    def make(folder):
        members = [make_network(0, 2)]
        with TemporaryDirectory() as scratch:
            bundled(folder, members, write_run(Path(scratch), members))

    return made("cycle-bundle", make)
