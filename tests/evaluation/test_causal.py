"""The causal record, with readers that are right or wrong on purpose.

The readers are told what was simulated last, and answer as a model does that reads the disks, the grid or the noise.
The images themselves are blank.
"""

import json
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import pytest

from radlens.errors import InvalidInput, InvalidParameter
from radlens.evaluation import causal_phantoms
from radlens.evaluation.causal import NOTES, PUBLISHED_COVERAGE, CausalRecord, Criterion, Quantity, causal_record
from radlens.evaluation.causal_phantoms import COMPRESSED, GROUPS, N_VARIANTS, OUTSIDE, PHANTOM_LIKE
from radlens.phantoms.cdmam import HUMAN_FACTORS, THRESHOLD_RANGE_UM, expected_cdc
from radlens.phantoms.cdmam.simulation import PhantomImage

SPACING_MM = 0.4
N = 2
INVISIBLE = THRESHOLD_RANGE_UM[1] * np.array(HUMAN_FACTORS)
"""The read-out's curve of a phantom without disks."""

CONSTANT = np.linspace(0.1, 1.2, 12)
BACKGROUND = 1000.0


@dataclass(frozen=True)
class Answer:
    """A curve with an interval of 10 % to either side, whose members differ by ``spread`` of it."""

    mean: np.ndarray
    spread: float = 0.01

    @property
    def interval(self):
        """Ends, (12, 2)."""
        return self.mean[:, None] * np.array([0.9, 1.1])

    @property
    def epistemic(self):
        """Deviation over the members, (12,)."""
        return self.spread * self.mean


class Watched:
    """What was simulated last."""

    exposure, layout, changes = None, None, None

    def simulate(self, acquisition, layout, seed, changes):
        """Remember what is asked for, and return a blank image."""
        self.exposure, self.layout, self.changes = acquisition, layout, changes
        return PhantomImage(np.full(layout.image_shape, BACKGROUND, np.float32), acquisition, layout, seed)

    def curve(self):
        """The true curve."""
        return INVISIBLE if self.changes.disks == 0 else curve_of(self.exposure, self.changes.disks)

    def almost(self):
        """The true curve but for one of twelve points, which lies beside its interval."""
        return self.curve() * np.array([1.2] + 11 * [1.0])


@lru_cache(maxsize=1000)
def curve_of(exposure, disks):
    """Return the expected curve of an exposure whose disks have ``disks`` times the contrast."""
    return expected_cdc([replace(exposure, noise_level=exposure.noise_level / disks)], SPACING_MM)[0]


@pytest.fixture
def watched(monkeypatch):
    """Tell readers what is simulated."""
    found = Watched()
    monkeypatch.setattr(causal_phantoms, "simulate", found.simulate)
    return found


def record(read, **options):
    """Measure a reader of pixels."""
    return causal_record(lambda pixels, spacing_mm: read(pixels), spacing_mm=SPACING_MM, **({"n": N} | options))


def failed(found):
    """Return the names of the criteria that do not hold."""
    return {criterion.name for criterion in found.criteria if not criterion.holds}


def test_a_reader_of_disks_passes(watched):
    """Every criterion holds for the true curve, of which the intervals cover 11 points of 12."""
    found = record(lambda pixels: Answer(watched.almost()))
    assert failed(found) == set()
    assert found.holds
    for cause in ("disks", "noise"):
        # The point that lies 20 % high is the lowest of the curve: it moves the midpoint by less than 1 %.
        assert found.elasticities[cause].predicted.value == pytest.approx(found.elasticities[cause].true, rel=0.01)
        assert found.elasticities[cause].n == N
    assert found.elasticities["disks"].true == pytest.approx(-1.15, abs=0.1)
    assert found.elasticities["grid"] == found.elasticities["gain"]
    assert found.elasticities["grid"].predicted == Quantity(0.0, 0.0)
    assert found.groups["scenario 4"].coverage == Quantity(pytest.approx(11 / 12), 0.0)
    assert found.groups["scenario 4"].width == pytest.approx(0.2)


