"""C-STORE as a user, and the request for storage commitment: PS3.4 annexes B and J."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pydicom
from pydicom import Dataset
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, build_context, evt
from pynetdicom.association import Association
from pynetdicom.events import Event

from radlens.node.header import read_meta
from radlens.node.lanes import Refused, Unavailable
from radlens.node.queue import Delivery
from radlens.node.settings import DicomPeer
from radlens.node.statuses import require_stored
from radlens.node.tls import client_context

__all__ = ["MOST_AT_ONCE", "STORAGE_COMMITMENT", "VERIFICATION", "DicomSender", "Report"]

Report = Callable[[Delivery, Refused | None], None]
"""Function that takes a delivery once it is stored (None), or once it is refused."""

MOST_AT_ONCE = 50
"""Largest number of objects of one association; each needs up to two presentation contexts of 128."""

_CONNECT_S, _ANSWER_S = 15.0, 300.0
"""Seconds for a connection, and for the answer to one object."""

VERIFICATION = "1.2.840.10008.1.1"
"""SOP class of C-ECHO, PS3.4 annex A.4."""

STORAGE_COMMITMENT, _COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
"""SOP class and well-known instance of storage commitment, PS3.4 J.3.5."""

_REQUEST_COMMITMENT = 1
"""Action Type ID, PS3.4 J.3.2."""


class _NoContextAccepted(Exception):
    """The PACS accepts the association, and none of its presentation contexts; pynetdicom then aborts it."""


class DicomSender:
    """A PACS.

    Args:
        peer: its AE title, address and TLS.
        ae_title: AE title of the node.
        is_stopping: function that says whether to end after the current object.
        on_commitment: function that takes the dataset of a storage commitment's result, and its event type.
    """

    def __init__(
        self,
        peer: DicomPeer,
        ae_title: str,
        *,
        is_stopping: Callable[[], bool],
        on_commitment: Callable[[int, Any], None],
    ) -> None:
        self._peer, self._ae_title = peer, ae_title
        self._is_stopping, self._on_commitment = is_stopping, on_commitment
        self._tls: ssl.SSLContext | None = client_context(peer.tls) if peer.tls else None

    def check(self) -> None:
        """Ask the PACS for C-ECHO.

        Raises:
            Unavailable: it cannot be reached, or does not answer with success.
        """
        try:
            with self._association([build_context(VERIFICATION)]) as association:
                status = association.send_c_echo()
        except (_NoContextAccepted, RuntimeError):
            status = Dataset()
        if status.get("Status") != 0:
            raise Unavailable("does not answer C-ECHO with success")

    def store(self, deliveries: Sequence[Delivery], report: Report) -> None:
        """Send objects over one association, and report each.

        Raises:
            Unavailable: the PACS cannot be reached, drops the association, or has no resources; those that were not
                reported still wait.
        """
        proposed: dict[str, set[str]] = {}
        for each in deliveries:
            syntaxes = proposed.setdefault(each.sop_class, set())
            syntax = read_meta(each.file).transfer_syntax_uid
            syntaxes |= {syntax, ImplicitVRLittleEndian} if syntax == ExplicitVRLittleEndian else {syntax}
        contexts = [build_context(uid, syntax) for uid, syntaxes in proposed.items() for syntax in sorted(syntaxes)]
        try:
            self._store_all(contexts, deliveries, report)
        except _NoContextAccepted:
            for each in deliveries:
                report(each, Refused(f"does not accept SOP class {each.sop_class} in the association"))

    def _store_all(self, contexts: list[Any], deliveries: Sequence[Delivery], report: Report) -> None:
        with self._association(contexts) as association:
            for each in deliveries:
                if self._is_stopping():
                    return
                try:
                    self._store(association, each)
                except Refused as error:
                    report(each, error)
                else:
                    report(each, None)

    def ask_commitment(self, deliveries: Sequence[Delivery], transaction: str) -> None:
        """Ask the PACS to commit to objects that it has; its answer comes later, mostly over another association.

        Raises:
            Unavailable: the PACS cannot be reached or does not take the request.
        """
        request = Dataset()
        request.TransactionUID = transaction
        request.ReferencedSOPSequence = DicomSequence()
        for each in deliveries:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = each.sop_class, each.uid
            request.ReferencedSOPSequence.append(item)
        try:
            with self._association([build_context(STORAGE_COMMITMENT)]) as association:
                status, _ = association.send_n_action(
                    request, _REQUEST_COMMITMENT, STORAGE_COMMITMENT, _COMMITMENT_INSTANCE
                )
        except _NoContextAccepted:
            raise Unavailable("does not accept storage commitment in the association") from None
        except RuntimeError:
            raise Unavailable("dropped the association") from None
        if "Status" not in status:
            raise Unavailable("dropped the association")
        if status.Status != 0:
            raise Unavailable(f"refused storage commitment with status {status.Status:04X}H")

    def _store(self, association: Association, delivery: Delivery) -> None:
        syntaxes = {
            context.transfer_syntax[0]
            for context in association.accepted_contexts
            if context.abstract_syntax == delivery.sop_class
        }
        if not syntaxes:
            raise Refused(f"does not accept SOP class {delivery.sop_class} in the association")
        is_as_it_is = read_meta(delivery.file).transfer_syntax_uid in syntaxes
        # A path is sent as its bytes; a dataset is encoded again, as implicit VR little endian.
        what = delivery.file if is_as_it_is else pydicom.dcmread(delivery.file)
        try:
            status = association.send_c_store(what)
        except RuntimeError:
            raise Unavailable("dropped the association") from None
        except (ValueError, AttributeError):
            raise Refused("does not accept the transfer syntax of the object") from None
        if "Status" not in status:
            raise Unavailable("dropped the association, or did not answer")
        require_stored(status.Status)

    @contextmanager
    def _association(self, contexts: list[Any]) -> Iterator[Association]:
        ae = AE(self._ae_title)
        ae.acse_timeout, ae.connection_timeout = 30, _CONNECT_S
        ae.dimse_timeout, ae.network_timeout = _ANSWER_S, 2 * _ANSWER_S
        handlers = [(evt.EVT_N_EVENT_REPORT, self._on_report)]
        tls = (self._tls, self._peer.address) if self._tls else None
        association = ae.associate(
            self._peer.address,
            self._peer.port,
            contexts,
            ae_title=self._peer.ae_title,
            evt_handlers=handlers,  # type: ignore[arg-type]
            tls_args=tls,
        )
        if not association.is_established:
            if association.rejected_contexts and not association.is_rejected:
                raise _NoContextAccepted
            raise Unavailable("rejected the association" if association.is_rejected else "cannot be reached")
        try:
            yield association
        finally:
            if association.is_established:
                association.release()

    def _on_report(self, event: Event) -> tuple[int, None]:
        self._on_commitment(int(event.event_type or 0), event.event_information)
        return 0, None
