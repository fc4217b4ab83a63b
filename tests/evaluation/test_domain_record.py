"""Both sides of a domain, measured with models that are right or wrong on purpose."""

import json
from pathlib import Path

import numpy as np
import pytest

from radlens.errors import InvalidInput, InvalidParameter
from radlens.evaluation.domain import TRAINED, DomainRecord, Judgement, Kind, domain_record, trained_image
from radlens.evaluation.wrong_phantoms import RIGHT, WRONG

KINDS = ("blank plate", "black", "as trained", "gain 2", "transposed")
SPACING_MM = 1.0
"""Images of 200 x 150 pixels; those of the training range have the spacings of training."""


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of the training range are as small as the others."""
    monkeypatch.setattr("radlens.evaluation.domain._UNIT_MM", SPACING_MM)
    monkeypatch.setattr("radlens.evaluation.domain._SPACINGS_MM", (0.9,))


def has_contrast(pixels: np.ndarray, spacing_mm: tuple[float, float]) -> Judgement:
    """A model that judges whatever is not blank."""
    if np.ptp(pixels) > 0:
        return Judgement(True)
    return Judgement(False, (f"the values reach from {pixels.min():.0f} to {pixels.max():.0f}", "nothing is seen"))


def measured(assess=has_contrast, **options) -> DomainRecord:
    """Measure a model on few small images."""
    return domain_record(assess, **{"n_trained": 3, "n_each": 2, "spacing_mm": SPACING_MM, "kinds": KINDS} | options)


def test_right_model_holds() -> None:
    """It judges all phantoms and refuses all wrong images; reasons are counted without their numbers."""
    record = measured()
    assert record.holds
    assert record.trained == Kind(3, 0, {})
    assert record.right == {name: Kind(2, 0, {}) for name in ("as trained", "gain 2", "transposed")}
    assert record.wrong == {name: Kind(2, 2, {"the values reach from # to #": 2}) for name in ("blank plate", "black")}


def test_model_that_judges_everything_fails() -> None:
    """Four wrong images pass."""
    record = measured(lambda pixels, spacing_mm: Judgement(True))
    assert (record.passed, record.share_refused, record.holds) == (4, 0.0, False)


def test_model_that_refuses_everything_fails() -> None:
    """No wrong image passes, but no phantom does either."""
    record = measured(lambda pixels, spacing_mm: Judgement(False))
    assert (record.passed, record.share_refused, record.holds) == (0, 1.0, False)
    assert record.trained.reasons == {"no reason is given": 3}


def test_one_refusal_of_a_hundred_is_allowed() -> None:
    """At most 1 %."""
    whole = {"wrong": {}, "right": {}, "seed": 0}
    assert DomainRecord(trained=Kind(100, 1, {}), **whole).holds
    assert not DomainRecord(trained=Kind(199, 2, {}), **whole).holds


def test_interrupted_measurement_goes_on(tmp_path: Path) -> None:
    """What was judged is not judged again, and a line that was cut off is."""
    record = measured(folder=tmp_path, identity="a")
    (file,) = tmp_path.iterdir()
    lines = file.read_text().splitlines()
    assert len(lines) == 3 + 2 * len(KINDS)
    file.write_text("\n".join(lines[:-1]) + "\n" + lines[-1][:5])
    seen = []

    def assess(pixels: np.ndarray, spacing_mm: tuple[float, float]) -> Judgement:
        seen.append(pixels)
        return has_contrast(pixels, spacing_mm)

    assert measured(assess, folder=tmp_path, identity="a") == record
    assert len(seen) == 1
    measured(assess, folder=tmp_path, identity="b")
    assert len(seen) == 1 + 3 + 2 * len(KINDS)


def test_progress_ends_with_all_images() -> None:
    """Each image is reported."""
    seen = []
    measured(on_progress=lambda stage, done, total: seen.append((done, total)))
    assert seen == [(k, 13) for k in range(14)]


def test_images_follow_from_seed_and_number() -> None:
    """Image k is the same for every number of images, and no two are alike."""
    first, again, other, seeded = (trained_image(*each) for each in ((0, 3), (0, 3), (0, 4), (1, 3)))
    np.testing.assert_array_equal(first[0], again[0])
    assert first[1] == again[1]
    for image in (other, seeded):
        assert image[0].shape != first[0].shape or (image[0] != first[0]).any()


def test_record_survives_json() -> None:
    """Write, read, compare."""
    record = measured()
    assert DomainRecord.from_json(json.loads(json.dumps(record.as_json()))) == record


@pytest.mark.parametrize("damage", [{"trained": {}}, {"wrong": []}, {"seed": None}])
def test_damaged_record_is_refused(damage: dict[str, object]) -> None:
    """Each side and the seed are needed."""
    with pytest.raises(InvalidInput, match="must hold trained, right, wrong and seed"):
        DomainRecord.from_json(measured().as_json() | damage)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_trained": 0}, "n_trained must be at least 1, got 0"),
        ({"n_each": 0}, "n_each must be at least 1, got 0"),
        ({"kinds": ("a cat",)}, "unknown kind of image: a cat"),
    ],
)
def test_impossible_measurement_is_refused(options: dict[str, object], message: str) -> None:
    """Numbers of images and names of kinds are checked."""
    with pytest.raises(InvalidParameter, match=message):
        measured(**options)


def test_kinds_have_one_side() -> None:
    """No kind is both right and wrong, nor named like the training range."""
    assert not set(RIGHT) & set(WRONG)
    assert TRAINED not in RIGHT
    assert TRAINED not in WRONG
