"""``radlens reliability``."""

import csv
import zlib

import numpy as np
import pytest
import torch

from radlens.cli.reliability import Study, compared

PIXELS = np.kron(np.random.default_rng(0).normal(size=(38, 44)), np.ones((8, 8)))[:300, :350].astype(np.float32)


class Interrupted(Exception):
    """Somebody pulled the plug."""


def noisy(images):
    """Explain by the image and noise that depends on the samples."""
    # Their sum will not do: whole cycles of stratified samples have the same one.
    generator = torch.Generator().manual_seed(zlib.crc32(images.numpy().tobytes()))
    return images + 8.0 * torch.randn(images.shape, generator=generator)


def failing(n_batches):
    """Return `noisy` that fails after ``n_batches``."""
    calls = []

    def explain(images):
        calls.append(len(images))
        if len(calls) > n_batches:
            raise Interrupted
        return noisy(images)

    return explain, calls


def study(folder, explain=noisy, n_samples=48):
    """Return a study of two seeds."""
    return Study(PIXELS, explain, {"explainer": "test"}, n_samples, 2, 8, folder, 16)


def test_seeds_agree_as_much_as_halves_tell(tmp_path):
    """All three samplers, the first the one that others are compared with."""
    heard = []
    curves, likeness = study(tmp_path).run(lambda done, total: heard.append((done, total)))
    assert [curve.label for curve in curves] == ["stratified", "grid", "jitter"]
    for curve in curves:
        assert curve.n_samples.tolist() == [16, 32, 48]
        # Grid samples of so small an image share most of their pixels and so a part of their noise.
        np.testing.assert_allclose(curve.estimates.mean(axis=0), curve.agreement, rtol=0, atol=0.05)
        assert (np.diff(curve.agreement) > 0).all()
    # Noise apart, all of them show the image.
    assert list(likeness.values()) == pytest.approx([1.0, 1.0, 1.0], abs=0.1)
    assert (heard[0], heard[-1]) == ((16, 288), (288, 288))


def test_an_interrupted_study_goes_on(tmp_path):
    """Finished runs are not done again, the interrupted one goes on; the result is the uninterrupted one's."""
    whole, _ = study(tmp_path / "whole").run(lambda done, total: None)
    explain, _ = failing(4)
    with pytest.raises(Interrupted):
        study(tmp_path / "cut", explain).run(lambda done, total: None)
    explain, calls = failing(10**9)
    found, _ = study(tmp_path / "cut", explain).run(lambda done, total: None)
    # 18 batches in all; of the second run's first one the sums had not been saved when it was cut.
    assert 13 <= len(calls) <= 15
    for curve, expected in zip(found, whole, strict=True):
        np.testing.assert_array_equal(curve.agreement, expected.agreement)
        np.testing.assert_array_equal(curve.estimates, expected.estimates)
    again, calls = failing(0)
    study(tmp_path / "cut", again).run(lambda done, total: None)
    assert calls == []


def test_comparisons_follow_the_first_sampler(tmp_path):
    """An eighth, a quarter, a half and all of its samples, or what was looked at next to that, against each other."""
    curves, _ = study(tmp_path).run(lambda done, total: None)
    rows = list(compared(curves))
    assert [(label, n) for label, n, *_ in rows[-4:]] == [("grid", 16), ("jitter", 16), ("grid", 48), ("jitter", 48)]
    assert rows[-1][2] == curves[0].agreement[-1]


@pytest.mark.slow
def test_the_command_writes_figure_and_tables(run, noise, bundle, tmp_path):
    """Of any image and bundle; parameters of the method are passed on."""
    result = run(
        *("reliability", bundle.path, "--image", noise, "--samples", "16", "--method", "sensitivity", "-o", "out")
    )
    assert result.exit_code == 0, result.stderr
    assert "Reliability after 16 samples" in result.stdout
    assert "Samples for the same reliability" in result.stdout
    assert "96 of 96" in result.stderr
    out = tmp_path / "out"
    assert (out / "reliability.png").read_bytes().startswith(b"\x89PNG")
    points = list(csv.DictReader((out / "reliability.csv").read_text().splitlines()))
    assert {point["sampler"] for point in points} == {"stratified", "grid", "jitter"}
    assert {point["n_samples"] for point in points} == {"16"}
    assert all(0 < float(point["agreement"]) <= 1 for point in points)
    needed = list(csv.DictReader((out / "needed.csv").read_text().splitlines()))
    assert {row["sampler"] for row in needed} == {"grid", "jitter"}
    assert len(list((out / "runs").glob("*-looks.npz"))) == 6
    refused = run("reliability", bundle.path, "--image", noise, "--n-steps", "0", "-o", "out")
    assert (refused.exit_code, "n_steps must be at least 1, got 0" in refused.stderr) == (2, True)
