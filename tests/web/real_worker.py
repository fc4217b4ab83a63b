"""A TorchServe of these tests whose worker is real: the service of a small classifier answers, in this process."""

import json
import sys
import warnings
from pathlib import Path

from front_door_site import Torchserve, reply, version_of

from radlens.families import described, open_service
from radlens.families.classifier.manifest import ClassifierBundle
from radlens.service import request_from_http
from radlens.wire import BATCH, BEGUN

sys.path.insert(0, str(Path(__file__).parents[2] / "handlers"))

with warnings.catch_warnings():
    # TorchServe leaves a file open when it is imported.
    warnings.simplefilter("ignore", ResourceWarning)
    from model_handler import publish


def real_worker(bundle: ClassifierBundle, monkeypatch, workdir: Path) -> Torchserve:
    """Return a TorchServe with one model, which has published its parameters in ``workdir``."""
    service, name = open_service(bundle), bundle.manifest.name
    monkeypatch.setenv("RADLENS_FRONT_DOOR", str(workdir / "tmp" / "front-door"))
    publish(described(bundle))

    async def answer(asked, send):
        kind = "explain" if asked.path.startswith("/explanations/") else "predict"
        request = request_from_http(kind, asked.body, asked.headers, {}, "of-torchserve")
        pieces: list[bytes] = []
        response = service.stream(request, pieces.append)
        headers = {"Content-Type": response.content_type, **response.headers, BATCH: "1", BEGUN: "0"}
        await reply(send, response.status, b"".join(pieces), headers)

    async def answer_known(asked, send):
        _, _, model, *version = asked.path.split("/")
        if model != name or version not in ([], [bundle.manifest.version]):
            document = {"code": 404, "type": "ModelNotFoundException", "message": f"Model not found: {model}"}
            await reply(send, 404, json.dumps(document).encode())
            return
        await answer(asked, send)

    return Torchserve(answer_known, {name: [version_of(bundle.manifest.version)]})
