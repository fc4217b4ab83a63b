"""``radlens node demo``: a radlens server, Debian's Orthanc and a node together, and what Orthanc holds then."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from radlens.cli.console import err, note, out, stages
from radlens.cli.demo import is_stale
from radlens.cli.options import DEFAULT_STORE
from radlens.errors import MissingDependency, ServerError

if TYPE_CHECKING:
    import pydicom

__all__ = ["NODE", "PACS", "PLUGIN", "WEB", "command", "write_orthanc_settings"]

PROGRAMS = {
    "Orthanc": "orthanc",
    "storescu": "dcmtk",
    "dsr2html": "dcmtk",
    "unshare": "util-linux",
    "ip": "iproute2",
}
"""Programs that the demo runs, each with its Debian package."""

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")

PHANTOM, ULTRASOUND = "cdmam", "ultrasound-resnet"

NODE, PACS, WEB = 11112, 4242, 8042
"""Ports of the node, and of Orthanc for DICOM and HTTP, in the namespace."""

INSIDE = "RADLENS_DEMO_INSIDE"
"""Environment variable that says that the process runs in the namespace."""

SETTINGS = """\
# Written by `radlens node demo`. Every key is explained in docs/pacs.md.
folder: {folder}
listen: {{ae_title: RADLENS, address: 127.0.0.1, port: {node}}}
peers:
  - {{ae_title: MODALITY, address: 127.0.0.1}}
  - {{ae_title: ORTHANC, address: 127.0.0.1}}
server: {{url: "{url}", token_file: {token_file}}}
destinations:
  orthanc: {{ae_title: ORTHANC, address: 127.0.0.1, port: {pacs}, commitment: true}}
rules:
  - name: phantoms
    when: {{modality: MG, study_description: "*quality control*"}}
    model: {phantom}
    method: omig
    parameters: {{n_samples: {samples}}}
    objects: all
    to: orthanc
  - name: breast-ultrasound
    when: {{modality: US, body_part: BREAST}}
    model: {ultrasound}
    method: cam
    objects: all
    to: orthanc
