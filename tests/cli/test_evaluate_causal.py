"""``radlens evaluate --causal``."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from radlens.cli.evaluate_causal import ModelReader, print_record
from radlens.client import Client
from radlens.errors import UnreadableImage
from radlens.evaluation import CausalRecord, causal_record
from radlens.families.cdmam import PhantomReader
from radlens.families.cdmam.manifest import Bundle
from radlens.families.cdmam.training import TrainedRun, load_run
from radlens.families.classifier.manifest import ClassifierBundle
from radlens.images import read
from radlens.local import LocalTransport
from radlens.networks import CdmamNet
from radlens.phantoms.cdmam import SCENARIOS, Changes, Layout, register, simulate

SPACING_MM = 0.1
SMALL = ("--causal", "--phantoms", 2, "--spacing", 1.0)
CURVE = np.linspace(0.1, 1.2, 12)


@pytest.fixture
def pixels() -> np.ndarray:
    """A phantom in scenario 1."""
    return simulate(SCENARIOS["1"], Layout.with_margin(2, SPACING_MM)).pixels


class Answer:
    """A curve that is always the same."""

    mean = CURVE
    interval = CURVE[:, None] * np.array([0.9, 1.1])
    epistemic = 0.01 * CURVE


def small_run(recipe: str) -> TrainedRun:
    """Return a run of one random member for images of mean 900 and deviation 50."""
    torch.manual_seed(0)
    member = CdmamNet(rank=2)
    member.scale_output(torch.from_numpy(CURVE).float(), torch.from_numpy(0.1 * CURVE).float())
    return TrainedRun((member.eval(),), {"recipe": recipe, "normalisation": {"mean": 900.0, "std": 50.0}})


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what was printed, without the rules of tables."""
    return [" ".join(line.replace("│", " ").split()) for line in capsys.readouterr().out.splitlines()]


