"""What a node sets in its process is set back after each test."""

import gc
import logging
import tempfile
from collections.abc import Iterator

import pytest
from pynetdicom import _config


@pytest.fixture(autouse=True)
def process_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set back pynetdicom, the folder of temporary files and the levels of loggers."""
    for name in ("STORE_RECV_CHUNKED_DATASET", "STORE_SEND_CHUNKED_DATASET"):
        monkeypatch.setattr(_config, name, True)
    monkeypatch.setattr(_config, "LOG_HANDLER_LEVEL", "none")
    monkeypatch.setattr(tempfile, "tempdir", tempfile.tempdir)
    levels = {name: logging.getLogger(name).level for name in ("pynetdicom", "pydicom")}
    gc.freeze()  # of a session that has run for minutes, collecting everything takes seconds
    yield
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
    # Sockets that pynetdicom leaves open are closed within the test that made them.
    gc.collect()
    gc.unfreeze()