limits: {{keep_free_mb: 2560}}
"""


def command(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to write to.")] = Path(
        "demo-pacs"
    ),
    samples: Annotated[int, typer.Option(metavar="N", min=2, help="Number of samples of the phantom's map.")] = 200,
    members: Annotated[Path, typer.Option(metavar="RUN", help="Training run of the phantom model.")] = Path(
        "export/cdmam_demo"
    ),
    ultrasound: Annotated[
        Path, typer.Option(metavar="RUN", help="Training run of the ultrasound model; trained if it is missing.")
    ] = Path("build/ultrasound-demo"),
    store: Annotated[Path, typer.Option(metavar="DIR", help="Model store.")] = DEFAULT_STORE,
    config: Annotated[Path, typer.Option(metavar="FILE", help="TorchServe's configuration.")] = Path(
        "config.properties"
    ),
) -> None:
    """Send a phantom and an ultrasound image through a server, a node and Orthanc, and write what Orthanc then holds.

    Everything runs in a network namespace, since Orthanc listens on all addresses, and ends with the command.
    """
    _require_programs()
    if INSIDE not in os.environ:
        _enter_namespace()
    # Ends what it has started as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    _archived(PHANTOM, members, store)
    if not (ultrasound / "training.json").exists():
        note(f"training {ULTRASOUND} once, into {ultrasound}; this takes some 12 minutes of a core")
        _radlens("train", str(ultrasound), "--model", ULTRASOUND, "--preset", "demo")
    _archived(ULTRASOUND, ultrasound, store)
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="radlens-") as name, ExitStack() as stack:
        folder = Path(name)
        server = stack.enter_context(_server(config, store, folder / "server"))
        stack.enter_context(_orthanc(folder / "orthanc"))
        settings = SETTINGS.format(
            folder=folder / "queue",
            node=NODE,
            pacs=PACS,
            url=server.url,
            token_file=server.workdir / "key_file.json",
            phantom=PHANTOM,
            ultrasound=ULTRASOUND,
            samples=samples,
        )
        (output / "node.yaml").write_text(settings, "utf-8")
        stack.enter_context(_node(output / "node.yaml", output / "node.log"))
        sent = _images(output)
        for title, port in (("ORTHANC", PACS), ("RADLENS", NODE)):
            _run("storescu", "-aet", "MODALITY", "-aec", title, "127.0.0.1", str(port), *map(str, sent))
        _wait_until_done(folder / "queue", len(sent))
        _show(output)


def _require_programs() -> None:
    paths = os.environ.get("PATH", "") + ":/usr/sbin"
    lacking = {package for program, package in PROGRAMS.items() if shutil.which(program, path=paths) is None}
    if not PLUGIN.exists():
        lacking.add("orthanc-dicomweb")
    if lacking:
        raise MissingDependency(f"the demo needs Debian packages: apt-get install {' '.join(sorted(lacking))}")


def _enter_namespace() -> NoReturn:
    # Without the rights of root, a namespace of users gives them.
    unshare = ["unshare", "--net"] + ([] if os.geteuid() == 0 else ["--map-root-user"])
    python = [sys.executable, "-c", "from radlens.cli import main; main()", *sys.argv[1:]]
    os.environ["PATH"] = os.environ.get("PATH", "") + ":/usr/sbin"
    os.environ[INSIDE] = "1"
    os.execvp("unshare", [*unshare, "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *python])


def _archived(name: str, run: Path, store: Path) -> None:
    import radlens
    from radlens.cli.export import export_run

    library = Path(radlens.__file__).parent
    sources = [*run.glob("*"), *library.rglob("*.py"), *(library.parent / "handlers").glob("*")]
    if is_stale(store / f"{name}-1.0.mar", sources):
        with stages() as report:
            export_run(run, store, name=name, version="1.0", form="zip", report=report)


@contextmanager
def _server(config: Path, store: Path, workdir: Path) -> Iterator[Any]:
    from radlens.cli.serve import make_server, restore

    models = {name: f"{name}-1.0.mar" for name in (PHANTOM, ULTRASOUND)}
    server, versions = make_server(config, store, models, workdir)
    with ExitStack() as stack:
        with err.status("starting TorchServe"):
            stack.enter_context(server)
        restore(workdir, config, versions)
        yield server.state


@contextmanager
def _process(*arguments: str, log: Path, cwd: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    with open(log, "wb") as stream:
        process = subprocess.Popen(arguments, stdout=stream, stderr=stream, cwd=cwd)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def write_orthanc_settings(folder: Path, title: str, node: str) -> Path:
    """Write the settings of an Orthanc that keeps its files in a folder and knows a node, and return their file.

    Args:
        folder: Folder of the settings and the files.
        title: AE title of Orthanc.
        node: AE title of the node.
    """
    settings = {
        "Name": "radlens",
        "StorageDirectory": str(folder / "db"),
        "IndexDirectory": str(folder / "db"),
        "DicomAet": title,
        "DicomPort": PACS,
        "HttpPort": WEB,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomModalities": {"node": {"AET": node, "Host": "127.0.0.1", "Port": NODE}},
        "Plugins": [str(PLUGIN)],
    }
    file = folder / "orthanc.json"
    file.write_text(json.dumps(settings))
    return file


@contextmanager
def _orthanc(folder: Path) -> Iterator[None]:
    import httpx

    folder.mkdir(parents=True)
    settings = write_orthanc_settings(folder, "ORTHANC", "RADLENS")
    with _process("Orthanc", str(settings), log=folder / "log", cwd=folder):

        def answers() -> bool:
            try:
                return httpx.get(f"http://127.0.0.1:{WEB}/system").is_success
            except httpx.HTTPError:
                return False

        _wait("Orthanc must answer", answers, 30)
        yield


@contextmanager
def _node(settings: Path, log: Path) -> Iterator[None]:
    run = (sys.executable, "-c", "from radlens.cli import main; main()", "node", "run", str(settings))
    with _process(*run, log=log):
        _wait("the node must listen", lambda: "listens" in log.read_text(), 60)
        _radlens("node", "check", str(settings))
        yield


def _images(output: Path) -> list[Path]:
    from radlens.cli.simulate import DEFAULT_MARGIN
    from radlens.phantoms import ultrasound
    from radlens.phantoms.cdmam import SCENARIOS, Layout, simulate, to_dicom

    with err.status("simulating two images"):
        files = {
            "phantom.dcm": to_dicom(simulate(SCENARIOS["1"], Layout.with_margin(DEFAULT_MARGIN))),
            "ultrasound.dcm": _ultrasound(ultrasound.sample("malignant", seed=1)),
        }
    for name, content in files.items():
        (output / name).write_bytes(content)
    return [output / name for name in files]


def _ultrasound(image: Any) -> bytes:
    """Return a simulated image as Ultrasound Image: DICOM PS3.3 A.6."""
    import numpy as np
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, UltrasoundImageStorage, generate_uid

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = UltrasoundImageStorage
    uids = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
    for keyword in uids:
        setattr(dataset, keyword, generate_uid(entropy_srcs=[keyword, "demo ultrasound", str(image.seed)]))
    dataset.PatientName, dataset.PatientID = "Simulated^Ultrasound", "DEMO-US"
    dataset.PatientBirthDate, dataset.PatientSex = "", "F"
    dataset.StudyDate = dataset.StudyTime = dataset.AccessionNumber = dataset.StudyID = ""
    dataset.ReferringPhysicianName, dataset.Manufacturer = "", "Simulator"
    dataset.StudyDescription, dataset.SeriesDescription = "Breast ultrasound", "Simulated mass"
    dataset.Modality, dataset.BodyPartExamined = "US", "BREAST"
    dataset.ImageType, dataset.PatientOrientation, dataset.Laterality = ["DERIVED", "PRIMARY"], "", ""
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    dataset.Rows, dataset.Columns = image.pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.PixelSpacing = [f"{value:.6f}" for value in image.spacing_mm]
    dataset.LossyImageCompression = "00"
    dataset.PixelData = image.pixels.astype(np.uint8).tobytes()
    dataset["PixelData"].VR = "OB"
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _wait_until_done(folder: Path, n_images: int) -> None:
    from radlens.node import Folder, Queue
    from radlens.node.overview import listed, summary

    queue = Queue(Folder(folder), create=False)
    try:
        with err.status("the node asks the server and sends what it gets to Orthanc"):
            _wait(
                "the node must be done with its images",
                lambda: sum(summary(queue)["tasks"].get(state, 0) for state in ("done", "dead")) >= n_images,
                1800,
            )
        dead = listed(queue, ("dead",), n_images)
    finally:
        queue.close()
    if dead:
        raise ServerError(f"every image must yield results, got a dead letter: {dead[0]['error']}")


def _show(output: Path) -> None:
    """Write each object that Orthanc holds, with a picture or a page, and print what they are."""
    import httpx
    import pydicom

    from radlens.cli.node_pictures import picture

    out.print("[bold]What Orthanc holds[/bold]")
    with httpx.Client(base_url=f"http://127.0.0.1:{WEB}", timeout=120) as client:
        held = [
            (pydicom.dcmread(io.BytesIO(content)), content, each)
            for each in client.get("/instances").raise_for_status().json()
            for content in [client.get(f"/instances/{each}/file").raise_for_status().content]
        ]
        held.sort(key=lambda each: (str(each[0].PatientID), int(each[0].get("SeriesNumber") or 0)))
        images = {str(dataset.SOPInstanceUID): dataset for dataset, _, _ in held}
        for dataset, content, number in held:
            name = _name(dataset)
            (output / f"{name}.dcm").write_bytes(content)
            if dataset.Modality == "SR":
                _run("dsr2html", "+U8", str(output / f"{name}.dcm"), str(output / f"{name}.html"))
                shown = f"{name}.html"
            else:
                preview = client.get(f"/instances/{number}/preview", headers={"Accept": "image/png"})
                drawn = picture(dataset, images, preview.content if preview.is_success else None)
                (output / f"{name}.png").write_bytes(drawn)
                shown = f"{name}.png"
            text = f"{dataset.PatientID}, {dataset.get('SeriesDescription', '')} ({dataset.Modality}): {output / shown}"
            out.print(f"  {text}", markup=False, soft_wrap=True)
    note(f"the objects themselves are beside them as .dcm; {output}/node.yaml is what the node was told")


def _name(dataset: pydicom.Dataset) -> str:
    kind = dataset.SOPClassUID.name.replace(" Storage", "").replace(" - ", " ").replace(" ", "-").lower()
    return f"{str(dataset.PatientID).lower()}-{kind}"


def _run(*arguments: str) -> None:
    done = subprocess.run(arguments, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ServerError(f"{arguments[0]} must end with 0, got {done.returncode}: {done.stderr.strip()[-500:]}")


def _radlens(*arguments: str) -> None:
    command = [sys.executable, "-c", "from radlens.cli import main; main()", *arguments]
    if subprocess.run(command, check=False).returncode:
        raise ServerError(f"radlens {arguments[0]} must end with 0, got another code")


def _wait(what: str, holds: Any, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise ServerError(f"{what} within {seconds:g} s")
        time.sleep(0.1)
