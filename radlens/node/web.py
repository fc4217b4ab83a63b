"""DICOMweb as a client: QIDO-RS, WADO-RS and STOW-RS of PS3.18 sections 10.4 to 10.6."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import httpx

from radlens.node.asking import read_token
from radlens.node.lanes import Refused, Unavailable
from radlens.node.multipart import PartWriter
from radlens.node.queue import Delivery
from radlens.node.sending import Report
from radlens.node.settings import Web
from radlens.node.statuses import require_stored
from radlens.node.tls import client_context

__all__ = ["Found", "WebSender", "WebSource"]

_PAGE = 100
"""Number of results that one search asks for."""

_DICOM_JSON, _DICOM = "application/dicom+json", "application/dicom"

_HELD = (401, 403, 404, 408, 425, 429)
"""Statuses below 500 that say nothing of the object: credentials, addresses, load."""


class Found(NamedTuple):
    """An instance that a search found.

    Attributes:
        study: Study Instance UID.
        series: Series Instance UID.
        instance: SOP Instance UID.
    """

    study: str
    series: str
    instance: str


class WebSource:
    """A DICOMweb service that is searched and fetched from.

    Args:
        web: address and credentials.
        transport: transport that replaces the network, for tests.
    """

    def __init__(self, web: Web, transport: httpx.BaseTransport | None = None) -> None:
        self._web, self._transport = web, transport

    def check(self) -> None:
        """Search for one study.

        Raises:
            Unavailable: the service cannot be reached, or does not answer QIDO-RS.
            Refused: the service refuses the request.
        """
        _check(self._web, self._transport)

    def find(self, modality: str, days: int) -> Iterator[Found]:
        """Yield the instances of all series of a modality in studies of today and the days before.

        Raises:
            Unavailable: the service cannot be reached, or its answer cannot be read.
        """
        today = date.today()
        period = f"{today - timedelta(days=days):%Y%m%d}-{today:%Y%m%d}"
        with _opened(self._web, self._transport) as client:
            for series in _pages(client, f"{self._web.url}/series", {"Modality": modality, "StudyDate": period}):
                study, number = _uid(series, "0020000D"), _uid(series, "0020000E")
                url = f"{self._web.url}/studies/{study}/series/{number}/instances"
                for instance in _pages(client, url, {}):
                    yield Found(study, number, _uid(instance, "00080018"))

    def fetch(self, found: Found, file: Path, most_bytes: int) -> None:
        """Write an instance to a file, in the transfer syntax in which the service has it.

        Raises:
            Unavailable: the service cannot be reached, or has no resources.
            Refused: the answer is not one instance of at most ``most_bytes``.
        """
        url = f"{self._web.url}/studies/{found.study}/series/{found.series}/instances/{found.instance}"
        accept = f'multipart/related; type="{_DICOM}"; transfer-syntax=*'
        with (
            _opened(self._web, self._transport) as client,
            client.stream("GET", url, headers={"Accept": accept}) as response,
            open(file, "wb") as stream,
        ):
            if response.status_code in (404, 410):
                raise Refused("no longer has the instance")
            _require_success(response)
            writer = PartWriter(response.headers.get("content-type", ""), stream, most_bytes)
            for piece in response.iter_bytes():
                writer.feed(piece)
            writer.close()


class WebSender:
    """A DICOMweb service that takes results.

    Args:
        web: address and credentials.
        is_stopping: function that says whether to end after the current object.
        transport: transport that replaces the network, for tests.
    """

    def __init__(
        self, web: Web, *, is_stopping: Callable[[], bool], transport: httpx.BaseTransport | None = None
    ) -> None:
        self._web, self._is_stopping, self._transport = web, is_stopping, transport

    def check(self) -> None:
        """Search for one study, see `WebSource.check`."""
        _check(self._web, self._transport)

    def store(self, deliveries: Sequence[Delivery], report: Report) -> None:
        """Send objects, one a request, and report each; raises as `DicomSender.store` does."""
        with _opened(self._web, self._transport) as client:
            for each in deliveries:
                if self._is_stopping():
                    return
                try:
                    self._store(client, each)
                except Refused as error:
                    report(each, error)
                else:
                    report(each, None)

    def _store(self, client: httpx.Client, delivery: Delivery) -> None:
        boundary = uuid4().hex
        head = f"--{boundary}\r\nContent-Type: {_DICOM}\r\n\r\n".encode()
        body = head + delivery.file.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
        kind = f'multipart/related; type="{_DICOM}"; boundary={boundary}'
        response = client.post(
            f"{self._web.url}/studies", content=body, headers={"Content-Type": kind, "Accept": _DICOM_JSON}
        )
        if response.status_code in (200, 202, 409):
            require_stored(_store_status(response, delivery.uid))
        else:
            _require_success(response)
            raise Refused(f"answered {response.status_code} to STOW-RS")


def _check(web: Web, transport: httpx.BaseTransport | None) -> None:
    with _opened(web, transport) as client:
        response = client.get(f"{web.url}/studies", params={"limit": "1"}, headers={"Accept": _DICOM_JSON})
        _require_success(response)


def _store_status(response: httpx.Response, uid: str) -> int:
    """Return 0 if an object is stored, and otherwise its Failure Reason: PS3.18 section 10.5.3."""
    answer = _json(response.content)
    if not isinstance(answer, dict):
        raise Unavailable("must answer STOW-RS with one data set, got another answer")
    if uid in [_value(item, "00081155") for item in _items(answer, "00081199")]:
        return 0
    for item in _items(answer, "00081198"):
        if _value(item, "00081155") == uid or len(_items(answer, "00081198")) == 1:
            reason = _value(item, "00081197")
            return reason if isinstance(reason, int) else 0x0110
    if response.status_code == 200:
        return 0
    raise Unavailable(f"answered {response.status_code} to STOW-RS without a word on the object")


def _items(dataset: dict[str, Any], tag: str) -> list[dict[str, Any]]:
    found = dataset.get(tag, {}).get("Value", []) if isinstance(dataset.get(tag, {}), dict) else []
    return [item for item in found if isinstance(item, dict)]


def _value(dataset: dict[str, Any], tag: str) -> Any:
    element = dataset.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None


def _uid(dataset: dict[str, Any], tag: str) -> str:
    value = _value(dataset, tag)
    if not isinstance(value, str) or not 1 <= len(value) <= 64 or not set(value) <= set("0123456789."):
        raise Unavailable(f"must answer QIDO-RS with a UID in {tag}, got another value")
    return value


def _pages(client: httpx.Client, url: str, query: dict[str, str]) -> Iterator[dict[str, Any]]:
    offset, before = 0, None
    while True:
        asked = query | {"limit": str(_PAGE), "offset": str(offset)}
        response = client.get(url, params=asked, headers={"Accept": _DICOM_JSON})
        if response.status_code == 204:
            return
        _require_success(response)
        found = _json(response.content)
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            raise Unavailable("must answer QIDO-RS with a list of data sets, got another answer")
        # A service may give fewer than were asked for, so only an empty page is surely the last; one that knows no
        # offset gives the same page again.
        if not found or found == before:
            return
        yield from found
        offset, before = offset + len(found), found


@contextmanager
def _opened(web: Web, transport: httpx.BaseTransport | None) -> Iterator[httpx.Client]:
    """Give a client with the credentials; its errors of transport become `Unavailable`."""
    token, auth = read_token(web.token_file), None
    if web.user is not None:
        auth = httpx.BasicAuth(web.user, read_token(web.password_file) or "")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with httpx.Client(
            timeout=httpx.Timeout(300.0, connect=15.0),
            headers=headers,
            auth=auth,
            verify=client_context(web.tls),
            transport=transport,
        ) as client:
            yield client
    except httpx.ConnectError:
        raise Unavailable("cannot be reached") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Unavailable(f"did not answer in full: {type(error).__name__}") from None


def _require_success(response: httpx.Response) -> None:
    status = response.status_code
    if status >= 500 or status in _HELD:
        raise Unavailable(f"answered {status}")
    if status >= 300:
        raise Refused(f"answered {status}")


def _json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        raise Unavailable(f"must answer in JSON, got {len(content)} bytes of another format") from None
