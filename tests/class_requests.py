"""How tests ask a classifier's service, and what they read of its answers."""

import io
import json

import numpy as np
from sample_images import noise

from radlens.images import to_npy
from radlens.service import Request
from radlens.wire import array_from_json

QUICK = {
    "integrated_gradients": {"n_steps": "9"},
    "occlusion": {"window": "8", "stride": "5"},
    "lime": {"n_segments": "12", "n_evaluations": "30"},
    "shap": {"n_segments": "12", "n_evaluations": "30"},
    "smooth_grad": {"n_draws": "5"},
}
"""Parameters with which a method takes little time, by name."""


def picture(shape=(32, 24), *, seed=0):
    """Return an image with large structures, float32; one of the network's size is taken as it is."""
    coarse = np.random.default_rng(seed).normal(1000, 300, (5, 4))
    rows, cols = (np.linspace(0, n - 1, length) for n, length in zip(coarse.shape, shape, strict=True))
    smooth = np.stack([np.interp(rows, range(5), column) for column in coarse.T], axis=1)
    grown = np.stack([np.interp(cols, range(4), row) for row in smooth])
    return (grown + noise(shape, seed=seed) - 1000).astype(np.float32)


def asked(kind="explain", pixels=None, accept=None, body=None, **parameters):
    """Return a request; parameters are written as text."""
    data = to_npy(picture() if pixels is None else pixels) if body is None else body
    given = {name: str(value) for name, value in parameters.items()}
    return Request(kind, data, accept=accept, parameters=given, request_id="id")


def answer(service, *arguments, **parameters):
    """Ask one thing and return the response."""
    (response,) = service.respond([asked(*arguments, **parameters)])
    return response


def fields(response):
    """Return the body of a JSON response, which must be strict JSON: no NaN."""
    assert response.content_type == "application/json"
    return json.loads(response.body, parse_constant=_refuse)


def explained(service, *arguments, **parameters):
    """Return the map of an explanation, and everything else it says."""
    response = answer(service, *arguments, **parameters)
    assert response.status == 200, response.body
    found = fields(response)
    return array_from_json(found["explanation"]["map"]), found


def array(response):
    """Return the array of a ``.npy`` response."""
    assert (response.status, response.content_type) == (200, "application/x-npy"), response.body
    return np.load(io.BytesIO(response.body))


def refused(service, *arguments, **parameters):
    """Return status and message of a request that is refused."""
    response = answer(service, *arguments, **parameters)
    return response.status, fields(response)["message"]


def _refuse(constant):
    raise AssertionError(f"{constant} is no JSON")
