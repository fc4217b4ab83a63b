"""200 images, the node killed 20 times, Orthanc and the server away in between; prints as JSON what arrived."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from fake_server import fake_server
from node_parts import CAPTURE, image, wait_until
from orthanc_parts import Orthanc
from pynetdicom import AE, build_context

from radlens.cli.node_demo import NODE, PACS

N_IMAGES, N_KILLS = 200, 20

SETTINGS = f"""\
folder: queue
listen: {{ae_title: NODE, port: {NODE}}}
peers: [{{ae_title: MODALITY, address: 127.0.0.1}}]
server: {{url: "%s", workers: 2}}
destinations:
  pacs: {{ae_title: PACS, address: 127.0.0.1, port: {PACS}}}
rules:
  - {{name: mammograms, when: {{modality: MG}}, model: any, to: pacs}}
limits: {{associations: 4, image_mb: 2, keep_free_mb: 64}}
retry: {{first_s: 0.1, longest_s: 1.0}}
"""


class NodeProcess:
    """The node as a process of its own."""

    def __init__(self, config: Path) -> None:
        self._config = config

    def start(self) -> None:
        """Start, and return once it listens."""
        with open(self._config.with_name("log"), "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", "from radlens.cli import main; main()", "node", "run", str(self._config)],
                stdout=log,
                stderr=log,
            )
        wait_until(lambda: b"listens" in self._new_log() or self._process.poll() is not None)
        assert self._process.poll() is None, self._config.with_name("log").read_text()[-2000:]
        self._told = self._config.with_name("log").stat().st_size

    _told = 0

    def _new_log(self) -> bytes:
        return self._config.with_name("log").read_bytes()[self._told :]

    def kill(self) -> None:
        """End it at once."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> int:
        """End it as a service manager does, and return its exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(60)


def send_until_accepted(waiting: list[int], stop: threading.Event) -> None:
    """Send images, one an association or several, until each is accepted; remove those that are."""
    while waiting and not stop.is_set():
        batch = [image(number) for number in waiting[: random.choice([1, 3, 10])]]
        ae = AE("MODALITY")
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = 5
        contexts = [build_context(batch[0].SOPClassUID, batch[0].file_meta.TransferSyntaxUID)]
        association = ae.associate("127.0.0.1", NODE, contexts, ae_title="NODE")
        for each in batch:
            if not association.is_established:
                break
            try:
                status = association.send_c_store(each)
            except RuntimeError:
                break
            if status.get("Status") == 0:
                waiting.remove(each.InstanceNumber)
        if association.is_established:
            association.release()
        else:
            time.sleep(0.05)


def main() -> None:
    """Run, and print the outcome."""
    random.seed(int(sys.argv[1]))
    with tempfile.TemporaryDirectory(prefix="radlens-") as name, fake_server() as server:
        folder = Path(name)
        server.longest_s = 0.15
        config = folder / "node.yaml"
        config.write_text(SETTINGS % server.url)
        orthanc, node = Orthanc(folder / "orthanc"), NodeProcess(config)
        orthanc.start()
        waiting, stop, held = list(range(N_IMAGES)), threading.Event(), []
        for kill in range(N_KILLS):
            if kill in (4, 12):
                orthanc.stop()
            if kill in (8, 16):
                orthanc.start()
            server.status = 503 if kill in (9, 10, 11) else 200
            node.start()
            offered = waiting[: max(1, len(waiting) // (N_KILLS - kill))]
            rest = waiting[len(offered) :]
            stop.clear()
            sender = threading.Thread(target=send_until_accepted, args=(offered, stop))
            sender.start()
            time.sleep(random.uniform(0, 1.2))
            node.kill()
            stop.set()
            sender.join()
            waiting = offered + rest
            held.append(len(list((folder / "queue" / "images").iterdir())))
        node.start()
        stop.clear()
        send_until_accepted(waiting, stop)
        wait_until(lambda: len(orthanc.get("/instances")) >= N_IMAGES, 240)
        wait_until(lambda: not list((folder / "queue" / "images").iterdir()), 60)
        time.sleep(1.0)  # in which a second result would arrive
        code = node.stop()
        results = orthanc.instances()
        sources = Counter(each["SourceImageSequence"][0]["ReferencedSOPInstanceUID"] for each in results)
        expected = {str(image(number).SOPInstanceUID) for number in range(N_IMAGES)}
        outcome = {
            "results": len(results),
            "missing": len(expected - set(sources)),
            "twice": sum(number > 1 for number in sources.values()),
            "strangers": len(set(sources) - expected),
            "classes": sorted({each["SOPClassUID"] for each in results}),
            "capture": CAPTURE,
            "answers": server.n_answers,
            "held_at_kills": held,
            "exit_code": code,
            "left": sorted(
                file.name for part in ("incoming", "images", "results") for file in (folder / "queue" / part).iterdir()
            ),
        }
        orthanc.stop()
    print(json.dumps(outcome))


if __name__ == "__main__":
    os.umask(0o077)
    main()
