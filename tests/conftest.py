"""What tests of several parts of the library share."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from radlens.families.cdmam.manifest import Bundle
from radlens.families.classifier.manifest import ClassifierBundle

# Consoles take their width from here when they are made, whichever test is the first to make one.
os.environ["COLUMNS"] = "100"


class ByFile(LoadScopeScheduling):
    """Keeps the tests of a file in one process, and all that share the TorchServe of the session.

    Marks for groups of xdist 3.8 have no effect in pytest 9.2, and say nothing about it.
    """

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.split("::")[0]
        return "serving" if "/serving/" in file else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByFile:
    """Return what gives out tests to processes, whatever ``--dist`` says."""
    return ByFile(config, log)


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Calibrations of the tests lie in a folder of their own, in the processes that they start as well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RADLENS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A small untrained bundle."""
    from tiny_bundle import make_bundle

    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session")
def smallest_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished training run of the smallest recipe."""
    from smallest_run import SMALLEST

    from radlens.families.cdmam.training import train

    folder = tmp_path_factory.mktemp("runs") / "smallest"
    train(folder, SMALLEST, device="cpu", n_workers=1)
    return folder


@pytest.fixture(scope="session")
def exported(smallest_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle exported from that run, with graphs and golden values."""
    from radlens.families.cdmam.export import export_bundle
    from radlens.families.cdmam.training import load_run

    return export_bundle(load_run(smallest_folder), tmp_path_factory.mktemp("exported"))


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> ClassifierBundle:
    """A small untrained classifier of three classes."""
    from small_classifier import make_classifier

    return make_classifier(tmp_path_factory.mktemp("classifier"))


@pytest.fixture(scope="session")
def classifier_pair(tmp_path_factory: pytest.TempPathFactory) -> ClassifierBundle:
    """An ensemble of the same network and another one, which can be evaluated but not differentiated."""
    from small_classifier import make_classifier

    folder = tmp_path_factory.mktemp("classifier-pair")
    return make_classifier(folder, name="pair", n_members=2, graphs=("prediction",))
