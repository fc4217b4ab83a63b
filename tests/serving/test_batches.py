"""Rows of one batch: predictions, maps and streams together."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import psutil
import pytest
from archives import make_archive
from raw_requests import LONG, begin, live, until
from sample_images import noise
from tiny_bundle import make_bundle

from radlens import errors
from radlens.families import family_of
from radlens.images import to_npy
from radlens.wire import CDC

pytestmark = pytest.mark.serving

SLOW_BATCHES = replace(family_of(CDC).worker, min_workers=1, max_workers=1, max_batch_delay_ms=500)


N_STREAMED = 80
"""Samples of a stream: more than the largest batch of an engine, 32, so that a partial map comes before the end."""


@pytest.fixture(scope="module")
def slow(management, store, tmp_path_factory):
    """Return a version with one worker that waits half a second for a batch to fill."""
    bundle = make_bundle(tmp_path_factory.mktemp("bundle"), version="0.5")
    make_archive(bundle, store / "slow.mar", worker=SLOW_BATCHES)
    _, version = management.register("slow.mar")
    yield version
    management.unregister("cdmam", version)


def test_a_batch_is_its_rows(behind, slow):
    """Predictions and maps that share a batch equal those that were asked for alone."""
    images = [to_npy(noise(seed=seed)) for seed in range(4)]
    alone = [behind.predict(image, version=slow)["prediction"]["mean_um"] for image in images]
    maps = [behind.explain(image, version=slow, n_steps=1)["explanation"]["map"] for image in images]
    with ThreadPoolExecutor(8) as pool:
        predictions = [pool.submit(behind.predict, image, version=slow) for image in images]
        explanations = [pool.submit(behind.explain, image, version=slow, n_steps=1) for image in images]
        for expected, found in zip(alone, predictions, strict=True):
            # Another batch size adds in another order: units in the last place of float32.
            assert found.result()["prediction"]["mean_um"] == pytest.approx(expected, rel=1e-5)
        for expected, found in zip(maps, explanations, strict=True):
            error = np.abs(found.result()["explanation"]["map"] - expected) / np.abs(expected).max()
            # A ReLU or a pooling window that rounding moves to the other side changes a few pixels around it.
            assert np.quantile(error, 0.999) < 1e-5
            assert error.max() < 1e-2


def test_streams_do_not_hold_up_their_batch(behind, slow):
    """With one worker: rows that arrive while the batch of two streams fills are answered long before those end."""
    image = to_npy(noise())
    ended = {}

    def timed(name, ask, *arguments, **parameters):
        try:
            return ask(*arguments, **parameters)
        finally:
            ended[name] = time.monotonic()

    with ThreadPoolExecutor(6) as pool:
        streams = [
            pool.submit(timed, f"stream {i}", behind.explain, image, version=slow, n_steps=1, n_samples=40, seed=i)
            for i in range(2)
        ]
        time.sleep(0.15)
        plain = pool.submit(timed, "plain", behind.predict, image, version=slow)
        bad = pool.submit(timed, "bad", behind.predict, b"", version=slow)
        picture = pool.submit(timed, "picture", behind.fetch, "explain", image, "image/png", version=slow, n_steps=1)
        assert plain.result()["prediction"]
        assert picture.result().content.startswith(b"\x89PNG")
        with pytest.raises(errors.InvalidInput, match="expected an image in the body, got an empty body"):
            bad.result()
        maps = [stream.result()["explanation"]["map"] for stream in streams]
    assert max(ended["plain"], ended["bad"], ended["picture"]) < min(ended["stream 0"], ended["stream 1"])
    assert not np.array_equal(*maps)
    alone = behind.explain(image, version=slow, n_steps=1, n_samples=40, seed=1)["explanation"]["map"]
    np.testing.assert_array_equal(maps[1], alone)


def test_predictions_do_not_wait_for_an_explanation_of_their_batch(server, client, slow):
    """With one worker: a prediction that shares the batch of a long picture is answered long before that ends."""
    image = to_npy(noise((250, 250)))
    connection = begin(server, f"/explanations/cdmam/{slow}?{LONG['image/png']}", image, "image/png")
    until(lambda: live(server))
    assert client.predict(image, version=slow)["provenance"]["version"] == slow
    assert len(live(server)) == 1
    connection.close()
    until(lambda: not live(server))
    assert client.predict(image, version=slow)["provenance"]["version"] == slow


def test_a_stream_reports_and_ends(client):
    """Progress from the first moment, an early partial map, and a result that is complete."""
    progress, partial = [], []
    image = to_npy(noise((900, 700)))
    found = client.explain(
        image, n_steps=1, n_samples=N_STREAMED, on_progress=progress.append, on_partial=partial.append
    )
    assert (progress[0].done, progress[-1].done) == (0, N_STREAMED)
    assert max(partial[0].shape) <= 500
    assert found["explanation"]["map"].shape == (900, 700)
    assert found["explanation"]["visits"].sum() == N_STREAMED * 250 * 250
    array = client.fetch("explain", image, "application/x-npy", n_steps=1, n_samples=24)
    assert len(array.content) == 128 + 4 * 900 * 700


def test_a_worker_that_dies_breaks_its_stream_alone(client, slow, management):
    """The client is told, the server starts another worker and answers again."""
    (worker,) = management.describe("cdmam", slow)["workers"]

    def kill(progress):
        if progress.done:
            psutil.Process(worker["pid"]).kill()

    with pytest.raises(errors.ServerError, match="a worker must finish its answer, got an end"):
        client.explain(to_npy(noise()), version=slow, n_steps=1, n_samples=500, on_progress=kill)
    assert client.predict(to_npy(noise()))["prediction"]

    def is_answered():
        # While the worker starts, the front door asks clients to come back.
        try:
            return client.predict(to_npy(noise()), version=slow)["prediction"]
        except errors.ServerError as error:
            assert "must be ready, got none of 1" in str(error)  # noqa: PT017
            return False

    until(is_answered)
