"""What tests of the node share: images, settings, a server that answers alike, and a PACS in this process."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import AE, build_context, evt
from pynetdicom.sop_class import _STORAGE_CLASSES

from radlens.node import Node
from radlens.node.queue import NewObject
from radlens.node.reading import read_settings
from radlens.node.rules import Rule
from radlens.node.settings import Settings

MARKED = "Marked^Patient"
"""Name of the patient in every image, which must not leave objects and queue."""

MAMMOGRAM = "1.2.840.10008.5.1.4.1.1.1.2"
ULTRASOUND = "1.2.840.10008.5.1.4.1.1.6.1"
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


def image(number: int, *, modality: str = "MG", **attributes: Any) -> Dataset:
    """Return an image of 8 x 8 pixels, whose UIDs follow from its number."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = MAMMOGRAM if modality == "MG" else ULTRASOUND
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=["image", str(number)])
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=["study", str(number // 4)])
    dataset.SeriesInstanceUID = generate_uid(entropy_srcs=["series", str(number // 4)])
    dataset.PatientName, dataset.PatientID = MARKED, "P1"
    dataset.PatientBirthDate, dataset.PatientSex = "19700101", "F"
    dataset.StudyDate, dataset.StudyTime = time.strftime("%Y%m%d"), "120000"
    dataset.AccessionNumber = dataset.StudyID = ""
    dataset.Modality, dataset.BodyPartExamined, dataset.StudyDescription = modality, "BREAST", f"Screening {MARKED}"
    dataset.SeriesNumber, dataset.InstanceNumber = 1, number
    dataset.Rows = dataset.Columns = 8
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelData = np.random.default_rng(number).integers(0, 4096, (8, 8), np.uint16).tobytes()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    return dataset


def encoded(dataset: Dataset) -> bytes:
    """Return a dataset as a DICOM file."""
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def result_of(content: bytes, *, is_new: bool = False) -> bytes:
    """Return an object like a radlens server's: in the study of its source, with a UID that follows from it.

    With ``is_new`` each call gives another UID, as no radlens server does, so that a second answer is seen.
    """
    source = pydicom.dcmread(io.BytesIO(content))
    result = image(0, PatientName=source.PatientName, Modality="OT", StudyInstanceUID=source.StudyInstanceUID)
    result.SOPClassUID = CAPTURE
    sources = None if is_new else ["result", source.SOPInstanceUID]
    result.SOPInstanceUID = generate_uid(entropy_srcs=sources)
    result.SeriesInstanceUID = generate_uid(entropy_srcs=["results", source.SeriesInstanceUID])
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = source.SOPClassUID, source.SOPInstanceUID
    result.SourceImageSequence = [reference]
    equipment = Dataset()
    equipment.Manufacturer = "radlens"
    result.ContributingEquipmentSequence = [equipment]
    return encoded(result)


def new_object(content: bytes) -> NewObject:
    """Return an object of a file."""
    dataset = pydicom.dcmread(io.BytesIO(content))
    return NewObject(str(dataset.SOPInstanceUID), str(dataset.SOPClassUID), content)


def answering(rule: Rule, content: bytes) -> list[NewObject]:
    """Answer as a server does that makes one object for each image."""
    return [new_object(result_of(content))]


def free_port() -> int:
    """Return a port of loopback that is free."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


YAML = """\
folder: queue
listen: {{ae_title: NODE, port: 0{tls}}}
peers:
  - {{ae_title: MODALITY, address: 127.0.0.1}}
  - {{ae_title: PACS, address: 127.0.0.1}}
server: {{url: "{server}", workers: 1}}
destinations:
  pacs: {destination}
rules:
  - name: mammograms
    when: {{modality: MG}}
    model: cdmam
    to: pacs
limits: {{associations: 4, image_mb: 2, keep_free_mb: {keep_free}, idle_s: {idle}}}
retry: {{first_s: 0.05, longest_s: 0.2, refusals: 3}}
"""


def settings_in(
    folder: Path,
    *,
    destination: str = "{ae_title: PACS, address: 127.0.0.1, port: 1}",
    server: str = "http://127.0.0.1:1",
    keep_free: int = 8,
    idle: float = 60,
    tls: str = "",
    more: str = "",
) -> Settings:
    """Return settings of a node whose queue lies in a folder."""
    file = folder / "node.yaml"
    text = YAML.format(destination=destination, server=server, keep_free=keep_free, idle=idle, tls=tls) + more
    file.write_text(text, "utf-8")
    return read_settings(file)


def wait_until(holds: Callable[[], object], seconds: float = 30.0) -> None:
    """Wait until a condition holds, and fail if it does not in time."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "condition must hold in time"
        time.sleep(0.02)


def send(port: int, datasets: list[Dataset], *, ae_title: str = "MODALITY", pause_s: float = 0.0) -> list[int]:
    """Send images over one association and return their statuses; -1 where the association is gone."""
    ae = AE(ae_title)
    ae.network_timeout = None
    contexts = [build_context(each.SOPClassUID, each.file_meta.TransferSyntaxUID) for each in datasets]
    association = ae.associate("127.0.0.1", port, contexts, ae_title="NODE")
    assert association.is_established
    statuses = []
    try:
        for each in datasets:
            time.sleep(pause_s)
            status = association.send_c_store(each) if association.is_established else Dataset()
            statuses.append(status.Status if "Status" in status else -1)
    finally:
        if association.is_established:
            association.release()
    return statuses


class Pacs:
    """A PACS that keeps what it gets.

    Attributes:
        got: SOP Instance UIDs in the order of arrival.
        answer: function that returns the status of the next object, by default success.
    """

    def __init__(self) -> None:
        self.got: list[str] = []
        self.kept: list[bytes] = []
        self.answer: Callable[[Any], int] = lambda event: 0
        self._lock = threading.Lock()

    def store(self, event: Any) -> int:
        """Answer C-STORE."""
        status = self.answer(event)
        if status == 0:
            with self._lock:
                self.got.append(str(event.request.AffectedSOPInstanceUID))
                self.kept.append(event.dataset_path.read_bytes())
        return status


@contextmanager
def running(settings: Settings, ask: Callable[[Rule, bytes], list[NewObject]] = answering) -> Iterator[Node]:
    """Give a node that runs until the block ends."""
    node = Node(settings, lambda: ask)
    try:
        node.start()
        yield node
    finally:
        node.stop()


@contextmanager
def pacs_at(pacs: Pacs, port: int = 0, contexts: list[str] | None = None, **options: Any) -> Iterator[int]:
    """Let a PACS listen on loopback, and give its port."""
    ae, syntax = AE("PACS"), options.pop("syntax", ExplicitVRLittleEndian)
    for uid in contexts or ["1.2.840.10008.1.1", *_STORAGE_CLASSES.values()]:
        ae.add_supported_context(uid, [syntax] if syntax and uid in _STORAGE_CLASSES.values() else None)
    handlers = [(evt.EVT_C_STORE, pacs.store), *options.pop("handlers", [])]
    server = ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers, **options)
    try:
        yield server.server_address[1]
    finally:
        ae.shutdown()