def test_a_reader_of_the_grid_fails(watched):
    """A curve that follows the grid's gold, and the noise, but no disk: the elasticities tell which."""

    def read(pixels):
        return Answer(curve_of(watched.exposure, 1) / max(watched.changes.grid, 0.01))

    found = record(read)
    # Disks that are scaled or taken away change nothing; the grid, which has nothing to do with the curve, does.
    assert found.elasticities["disks"].predicted == Quantity(0.0, 0.0)
    assert found.elasticities["grid"].predicted.value == pytest.approx(-1, abs=1e-9)
    assert found.elasticities["grid"].true == 0
    assert found.effects["without disks"].ratio_range == (1.0, 1.0)
    assert found.effects["without the grid"].ratio.value == pytest.approx(100)
    assert failed(found) - {f"scenario {name}: coverage" for name in "1234"} == {
        "elasticity to disk contrast",
        "elasticity to grid gold",
        "without disks: smallest ratio of the midpoints",
        "without the grid: points within the interval",
    }


def test_a_reader_of_noise_fails_without_disks(watched):
    """Right for the wrong reason: every error is small, and no disk matters."""
    found = record(lambda pixels: Answer(curve_of(watched.exposure, 1) * np.array([1.2] + 11 * [1.0])))
    assert found.elasticities["noise"].predicted.value == pytest.approx(found.elasticities["noise"].true, rel=0.01)
    assert found.groups["random exposures"].rms_log_error.value < 0.01
    assert failed(found) == {"elasticity to disk contrast", "without disks: smallest ratio of the midpoints"}


def test_a_reader_that_refuses_everything(watched):
    """Nothing is measured, so nothing holds; every share refused is 1."""
    found = record(lambda pixels: None)
    assert {effect.refused for effect in found.effects.values()} == {1.0}
    assert {each.refused for each in (*found.groups.values(), *found.outside.values())} == {1.0}
    assert len(failed(found)) == len(found.criteria)
    assert found.groups["random exposures"].rms_log_error == Quantity(None, None)
    assert found.elasticities["disks"].predicted == Quantity(None, None)
    assert found.elasticities["disks"].true < -1
    json.dumps(found.as_json(), allow_nan=False)


def test_refusals_are_counted(watched):
    """A reader that needs the grid refuses one of the six images of the same phantom."""
    found = record(lambda pixels: None if watched.changes.grid == 0 else Answer(watched.almost()))
    assert found.effects["without the grid"].refused == 1
    assert found.effects["without disks"].refused == 0
    (refused,) = [each for each in found.criteria if each.name == "the same phantom: share refused"]
    assert refused.value == pytest.approx(1 / len(PHANTOM_LIKE))
    assert failed(found) == {refused.name, "without the grid: points within the interval"}


def test_a_curve_without_a_verdict_is_refused_and_compared(watched):
    """The domain refuses a phantom without disks; what the model reads there counts nevertheless."""

    @dataclass(frozen=True)
    class Judged(Answer):
        assessable: bool = True

    found = record(lambda pixels: Judged(watched.almost(), assessable=watched.changes.disks > 0))
    assert found.effects["without disks"].refused == 1
    assert found.effects["without disks"].ratio_range[0] > 3
    assert found.effects["mirrored"].refused == 0
    assert found.holds


def test_a_reader_of_pixel_values_fails(watched):
    """A curve that follows the mean of the pixels changes with gain and offset."""
    found = record(lambda pixels: Answer(watched.almost() * pixels.mean() / BACKGROUND))
    assert found.elasticities["gain"].predicted.value == pytest.approx(1, rel=1e-5)
    assert found.effects["offset +300"].largest_midpoint_change == pytest.approx(0.3, rel=1e-5)
    assert found.effects["gain 4"].ratio.value == pytest.approx(4, rel=1e-5)
    assert found.effects["gain 0.5"].largest_change == pytest.approx(0.5, rel=1e-5)
    assert failed(found) == {
        "elasticity to gain",
        "offset +300: largest change of the midpoint",
        *(f"{name}: largest change of a point" for name in COMPRESSED),
    }


