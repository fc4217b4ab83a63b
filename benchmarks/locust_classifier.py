"""Load test of a classifier on a running radlens server: mixed requests, with a check of each answer.

Start a server with a classifier (`radlens export RUN`, `radlens serve`), then

    RADLENS_MODEL=ultrasound-resnet locust -f benchmarks/locust_classifier.py --headless --users 4 --run-time 60s

Every user requests a prediction or one of three kinds of maps at random, so that batches are mixed. The image has
``RADLENS_SIDE`` x ``RADLENS_SIDE`` pixels (default 224). At the end the test prints the cost of each kind of answer in
medians of a prediction, and the machine. A wrong answer is a failure; with failures the exit code is 1.
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
"""Queries by their name in the report."""

PREDICT = "prediction"


def _png() -> bytes:
    """Return an image of two discs in noise."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE
    discs = sum(np.hypot(rows - y, columns - x) < 0.15 for y, x in ((0.4, 0.35), (0.6, 0.7)))
    file = BytesIO()
    Image.fromarray((80 + 40 * discs + generator.normal(0, 12, discs.shape)).clip(0, 255).astype(np.uint8)).save(
        file, "png"
    )
    return file.getvalue()


IMAGE = _png()
"""Image of all requests."""

first: dict[str, np.ndarray] = {}


def is_first(name: str, values: np.ndarray) -> str | None:
    """Return an error unless an answer equals the first of its kind, up to rounding in batches of other sizes."""
    expected = first.setdefault(name, values)
    # Rounding can switch a ReLU, which changes a gradient by up to 3 %, and a mean of gradients by less.
    near = values.shape == expected.shape and np.linalg.norm(values - expected) <= 0.02 * np.linalg.norm(expected)
    return None if near else "the answer differs from the first one"


class ClassifierUser(FastHttpUser):
    """A user who sends the next request immediately after each answer."""

    host = STATE.url if STATE else None
    wait_time = constant(0)
    network_timeout = connection_timeout = 600.0

    @task(4)
    def predict(self) -> None:
        """Request probabilities."""
        self.ask(PREDICT, f"/predictions/{MODEL}", "application/json")

    @task(2)
    def saliency(self) -> None:
        """Request a map from one gradient."""
        self.explain("saliency")

    @task(1)
    def integrated_gradients(self) -> None:
        """Request a map from a path of gradients."""
        self.explain("integrated gradients, 50 steps")

    @task(1)
    def occlusion(self) -> None:
        """Request a map from occluded squares."""
        self.explain("occlusion, 49 windows")

    def explain(self, name: str) -> None:
        """Request a map as an array."""
        self.ask(name, f"/explanations/{MODEL}?{MAPS[name]}", "application/x-npy")

    def ask(self, name: str, path: str, accept: str) -> None:
        """Send the image and compare the answer with the first of its kind."""
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
