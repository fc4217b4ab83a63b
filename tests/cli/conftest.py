"""What tests of commands share: a runner, small images, and a server that answers with the small bundle."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from local_server import serving
from typer.testing import CliRunner

from radlens.cli import app
from radlens.families.cdmam.manifest import Bundle
from radlens.images import to_npy
from radlens.phantoms.cdmam import SCENARIOS, Layout, simulate, to_dicom

Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in an empty directory; its result has ``exit_code``, ``stdout`` and ``stderr``."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    for name in ("RADLENS_SERVER", "RADLENS_TOKEN", "RADLENS_WORKDIR"):
        monkeypatch.delenv(name, raising=False)
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom with pixels of 0.4 mm: 534 x 337 of them."""
    file = tmp_path_factory.mktemp("images") / "phantom.dcm"
    file.write_bytes(to_dicom(simulate(SCENARIOS["1"], Layout.with_margin(0, 0.4))))
    return file


@pytest.fixture(scope="session")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image without a phantom and without a spacing."""
    file = tmp_path_factory.mktemp("images") / "noise.npy"
    pixels = np.random.default_rng(0).normal(1000, 100, (260, 270)).astype(np.float32)
    file.write_bytes(to_npy(pixels))
    return file


@pytest.fixture(scope="session")
def server_url(bundle: Bundle) -> Iterator[str]:
    """An HTTP server in this process that answers with the small bundle and wants the key ``secret``."""
    with serving(bundle) as url:
        yield url
