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
        client.fetch("predict", to_npy(noise()), "text/html")


def test_curl_needs_no_type(server):
    """What it declares unless told otherwise, which TorchServe alone would fail on; multipart forms are refused."""
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert post(server, "/predictions/cdmam", to_npy(noise()), **form).status_code == 200
    key = {"Authorization": f"Bearer {server.state.keys().inference}"}
    files = {"data": ("a.npy", to_npy(noise()))}
    response = httpx.post(f"{server.state.url}/predictions/cdmam", files=files, headers=key, timeout=60)
    assert (response.status_code, response.json()["type"]) == (415, "UnsupportedMediaType")


def test_forms_do_no_harm_behind_the_gateway(server, workers):
    """Nor do they where TorchServe is asked directly: it takes them apart, the handler refuses what is left."""
    key = {"Authorization": f"Bearer {server.state.keys().inference}"}
    url = f"http://127.0.0.1:{server.state.ports.inference}/predictions/cdmam"
    files = {"data": ("a.npy", to_npy(noise())), "method": (None, '{"a": 1}', "application/json")}
    assert httpx.post(url, files=files, headers=key, timeout=60).status_code == 415
    assert httpx.post(url, data={"method": "omig"}, headers=key, timeout=60).status_code == 415


def test_bodies_that_are_too_large_are_refused(client, workers):
    """Before they reach TorchServe, which would reset the connection."""
    with pytest.raises(errors.InvalidInput, match="body must have at most 167772160 bytes, got 168000000"):
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


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/explanations/cdmam?n_steps=3&seed=5", {}),
        ("/explanations/cdmam/1.0?n_steps=3&seed=5", {"X-Radlens-N-Steps": "7"}),
        ("/explanations/cdmam/1.0/n_steps=3&seed=5", {}),
        ("/explanations/cdmam", {"X-Radlens-N-Steps": "3", "x-radlens-seed": "5"}),
        ("/explanations/cdmam", {"n-steps": "3", "Seed": "5"}),
        ("/explanations/cdmam", {"X-Radlens-Query": "n_steps=3&seed=5"}),
    ],
)
def test_parameters_have_many_ways_in(server, path, headers):
    """The query string, the path, and headers."""
    octets = {"Content-Type": "application/octet-stream", "Accept": "application/json"}
    stated = post(server, path, to_npy(noise((250, 250))), **octets, **headers).json()["provenance"]
    assert (stated["explainer"]["parameters"]["n_steps"], stated["sampling"]["seed"]) == (3, 5)


def test_misspelt_parameters_are_refused(server):
    """In the query string; and the management of models is not to be had at this door."""
    refused = post(server, "/explanations/cdmam?steps=3", to_npy(noise((250, 250))))
    assert (refused.status_code, refused.json()["type"]) == (400, "InvalidParameter")
    assert post(server, "/models/cdmam/invoke?explain=true").status_code == 404


def test_torchserves_own_query_strings_are_read(server):
    """It hands them on from one route of its own."""
    headers = {"Authorization": f"Bearer {server.state.keys().inference}", "Content-Type": "application/octet-stream"}
    url = f"http://127.0.0.1:{server.state.ports.inference}/models/cdmam/invoke?explain=true&n_steps=3"
    stated = httpx.post(url, content=to_npy(noise((250, 250))), headers=headers, timeout=60).json()["provenance"]
    assert stated["explainer"]["parameters"]["n_steps"] == 3


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
