"""What tests of studies share: runs of a second, their models and their images."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from study_runs import N_TEST, make_run, small_studies

from radlens.studies import CaseSet, Store, StudyModel, open_cases, run_model, source_of


@pytest.fixture(scope="module", autouse=True)
def _small() -> Iterator[None]:
    with small_studies():
        yield


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of the ultrasound classifier."""
    with small_studies():
        return make_run(tmp_path_factory.mktemp("runs") / "ultrasound-resnet", "ultrasound-resnet")


@pytest.fixture(scope="session")
def model(run_folder: Path) -> StudyModel:
    """The ultrasound classifier, computed by torch."""
    with small_studies():
        return run_model(run_folder)


@pytest.fixture(scope="session")
def case_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The store that the images lie in."""
    return Store(tmp_path_factory.mktemp("cases"))


@pytest.fixture(scope="session")
def cases(model: StudyModel, case_store: Store) -> CaseSet:
    """Simulated ultrasound images, benign and malignant ones in turn."""
    with small_studies():
        return open_cases(source_of(model, n_simulated=N_TEST), case_store)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "work")