def test_a_bundle_is_measured(run: Callable[..., Any], bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record is printed and written; the same command again reads no image."""
    monkeypatch.setattr(ModelReader, "__call__", lambda *image: Answer())
    result = run("evaluate", bundle.path, *SMALL, "-o", "out")
    assert result.exit_code == 0, result.stderr
    written = json.loads(Path("out/causal.json").read_text())
    record = CausalRecord.from_json(written)
    assert written["model"] == bundle.bundle_hash
    assert (record.n, record.n_coverage, record.spacing_mm, record.max_error) == (2, 2, 1.0, 0.12)
    assert record.groups["scenario 3"].epistemic == pytest.approx(0.01)
    assert f"{sum(each.holds for each in record.criteria)} of {len(record.criteria)} criteria hold" in result.stdout
    assert "wrote out/causal.json" in result.stderr
    monkeypatch.setattr(ModelReader, "__call__", lambda *image: pytest.fail("read again"))
    again = run("evaluate", bundle.path, *SMALL, "-o", "out")
    assert again.exit_code == 0, again.stderr
    assert again.stdout == result.stdout


def test_options_are_handed_on(run: Callable[..., Any], bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """Number of phantoms, groups, seed, spacing, wanted error and workers; no folder is needed."""
    asked = {}

    def measure(reader: ModelReader, **options: Any) -> CausalRecord:
        asked.update(options, folder_of_model=reader.folder)
        return causal_record(lambda *image: None, n=2, spacing_mm=1.0)

    monkeypatch.setattr("radlens.evaluation.causal_record", measure)
    given = ("--per-group", 5, "--seed", 7, "--max-error", 0.08, "--workers", 2)
    result = run("evaluate", bundle.path, *SMALL, *given)
    assert result.exit_code == 0, result.stderr
    names = ("n", "n_coverage", "seed", "spacing_mm", "max_error", "n_workers", "folder", "folder_of_model")
    assert [asked[name] for name in names] == [2, 5, 7, 1.0, 0.08, 2, None, bundle.path]
    assert not list(Path().iterdir())


def test_each_quantity_stands_beside_its_range(capsys: pytest.CaptureFixture[str]) -> None:
    """Value, standard error, wanted range, and a tick or a cross."""
    print_record(causal_record(lambda *image: Answer(), n=2, spacing_mm=1.0))
    printed = lines(capsys)
    assert "elasticity to disk contrast 0 0 -1.34 to -1.04 ✗" in printed
    assert "elasticity to grid gold 0 0 -0.03 to 0.03 ✓" in printed
    assert "offset +300: largest change of the midpoint 0 - at most 0.03 ✓" in printed
    assert "without disks: smallest ratio of the midpoints 1 - at least 3 ✗" in printed
    assert [line.split(" % ")[2] for line in printed if line.startswith("scenario 4 ") and "%" in line] == ["61.0"]


def test_nothing_measured_is_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    """A model that refuses everything has no numbers, and every share refused is 100 %."""
    print_record(causal_record(lambda *image: None, n=2, spacing_mm=1.0))
    printed = lines(capsys)
    assert "elasticity to noise - - 1.04 to 1.34 ✗" in printed
    assert "35 kV - - - - - - - 100.0 %" in printed


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Images that clients sent."""
    images: list[bytes] = []
    predict = Client.predict

    def recorded(self: Client, image: bytes) -> dict[str, Any]:
        images.append(image)
        return predict(self, image)

    monkeypatch.setattr(Client, "predict", recorded)
    return images


def test_a_bundle_is_asked_as_clients_ask(bundle: Bundle, pixels: np.ndarray, sent: list[bytes]) -> None:
    """The curve is that of the service's answer to the same image."""
    found = ModelReader(bundle.path)(pixels, SPACING_MM)
    with Client("http://local", model="cdmam", transport=LocalTransport(bundle)) as client:
        answer = client.predict(sent[0])["prediction"]
    assert found is not None
    assert found.mean.tolist() == answer["mean_um"]
    assert found.interval.tolist() == answer["interval_um"]
    assert found.epistemic.tolist() == answer["epistemic_um"]


@pytest.mark.parametrize(
    "answer",
    [
        {"assessable": False, "prediction": None},
        {"assessable": True, "prediction": {"mean_um": [-1.0, *(11 * [1.0])]}},
        UnreadableImage("no phantom"),
    ],
)
def test_what_the_service_does_not_read_has_no_curve(
    bundle: Bundle, pixels: np.ndarray, answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No prediction, a curve that is not positive, an error."""

    def predict(*arguments: Any) -> dict[str, Any]:
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    monkeypatch.setattr(Client, "predict", predict)
    assert ModelReader(bundle.path)(pixels, SPACING_MM) is None


def test_what_the_service_does_not_judge_is_marked(
    bundle: Bundle, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A curve of an image that is not assessable is kept, and counts as refused."""
    curve = {"mean_um": 12 * [1.0], "interval_um": 12 * [[0.9, 1.1]], "epistemic_um": 12 * [0.1]}
    monkeypatch.setattr(Client, "predict", lambda *image: {"assessable": False, "prediction": curve})
    found = ModelReader(bundle.path)(pixels, SPACING_MM)
    assert found is not None
    assert found.mean.tolist() == curve["mean_um"]
    assert found.assessable is False  # type: ignore[attr-defined]


def test_dicom_images_keep_16_bits(bundle: Bundle, pixels: np.ndarray, sent: list[bytes]) -> None:
    """Pixels and spacing come back, beyond the simulator's 12 bits too, and no exposure is stated."""
    ModelReader(bundle.path)(16 * pixels, SPACING_MM)
    image = read(sent[0])
    assert np.array_equal(image.pixels, 16 * pixels)
    assert image.pixels.max() > 4095
    assert image.spacing_mm == (SPACING_MM, SPACING_MM)
    assert image.dataset is not None
    assert "KVP" not in image.dataset


@pytest.mark.slow
def test_members_of_a_run_are_read(tmp_path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    """A registered run reads the phantom in its own frame and judges it as a service does; without one, no curve."""
    run = small_run(recipe="registered")
    monkeypatch.setattr("radlens.families.cdmam.training.load_run", lambda folder: run)
    reader = ModelReader(tmp_path)
    expected = PhantomReader(run.ensemble()).read(register(pixels, SPACING_MM))
    found = reader(pixels, SPACING_MM)
    assert found is not None
    assert np.array_equal(found.mean, expected.mean)
    assert np.array_equal(found.interval, expected.interval)
    assert found.assessable is True  # type: ignore[attr-defined]
    without_disks = simulate(SCENARIOS["1"], Layout.with_margin(2, SPACING_MM), 0, Changes(disks=0.0)).pixels
    assert reader(without_disks, SPACING_MM).assessable is False  # type: ignore[union-attr]
    without_disks = simulate(SCENARIOS["1"], Layout.with_margin(2, SPACING_MM), 0, Changes(disks=0.0)).pixels
    assert reader(without_disks, SPACING_MM).assessable is False  # type: ignore[union-attr]
    assert reader(np.full_like(pixels, 1000.0), SPACING_MM) is None


def test_members_of_the_papers_recipe_are_read(
    tmp_path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They see the image as it is, normalised as their training images were; they refuse nothing."""
    run = small_run(recipe="paper")
    monkeypatch.setattr("radlens.families.cdmam.training.load_run", lambda folder: run)
    found = ModelReader(tmp_path)(pixels, SPACING_MM)
    expected = PhantomReader(run.ensemble()).read_values((pixels - np.float32(900)) / np.float32(50))
    assert found is not None
    assert np.array_equal(found.mean, expected.mean)
    assert ModelReader(tmp_path)(np.full_like(pixels, 1000.0), SPACING_MM) is not None


def test_a_run_is_known_by_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readings are kept for the very members that read: other weights or another calibration are another model."""
    run = small_run(recipe="registered")
    monkeypatch.setattr("radlens.families.cdmam.training.load_run", lambda folder: run)
    before = ModelReader(tmp_path).identity()
    assert len(before) == 64
    run.record["causal"] = {"n": 2}
    assert ModelReader(tmp_path).identity() == before
    (tmp_path / "member-00.npz").write_bytes(b"weights")
    other_weights = ModelReader(tmp_path).identity()
    run.record["calibration"] = {"factor": 1.0}
    assert len({before, other_weights, ModelReader(tmp_path).identity()}) == 3


def test_the_record_of_a_run_is_kept_with_it(
    run: Callable[..., Any], smallest_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes into training.json, which an export takes over; keeping it again replaces it."""
    folder = Path(shutil.copytree(smallest_folder, tmp_path / "run"))
    before = json.loads((folder / "training.json").read_text())
    monkeypatch.setattr(ModelReader, "__call__", lambda *image: Answer())
    for _ in range(2):
        result = run("evaluate", folder, *SMALL, "--keep")
        assert result.exit_code == 0, result.stderr
        after = json.loads((folder / "training.json").read_text())
        found = after.pop("causal")
        assert after == before
        assert CausalRecord.from_json(found).n == 2
        assert found["model"] == ModelReader(folder).identity()
    assert load_run(folder).record["causal"] == found


def test_the_record_of_a_bundle_is_not_kept_in_it(run: Callable[..., Any], bundle: Bundle) -> None:
    """A bundle stays as it was exported."""
    result = run("evaluate", bundle.path, *SMALL, "--keep")
    assert result.exit_code == 2
    assert "--keep needs a training run, whose next export holds the record; got a bundle" in result.stderr


def test_causes_of_classifiers_need_images_that_can_be_simulated(
    run: Callable[..., Any], classifier: ClassifierBundle
) -> None:
    """A bundle from elsewhere states no task."""
    result = run("evaluate", classifier.path, *SMALL)
    assert result.exit_code == 2
    assert "--causal needs a model of malignant lesions or masses whose images radlens simulates" in " ".join(
        result.stderr.split()
    )


def test_a_classifier_needs_a_folder(run: Callable[..., Any], classifier: ClassifierBundle) -> None:
    """Its page and pictures have to be written somewhere."""
    result = run("evaluate", classifier.path)
    assert result.exit_code == 2
    assert "--output must be given" in result.stderr
