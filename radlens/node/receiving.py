"""C-ECHO and C-STORE as a provider: PS3.4 annexes A and B; and the answers to storage commitments, PS3.4 annex J."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pynetdicom import AE, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import _STORAGE_CLASSES

from radlens.errors import InvalidInput, RadlensError
from radlens.images.dicom import TRANSFER_SYNTAXES
from radlens.node.header import Header, read_header
from radlens.node.listening import HANDSHAKE_S, Admission, Port, make_port
from radlens.node.sending import STORAGE_COMMITMENT, VERIFICATION
from radlens.node.settings import Settings
from radlens.node.tls import server_context

__all__ = ["CANNOT_UNDERSTAND", "OUT_OF_RESOURCES", "Receiver"]

SUCCESS, OUT_OF_RESOURCES, MISMATCH, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xA900, 0xC000
"""Statuses of C-STORE, PS3.4 table B.2-1."""

_PERMANENT, _TRANSIENT = 0x01, 0x02
"""Results of a rejection, PS3.8 table 9-21."""


class Receiver:
    """The node as a provider.

    Args:
        settings: settings of the node; ``address`` is not None.
        accept: function that takes over a file and returns when it is safe; it raises OSError or a database error where
            it is not.
        room: function that returns why nothing can be accepted now; None if there is room.
        refused: function that notes that an image was not accepted: its SOP Instance UID, the sender, and the reason.
        turned_away: function that notes that a connection or an association was refused, with the reason.
        on_commitment: function that takes the dataset of a storage commitment's result, and its event type.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        accept: Callable[[Path, Header, str], object],
        room: Callable[[], str | None],
        refused: Callable[[str, str, str], None],
        turned_away: Callable[[str], None],
        on_commitment: Callable[[int, Any], None],
    ) -> None:
        self._settings, self._accept, self._room = settings, accept, room
        self._refused, self._turned_away, self._on_commitment = refused, turned_away, on_commitment
        self._admission = Admission(settings.limits.associations)
        self._most_bytes = settings.limits.image_mb * 2**20
        self._port: Port | None = None

    @property
    def port(self) -> int:
        """Number of the port that the node listens on."""
        if self._port is None:
            raise RuntimeError("the receiver must be started first")
        return int(self._port.server_address[1])

    def start(self) -> None:
        """Listen.

        Raises:
            InvalidInput: the address cannot be used, or a file of TLS is not valid.
        """
        settings = self._settings
        ae = AE(settings.ae_title)
        # Associations are bounded by `Admission`, which does not count connections without one.
        ae.maximum_associations = 2**31
        ae.acse_timeout, ae.dimse_timeout, ae.network_timeout = HANDSHAKE_S, 60, settings.limits.idle_s
        ae.require_called_aet = True
        ae.maximum_pdu_size = 131_072
        ae.add_supported_context(VERIFICATION)
        for uid in _STORAGE_CLASSES.values():
            ae.add_supported_context(uid, list(TRANSFER_SYNTAXES))
        ae.add_supported_context(STORAGE_COMMITMENT, scu_role=False, scp_role=True)
        handlers = [
            (evt.EVT_REQUESTED, self._on_requested),
            (evt.EVT_C_ECHO, lambda event: SUCCESS),
            (evt.EVT_C_STORE, self._on_store),
            (evt.EVT_PDU_RECV, self._on_pdu),
            (evt.EVT_N_EVENT_REPORT, self._on_report),
            (evt.EVT_CONN_CLOSE, self._on_closed),
        ]
        try:
            self._port = make_port(
                ae,
                (settings.address or "", settings.port),
                handlers,
                ssl_context=server_context(settings.tls) if settings.tls else None,
                peers=settings.peers,
                idle_s=settings.limits.idle_s,
                most=settings.limits.associations,
                on_refused=self._turned_away,
            )
        except OSError as error:
            got = f"{settings.address} port {settings.port}: {error.strerror or type(error).__name__}"
            raise InvalidInput(f"listen must be an address and a free port of this machine, got {got}") from None
        threading.Thread(target=self._port.serve_forever, name="listening", daemon=True).start()

    def stop(self) -> None:
        """Stop to listen, and end all associations; an image whose success was not answered is sent again."""
        if self._port is not None:
            self._port.shutdown()
            for association in self._port.active_associations:
                association.abort(block=False)

    def _on_requested(self, event: Event) -> None:
        association: Any = event.assoc
        request = association.requestor.primitive
        title, address = request.calling_ae_title.strip(), association.requestor.address_info.address
        if not any(peer.ae_title == title and peer.is_at(address) for peer in self._settings.peers):
            self._reject(association, _PERMANENT, 0x01, 0x03, "unknown AE title or address")
        elif not self._admission.admit(association):
            self._reject(association, _TRANSIENT, 0x03, 0x02, "too many associations")

    def _reject(self, association: Any, result: int, source: int, diagnostic: int, reason: str) -> None:
        self._turned_away(reason)
        association.acse.send_reject(result, source, diagnostic)
        # Ends once the rejection is sent; without, the socket would be closed before.
        association.kill()

    def _on_pdu(self, event: Event) -> None:
        """End an association that sends a data set of more than the largest size."""
        association: Any = event.assoc
        if type(event.pdu).__name__ != "P_DATA_TF":
            return
        total = getattr(association, "radlens_bytes", 0) + event.pdu.pdu_length
        association.radlens_bytes = total
        if total > self._most_bytes + 2**20 and association.is_established:
            association.is_established = False  # further PDUs are on their way
            self._turned_away("image larger than limits.image_mb")
            association.dul.socket.close()

    def _on_closed(self, event: Event) -> None:
        """Remove the part of a data set that has arrived before the connection ended."""
        association: Any = event.assoc
        part = getattr(association.dimse.message, "_data_set_file", None)
        if part is not None:
            part.close()
            Path(part.name).unlink(missing_ok=True)

    def _on_store(self, event: Event) -> int:
        try:
            return self._stored(event)
        except Exception as error:  # without an answer of its own, pynetdicom says C211H, which senders take as final
            self._turned_away(f"storing failed: {type(error).__name__}")
            return OUT_OF_RESOURCES

    def _stored(self, event: Event) -> int:
        association: Any = event.assoc
        request: Any = event.request
        association.radlens_bytes = 0
        file, sender = event.dataset_path, association.requestor.ae_title.strip()
        uid = str(request.AffectedSOPInstanceUID)
        reason = self._room()
        if reason is not None:
            self._refused(uid, sender, reason)
            return OUT_OF_RESOURCES
        try:
            header = read_header(file)
        except RadlensError:
            self._refused(uid, sender, "unreadable header")
            return CANNOT_UNDERSTAND
        if (header.sop_instance_uid, header.sop_class_uid) != (uid, str(request.AffectedSOPClassUID)):
            self._refused(uid, sender, "UIDs of the data set and of the request differ")
            return MISMATCH
        # Raises where the image is not safe.
        self._accept(file, header, sender)
        return SUCCESS

    def _on_report(self, event: Event) -> tuple[int, None]:
        self._on_commitment(int(event.event_type or 0), event.event_information)
        return SUCCESS, None