def test_a_reader_of_the_orientation_fails(watched):
    """A curve that is doubled where the image is wider than high leaves its interval when the image is turned."""
    found = record(lambda pixels: Answer(watched.almost() * (2 if pixels.shape[1] > pixels.shape[0] else 1)))
    turned = found.effects["turned by 90 degrees"]
    assert turned.within == Quantity(0.0, 0.0)
    assert turned.largest_midpoint_change in (pytest.approx(0.5), pytest.approx(1.0))
    assert found.effects["mirrored"].within == Quantity(1.0, 0.0)
    assert "turned by 90 degrees: points within the interval" in failed(found)


def test_errors_are_those_of_a_biased_reader(watched):
    """A curve 30 % too high: its log error is log 1.3 everywhere, no interval covers, and nothing scatters."""
    found = record(lambda pixels: Answer(1.3 * watched.curve()), max_error=0.2).groups["scenario 2"]
    assert found.rms_log_error == Quantity(pytest.approx(np.log(1.3)), pytest.approx(0, abs=1e-9))
    assert found.log_error.value == pytest.approx(np.log(1.3))
    assert found.log_error_deviation == pytest.approx(0, abs=1e-9)
    assert found.coverage.value == 0


def test_the_wanted_error_is_an_argument(watched):
    """The demo members may have 0.12; whoever trains longer wants less."""

    def holds(max_error):
        found = record(lambda pixels: Answer(1.1 * watched.curve()), max_error=max_error)
        return "rms log error of the midpoint" not in failed(found)

    assert holds(0.12)
    assert not holds(0.08)


def test_the_mean_curve_is_what_an_error_is_held_against(watched):
    """A reader that always answers with the mean curve of the training range has the error ratio 1."""
    mean = causal_phantoms.mean_curve(0, SPACING_MM)
    found = record(lambda pixels: Answer(mean))
    random = found.groups["random exposures"]
    assert random.rmse_um == pytest.approx(random.reference_rmse_um)
    assert "error over that of the mean curve" in failed(found)


def test_the_epistemic_part_is_compared_with_the_same_phantom(watched):
    """Members that differ three times as much at 35 kV, and as ever elsewhere."""

    def read(pixels):
        return Answer(watched.curve(), spread=0.03 if watched.exposure.voltage_kvp == 35 else 0.01)

    found = record(read)
    growths = {name: each.epistemic_growth.value for name, each in found.outside.items()}
    assert growths == {name: pytest.approx(3 if name == "35 kV" else 1) for name in OUTSIDE}
    assert {each.coverage.value for each in found.outside.values()} == {1.0}
    assert found.groups["scenario 1"].epistemic_growth is None
    assert record(lambda pixels: Answer(watched.curve(), 0.0)).outside["35 kV"].epistemic_growth == Quantity(None, None)


def test_a_record_survives_json(watched):
    """Written and read, it is the same; what it rests on is said."""
    found = record(lambda pixels: Answer(watched.almost()), seed=3)
    text = json.dumps(found.as_json(), allow_nan=False)
    assert CausalRecord.from_json(json.loads(text)) == found
    written = json.loads(text)
    assert written["published_coverage"] == dict(PUBLISHED_COVERAGE)
    assert [each["name"] for each in written["criteria"]] == [each.name for each in found.criteria]
    assert written["notes"] == list(NOTES)
    with pytest.raises(TypeError, match="unexpected keyword"):
        CausalRecord.from_json(written | {"groups": {"x": {"colour": 1}}})


def test_a_criterion_is_a_closed_range():
    """Its ends belong to it; a value that could not be measured does not hold."""
    assert Criterion.of("x", Quantity(1.0, 0.1), low=1.0).holds
    assert Criterion.of("x", Quantity(1.0, None), high=1.0).holds
    assert not Criterion.of("x", Quantity(1.1, None), 0.9, 1.0).holds
    assert not Criterion.of("x", Quantity(None, None)).holds


def test_more_phantoms_without_changes(watched):
    """Coverages can rest on more phantoms than elasticities; phantom k is the same for any number."""
    seen = []

    def read(pixels):
        seen.append(watched.exposure)
        return Answer(watched.almost())

    found = record(read, n_coverage=5)
    assert (found.n, found.n_coverage) == (N, 5)
    assert {name: each.n for name, each in found.groups.items()} == dict.fromkeys(GROUPS, 5)
    assert {each.n for each in (*found.effects.values(), *found.outside.values())} == {N}
    assert len(seen) == N * N_VARIANTS + 3 + 8 * 5
    few, seen = seen, []
    record(lambda pixels: seen.append(watched.exposure))
    assert seen[: N * N_VARIANTS] == few[: N * N_VARIANTS]


