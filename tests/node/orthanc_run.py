"""One image by storescu, one found by DICOMweb; results by C-STORE with commitment and by STOW-RS; prints JSON."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

from fake_server import fake_server
from node_parts import encoded, image, wait_until
from orthanc_parts import Orthanc

from radlens.cli.node_demo import NODE, PACS, WEB
from radlens.node import Node, read_settings
from radlens.node.overview import summary

SETTINGS = f"""\
folder: queue
listen: {{ae_title: NODE, port: {NODE}}}
peers:
  - {{ae_title: MODALITY, address: 127.0.0.1}}
  - {{ae_title: PACS, address: 127.0.0.1}}
server: {{url: "%s"}}
sources:
  - {{name: archive, url: "http://127.0.0.1:{WEB}/dicom-web", modalities: [US, OT], every_s: 1}}
destinations:
  pacs: {{ae_title: PACS, address: 127.0.0.1, port: {PACS}, commitment: true}}
  web: {{url: "http://127.0.0.1:{WEB}/dicom-web"}}
rules:
  - {{name: mammograms, when: {{modality: MG, sender: MODALITY}}, model: one, method: omig, to: pacs}}
  - {{name: ultrasound, when: {{modality: [US, OT], sender: archive}}, model: two, version: "2.0", to: web}}
limits: {{associations: 4, image_mb: 2, keep_free_mb: 64}}
retry: {{first_s: 0.1, longest_s: 1.0}}
"""


def main() -> None:
    """Run, and print the outcome."""
    with tempfile.TemporaryDirectory(prefix="radlens-") as name, fake_server() as server:
        folder = Path(name)
        config = folder / "node.yaml"
        config.write_text(SETTINGS % server.url)
        mammogram, ultrasound = image(1), image(2, modality="US")
        for each, called in ((ultrasound, "PACS"), (mammogram, "NODE")):
            (folder / f"{called}.dcm").write_bytes(encoded(each))
        orthanc, node = Orthanc(folder / "orthanc"), Node(read_settings(config))
        orthanc.start()
        node.start()
        try:
            for called, port in (("PACS", PACS), ("NODE", NODE)):
                command = ["storescu", "-aet", "MODALITY", "-aec", called, "127.0.0.1", str(port), f"{called}.dcm"]
                subprocess.run(command, cwd=folder, check=True, capture_output=True)
            wait_until(lambda: len(orthanc.get("/instances")) >= 3, 60)
            wait_until(lambda: summary(node.queue)["tasks"] == {"done": 2}, 60)
            wait_until(lambda: "own" in summary(node.queue)["counts"] or node.queue.length() == 0, 10)
            held = orthanc.instances()
            state = summary(node.queue)
        finally:
            node.stop()
            orthanc.stop()
        left = sorted(file.name for part in ("images", "results") for file in (folder / "queue" / part).iterdir())
    print(
        json.dumps(
            {
                "sources": sorted(
                    each["SourceImageSequence"][0]["ReferencedSOPInstanceUID"]
                    for each in held
                    if each.get("SourceImageSequence")
                ),
                "expected": sorted([str(mammogram.SOPInstanceUID), str(ultrasound.SOPInstanceUID)]),
                "held": len(held),
                "counts": state["counts"],
                "asked": [
                    {key: each.get(key) for key in ("path", "x-radlens-method", "x-radlens-objects")}
                    for each in server.asked
                ],
                "left": left,
            }
        )
    )


if __name__ == "__main__":
    main()
