"""Runs that are interrupted, saved and continued."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from radlens.errors import InvalidInput, InvalidParameter
from radlens.explainers import Checkpoint, upsample

IMAGE = np.random.default_rng(0).normal(size=(401, 530))


class Interrupted(Exception):
    """Somebody pulled the plug."""


def explain(images):
    """A map whose values depend on the whole batch, so that other batches give another map."""
    return images * torch.arange(1, len(images) + 1)[:, None, None, None] + images.mean()


def failing(n_batches):
    """Return `explain` that fails after ``n_batches``."""
    calls = []

    def explained(images):
        calls.append(len(images))
        if len(calls) > n_batches:
            raise Interrupted
        return explain(images)

    return explained


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint that is written after every batch."""
    return Checkpoint(tmp_path / "run.npz", {"explainer": "test"}, every_s=0.0)


def assert_equal(found, expected):
    """Bit for bit in everything."""
    for name in ("map", "visits"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_array_equal(found.halves.totals, expected.halves.totals)
    np.testing.assert_array_equal(found.halves.visits, expected.halves.visits)
    assert (found.n_samples, found.is_reached) == (expected.n_samples, expected.is_reached)
    assert found.reliability == expected.reliability or math.isnan(expected.reliability)


@pytest.mark.parametrize(
    "parameters",
    [
        {"n_samples": 20},
        {"n_samples": 20, "normalize": "visits", "start": 7, "sampler": "jitter", "seed": 3},
        {"n_samples": "auto", "max_samples": 50, "min_samples": 2, "reliability": 0.9},
        {"n_samples": "auto", "max_samples": 40, "min_samples": 2, "reliability": 0.1},
    ],
)
@pytest.mark.parametrize("n_batches", [0, 1, 3])
def test_a_continued_run_is_the_uninterrupted_one(checkpoint, parameters, n_batches):
    """Bit for bit: batches begin where they would have begun, sums go on in their order."""
    whole = upsample(IMAGE, explain, batch_size=6, **parameters)
    with pytest.raises(Interrupted):
        upsample(IMAGE, failing(n_batches), batch_size=6, checkpoint=checkpoint, **parameters)
    heard = []
    found = upsample(
        IMAGE,
        explain,
        batch_size=6,
        checkpoint=checkpoint,
        on_progress=lambda done, total, partial: heard.append(done),
        **parameters,
    )
    assert_equal(found, whole)
    is_cut = parameters["n_samples"] == "auto" and n_batches == 3
    assert heard[0] == (16 if is_cut else 6 * n_batches or 6)
    assert heard[-1] == whole.n_samples


def test_batches_stay_as_they_were(checkpoint):
    """A run that is continued with larger batches keeps its own; with smaller ones it takes those."""
    with pytest.raises(Interrupted):
        upsample(IMAGE, failing(2), n_samples=20, batch_size=6, checkpoint=checkpoint)
    saved = checkpoint.path.read_bytes()
    larger = upsample(IMAGE, explain, n_samples=20, batch_size=8, checkpoint=checkpoint)
    assert_equal(larger, upsample(IMAGE, explain, n_samples=20, batch_size=6))
    checkpoint.path.write_bytes(saved)
    sizes = []
    upsample(IMAGE, lambda x: sizes.append(len(x)) or x, n_samples=20, batch_size=4, checkpoint=checkpoint)
    assert sizes == [4, 4]


def test_a_finished_run_can_be_made_longer(checkpoint):
    """It stays where it is: asked again it is there at once, asked for more it goes on."""
    first = upsample(IMAGE, explain, n_samples=12, batch_size=6, checkpoint=checkpoint)
    heard = []
    again = upsample(
        IMAGE,
        failing(0),
        n_samples=12,
        batch_size=6,
        checkpoint=checkpoint,
        on_progress=lambda done, total, partial: heard.append((done, total, partial.n_restored)),
    )
    assert_equal(again, first)
    assert heard == [(12, 12, 12)]
    longer = upsample(IMAGE, explain, n_samples=30, batch_size=6, checkpoint=checkpoint)
    assert_equal(longer, upsample(IMAGE, explain, n_samples=30, batch_size=6))


def test_a_finished_run_can_be_divided_otherwise(checkpoint):
    """Sums are saved before they are divided."""
    upsample(IMAGE, explain, n_samples=6, checkpoint=checkpoint)
    found = upsample(IMAGE, failing(0), n_samples=6, normalize="visits", checkpoint=checkpoint)
    assert_equal(found, upsample(IMAGE, explain, n_samples=6, normalize="visits"))


def test_it_is_written_now_and_then(checkpoint):
    """At once, at the end, and in between no more often than wanted."""
    assert n_saved_before_each_batch(checkpoint) == [0, 1, 2, 3]
    checkpoint.path.unlink()
    assert n_saved_before_each_batch(replace(checkpoint, every_s=1000.0)) == [0, 0, 0, 0]
    with np.load(checkpoint.path) as saved:
        assert saved["counts"].tolist() == [4, 1]


def n_saved_before_each_batch(checkpoint):
    """Run four batches of one sample and return how many samples the file held as each began."""
    seen = []

    def explained(images):
        with np.load(checkpoint.path) as saved:
            seen.append(int(saved["counts"][0]))
        return images

    upsample(IMAGE, explained, n_samples=4, batch_size=1, checkpoint=checkpoint)
    return seen


def test_a_half_written_file_does_not_count(checkpoint):
    """What was being written when the process died lies beside the whole one and is overwritten."""
    upsample(IMAGE, explain, n_samples=2, checkpoint=checkpoint)
    beside = checkpoint.path.with_name("run.npz.part")
    beside.write_bytes(b"half")
    assert upsample(IMAGE, explain, n_samples=4, checkpoint=checkpoint).n_samples == 4
    assert not beside.exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"seed": 1}, "of another: seed 0 instead of 1$"),
        ({"sampler": "grid", "start": 3}, "sampler stratified instead of grid; start 0 instead of 3"),
        ({"scale_px": 9}, "scale_px 8 instead of 9"),
        ({"image": IMAGE + 1}, "image float64 401x530 "),
        ({"image": IMAGE.astype(np.float32)}, r"image float64 401x530 .* instead of float32 401x530"),
        ({"image": IMAGE[:-1]}, r"image float64 401x530 .* instead of float64 400x530"),
        ({"run": {"explainer": "other"}}, "explainer test instead of other"),
        ({"run": {"explainer": "x" * 99}}, rf"explainer test instead of {'x' * 40}\.\.\.$"),
        ({"run": {}}, "explainer test instead of none"),
        ({"run": {"explainer": "test", "model": "m"}}, "model none instead of m"),
    ],
)
def test_another_run_is_refused(checkpoint, changed, message):
    """The message names what differs, and the file stays as it is."""
    upsample(IMAGE, explain, n_samples=2, checkpoint=checkpoint)
    before = checkpoint.path.read_bytes()
    image, run = changed.pop("image", IMAGE), changed.pop("run", checkpoint.run)
    with pytest.raises(InvalidInput, match=message):
        upsample(image, explain, n_samples=2, checkpoint=replace(checkpoint, run=run), **changed)
    assert checkpoint.path.read_bytes() == before


