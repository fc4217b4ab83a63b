"""Clients of a real TorchServe that leave: their work ends, and those who come later are answered."""

import httpx
import pytest
from raw_requests import LONG, begin, live, until
from sample_images import noise

from radlens.images import to_npy

pytestmark = pytest.mark.serving


@pytest.mark.parametrize("accept", ["application/x-ndjson", "image/png"])
def test_two_that_leave_keep_no_worker_busy(server, client, workers, accept):
    """Two ask for hours of work and leave, one in its stream and one before its turn; explanations go on at once."""
    body = to_npy(noise((250, 250)))
    first = begin(server, f"/explanations/cdmam?{LONG[accept]}", body, accept)
    until(lambda: live(server))
    if accept == "application/x-ndjson":
        assert first.recv(4096).startswith(b"HTTP/1.1 200")
    second = begin(server, f"/explanations/cdmam?{LONG[accept]}", body, accept)
    # Predictions have a worker while an explanation runs, and while another one waits.
    assert client.predict(body)["assessable"] in (True, False)
    for connection in (first, second):
        connection.close()
    until(lambda: not live(server))
    for _ in range(2):
        assert client.explain(body, n_steps=2)["explanation"]["method"] == "omig"


def test_two_that_stay_do_not_starve_predictions(server, client, workers):
    """The second explanation waits in the front door, not in a worker."""
    body = to_npy(noise((250, 250)))
    stream = "application/x-ndjson"
    connections = [begin(server, f"/explanations/cdmam?{LONG[stream]}", body, stream) for _ in range(2)]
    until(lambda: live(server))
    for _ in range(3):
        assert client.predict(body)["assessable"] in (True, False)
    assert len(live(server)) == 1
    for connection in connections:
        connection.close()
    until(lambda: not live(server))


def test_a_deadline_ends_real_work(server, client, workers):
    """504, and the worker is free again."""
    key = {"Authorization": f"Bearer {server.state.keys().inference}", "Accept": "image/png"}
    headers = {**key, "X-Radlens-Deadline-S": "1.5", "X-Request-Id": "deadline-1"}
    url = f"{server.state.url}/explanations/cdmam?{LONG['image/png']}"
    answer = httpx.post(url, content=to_npy(noise((250, 250))), headers=headers, timeout=60)
    assert (answer.status_code, answer.json()["request_id"]) == (504, "deadline-1")
    assert client.explain(to_npy(noise((250, 250))), n_steps=2)["provenance"]["model"] == "cdmam"


def test_identifiers_reach_the_worker(server):
    """Its errors state the client's own, and so does the provenance of an answer."""
    key = {"Authorization": f"Bearer {server.state.keys().inference}", "X-Request-Id": "mine-1"}
    refused = httpx.post(f"{server.state.url}/predictions/cdmam", content=b"", headers=key, timeout=60)
    assert (refused.status_code, refused.json()["request_id"]) == (400, "mine-1")
    url = f"{server.state.url}/predictions/cdmam"
    answer = httpx.post(url, content=to_npy(noise((250, 250))), headers=key, timeout=60)
    assert answer.json()["provenance"]["request_id"] == "mine-1"
