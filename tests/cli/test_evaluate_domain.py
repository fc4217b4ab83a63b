"""``radlens evaluate --domain``."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from radlens.cli.evaluate_domain import ModelAssessor
from radlens.client import Client
from radlens.evaluation import domain
from radlens.evaluation.domain import DomainRecord, Judgement
from radlens.families.cdmam.manifest import Bundle
from radlens.families.classifier.manifest import ClassifierBundle
from radlens.images import read
from radlens.phantoms.cdmam import SCENARIOS, Layout, simulate

SPACING_MM = 1.0
SMALL = ("--domain", "--phantoms", 2, "--per-group", 2, "--spacing", SPACING_MM)


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few kinds of small images."""
    monkeypatch.setattr(domain, "_UNIT_MM", SPACING_MM)
    monkeypatch.setattr(domain, "_SPACINGS_MM", (SPACING_MM,))
    monkeypatch.setattr(
        domain, "_SIDES", {side: dict(list(kinds.items())[:3]) for side, kinds in domain._SIDES.items()}
    )


def test_both_sides_are_printed_and_written(
    run: Callable[..., Any], bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record is printed and written; the same command again judges no image."""
    monkeypatch.setattr(
        ModelAssessor,
        "__call__",
        lambda self, pixels, spacing_mm: Judgement(bool(np.ptp(pixels) > 0), ("nothing is seen",)),
    )
    result = run("evaluate", bundle.path, *SMALL, "-o", "out")
    assert result.exit_code == 0, result.stderr
    written = json.loads(Path("out/domain.json").read_text())
    record = DomainRecord.from_json(written)
    assert written["model"] == bundle.bundle_hash
    assert (record.trained.n, len(record.right), len(record.wrong), record.passed) == (2, 3, 3, 2)
    assert "0 of 2 unseen images of the training range are refused (0.0%; at most 1 % is allowed)" in result.stdout
    assert "2 of 6 wrong images of 3 kinds are judged" in result.stdout
    assert "blank plate: nothing is seen" in result.stdout
    monkeypatch.setattr(ModelAssessor, "__call__", lambda *image: pytest.fail("judged again"))
    again = run("evaluate", bundle.path, *SMALL, "-o", "out")
    assert again.exit_code == 0, again.stderr
    assert again.stdout == result.stdout


def test_a_classifier_must_know_its_images(run: Callable[..., Any], classifier: ClassifierBundle) -> None:
    """A bundle without training images has no domain to measure."""
    result = run("evaluate", classifier.path, *SMALL)
    assert result.exit_code == 2
    assert "--domain needs a bundle that knows its training images" in " ".join(result.stderr.split())


def test_image_is_handed_on_whole(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixel values beyond 12 bits and unequal spacings survive the file that the service gets."""
    sent: list[bytes] = []

    def predict(self: Client, image: bytes) -> dict[str, Any]:
        sent.append(image)
        return {"assessable": False, "reasons": ["it is not looked at"]}

    monkeypatch.setattr(Client, "predict", predict)
    pixels = 16 * simulate(SCENARIOS["1"], Layout.with_margin(0, (0.8, 1.0))).pixels
    assert not ModelAssessor(bundle.path)(pixels, (0.8, 1.0)).assessable
    (image,) = map(read, sent)
    np.testing.assert_array_equal(image.pixels, pixels)
    assert image.spacing_mm == (0.8, 1.0)


@pytest.mark.slow
def test_service_is_asked(bundle: Bundle) -> None:
    """What the service answers is what counts: a blank image is not judged."""
    judgement = ModelAssessor(bundle.path)(np.full((600, 500), 1000.0, np.float32), (0.4, 0.4))
    assert not judgement.assessable
    assert judgement.reasons