def test_standard_errors_are_over_phantoms(watched):
    """By hand: the deviation of the phantoms' log errors over the root of their number."""
    errors = []

    def read(pixels):
        factor = 1 + 0.1 * np.sin(watched.exposure.noise_level * 100)
        if watched.exposure.heel_per_100mm == 0.02 and watched.exposure.voltage_kvp == 28:
            errors.append(np.log(factor))
        return Answer(factor * watched.curve())

    found = record(read, n_coverage=4).groups["scenario 1, rest at default"]
    assert found.log_error == Quantity(pytest.approx(np.mean(errors)), pytest.approx(np.std(errors, ddof=1) / 2))


def test_an_interrupted_measurement_goes_on(watched, tmp_path):
    """Phantoms that were read are not read again, a torn last line is, and the record is that of one run."""
    whole = record(lambda pixels: Answer(watched.almost()))
    count = []

    def read(pixels):
        count.append(1)
        if len(count) == N_VARIANTS + 5:
            raise KeyboardInterrupt
        return Answer(watched.almost())

    with pytest.raises(KeyboardInterrupt):
        record(read, folder=tmp_path)
    (file,) = tmp_path.iterdir()
    assert len(file.read_text().splitlines()) == 1
    file.write_text(file.read_text() + '{"task": ["random')
    count[:] = [1] * (N_VARIANTS + 5)
    assert record(read, folder=tmp_path) == whole
    assert len(count) - (N_VARIANTS + 5) == N_VARIANTS + 8 * N
    with pytest.raises(ZeroDivisionError):
        record(lambda pixels: 1 / 0, folder=tmp_path, identity="another model")
    assert record(lambda pixels: 1 / 0, folder=tmp_path) == whole


def test_progress_counts_images(watched):
    """From nothing to the number of all images, never back."""
    told = []
    record(lambda pixels: Answer(watched.almost()), on_progress=lambda *state: told.append(state))
    total = N * N_VARIANTS + 8 * N
    assert {(stage, images) for stage, _, images in told} == {("reading phantoms", total)}
    done = [done for _, done, _ in told]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, total)


@dataclass(frozen=True)
class Constant:
    """A reader that other processes can open."""

    refuses_wide: bool = False

    def __call__(self, pixels, spacing_mm):
        """Answer with the same curve, or refuse."""
        return None if self.refuses_wide and pixels.shape[1] > pixels.shape[0] else Answer(CONSTANT)


@pytest.mark.slow
def test_several_processes_find_the_same():
    """Two workers, each with a reader of its own, agree with this process."""
    options = {"n": 2, "spacing_mm": 1.0}
    alone = causal_record(Constant(refuses_wide=True), **options)
    assert causal_record(Constant(refuses_wide=True), n_workers=2, **options) == alone
    assert alone.effects["turned by 90 degrees"].refused > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 1}, "n must be at least 2, got 1"),
        ({"n_coverage": 1}, "n_coverage must be at least 2, got 1"),
        ({"n_workers": 0}, "n_workers must be at least 1, got 0"),
    ],
)
def test_too_few(options, message):
    """Numbers from which no standard error follows are refused."""
    with pytest.raises(InvalidParameter, match=message):
        record(lambda pixels: None, **options)


@pytest.mark.parametrize(
    ("mean", "message"),
    [
        (np.ones(11), r"mean of a curve must be \(12,\) finite values"),
        (np.full(12, np.nan), r"mean of a curve must be \(12,\) finite values"),
        (np.zeros(12), "mean of a curve must be positive, got 0"),
    ],
)
def test_curves_that_are_none(watched, mean, message):
    """A reader answers with 12 positive thresholds or refuses."""
    with pytest.raises(InvalidInput, match=message):
        record(lambda pixels: Answer(mean))
