"""Load of mixed requests on a classifier of a running radlens server, each answer checked.

Start a server with a classifier (`radlens export RUN`, `radlens serve`), then

    RADLENS_MODEL=ultrasound-resnet locust -f benchmarks/locust_classifier.py --headless --users 4 --run-time 60s

Every user asks for a prediction or for one of three kinds of maps at random, so that batches hold a mixture. The side
of the image is ``RADLENS_SIDE`` pixels (224). At the end it prints what each kind of answer costs in medians of a
prediction, and the machine; a wrong answer is a failure, and a failure makes the exit code 1.
"""

import json
import os
from io import BytesIO
from pathlib import Path

import numpy as np
from concluding import conclude
from locust import FastHttpUser, constant, events, task
from locust.env import Environment
from PIL import Image

from radlens.server import State

STATE = State.load(Path(os.environ.get("RADLENS_WORKDIR", ".run")))
MODEL = os.environ.get("RADLENS_MODEL", "ultrasound-resnet")
SIDE = int(os.environ.get("RADLENS_SIDE", "224"))

MAPS = {
    "saliency": "method=saliency",
    "integrated gradients, 50 steps": "method=integrated_gradients&n_steps=50",
    "occlusion, 49 windows": f"method=occlusion&window={SIDE // 7}&stride={SIDE // 7}",
}
"""Queries by the name that the report has for them."""

PREDICT = "prediction"


def _png() -> bytes:
    """Return an image with something in it: two discs in noise."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE
    discs = sum(np.hypot(rows - y, columns - x) < 0.15 for y, x in ((0.4, 0.35), (0.6, 0.7)))
    file = BytesIO()
    Image.fromarray((80 + 40 * discs + generator.normal(0, 12, discs.shape)).clip(0, 255).astype(np.uint8)).save(
        file, "png"
    )
    return file.getvalue()


IMAGE = _png()
"""What every user sends."""

first: dict[str, np.ndarray] = {}


def is_first(name: str, values: np.ndarray) -> str | None:
    """Every answer must be the first of its kind, up to the rounding of batches of another size."""
    expected = first.setdefault(name, values)
    # ReLUs that rounding switches move a gradient by 1 to 3 % at most, and a mean of gradients by less.
    near = values.shape == expected.shape and np.linalg.norm(values - expected) <= 0.02 * np.linalg.norm(expected)
    return None if near else "another answer than at first"


class ClassifierUser(FastHttpUser):
    """Somebody who asks again as soon as the answer is there."""

    host = STATE.url if STATE else None
    wait_time = constant(0)
    network_timeout = connection_timeout = 600.0

    @task(4)
    def predict(self) -> None:
        """Ask for probabilities."""
        self.ask(PREDICT, f"/predictions/{MODEL}", "application/json")

    @task(2)
    def saliency(self) -> None:
        """Ask for one gradient."""
        self.explain("saliency")

    @task(1)
    def integrated_gradients(self) -> None:
        """Ask for a path of gradients."""
        self.explain("integrated gradients, 50 steps")

    @task(1)
    def occlusion(self) -> None:
        """Ask for what covered squares change."""
        self.explain("occlusion, 49 windows")

    def explain(self, name: str) -> None:
        """Ask for a map as an array."""
        self.ask(name, f"/explanations/{MODEL}?{MAPS[name]}", "application/x-npy")

    def ask(self, name: str, path: str, accept: str) -> None:
        """Send the image and hold the answer against the first of its kind."""
        key = STATE.keys().inference if STATE else os.environ.get("RADLENS_TOKEN")
        headers = {"Content-Type": "image/png", "Authorization": f"Bearer {key}", "Accept": accept}
        with self.client.post(path, data=IMAGE, headers=headers, name=name, catch_response=True) as response:
            if response.status_code != 200:
                response.failure(f"status {response.status_code}")
            elif wrong := is_first(name, _values(response.content, accept)):
                response.failure(wrong)


def _values(body: bytes, media_type: str) -> np.ndarray:
    if media_type == "application/json":
        return np.array(json.loads(body)["prediction"]["probabilities"])
    return np.load(BytesIO(body))


@events.quitting.add_listener
def report(environment: Environment, **_: object) -> None:
    """Print ratios and the machine; fail if an answer was wrong."""
    conclude(environment, MODEL, PREDICT, *MAPS)
