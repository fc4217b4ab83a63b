"""Whatever is wrong with a request: its own clear 4xx, the workers alive, its neighbours answered."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_images import bad_images, noise

from radlens import errors
from radlens.images import to_npy

pytestmark = pytest.mark.serving


def post(server, path, content=b"", **headers):
    """Post something with the server's key."""
    key = {"Authorization": f"Bearer {server.state.keys().inference}"}
    return httpx.post(server.state.url + path, content=content, headers=key | headers, timeout=60)


def test_bad_images_do_not_disturb_good_ones(server, client, workers):
    """All at once, so that they share batches: each bad one gets its status, each good one its curve."""
    bad, good = bad_images(), to_npy(noise())
    expected = client.predict(good)["prediction"]["mean_um"]
    octets = {"Content-Type": "application/octet-stream"}
    with ThreadPoolExecutor(24) as pool:
        refused = {
            name: pool.submit(post, server, "/predictions/cdmam", body, **octets) for name, (body, _) in bad.items()
        }
        served = [pool.submit(client.predict, good) for _ in range(12)]
        for name, (_, status) in bad.items():
            response = refused[name].result()
            assert (name, response.status_code) == (name, status)
            assert len(response.json()["message"]) > 20
        for each in served:
            # Another batch size adds in another order: units in the last place of float32.
            assert each.result()["prediction"]["mean_um"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"method": "lime"}, "method must be one of occlusion, omig, sensitivity, got 'lime'"),
        ({"n_steps": 0}, "n_steps must be an integer from 1 to 1000, got '0'"),
        ({"zscore": "nan"}, "zscore must be a finite number above 0, got 'nan'"),
        ({"steps": 5}, "parameters of explanations by omig are .*; got 'steps'"),
        ({"n_samples": 100_000, "n_steps": 1000}, "at most 5000000 evaluations"),
    ],
)
def test_bad_parameters_are_named(client, workers, parameters, message):
    """With what was expected and what came."""
    with pytest.raises(errors.InvalidParameter, match=message):
        client.explain(to_npy(noise()), **parameters)


def test_unknown_models_and_versions_are_not_found(client, server):
    """404, with TorchServe's own message."""
    with pytest.raises(errors.ModelNotFound, match=r"Model version: 9\.0 does not exist for model: cdmam"):
        client.predict(to_npy(noise()), version="9.0")
    client.model = "other"
    with pytest.raises(errors.ModelNotFound, match="Model not found: other"):
        client.predict(to_npy(noise()))


def test_formats_that_do_not_exist_are_refused(client):
    """406."""
    with pytest.raises(errors.NotAcceptable, match="the answer can be application/json, image/png, application/x-npy"):
        client.fetch("predict", to_npy(noise()), "application/dicom")


def test_forms_are_refused(server, workers):
    """What curl sends when no type is given, and browsers' forms: 415, with advice."""
    form = post(server, "/explanations/cdmam", to_npy(noise()), **{"Content-Type": "application/x-www-form-urlencoded"})
    assert (form.status_code, form.json()["type"]) == (415, "UnsupportedMediaType")
    assert "add -H 'Content-Type: application/dicom'" in form.json()["message"]
    key = {"Authorization": f"Bearer {server.state.keys().inference}"}
    files = {"data": ("a.npy", to_npy(noise())), "method": (None, '{"a": 1}', "application/json")}
    response = httpx.post(f"{server.state.url}/predictions/cdmam", files=files, headers=key, timeout=60)
    assert response.status_code == 415


def test_bodies_that_are_too_large_are_refused(client, workers):
    """TorchServe's own limit, 168 MB."""
    with pytest.raises(errors.RadlensError, match=r"max_request_size|must answer in full"):
        client.predict(bytes(168_000_000))


def test_keys_are_required(server):
    """Without one, or with the other address's."""
    keys = server.state.keys()
    for key in ("", f"Bearer {keys.management}"):
        response = httpx.post(f"{server.state.url}/predictions/cdmam", content=b"", headers={"Authorization": key})
        assert (response.status_code, response.json()["type"]) == (400, "InvalidKeyException")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/x.mar", "file:///etc/passwd", "ftp://x/x.mar"])
def test_archives_from_elsewhere_are_refused(client, url):
    """The model store alone."""
    with pytest.raises(errors.RadlensError, match=r"allowed URL|not found|model store"):
        client.register(url)


def test_parameters_can_stand_in_the_query(server):
    """Where TorchServe hands a query string on, or in the path where it does not, or in a proxy's header."""
    octets = {"Content-Type": "application/octet-stream", "Accept": "application/json"}
    for path, headers in [
        ("/models/cdmam/invoke?explain=true&n_steps=3&seed=5", {}),
        ("/explanations/cdmam/1.0/n_steps=3&seed=5", {}),
        ("/explanations/cdmam/1.0/n_steps=3/seed=5", {}),
        ("/explanations/cdmam", {"X-Radlens-Query": "n_steps=3&seed=5"}),
        ("/explanations/cdmam", {"n-steps": "3", "Seed": "5"}),
    ]:
        stated = post(server, path, to_npy(noise((250, 250))), **octets, **headers).json()["provenance"]
        assert (stated["explainer"]["parameters"]["n_steps"], stated["sampling"]["seed"]) == (3, 5)
    refused = post(server, "/models/cdmam/invoke?explain=true&steps=3", to_npy(noise((250, 250))), **octets)
    assert (refused.status_code, refused.json()["type"]) == (400, "InvalidParameter")


# What a client library lets through as a header; the server itself must cope with the rest, see tests/service.
HEADER_TEXT = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=20)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["predictions", "explanations"]),
    headers=st.dictionaries(
        st.sampled_from(["X-Radlens-Method", "X-Radlens-Seed", "Accept", "Content-Type", "X-Radlens-Query", "explain"]),
        HEADER_TEXT,
        max_size=3,
    ),
)
def test_any_headers_are_answered_or_refused(server, kind, headers):
    """A 200 or a 4xx with a message, over HTTP."""
    response = post(server, f"/{kind}/cdmam", to_npy(noise((250, 250))), **({"X-Radlens-N-Steps": "1"} | headers))
    assert response.status_code == 200 or 400 <= response.status_code < 500
    assert response.status_code == 200 or response.json()["message"]
