"""A node's YAML file to its settings; every key must be known, and every name that is used defined."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from pydicom.uid import UID, UID_dictionary

from radlens.node.rules import Conditions, Rule
from radlens.node.settings import (
    Destination,
    DicomPeer,
    Limits,
    Peer,
    Retry,
    ServerSettings,
    Settings,
    Source,
    Tls,
    Web,
)
from radlens.node.strict_yaml import Section, open_yaml
from radlens.wire import OBJECTS

__all__ = ["read_settings"]

_TOP = ("folder", "listen", "peers", "server", "sources", "destinations", "rules", "limits", "retry")
_LISTEN = ("ae_title", "address", "port", "tls")
_PEER = ("ae_title", "address")
_SERVER = ("url", "token_file", "workers", "timeout_s")
_TLS = ("certificate", "key", "ca")
_DICOM = ("ae_title", "address", "port", "tls", "commitment")
_WEB = ("url", "token_file", "user", "password_file", "tls")
_SOURCE = ("name", *_WEB, "modalities", "days", "every_s")
_RULE = ("name", "when", "model", "version", "kind", "method", "parameters", "objects", "to")
_WHEN = ("modality", "sop_class", "body_part", "study_description", "sender")
_LIMITS = ("associations", "idle_s", "image_mb", "keep_free_mb", "queue", "keep_days")
_RETRY = ("first_s", "longest_s", "give_up_hours", "refusals")

_NOT_PARAMETERS = ("image", "kind", "mask", "method", "objects", "output", "version")

_AE_TITLE = re.compile(r"[\x21-\x5b\x5d-\x7e]([\x20-\x5b\x5d-\x7e]{0,14}[\x21-\x5b\x5d-\x7e])?")
"""AE of PS3.5 section 6.2: 1 to 16 characters without a backslash, spaces at the ends do not count."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


def read_settings(file: Path) -> Settings:
    """Read the settings of a node.

    Raises:
        InvalidInput: the file is not valid; the message names file and line, what was expected, and what came.
    """
    top = open_yaml(file, _TOP)
    destinations = _destinations(top)
    sources = tuple(_source(each) for each in top.sections("sources", _SOURCE))
    listen, peers = top.section("listen", _LISTEN), tuple(_peer(each) for each in top.sections("peers", _PEER))
    if listen is None and not sources:
        raise top.wrong("the file must have listen, sources, or both; got neither")
    if listen is not None and not peers:
        raise top.wrong("peers must list the senders that may open associations, got none")
    limits = _limits(top.section("limits", _LIMITS), top)
    for source in sources:
        if source.days >= limits.keep_days:
            raise top.wrong_at(
                "sources", f"must look back less than limits.keep_days, {limits.keep_days}; got {source.days}"
            )
    server = top.section("server", _SERVER)
    if server is None:
        raise top.wrong("the file must have the key server, which is missing")
    folder = top.path("folder")
    if folder is None:
        raise top.wrong("the file must have the key folder, which is missing")
    rules = tuple(_rule(each, destinations) for each in top.sections("rules", _RULE))
    if not rules:
        raise top.wrong("rules must have at least one rule, got none")
    _require_unique(top, "rules", [rule.name for rule in rules])
    _require_unique(top, "sources", [source.name for source in sources])
    return Settings(
        file=file,
        folder=folder,
        server=ServerSettings(
            _url(server),
            server.path("token_file"),
            server.integer("workers", 2, least=1, most=64),
            server.number("timeout_s", 1800.0, least=1, most=86_400),
        ),
        rules=rules,
        destinations=destinations,
        ae_title=_ae_title(listen, "RADLENS") if listen else "RADLENS",
        address=listen.text("address", "127.0.0.1") if listen else None,
        port=listen.integer("port", 11112, least=0, most=65_535) if listen else 0,
        peers=peers,
        tls=_own_tls(listen) if listen else None,
        sources=sources,
        limits=limits,
        retry=_retry(top.section("retry", _RETRY)),
    )


def _peer(section: Section) -> Peer:
    return Peer(_ae_title(section), section.text("address", longest=253))


def _destinations(top: Section) -> dict[str, Destination]:
    named = top.section("destinations", None)
    if named is None or not list(named):
        raise top.wrong("destinations must have at least one destination, got none")
    return {name: _destination(named, name) for name in named}


def _destination(named: Section, name: str) -> Destination:
    if not _NAME.fullmatch(name):
        raise named.wrong_at(name, "must be named with 1 to 64 letters, digits, '.', '-' or '_'")
    either = named.section(name, None)
    is_web = either is not None and "url" in either
    section = named.section(name, _WEB if is_web else _DICOM)
    if section is None:
        raise named.wrong_at(name, "must be a mapping")
    if is_web:
        return _web(section)
    return DicomPeer(
        _ae_title(section),
        section.text("address", longest=253),
        section.integer("port", least=1, most=65_535),
        _tls(section),
        section.boolean("commitment", False),
    )


def _web(section: Section) -> Web:
    user, password_file, token_file = (
        section.optional_text("user"),
        section.path("password_file"),
        section.path("token_file"),
    )
    if (user is None) != (password_file is None):
        raise section.wrong(f"{section.name} must have both user and password_file, or neither")
    if user is not None and token_file is not None:
        raise section.wrong(f"{section.name} must have token_file or user, got both")
    return Web(_url(section), token_file, user, password_file, _tls(section))


