"""Load on a running radlens server: predictions, OMIG maps and upsampled maps, each answer checked.

Start a server (`radlens serve`), then

    locust -f benchmarks/locust_cdmam.py --headless --users 4 --run-time 60s --only-summary

The key and the address are found in the server's working directory (``RADLENS_WORKDIR``, by default ``.run``). At the
end it prints what each kind of answer costs in medians of a prediction, and the machine; a wrong answer is a failure,
and a failure makes the exit code 1.
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
"""What every user sends: one simulated phantom as DICOM."""

PREDICT, OMIG, UPSAMPLE = "prediction", "OMIG, 10 steps", "OMIG, 5 steps, 16 samples, streamed"


class CdmamUser(FastHttpUser):
    """Somebody who asks again as soon as the answer is there."""

    abstract = True
    host = STATE.url if STATE else None
    wait_time = constant(0)
    network_timeout = connection_timeout = 600.0

    def ask(self, name: str, path: str, check: Callable[[bytes], str | None], **headers: str) -> None:
        """Send the phantom; ``check`` tells what is wrong with the answer, if anything."""
        key = STATE.keys().inference if STATE else os.environ.get("RADLENS_TOKEN")
        headers = {"Content-Type": "application/dicom", "Authorization": f"Bearer {key}", **headers}
        with self.client.post(path, data=PHANTOM, headers=headers, name=name, catch_response=True) as response:
            if response.status_code != 200:
                response.failure(f"status {response.status_code}")
            elif wrong := check(response.content):
                response.failure(wrong)


class Predicting(CdmamUser):
    """Wants curves."""

    weight = 4

    @task
    def predict(self) -> None:
        """Ask for the curve of the phantom."""
        self.ask(PREDICT, "/predictions/cdmam", wrong_curve)


class Explaining(CdmamUser):
    """Wants maps of one sample."""

    weight = 2

    @task
    def explain(self) -> None:
        """Ask for the map as an array."""
        self.ask(OMIG, "/explanations/cdmam?n_steps=10", wrong_array, Accept="application/x-npy")


class Upsampling(CdmamUser):
    """Wants maps of many samples."""

    weight = 1

    @task
    def upsample(self) -> None:
        """Ask for a stream and read it to its end."""
        self.ask(UPSAMPLE, "/explanations/cdmam?n_steps=5&n_samples=16", wrong_stream)


first_curve: list[float] = []


def wrong_curve(body: bytes) -> str | None:
    """Every curve must be the first one, up to the rounding of batches of another size."""
    curve = json.loads(body)["prediction"]["mean_um"]
    first_curve[:] = first_curve or curve
    same = len(curve) == 12 and all(math.isclose(a, b, rel_tol=1e-4) for a, b in zip(curve, first_curve, strict=True))
    return None if same else "another curve than at first"


def wrong_array(body: bytes) -> str | None:
    """A map has 62 500 values that are not zero, give or take those that are zero by themselves."""
    from io import BytesIO

    import numpy as np

    n_values = np.count_nonzero(np.load(BytesIO(body)))
    return None if 55_000 < n_values <= 62_500 else f"{n_values} values that are not zero"


def wrong_stream(body: bytes) -> str | None:
    """The last line says that the map is complete."""
    last = json.loads(body.splitlines()[-1])
    return None if last.get("complete") else f"a stream that ends with {last.get('event')}"


@events.quitting.add_listener
def report(environment: Environment, **_: object) -> None:
    """Print ratios and the machine; fail if an answer was wrong."""
    conclude(environment, "cdmam", PREDICT, OMIG, UPSAMPLE)
