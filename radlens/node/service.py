"""The node as a whole: started, stopped, and started again where it was killed."""

from __future__ import annotations

import fcntl
import logging
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydicom import Dataset
from pynetdicom import _config

from radlens.errors import InvalidInput
from radlens.node.asking import Ask, Server
from radlens.node.files import Folder
from radlens.node.header import Header
from radlens.node.lanes import delay_s
from radlens.node.loops import Asking, Housekeeping, Searching, Sender, Sending, Wake
from radlens.node.queue import Queue
from radlens.node.receiving import Receiver
from radlens.node.sending import DicomSender
from radlens.node.settings import Destination, DicomPeer, Settings
from radlens.node.web import WebSender, WebSource

__all__ = ["Node", "is_running"]

_LOG = logging.getLogger("radlens.node")

_STOP_S = 10.0
"""Seconds that threads get to end; what they have not finished is done after the next start."""


class Node:
    """A DICOM node.

    Args:
        settings: settings of the node.
        make_ask: function that makes, for each thread, what asks the server; by default a `Server`.

    Raises:
        InvalidInput: another node uses the folder, or a file of TLS is not valid.
    """

    def __init__(self, settings: Settings, make_ask: Callable[[], Ask] | None = None) -> None:
        self.settings, self._folder = settings, Folder(settings.folder)
        self._servers: list[Server] = []
        self._make_ask = make_ask or self._server
        self._wake, self._counts, self._counting = Wake(), Counter[str](), threading.Lock()
        self._threads: list[threading.Thread] = []
        self._receiver: Receiver | None = None
        self._tempdir = tempfile.tempdir
        self._folder.make()
        self._lock = _locked(self._folder.top)
        self.queue = Queue(self._folder)

    @property
    def port(self) -> int:
        """Number of the port that the node listens on."""
        if self._receiver is None:
            raise InvalidInput("the node must listen, got settings without listen")
        return self._receiver.port

    def start(self) -> None:
        """Start all threads; what an earlier run left unfinished is done first.

        Raises:
            InvalidInput: the address cannot be used, or a file of TLS is not valid.
        """
        settings, wake = self.settings, self._wake
        _configure(self._folder)
        left = self._folder.sweep(*self.queue.named_files())
        if left:
            _LOG.info("removed %d files that an earlier run left unfinished", left)
        self.queue.give_up_other_destinations(settings.destinations)
        asking = Asking(self.queue, settings, wake, self._make_ask)
        loops: list[tuple[str, Callable[[], None]]] = [
            (f"asking {i}", asking.run) for i in range(settings.server.workers)
        ]
        for name, destination in settings.destinations.items():
            commitment = isinstance(destination, DicomPeer) and destination.commitment
            sender = self._sender(destination)
            loops.append((f"to {name}", Sending(self.queue, settings, wake, name, sender, commitment).run))
        for source in settings.sources:
            web = WebSource(source.web)
            searching = Searching(self.queue, settings, wake, source, web, self._accept, self._room)
            loops.append((f"from {source.name}", searching.run))
        self._house = Housekeeping(self.queue, settings, wake, self._take_counts)
        loops.append(("keeping house", self._house.run))
        if settings.address is not None:
            self._receiver = Receiver(
                settings,
                accept=self._accept,
                room=self._room,
                refused=self.queue.refuse,
                turned_away=self._count,
                on_commitment=self._on_commitment,
            )
            self._receiver.start()
        for name, run in loops:
            thread = threading.Thread(target=run, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """Stop to listen, end what is running, and leave the rest to the next start."""
        if self._receiver is not None:
            self._receiver.stop()
        self._wake.stop()
        for server in self._servers:
            server.close()
        for thread in self._threads:
            thread.join(_STOP_S / max(1, len(self._threads)) if thread.name.startswith("asking") else _STOP_S)
        if self._threads:
            self._house.write_audit()
            self._house.write_metrics()
        tempfile.tempdir = self._tempdir
        self._threads = []
        self.queue.close()
        self._lock.close()

    def _server(self) -> Server:
        server = Server(self.settings.server)
        self._servers.append(server)
        return server

    def _sender(self, destination: Destination) -> Sender:
        if isinstance(destination, DicomPeer):
            return DicomSender(
                destination,
                self.settings.ae_title,
                is_stopping=lambda: self._wake.is_stopping,
                on_commitment=self._on_commitment,
            )
        return WebSender(destination, is_stopping=lambda: self._wake.is_stopping)

    def _accept(self, file: Path, header: Header, sender: str) -> str:
        rules = [rule.name for rule in self.settings.rules if rule.conditions.match(header, sender)]
        event = self.queue.accept(file, header, sender, rules)
        if event == "accepted":
            self._wake.work()
        return event

    def _room(self) -> str | None:
        limits = self.settings.limits
        if self._folder.free_mb() < limits.keep_free_mb:
            return "disk is short"
        return "queue is full" if self.queue.length() >= limits.queue else None

    def _on_commitment(self, event_type: int, result: Dataset) -> None:
        """Take the result of a storage commitment: PS3.4 J.3.3; objects that are not committed to are sent again."""
        waiting = self.queue.in_commitment(str(result.get("TransactionUID", "")))
        failed = {str(item.get("ReferencedSOPInstanceUID", "")) for item in result.get("FailedSOPSequence") or ()}
        stored = {str(item.get("ReferencedSOPInstanceUID", "")) for item in result.get("ReferencedSOPSequence") or ()}
        self.queue.committed([each.id for each in waiting if each.uid in stored - failed])
        for each in waiting:
            if each.uid in failed:
                retry = self.settings.retry
                due = None if each.refusals + 1 >= retry.refusals else delay_s(retry, each.refusals + 1)
                moment = None if due is None else time.time() + due
                self.queue.delivery_failed(each.id, "did not commit to storage", due=moment, refused=True)

    def _count(self, reason: str) -> None:
        with self._counting:
            self._counts[f"turned away: {reason}"] += 1

    def _take_counts(self) -> dict[str, int]:
        with self._counting:
            taken, self._counts = dict(self._counts), Counter()
        return taken


def is_running(folder: Path) -> bool:
    """Return whether a node uses a folder."""
    try:
        _locked(folder).close()
    except InvalidInput:
        return True
    except FileNotFoundError:
        return False
    return False


def _locked(folder: Path) -> Any:
    lock = open(folder / "lock", "a")  # noqa: SIM115 - held until the node stops
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise InvalidInput(f"{folder} must be used by one node, got a second one") from None
    return lock


def _configure(folder: Folder) -> None:
    """Set what pynetdicom and pydicom take from the process."""
    # Data sets go from the network to files and back, and are not decoded; a file that becomes an image is moved.
    _config.STORE_RECV_CHUNKED_DATASET = _config.STORE_SEND_CHUNKED_DATASET = True
    _config.LOG_HANDLER_LEVEL = "none"
    tempfile.tempdir = str(folder.incoming)
    # Their messages quote header values.
    for name in ("pynetdicom", "pydicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