def test_more_samples_than_wanted_are_refused(checkpoint):
    """They cannot be taken out of the sums."""
    upsample(IMAGE, explain, n_samples=8, checkpoint=checkpoint)
    with pytest.raises(
        InvalidParameter, match=r"n_samples must be at least the 8 samples that the checkpoint .* got 5"
    ):
        upsample(IMAGE, explain, n_samples=5, checkpoint=checkpoint)
    with pytest.raises(InvalidParameter, match=r"max_samples must be at least the 8 samples .* got 7"):
        upsample(IMAGE, explain, n_samples="auto", min_samples=2, max_samples=7, checkpoint=checkpoint)


@pytest.mark.parametrize("content", [b"", b"no zip file", b"PK\x03\x04"])
def test_files_of_something_else_are_refused(checkpoint, content):
    """They are neither read nor overwritten."""
    checkpoint.path.write_bytes(content)
    with pytest.raises(InvalidInput, match="checkpoint must be a file of saved samples, got "):
        upsample(IMAGE, explain, n_samples=2, checkpoint=checkpoint)
    assert checkpoint.path.read_bytes() == content


def test_an_npz_file_of_something_else_is_refused(checkpoint):
    """It has no identity."""
    np.savez(checkpoint.path, map=np.zeros(3))
    with pytest.raises(InvalidInput, match="checkpoint must be a file of saved samples, got KeyError"):
        upsample(IMAGE, explain, n_samples=2, checkpoint=checkpoint)


def test_a_place_that_cannot_be_written_is_found_out_at_once(tmp_path):
    """Before the first sample is explained, and without the path."""
    nowhere = Checkpoint(tmp_path / "missing" / "run.npz")
    with pytest.raises(InvalidInput, match="checkpoint must be a file that can be written, got No such file"):
        upsample(IMAGE, failing(0), n_samples=2, checkpoint=nowhere)


def test_times_are_not_negative(tmp_path):
    """Zero is after every batch."""
    with pytest.raises(InvalidParameter, match=r"every_s must be at least 0, got -1"):
        Checkpoint(tmp_path / "run.npz", every_s=-1)
