import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from smallest_run import SMALLEST

from radlens.errors import InvalidParameter, TrainingError
from radlens.families.cdmam import training
from radlens.families.cdmam import training_paper as cdmam_paper
from radlens.families.cdmam.training import PRESETS, load_run, train
from radlens.families.cdmam.training_data import TrainingSet
from radlens.families.cdmam.training_paper import PaperPreset


def test_presets_hold_the_numbers_of_the_paper():
    """Section 2.2: 10 members, 52 800 + 4800 images, 300 epochs of batches of 50, rate 1e-5, L2 1e-4, dropout 0.2."""
    paper = PRESETS["paper"]
    assert (paper.n_members, paper.n_simulated, paper.n_recorded) == (10, 52_800, 4_800)
    assert (paper.epochs, paper.batch_size, paper.learning_rate) == (300, 50, 1e-5)
    assert (paper.weight_decay, paper.dropout, paper.rank, paper.dense_rate) == (1e-4, 0.2, None, 1.0)


def test_a_run_leaves_members_and_a_record(smallest_folder):
    """Two members, normalisation, time and an evaluation of each scenario; no checkpoint is left."""
    run = load_run(smallest_folder)
    assert len(run.members) == 2
    assert run.std > 0
    assert set(run.record["evaluation"]) == {"random", *(f"scenario {n}" for n in ("1", "2", "3", "4", "ood"))}
    for group in run.record["evaluation"].values():
        assert group["n_images"] == 6
        assert group["rmse_um"] > 0
        assert 0 <= group["coverage"] <= 1
    assert all(seconds > 0 for seconds in run.record["seconds_per_member"])
    assert not list(smallest_folder.glob("*.checkpoint.pt"))


def test_finished_runs_are_not_trained_again(smallest_folder):
    """Training a finished run returns it untouched."""
    before = {file: file.stat().st_mtime_ns for file in smallest_folder.glob("member-*.npz")}
    train(smallest_folder, SMALLEST, device="cpu")
    assert {file: file.stat().st_mtime_ns for file in smallest_folder.glob("member-*.npz")} == before


@pytest.mark.slow
def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(smallest_folder, tmp_path, monkeypatch):
    """A member stopped after its second epoch and resumed equals one trained in one go, to the bit on one thread."""
    preset, threads = replace(SMALLEST, n_members=1), torch.get_num_threads()
    torch.set_num_threads(1)
    record = training._open_record(tmp_path, preset, None, lambda *state: None)
    saves = []

    def save_and_stop(state, file):
        saves.append(state["epoch"])
        save(state, file)
        if saves == [0, 1]:
            raise KeyboardInterrupt

    save = torch.save
    monkeypatch.setattr(torch, "save", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        cdmam_paper.train_member(tmp_path, tmp_path / "check.pt", 0, preset, record, "cpu", lambda *state: None)
    net, seconds = cdmam_paper.train_member(
        tmp_path, tmp_path / "check.pt", 0, preset, record, "cpu", lambda *state: None
    )
    torch.set_num_threads(threads)
    assert saves == [0, 1, 2, 3]
    training.save_member(tmp_path / "member-00.npz", net, seconds)
    with np.load(tmp_path / "member-00.npz") as resumed, np.load(smallest_folder / "member-00.npz") as straight:
        for name in set(resumed.files) - {"training_seconds"}:
            np.testing.assert_array_equal(resumed[name], straight[name])


def test_half_precision_members_come_back(smallest_folder):
    """Stored weights are within half a unit of float16 of the trained ones: 2^-11 of the largest of each row."""
    member = load_run(smallest_folder).members[0]
    file = smallest_folder / "again.npz"
    training.save_member(file, member, 1.0)
    again = training._load_member(file, SMALLEST.dropout)
    file.unlink()
    for name, value in member.state_dict().items():
        largest = value.abs().max().item()
        torch.testing.assert_close(again.state_dict()[name], value, rtol=0, atol=largest * 2**-11)


def test_steps_join_as_in_appendix_d(smallest_folder):
    """Epoch by epoch: no margins, then smaller ones, then the largest, then recordings."""
    steps = np.load(smallest_folder / "data" / "steps.npy")
    data = TrainingSet(np.empty((12, 1, 1)), np.empty((12, 12)), steps)
    sizes = [len(cdmam_paper._images_of_epoch(data, SMALLEST, epoch)) for epoch in range(4)]
    assert steps.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert sizes == [3, 6, 9, 12]


def test_likelihood_is_the_gaussian_one():
    """Against torch's normal distribution, which counts the constant in (float32 rounding)."""
    torch.manual_seed(0)
    mu, sigma, labels = torch.randn(3, 12), torch.rand(3, 12) + 0.1, torch.randn(3, 12)
    expected = -torch.distributions.Normal(mu, sigma).log_prob(labels).mean() - 0.5 * np.log(2 * np.pi)
    torch.testing.assert_close(cdmam_paper.negative_log_likelihood(mu, sigma, labels), expected, rtol=1e-5, atol=1e-6)


def test_bad_runs_are_refused(smallest_folder, tmp_path):
    """Another recipe, an empty folder and an unfinished run are named."""
    with pytest.raises(TrainingError, match="a run of another recipe"):
        train(smallest_folder, replace(SMALLEST, epochs=5))
    with pytest.raises(TrainingError, match=r"must hold training.json, which is missing"):
        load_run(tmp_path)
    (tmp_path / "training.json").write_text(json.dumps(json.loads((smallest_folder / "training.json").read_text())))
    with pytest.raises(TrainingError, match="must have 2 trained members, got 0"):
        load_run(tmp_path)
    with pytest.raises(InvalidParameter, match="n_members must be at least 1, got 0"):
        replace(SMALLEST, n_members=0)
    with pytest.raises(InvalidParameter, match="epochs must be at least 4, one for each step, got 3"):
        PaperPreset(1, 1, 0, epochs=3, batch_size=1, learning_rate=1.0)
