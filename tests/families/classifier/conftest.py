"""Services of the small classifiers."""

import pytest
from small_classifier import EagerMember, class_methods, make_classifier

from radlens.families import open_service
from radlens.families.classifier import ClassifierService
from radlens.families.classifier.model import EnsembleClassifier


@pytest.fixture(scope="session")
def service(classifier):
    """A service of one member, computed by its graphs."""
    return open_service(classifier, engine="onnxruntime")


@pytest.fixture(scope="session")
def pair(classifier_pair):
    """A service of two members, computed by their graphs."""
    return open_service(classifier_pair, engine="onnxruntime")


@pytest.fixture
def eager_service(tmp_path, monkeypatch):
    """Return a function that makes a service of any model, by default the eager form of a bundle's members.

    Arguments are those of `make_classifier`; ``model`` computes in the place of the members.
    """

    def make(*, model=None, n_members=1, n_outputs=3, **options):
        members = [EagerMember(seed, n_outputs) for seed in range(n_members)]
        computes = model or EnsembleClassifier(members)
        monkeypatch.setattr("radlens.families.classifier.service.open_model", lambda bundle, *how, **limits: computes)
        everything = {"graphs": (), "explainers": tuple(class_methods()), "refused": {}} | options
        return ClassifierService(
            make_classifier(tmp_path / "eager", n_members=n_members, n_outputs=n_outputs, **everything)
        )

    return make
