"""Debian's Orthanc for tests. It listens on all addresses, so it runs in a network namespace that has only loopback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from programs import needs

import radlens
from radlens.cli.node_demo import PLUGIN, WEB, write_orthanc_settings

ROOT = Path(radlens.__file__).parent.parent


def _unshare() -> list[str]:
    # With a namespace of processes, nothing outlives the script, whatever ends it. Without the rights of root, a
    # namespace of users gives them.
    both = ["unshare", "--net", "--pid", "--fork", "--kill-child"]
    return both if os.geteuid() == 0 else [*both, "--map-root-user"]


def _may_unshare() -> bool:
    return shutil.which("unshare") is None or not subprocess.run([*_unshare(), "true"], capture_output=True).returncode


_PROGRAMS = needs({"Orthanc": "orthanc", str(PLUGIN): "orthanc-dicomweb", "storescu": "dcmtk", "ip": "iproute2"})
_RIGHTS = pytest.mark.skipif(not _may_unshare(), reason="needs the right to make a network namespace (unshare)")


def needs_orthanc(test: Any) -> Any:
    """Mark a test that starts Orthanc."""
    return _RIGHTS(_PROGRAMS(test))


def in_namespace(script: str, *arguments: str, timeout_s: float) -> dict[str, Any]:
    """Run a script of this folder in a namespace of its own, and return the JSON that it prints last."""
    python = [sys.executable, str(Path(__file__).parent / script), *arguments]
    command = [*_unshare(), "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *python]
    path = os.pathsep.join(map(str, (ROOT, Path(__file__).parent, Path(__file__).parent.parent)))
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


class Orthanc:
    """A process of Orthanc in a folder, which keeps what it has when it is stopped and started.

    Args:
        folder: folder of its configuration and its files.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._process = folder, None
        folder.mkdir(parents=True, exist_ok=True)
        self._settings = write_orthanc_settings(folder, "PACS", "NODE")

    def start(self) -> None:
        """Start, and return once it answers."""
        with open(self._folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [shutil.which("Orthanc") or "/usr/sbin/Orthanc", str(self._settings)],
                stdout=log,
                stderr=log,
                cwd=self._folder,
            )
        deadline = time.monotonic() + 30
        while True:
            try:
                httpx.get(f"http://127.0.0.1:{WEB}/system").raise_for_status()
                return
            except httpx.HTTPError:
                assert time.monotonic() < deadline, "Orthanc must answer"
                time.sleep(0.05)

    def stop(self) -> None:
        """Stop, and return once it has ended."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(30)
            self._process = None

    def get(self, path: str) -> Any:
        """Return JSON of its REST interface."""
        return httpx.get(f"http://127.0.0.1:{WEB}{path}", timeout=60).raise_for_status().json()

    def instances(self) -> list[dict[str, Any]]:
        """Return the simplified tags of each instance that it holds."""
        return [self.get(f"/instances/{each}/simplified-tags") for each in self.get("/instances")]
