"""The code of docs/developer.md works as it stands there: a method, a question and a family, each in its own files."""

import json
import re
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner, Result

import radlens
from radlens import explainers
from radlens.cli import app
from radlens.errors import InvalidParameter
from radlens.explainers import EagerClassifier
from radlens.explainers import base as registry
from radlens.families import FOLDERS
from radlens.families.classifier.export import export_classifier
from radlens.families.classifier.model import GraphClassifier
from radlens.graphs import asks, classifier_graphs
from radlens.images import to_png

PAGE = Path(__file__).parents[2] / "docs" / "developer.md"

FILES = dict(re.findall(r"^```python\n# (\S+\.py)\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S))
"""Code of the page by the file that it is for."""


@pytest.fixture
def added(tmp_path, monkeypatch):
    """Import a file of the page as if it lay in the library; the registries forget it afterwards."""
    for path, code in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(code, encoding="utf-8")
    for package in ("explainers", "graphs", "families"):
        module = import_module(f"radlens.{package}")
        monkeypatch.setattr(module, "__path__", [*module.__path__, str(tmp_path / "radlens" / package)])
    monkeypatch.setattr(registry, "_REGISTRY", dict(registry._REGISTRY))
    monkeypatch.setattr(asks, "_REGISTRY", dict(asks._REGISTRY))
    monkeypatch.setitem(FOLDERS, "brightness", "radlens.families.brightness")
    known = set(sys.modules)
    yield lambda file: import_module(".".join(Path(file).with_suffix("").parts))
    for name in set(sys.modules) - known:
        if (tmp_path / "radlens").as_posix() in str(getattr(sys.modules[name], "__file__", "")):
            package, _, attribute = name.rpartition(".")
            vars(sys.modules.get(package, radlens)).pop(attribute, None)
            del sys.modules[name]


def test_the_method_explains(added):
    """A bare module, with a parameter out of range refused; the page's own test passes."""
    added("radlens/explainers/gradient_input.py")
    code = FILES["tests/explainers/test_gradient_input.py"]
    scope: dict[str, Callable[[], None]] = {}
    exec(code, scope)
    tests = [function for name, function in scope.items() if name.startswith("test_")]
    assert len(tests) == 1
    tests[0]()
    assert "gradient_input" in explainers.names()
    described = explainers.create("gradient_input").described(score="score", unit="logit", image="grey value")
    assert described == {"unit": "logit", "meaning": "first-order share of a pixel in the score"}
    with pytest.raises(InvalidParameter, match="baseline must be a finite number, got nan"):
        explainers.create("gradient_input", baseline=float("nan"))


class Filler(nn.Module):
    """Fills holes with a blurred copy of what is around them."""

    def __init__(self) -> None:
        super().__init__()
        self.blur = nn.Conv2d(1, 1, 5, padding=2)

    def forward(self, images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Take images and holes, ``(b, 1, h, w)`` each."""
        return images * (1 - masks) + self.blur(images * (1 - masks)) * masks


@pytest.mark.slow
def test_the_question_is_answered(added, tmp_path):
    """By the exported graph as by torch."""
    added("radlens/graphs/filled_ask.py")
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)]
    network, filler = nn.Sequential(*layers).eval(), Filler()
    images, targets = torch.randn(2, 1, 12, 10), torch.tensor([0, 2])
    masks = (images > 0.5).float()
    graphs = classifier_graphs(network, images, n_outputs=3, companions={"filler": filler})
    report = export_classifier(graphs, tmp_path, "member-0", images, 3, names=["prediction", "filled"])
    assert report.graphs == ("prediction", "filled")
    files = {name: tmp_path / f"member-0.{name}.onnx" for name in report.graphs}
    found = GraphClassifier(files, 3, (1, 12, 10)).ask("filled", targets, images=images, masks=masks)
    model = EagerClassifier(network, (1, 12, 10), companions={"filler": filler})
    torch.testing.assert_close(found, model.ask("filled", targets, images=images, masks=masks))


@pytest.mark.slow
def test_the_family_is_trained_exported_and_served(added, tmp_path, monkeypatch):
    """By the commands that the page gives; the prediction is the mean grey value to 2 %."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(0).integers(300, 500, (100, 80)).astype(np.uint16)
    Path("image.png").write_bytes(to_png(pixels))
    bundle = "model_store/bundles/brightness-1.0"
    commands = re.findall(r"^\$ radlens (.*(?:runs/|bundles/)brightness.*)$", PAGE.read_text(encoding="utf-8"), re.M)
    assert len(commands) == 5
    for command in commands:
        run(command)
    answer = json.loads(run(f"predict image.png --json --bundle {bundle}").stdout)
    assert answer["task"] == "brightness"
    assert answer["prediction"]["brightness"] == pytest.approx(pixels.mean(), rel=0.02)
    explanation = json.loads(Path("out/explanation.json").read_text())
    assert explanation["provenance"]["explainer"]["parameters"]["window"] == 8
    assert np.load("out/map.npy").shape == pixels.shape
    assert "onnxruntime" in run(f"parity {bundle} --here").stdout
    refused = run(f"explain image.png --bundle {bundle} --method tea -o no/", exit_code=2)
    assert "method must be one of saliency, occlusion, got 'tea'" in refused.stderr


def run(command: str, exit_code: int = 0) -> Result:
    """Run a command in this process."""
    found = CliRunner().invoke(app, command.split())
    assert found.exit_code == exit_code, f"{command}: {found.stderr}"
    return found
