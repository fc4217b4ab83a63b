"""Load test of a running radlens server: predictions, OMIG maps and upsampled maps, with a check of each answer.

Start a server (`radlens serve`), then

    locust -f benchmarks/locust_cdmam.py --headless --users 4 --run-time 60s --only-summary

The working directory of the server (``RADLENS_WORKDIR``, by default ``.run``) contains its key and address. At the end
the test prints the cost of each kind of answer in medians of a prediction, and the machine. A wrong answer is a
failure; with failures the exit code is 1.
"""

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

from concluding import conclude
from locust import FastHttpUser, constant, events, task
from locust.env import Environment

from radlens.phantoms.cdmam import SCENARIOS, Layout, simulate, to_dicom
from radlens.server import State

STATE = State.load(Path(os.environ.get("RADLENS_WORKDIR", ".run")))

PHANTOM = to_dicom(simulate(SCENARIOS["1"], Layout.with_margin(1)))
"""Image of all requests: one simulated phantom as DICOM."""

PREDICT, OMIG, UPSAMPLE = "prediction", "OMIG, 10 steps", "OMIG, 5 steps, 16 samples, streamed"


class CdmamUser(FastHttpUser):
    """A user who sends the next request immediately after each answer."""

    abstract = True
    host = STATE.url if STATE else None
    wait_time = constant(0)
    network_timeout = connection_timeout = 600.0

    def ask(self, name: str, path: str, check: Callable[[bytes], str | None], **headers: str) -> None:
        """Send the phantom; ``check`` returns the error of a body, or None."""
        key = STATE.keys().inference if STATE else os.environ.get("RADLENS_TOKEN")
        headers = {"Content-Type": "application/dicom", "Authorization": f"Bearer {key}", **headers}
        with self.client.post(path, data=PHANTOM, headers=headers, name=name, catch_response=True) as response:
            if response.status_code != 200:
                response.failure(f"status {response.status_code}")
            elif wrong := check(response.content):
                response.failure(wrong)


class Predicting(CdmamUser):
    """A user who requests curves."""

    weight = 4

    @task
    def predict(self) -> None:
        """Request the curve of the phantom."""
        self.ask(PREDICT, "/predictions/cdmam", wrong_curve)


class Explaining(CdmamUser):
    """A user who requests maps of one sample."""

    weight = 2

    @task
    def explain(self) -> None:
        """Request the map as an array."""
        self.ask(OMIG, "/explanations/cdmam?n_steps=10", wrong_array, Accept="application/x-npy")


class Upsampling(CdmamUser):
    """A user who requests maps of many samples."""

    weight = 1

    @task
    def upsample(self) -> None:
        """Request a stream and read it to the end."""
        self.ask(UPSAMPLE, "/explanations/cdmam?n_steps=5&n_samples=16", wrong_stream)


first_curve: list[float] = []


def wrong_curve(body: bytes) -> str | None:
    """Return an error unless a curve equals the first one, up to rounding in batches of other sizes."""
    curve = json.loads(body)["prediction"]["mean_um"]
    first_curve[:] = first_curve or curve
    same = len(curve) == 12 and all(math.isclose(a, b, rel_tol=1e-4) for a, b in zip(curve, first_curve, strict=True))
    return None if same else "the curve differs from the first one"


def wrong_array(body: bytes) -> str | None:
    """Return an error unless a map has about 62 500 non-zero values; a few may be zero."""
    from io import BytesIO

    import numpy as np

    n_values = np.count_nonzero(np.load(BytesIO(body)))
    return None if 55_000 < n_values <= 62_500 else f"the map has {n_values} non-zero values"


def wrong_stream(body: bytes) -> str | None:
    """Return an error unless the last line reports a complete map."""
    last = json.loads(body.splitlines()[-1])
    return None if last.get("complete") else f"the stream ends with {last.get('event')}"


@events.quitting.add_listener
def report(environment: Environment, **_: object) -> None:
    """Print ratios and the machine; fail if an answer was wrong."""
    conclude(environment, "cdmam", PREDICT, OMIG, UPSAMPLE)