def _source(section: Section) -> Source:
    modalities = section.texts("modalities")
    if not modalities:
        raise section.wrong(f"{section.name} must have the key modalities, which is missing")
    return Source(
        _name(section),
        _web(section),
        modalities,
        section.integer("days", 1, least=0, most=3650),
        section.number("every_s", 60.0, least=1, most=86_400),
    )


def _rule(section: Section, destinations: dict[str, Destination]) -> Rule:
    to, objects = section.texts("to"), section.texts("objects") or ("capture", "report")
    if not to:
        raise section.wrong(f"{section.name} must have the key to, which is missing")
    for each in to:
        if each not in destinations:
            raise section.wrong_at("to", f"must name destinations of {', '.join(destinations)}; got {each!r}")
    if objects != ("all",) and (unknown := [each for each in objects if each not in OBJECTS]):
        raise section.wrong_at("objects", f"must be all, or of {', '.join(OBJECTS)}; got {unknown[0]!r}")
    given = section.section("parameters", None)
    parameters = dict(given.scalars()) if given else {}
    for each in given or ():
        if each in _NOT_PARAMETERS:
            raise section.wrong_at("parameters", f"must hold parameters of the model, got {each}, which the node sets")
    if "method" in section:
        parameters["method"] = section.text("method")
    return Rule(
        _name(section),
        _conditions(section.section("when", _WHEN)),
        section.text("model"),
        section.optional_text("version"),
        section.choice("kind", ("explanations", "predictions"), "explanations"),
        objects,
        to,
        parameters,
    )


def _conditions(section: Section | None) -> Conditions:
    if section is None:
        return Conditions()
    return Conditions(
        section.texts("modality"),
        tuple(_sop_class(section, each) for each in section.texts("sop_class")),
        section.texts("body_part"),
        section.texts("study_description"),
        section.texts("sender"),
    )


def _sop_class(section: Section, text: str) -> str:
    """Return the UID of a SOP class that is given as UID, or by its keyword or name (PS3.6 annex A)."""
    if re.fullmatch(r"[0-9.]+", text):
        if not UID(text).is_valid:
            raise section.wrong_at("sop_class", f"must be a UID or the keyword of a SOP class, got {text!r}")
        return text
    for uid, (name, kind, _info, _retired, keyword) in UID_dictionary.items():
        if kind == "SOP Class" and text in (name, keyword):
            return uid
    raise section.wrong_at("sop_class", f"must be a UID or the keyword of a SOP class, got {text!r}")


def _limits(section: Section | None, top: Section) -> Limits:
    if section is None:
        return Limits()
    limits = Limits(
        section.integer("associations", 10, least=1, most=1000),
        section.number("idle_s", 900.0, least=1, most=86_400),
        section.integer("image_mb", 256, least=1, most=4096),
        section.integer("keep_free_mb", 4096, least=1, most=10**9),
        section.integer("queue", 10_000, least=1, most=10**7),
        section.integer("keep_days", 90, least=1, most=36_500),
    )
    # Each association may be receiving one image when the limit is reached.
    needed = limits.associations * limits.image_mb
    if limits.keep_free_mb < needed:
        raise section.wrong(
            f"limits.keep_free_mb must be at least associations times image_mb, {needed}; got {limits.keep_free_mb}"
        )
    return limits


def _retry(section: Section | None) -> Retry:
    if section is None:
        return Retry()
    return Retry(
        section.number("first_s", 10.0, least=0.01, most=3600),
        section.number("longest_s", 600.0, least=0.01, most=86_400),
        section.number("give_up_hours", 72.0, least=0, most=8760),
        section.integer("refusals", 5, least=1, most=1000),
    )


def _own_tls(section: Section) -> Tls | None:
    tls = _tls(section)
    if tls is not None and tls.certificate is None:
        raise section.wrong_at("tls", "must have a certificate and its key, got none")
    return tls


def _tls(section: Section) -> Tls | None:
    files = section.section("tls", _TLS)
    if files is None:
        return None
    tls = Tls(files.path("certificate"), files.path("key"), files.path("ca"))
    if (tls.certificate is None) != (tls.key is None):
        raise files.wrong(f"{files.name} must have both certificate and key, or neither")
    for key, file in (("certificate", tls.certificate), ("key", tls.key), ("ca", tls.ca)):
        if file is not None and not file.is_file():
            raise files.wrong_at(key, f"must be a file, got {file}, which is missing")
    return tls


def _url(section: Section) -> str:
    url = section.text("url").rstrip("/")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.username:
        raise section.wrong_at("url", "must be http:// or https:// with a host, and without user or query")
    return url


def _ae_title(section: Section, default: str | None = None) -> str:
    title = section.text("ae_title", default)
    if not _AE_TITLE.fullmatch(title):
        raise section.wrong_at("ae_title", f"must have 1 to 16 ASCII characters without a backslash, got {title!r}")
    return title


def _name(section: Section) -> str:
    name = section.text("name")
    if not _NAME.fullmatch(name):
        raise section.wrong_at("name", "must have 1 to 64 letters, digits, '.', '-' or '_'")
    return name


def _require_unique(top: Section, key: str, names: list[str]) -> None:
    for name in names:
        if names.count(name) > 1:
            raise top.wrong_at(key, f"must have different names, got {name!r} twice")
