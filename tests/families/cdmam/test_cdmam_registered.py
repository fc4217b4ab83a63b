import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from made_once import copied

from radlens.errors import InvalidParameter
from radlens.families.cdmam import training_registered as cdmam_registered
from radlens.families.cdmam.training import PRESETS, load_run, train
from radlens.families.cdmam.training_layers import WITHOUT_DISKS, build_layers
from radlens.families.cdmam.training_registered import RegisteredPreset, condensed
from radlens.networks import CdmamNet
from radlens.phantoms import cdmam

TINY = RegisteredPreset(2, 8, 3, batch_size=2, rank=8, n_calibration=8, n_test=1)


@pytest.fixture(scope="module")
def layers(tmp_path_factory):
    """Twelve phantoms."""
    return build_layers(tmp_path_factory.mktemp("layers"), 12, seed=5)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run whose calibration phantoms have pixels of a quarter of a millimetre, twelve times fewer."""

    def exposure(k, n):
        rng = np.random.default_rng(k)
        acquisition = replace(cdmam.sample_acquisition(rng), noise_level=5.0)
        return acquisition, [cdmam.sample_layout(rng, (1, 2), 0.25) for _ in range(2)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cdmam_registered, "_exposure", exposure)
        folder = tmp_path_factory.mktemp("registered") / "run"
        yield copied("registered", lambda made: train(made, TINY, device="cpu", n_workers=1), folder)


@pytest.mark.slow
def test_a_registered_run_is_logarithmic_and_calibrated(run_folder):
    """Two thin members, a calibration on eight exposures of two images each, and an evaluation."""
    run = load_run(run_folder)
    assert (len(run.members), run.logarithmic, run.registered, run.mean, run.std) == (2, True, True, 0.0, 1.0)
    assert run.members[0].dense1.narrow.weight.shape[0] == cdmam_registered.N_DIRECTIONS
    assert run.calibration is not None
    assert (run.calibration.n_exposures, run.calibration.n_images) == (8, 2)
    assert run.record["evaluation"]["calibration phantoms"]["n_images"] == 16


def test_calibration_exposures_are_spread_over_the_range():
    """As many are bad as are good, though few of those drawn for training are bad; none is taken twice."""
    exposures = cdmam_registered.calibration_exposures(20)
    assert len(set(exposures)) == 20
    midpoints = np.log(cdmam.expected_cdc(exposures).mean(axis=1))
    steps = np.diff(midpoints)
    assert steps == pytest.approx(np.ptp(midpoints) / 19, rel=0.5)
    assert np.exp(midpoints[[0, -1]]) == pytest.approx([0.25, 1.9], rel=0.25)


@pytest.mark.slow
def test_an_interrupted_calibration_goes_on(run_folder):
    """What was read is not read again, half a line is, and the record is the same."""
    before = json.loads((run_folder / "training.json").read_text(encoding="utf-8"))
    (file,) = run_folder.glob("calibration-*.jsonl")
    lines = file.read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join(lines[:7]) + "\n" + lines[7][:40], encoding="utf-8")
    unfinished = {name: value for name, value in before.items() if name not in ("evaluation", "calibration")}
    (run_folder / "training.json").write_text(json.dumps(unfinished), encoding="utf-8")
    again = train(run_folder, TINY, device="cpu", n_workers=1).record
    assert again["calibration"]["own"] == pytest.approx(before["calibration"]["own"], rel=1e-4)
    assert file.read_text(encoding="utf-8").splitlines()[:7] == lines[:7]
    assert len(file.read_text(encoding="utf-8").splitlines()) == 8


@pytest.mark.slow
def test_an_interrupted_member_ends_where_an_uninterrupted_one_does(run_folder, tmp_path, monkeypatch):
    """Stopped after its second step and resumed, to the bit on one thread."""
    monkeypatch.setattr(cdmam_registered, "_CHECKPOINT_EVERY", 1)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def stop(step, n_steps):
        if step == 3:
            raise KeyboardInterrupt

    file = tmp_path / "check.pt"
    with pytest.raises(KeyboardInterrupt):
        cdmam_registered.train_member(run_folder, file, 1, TINY, "cpu", stop)
    resumed, _ = cdmam_registered.train_member(run_folder, file, 1, TINY, "cpu", lambda *state: None)
    straight, _ = cdmam_registered.train_member(run_folder, tmp_path / "other.pt", 1, TINY, "cpu", lambda *state: None)
    torch.set_num_threads(threads)
    for name, value in straight.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, rtol=0, atol=0)


def test_labels_follow_disks_and_noise_but_not_lines(layers):
    """The curve of one phantom rises with the noise that is drawn, whatever amplitude lines and writing get."""
    drawn = [layers.image(3, np.random.default_rng(k)) for k in range(60)]
    labels = np.array([label.mean() for _, label in drawn])
    usual = labels < WITHOUT_DISKS.mean() - 1e-9
    lines = np.array([image[layers.lines[3] > 200].mean() for image, _ in drawn])
    # The amplitude of lines is drawn apart: |r| of 60 independent pairs exceeds 0.4 once in 600 times.
    assert abs(np.corrcoef(labels[usual], lines[usual])[0, 1]) < 0.4
    assert labels[usual].std() > 0.2


def test_normalised_noise_is_that_of_the_filter(layers):
    """Away from gold a drawn image is Gaussian with the deviation that the detector's filter and pixels leave."""
    clear = (layers.lines[0] == 0) & (layers.writing[0] == 0) & (layers.disks[0] < 1e-4)
    inner = clear[20:-20, 20:-20]
    found = [np.sinh(layers.image(0, np.random.default_rng(k))[0])[20:-20, 20:-20][inner].std() for k in range(8)]
    expected = layers.white[0] * 0.07 / layers.spacing_mm[0] / 0.3312
    # Half a percent of the 20 000 pixels' own error, two percent of the error of the gain that is drawn.
    assert np.mean(found) == pytest.approx(expected, rel=0.03)


def test_condensed_members_project_on_the_curves():
    """Where outputs lie in the directions of the curves, the thin member says the same (float32 rounding)."""
    rng, directions = np.random.default_rng(0), np.linalg.qr(np.random.default_rng(1).normal(size=(12, 3)))[0]
    curves = 0.3 + rng.normal(size=(200, 3)) @ directions.T
    torch.manual_seed(0)
    net = CdmamNet(5).eval()
    with torch.no_grad():
        projector = torch.from_numpy(directions @ directions.T).float()
        net.mu.weight.copy_(projector @ net.mu.weight)
        net.mu.bias.copy_(torch.from_numpy(curves[0]).float() - projector @ net.mu.weight @ net.dense2.bias)
        images = torch.randn(2, 1, 250, 250)
        thin = condensed(net, curves, 3)
        torch.testing.assert_close(thin(images)[0], net(images)[0], rtol=1e-4, atol=1e-4)


def test_bad_recipes_are_refused(tmp_path):
    """Values out of range, and recordings that the recipe has no use for."""
    with pytest.raises(InvalidParameter, match="n_steps must be at least 1, got 0"):
        replace(TINY, n_steps=0)
    with pytest.raises(InvalidParameter, match="n_phantoms must be at least batch_size, 2, got 1"):
        replace(TINY, n_phantoms=1)
    with pytest.raises(InvalidParameter, match="recordings must come with a preset of the paper's recipe"):
        train(tmp_path, PRESETS["demo"], recordings=tmp_path)
