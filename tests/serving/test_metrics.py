"""What a server says of itself: at /metrics, and in its logs."""

import re

import httpx
import pytest

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
