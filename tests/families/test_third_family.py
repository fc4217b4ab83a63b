"""A third family in one folder, with a method and a companion network, registered by one line."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import numpy as np
import pytest

import radlens

pytestmark = pytest.mark.slow

LIBRARY = Path(radlens.__file__).parent
TOY = Path(__file__).with_name("toy")

COMMAND = "import sys; from radlens.cli import main; sys.exit(main())"

SERVE = """
import json, sys
from pathlib import Path
folder, packages = sys.argv[1:]
sys.path[:] = [folder, *sys.path, packages]
import numpy as np
from radlens.families import load, open_service
from radlens.images import to_npy
from radlens.service import request_from_http
service = open_service(load(Path(folder)))
image = to_npy(np.random.default_rng(0).random((12, 12)).astype(np.float32))
asked = request_from_http("explain", image, {"content-type": "application/octet-stream"}, {"times": "2"}, "id")
(response,) = service.respond([asked])
import radlens
print(json.dumps([response.status, json.loads(response.body)["explanation"]["method"], radlens.__file__,
                  sorted(name for name in sys.modules if name.startswith("radlens.families."))]))
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of radlens with the folder of the toy and one line more."""
    root = tmp_path_factory.mktemp("tree")
    shutil.copytree(LIBRARY, root / "radlens", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(LIBRARY.parent / "handlers", root / "handlers", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(TOY, root / "radlens" / "families" / "toy", ignore=shutil.ignore_patterns("__pycache__"))
    registry = root / "radlens" / "families" / "__init__.py"
    lines = registry.read_text(encoding="utf-8").splitlines(keepends=True)
    last = next(k for k, line in enumerate(lines) if "CLASSIFICATION: " in line)
    lines.insert(last + 1, '    "toy-size": "radlens.families.toy",\n')
    registry.write_text("".join(lines), encoding="utf-8")
    return root


class Tree:
    """Runs the command line of a copy of radlens in a folder."""

    def __init__(self, root, folder):
        self.folder, self._environment = folder, {**os.environ, "PYTHONPATH": str(root), "COLUMNS": "100"}

    def __call__(self, *arguments):
        """Return standard output."""
        command = [sys.executable, "-c", COMMAND, *map(str, arguments)]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=self.folder, env=self._environment, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def run(tree, tmp_path_factory):
    """Runs the command line of that copy in one folder."""
    return Tree(tree, tmp_path_factory.mktemp("work"))


def test_it_trains_exports_predicts_explains_and_prints(run):
    """With the commands of every family, which know nothing of it."""
    assert "Of the toy" in run("train", "runs/toy", "--model", "toy")
    assert (run.folder / "runs" / "toy" / "training.json").is_file()
    assert "methods: blurred_difference, sensitivity" in run("export", "runs/toy")
    image = np.zeros((12, 12), np.float32)
    image[3:7, 2:8] = 1
    np.save(run.folder / "image.npy", image)
    bundle = run.folder / "model_store" / "bundles" / "toy-1.0"
    assert "Size" in run("predict", "image.npy", "--bundle", bundle)
    answer = json.loads(run("predict", "image.npy", "--bundle", bundle, "--json"))
    assert answer["task"] == "toy-size"
    # The network learnt to add up pixels: 24 are bright.
    assert answer["prediction"]["size"] == pytest.approx(24, abs=4)
    run("explain", "image.npy", "--bundle", bundle, "--parameter", "times=2", "-o", "out")
    values = np.load(run.folder / "out" / "map.npy")
    assert values.shape == (12, 12)
    # Blurring darkens the square and brightens its surroundings; the mean of 3x3 pixels leaves its middle alone.
    assert values[3, 2] < 0 < values[2, 3]
    assert "score.onnx" in run("parity", bundle, "--here")


def test_its_archive_holds_it_and_no_other_family(run):
    """It answers with nothing else of radlens on the path."""
    archive = run.folder / "model_store" / "toy-1.0.mar"
    unpacked = run.folder / "unpacked"
    with zipfile.ZipFile(archive) as entries:
        entries.extractall(unpacked)
    assert "minWorkers: 1" in (unpacked / "model-config.yaml").read_text()
    command = [sys.executable, "-I", "-S", "-c", SERVE, str(unpacked), sysconfig.get_paths()["purelib"]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    status, method, where, families = json.loads(done.stdout.splitlines()[-1])
    assert (status, method) == (200, "blurred_difference")
    assert Path(where).is_relative_to(unpacked)
    assert families == ["radlens.families.base", "radlens.families.toy", "radlens.families.toy.family"]
    assert not (unpacked / "radlens" / "families" / "cdmam").exists()
