"""What a server says of itself: at /metrics, and in its logs."""

import re
import time
from functools import partial

import httpx
import pytest
from sample_images import noise

from radlens.audit import records
from radlens.images import to_npy
from radlens.server import metrics_socket

pytestmark = pytest.mark.serving


def test_metrics_name_the_engine_of_every_worker(management, server):
    """The bundle of this server has no graphs: torch computes from the weights, and what needs a graph is refused."""
    assert management.versions()
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(metrics_socket(server.state.workdir)))) as http:
        text = http.get("http://torchserve/metrics").text
    serving = re.findall(r"^RadlensEngineServing\{(.*)\} 1\.0$", text, re.MULTILINE)
    assert any('Engine="torch"' in labels and 'Precision="f32"' in labels for labels in serving), text
    refused = re.findall(r"^RadlensEngineRefused\{(.*)\} (\d+)\.0$", text, re.MULTILINE)
    graphs = {re.search(r'Graph="(.*?)"', labels)[1] for labels, _ in refused if 'Engine="onnxruntime"' in labels}
    assert graphs == {"prediction.onnx", "gradient.onnx"}


def test_logs_are_quiet(server, management):
    """No line for a request that is served, and nothing of what it held."""
    log = server.state.workdir / "logs" / "model_log.log"
    before = log.stat().st_size
    for _ in range(3):
        management.describe("cdmam")
    assert log.stat().st_size == before
    assert not (server.state.workdir / "logs" / "access_log.log").exists()


def test_the_front_door_measures_what_workers_tell_it(client, server):
    """How many shared a batch, how long a request waited, which engine answered; and it asks whether models answer."""
    ready = httpx.get(f"{server.state.url}/health/ready").json()
    assert ready["status"] == "ready"
    assert ready["models"][0] == {"model": "cdmam", "version": "1.0", "ready": True, "reason": ""}
    assert httpx.get(f"{server.state.url}/health/live").status_code == 200
    client.explain(to_npy(noise((250, 250))), n_steps=2)
    key = {"Authorization": f"Bearer {server.state.keys().inference}"}

    def found(pattern):
        text = httpx.get(f"{server.state.url}/metrics", headers=key).text
        return [float(each) for each in re.findall(pattern, text, re.MULTILINE)]

    version = 'model="cdmam",version="1.0"'
    for _ in range(100):
        # The front door counts a request after its client has the answer.
        if found(r'^radlens_requests_total{kind="explain",method="omig",.*} (\S+)$'):
            break
        time.sleep(0.05)
    assert found(rf"^radlens_batch_rows_count{{{version}}} (\S+)$")[0] >= 1
    assert found(r'^radlens_engine_answers_total{engine="torch".*} (\S+)$')[0] >= 1
    assert found(r'^radlens_queue_seconds_count{kind="explain".*} (\S+)$')[0] >= 1
    assert found(rf"^radlens_workers_ready{{{version}}} (\S+)$") == [2.0]
    assert list(records(server.state.workdir / "audit.jsonl"))[-1]["model"] == "cdmam"


def test_workers_publish_what_may_be_asked(server):
    """The front door assembles it, and knows no family: parameters of each method, with their ranges."""
    key = {"Authorization": f"Bearer {server.state.keys().inference}"}
    paths = httpx.get(f"{server.state.url}/openapi.json", headers=key).json()["paths"]
    operation = paths["/explanations/cdmam/1.0"]["post"]
    assert operation["x-radlens-methods"].keys() == {"omig", "sensitivity", "occlusion"}
    (steps,) = [each for each in operation["parameters"] if each.get("name") == "n_steps"]
    assert (steps["schema"]["type"], steps["schema"]["minimum"], steps["schema"]["maximum"]) == ("integer", 1, 1000)
    found = httpx.get(f"{server.state.url}/v2/models/cdmam", headers=key).json()
    assert (found["versions"], found["parameters"]["task"]) == (["1.0"], "cdmam-cdc")


def test_names_reach_no_file(server, client):
    """A name in the query string, in a header, in the path, in the body and in a key: no log and no record holds it."""
    name = "Doe^Jane-19420217"
    key = {"Authorization": f"Bearer {server.state.keys().inference}"}
    ask = partial(httpx.post, timeout=60)
    url = f"{server.state.url}/predictions"
    assert ask(f"{url}/cdmam?PatientName={name}", content=b"x", headers=key).status_code == 400
    assert ask(f"{url}/cdmam", content=b"x", headers=key | {"X-Radlens-Patient": name}).status_code == 400
    assert ask(f"{url}/cdmam", content=name.encode() * 99, headers=key).status_code == 415
    assert ask(f"{url}/cdmam/{name.replace('^', '-')}", content=b"x", headers=key).status_code == 404
    assert ask(f"{url}/cdmam", content=b"x", headers=key | {"X-Request-Id": name}).status_code == 415
    assert ask(f"{url}/cdmam", content=b"x", headers={"Authorization": f"Bearer {name}"}).status_code == 401
    client.explain(to_npy(noise((250, 250))), n_steps=1)
    files = [file for file in server.state.workdir.rglob("*") if file.is_file() and "models" not in file.parts]
    assert {"audit.jsonl", "console.log", "model_log.log"} <= {file.name for file in files}
    assert not [file for file in files if b"19420217" in file.read_bytes()]
