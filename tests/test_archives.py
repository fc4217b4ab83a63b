"""Archives hold what serving needs: they answer without another radlens, and are equal when they are made again."""

import json
import subprocess
import sys
import sysconfig

import pytest
import torch
from archives import HANDLERS, LIBRARY
from small_classifier import SHAPE, make_classifier, make_network
from small_inpainter import inpainter_files

from radlens.archives import archive, library_files
from radlens.families import FOLDERS, load
from radlens.families.classifier.making import write_traced
from radlens.families.classifier.manifest import TRACED, save_classifier
from radlens.wire import CDC, CLASSIFICATION, INPAINTING

SERVE = """
import base64, json, sys
from pathlib import Path

folder, packages, height, width = sys.argv[1:]
# No .pth file of the environment was read (python -S), so an installed radlens is nowhere.
sys.path[:] = [folder, *sys.path, packages]

import warnings
# TorchServe leaves a file open when it is imported.
warnings.simplefilter("ignore", ResourceWarning)
import numpy as np
from types import SimpleNamespace
import model_handler
from radlens import explainers
from radlens.images import to_npy

answers, pieces = [], []


class Context:
    system_properties = {"model_dir": folder}
    metrics = SimpleNamespace(add_metric=lambda *arguments, **keywords: None)
    stopping_criteria = None

    def __init__(self, headers):
        self.headers, self.request_ids, self.said = headers, {0: "id"}, {}
        self.cl_socket = SimpleNamespace(sendall=pieces.append)

    def get_all_request_header(self, idx):
        return dict(self.headers)

    def get_request_id(self, idx=0):
        return "id"

    def get_response_headers(self, idx):
        return self.said

    def set_response_header(self, idx, key, value):
        self.said[key] = value

    def set_response_status(self, code, phrase, idx):
        self.status = code


handler = model_handler.ModelHandler()
handler.initialize(Context({}))
pixels = np.random.default_rng(0).normal(1000, 100, (int(height), int(width))).astype(np.float32)
bundle = json.loads(Path(folder, "bundle.json").read_text())
body, media_type = to_npy(pixels), "application/octet-stream"
if bundle["task"] == "inpainting":
    parts = {"image": body, "mask": to_npy(np.eye(*pixels.shape, dtype=bool))}
    body = json.dumps({name: base64.b64encode(part).decode() for name, part in parts.items()}).encode()
    media_type = "application/json"


def ask(explain, accept, query=""):
    headers = {"explain": explain, "accept": accept, "content-type": media_type, "url_path": query}
    context = Context(headers)
    (answered,) = handler.handle([{"body": body}], context)
    answers.append({"status": context.status, "query": query, "accept": accept})
    if context.status != 200:
        answers[-1]["body"] = bytes(answered).decode(errors="replace")


for accept in ("application/json", "image/png, application/json;q=0.5"):
    ask("False", accept)
    if bundle["explainers"]:
        ask("True", accept)
for method in bundle["explainers"]:
    ask("True", "application/json", f"method={method}")
strangers = [
    name
    for name, module in sys.modules.items()
    if name.partition(".")[0] == "radlens" and not str(module.__file__).startswith(folder)
]
print(json.dumps({"answers": answers, "strangers": strangers}))
"""
"""For a process that knows no other radlens than the one in an archive."""


@pytest.fixture(
    scope="module",
    params=[
        pytest.param("cdmam", marks=pytest.mark.slow),
        pytest.param("classifier", marks=pytest.mark.slow),
        "inpainter",
    ],
)
def served(request, exported, tmp_path_factory):
    """A bundle of each family, with the sides of its images."""
    if request.param == "cdmam":
        return exported, (250, 250)
    if request.param == "inpainter":
        return load(inpainter_files()), (40, 30)
    bundle = make_classifier(tmp_path_factory.mktemp("bundle"))
    write_traced(bundle.path / TRACED, [make_network(0)], torch.zeros(2, 1, *SHAPE))
    return save_classifier(bundle.path, bundle.manifest), SHAPE


def test_an_archive_answers_without_another_radlens(served, tmp_path):
    """Predictions, pictures and maps of all methods, in a process whose only radlens is that of the archive."""
    bundle, shape = served
    folder = archive(bundle, tmp_path, form="directory")
    packages = sysconfig.get_paths()["purelib"]
    command = [sys.executable, "-I", "-S", "-c", SERVE, str(folder), packages, *map(str, shape)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert found.returncode == 0, found.stderr
    said = json.loads(found.stdout.splitlines()[-1])
    assert said["strangers"] == []
    assert [answer for answer in said["answers"] if answer["status"] != 200] == []
    assert len(said["answers"]) == (4 if bundle.manifest.explainers else 2) + len(bundle.manifest.explainers)


def packed(task):
    """Return the modules that archives of a family hold, dotted."""
    files = [file.relative_to(LIBRARY.parent) for file in library_files(HANDLERS, task) if file.suffix == ".py"]
    return {".".join(file.with_suffix("").parts).removesuffix(".__init__") for file in files}


@pytest.mark.parametrize(("task", "own"), [(CDC, "cdmam"), (CLASSIFICATION, "classifier"), (INPAINTING, "inpainter")])
def test_archives_hold_what_serving_needs(task, own):
    """Its family and no other; no studies, commands, training or export, nor simulators of patients; templates."""
    simulators = ("phantoms.mammogram", "phantoms.nodule", "phantoms.ultrasound")
    left_out = ("studies", "cli", "client", "server", "local", *simulators)
    making = tuple(
        f"families.{own}.{name}" for name in ("export", "cluster", "training", "making", "recipes", "losses")
    )
    others = tuple(folder.removeprefix("radlens.") for folder in FOLDERS.values() if not folder.endswith(own))
    names = packed(task)
    unwanted = (*left_out, *making, *others)
    assert [name for name in names for each in unwanted if name.startswith(f"radlens.{each}")] == []
    assert {"radlens", "radlens.families", f"radlens.families.{own}.service", "radlens.engines.llvm_kernel"} < names
    assert LIBRARY / "figures" / "report.html.j2" in library_files(HANDLERS, task)


def test_imports_are_followed_into_functions_and_lazy_packages(tmp_path):
    """Those of type checkers and, inside functions, of what makes models are not."""
    (tmp_path / "handler.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "from radlens.figures import overlay\n"
        "if TYPE_CHECKING:\n"
        "    import radlens.engines\n"
        "def answer():\n"
        "    import radlens.pools\n"
        "    from radlens.studies import maps\n"
    )
    names = {file.relative_to(LIBRARY).as_posix() for file in library_files(tmp_path)}
    assert {"figures/maps.py", "pools.py"} < names
    assert {name for name in names if name.startswith(("engines", "studies", "figures/report."))} == {
        "figures/report.html.j2"
    }


def test_a_whole_package_is_packed_where_it_is_imported_itself(tmp_path):
    """Any of its names may be used."""
    (tmp_path / "handler.py").write_text("from radlens import evaluation\n")
    names = {file.relative_to(LIBRARY).as_posix() for file in library_files(tmp_path)}
    assert {"evaluation/boxes.py", "evaluation/causal.py", "evaluation/pointing.py"} < names


def test_archives_of_one_bundle_are_equal(served, tmp_path):
    """Byte for byte: neither times nor folders are in them."""
    bundle, _ = served
    first, other = (archive(bundle, tmp_path / name) for name in ("first", "other"))
    assert first.read_bytes() == other.read_bytes()
