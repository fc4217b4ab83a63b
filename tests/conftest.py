"""What tests of several parts of the library share."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import smallest_run
from made_once import copied, tidy
from shared_server import HOST, make_store, needs_shared_server, starting

from radlens.families.cdmam.manifest import Bundle
from radlens.families.classifier.manifest import ClassifierBundle
from radlens.server import Server

# Consoles take their width from here when they are made, whichever test is the first to make one.
os.environ["COLUMNS"] = "100"

TESTS = Path(__file__).parent

SLOW_TIMEOUT_S = 600
"""Limit of tests that are marked as slow; the limit of the others is in pyproject.toml."""


LONG = (
    "test_archives.py",
    "node/test_node_receiving.py",
    "node/test_node_sending.py",
    "families/test_third_family.py",
    "docs/test_developer_page.py",
    "cli/test_demo_command.py",
    "studies/test_amanova.py",
    "families/cdmam/test_cdmam_registered.py",
    "families/cdmam/test_cluster.py",
    "families/cdmam/test_cdmam_training.py",
    "domain/test_wrong_images.py",
    "families/cdmam/test_cdmam_export.py",
    "cli/test_bundle_command.py",
    "phantoms/test_disk_blur.py",
    "domain/test_right_images.py",
    "graphs/test_gradient.py",
    "cli/test_explain_command.py",
    "engines/test_llvm_engine.py",
    "families/cdmam/test_registered_service.py",
    "families/cdmam/test_cdmam_gradient.py",
    "phantoms/test_registered.py",
    "cli/test_inpainter_commands.py",
    "families/inpainter/test_inpainter_bundle.py",
    "families/inpainter/test_inpainter_training.py",
    "families/inpainter/test_perceptual_network.py",
    "cli/test_evaluate_causal.py",
    "engines/test_engines.py",
    "phantoms/test_registration.py",
    "families/cdmam/test_cdmam_members.py",
    "cli/test_read_out_command.py",
    "evaluation/test_causal.py",
    "graphs/test_deep_lift.py",
    "graphs/test_onnx.py",
    "families/inpainter/test_inpainter_service.py",
    "families/inpainter/test_healthy_images.py",
    "figures/test_report.py",
    "families/cdmam/test_trained_ablation.py",
    "families/classifier/test_classifier_model.py",
    "graphs/test_asks.py",
    "families/classifier/test_making.py",
    "families/classifier/test_black_boxes.py",
    "studies/test_reproduction.py",
    "domain/test_findings.py",
    "phantoms/test_exposures.py",
    "cli/test_report_command.py",
    "graphs/test_classifier_graphs.py",
    "cli/test_classifier_commands.py",
    "handlers/test_handler.py",
    "graphs/passes/test_passes.py",
    "cli/test_figures_command.py",
    "figures/test_questionnaire.py",
    "cli/test_study_command.py",
    "families/cdmam/test_service.py",
    "families/cdmam/test_trained_walk.py",
    "test_notebook.py",
    "families/test_every_family.py",
    "families/test_dicom_answers.py",
    "dicom/test_conformance.py",
    "networks/test_cdmam_network.py",
    "families/companions/test_cycle_training.py",
    "graphs/test_relevance.py",
    "explainers/test_against_captum.py",
    "explainers/test_eager.py",
    "engines/test_memory.py",
    "cli/test_evaluate_image_domain.py",
    "families/classifier/test_image_domain.py",
    "graphs/test_classifier_export.py",
    "graphs/test_golden_values.py",
    "cli/test_local.py",
    "families/classifier/test_class_answers.py",
    "engines/test_tensorrt_engine.py",
    "engines/test_llvm_kernel.py",
    "families/classifier/test_nodule_images.py",
    "families/classifier/test_distilling.py",
    "cli/test_companion_commands.py",
    "cli/test_reliability_command.py",
    "studies/test_katzmann.py",
)
"""Files that take more than five seconds, in the order in which processes take them: about the longest first."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Return the scheduler, whatever ``--dist`` says."""
    from by_file import ByFile

    config.option.loadscopereorder = False
    return ByFile(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests of long files, let slow tests run longer, and begin with long files where processes share the tests.

    The last file must be a short one: the other processes wait for it.
    """
    ranks = {TESTS / name: rank for rank, name in enumerate(LONG)}
    for item in items:
        if item.path in ranks:
            item.add_marker(pytest.mark.long)
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT_S))
    if is_worker(config):
        items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


def is_worker(config: pytest.Config) -> bool:
    """Return whether another process started this one to share its tests."""
    return hasattr(config, "workerinput")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--fresh``."""
    parser.addoption("--fresh", action="store_true", help="make all shared files anew, see tests/made_once.py")


def pytest_configure(config: pytest.Config) -> None:
    """Tidy up the shared files, in the one process that starts the others."""
    if not is_worker(config):
        tidy(fresh=config.getoption("--fresh"))


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Calibrations of the tests lie in a folder of their own, in the processes that they start as well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RADLENS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def starting_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model store of the shared TorchServe."""
    return make_store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def starting_server(starting_store: Path) -> Iterator[Server]:
    """The shared TorchServe, which need not answer yet."""
    with starting(starting_store) as server:
        yield server


@pytest.fixture(scope="session", autouse=True)
def _server_starts(request: pytest.FixtureRequest) -> None:
    """The shared TorchServe starts with the first test, if any test needs it."""
    process = getattr(request.config, "workerinput", {"workerid": HOST})["workerid"]
    if process == HOST and any(needs_shared_server(item.nodeid) for item in request.session.items):
        # The tests that need it fail if it does not start, and no others.
        with suppress(Exception):
            request.getfixturevalue("starting_server")


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A small untrained bundle."""
    from tiny_bundle import make_bundle

    return make_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session")
def smallest_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished training run of the smallest recipe."""
    return copied("smallest", smallest_run.make, tmp_path_factory.mktemp("runs") / "smallest")


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The bundle exported from that run, with graphs and golden values."""
    return Bundle.load(copied("exported", smallest_run.make_exported, tmp_path_factory.mktemp("exported") / "bundle"))


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
