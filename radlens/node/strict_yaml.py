"""A YAML file whose every key must be known: errors name the file, the line, and what was expected."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import yaml

from radlens.errors import InvalidInput

__all__ = ["Section", "open_yaml"]

_INTEGER = re.compile(r"[+-]?[0-9]{1,15}")
_NUMBER = re.compile(r"[+-]?[0-9]{1,15}(\.[0-9]{1,15})?")
_KINDS = {"str": "text", "int": "an integer", "float": "a number", "bool": "true or false", "null": "nothing"}


def open_yaml(file: Path, known: Collection[str]) -> Section:
    """Return the mapping that a YAML file holds.

    Args:
        file: path of the file, in UTF-8.
        known: keys that its top level may have.

    Raises:
        InvalidInput: the file cannot be read, is not YAML, or its top level is not a mapping of known keys.
    """
    try:
        text = file.read_text("utf-8")
    except OSError as error:
        raise InvalidInput(f"{file} must be a readable file, got: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file} must be UTF-8, got another encoding at byte {error.start}") from None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InvalidInput(f"{file} line {line}: must be YAML, got: {error.problem}") from None
    except yaml.YAMLError as error:
        raise InvalidInput(f"{file} must be YAML, got: {type(error).__name__}") from None
    if node is None:
        raise InvalidInput(f"{file} must have the keys {', '.join(known)}, got an empty file")
    return Section(file, node, "the file", known)


class Section:
    """A mapping of a YAML file.

    Args:
        file: path of the file, for messages.
        node: node of the mapping.
        name: name of the mapping, for messages.
        known: keys that it may have; None for any key.

    Raises:
        InvalidInput: not a mapping, an unknown key, or a key that occurs twice.
    """

    def __init__(self, file: Path, node: yaml.Node, name: str, known: Collection[str] | None) -> None:
        self.file, self.name, self._node = file, name, node
        if not isinstance(node, yaml.MappingNode):
            listed = f" with the keys {', '.join(known)}" if known else ""
            raise self.wrong(f"{name} must be a mapping{listed}, got {_described(node)}")
        self._values: dict[str, yaml.Node] = {}
        for key, value in node.value:
            text = key.value if isinstance(key, yaml.ScalarNode) else ""
            if known is not None and text not in known:
                raise self.wrong(f"{name} must have keys of {', '.join(known)}; got {_shown(text)}", key)
            if text in self._values:
                raise self.wrong(f"{name} must have each key once, got {_shown(text)} twice", key)
            self._values[text] = value

    def wrong(self, message: str, node: yaml.Node | None = None) -> InvalidInput:
        """Return the error for a node, by default for the whole mapping."""
        at = node or self._node
        return InvalidInput(f"{self.file} line {at.start_mark.line + 1}: {message}")

    def wrong_at(self, key: str, message: str) -> InvalidInput:
        """Return the error for the value of a key."""
        return self.wrong(f"{self._path(key)} {message}", self._values.get(key))

    def __contains__(self, key: str) -> bool:
        """Return whether the mapping has the key."""
        return key in self._values

    def __iter__(self) -> Iterator[str]:
        """Return the keys in the order of the file."""
        return iter(self._values)

    def text(self, key: str, default: str | None = None, *, longest: int = 1024) -> str:
        """Return text of at least one character; without a default the key is required."""
        node = self._scalar(key, "text", default is not None)
        if node is None:
            return default or ""
        return self._text(key, node, longest)

    def optional_text(self, key: str) -> str | None:
        """Return text, or None where the key is missing."""
        return self.text(key) if key in self else None

    def texts(self, key: str) -> tuple[str, ...]:
        """Return one text or a list of them; empty where the key is missing."""
        node = self._values.get(key)
        if node is None:
            return ()
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        if not nodes:
            raise self.wrong_at(key, "must be text or a list of texts, got an empty list")
        return tuple(self._text(key, each, 1024) for each in nodes)

    def integer(self, key: str, default: int | None = None, *, least: int, most: int) -> int:
        """Return an integer of ``least`` to ``most``; without a default the key is required."""
        node = self._scalar(key, "an integer", default is not None)
        if node is None:
            return default or 0
        if not _is(node, "int") or not _INTEGER.fullmatch(node.value) or not least <= int(node.value) <= most:
            raise self.wrong_at(key, f"must be an integer of {least} to {most}, got {_shown(node.value)}")
        return int(node.value)

    def number(self, key: str, default: float, *, least: float, most: float) -> float:
        """Return a number of ``least`` to ``most``."""
        node = self._scalar(key, "a number", True)
        if node is None:
            return default
        is_number = (_is(node, "int") or _is(node, "float")) and _NUMBER.fullmatch(node.value)
        if not is_number or not least <= float(node.value) <= most:
            raise self.wrong_at(key, f"must be a number of {least:g} to {most:g}, got {_shown(node.value)}")
        return float(node.value)

    def boolean(self, key: str, default: bool) -> bool:
        """Return true or false."""
        node = self._scalar(key, "true or false", True)
        if node is None:
            return default
        if not _is(node, "bool") or node.value not in ("true", "false"):
            raise self.wrong_at(key, f"must be true or false, got {_shown(node.value)}")
        return node.value == "true"

    def choice(self, key: str, choices: Collection[str], default: str) -> str:
        """Return one of some texts."""
        found = self.text(key, default)
        if found not in choices:
            raise self.wrong_at(key, f"must be one of {', '.join(choices)}; got {_shown(found)}")
        return found

    def path(self, key: str) -> Path | None:
        """Return a path, relative to the folder of the file; None where the key is missing."""
        found = self.optional_text(key)
        return None if found is None else self.file.parent / found

    def section(self, key: str, known: Collection[str] | None) -> Section | None:
        """Return a mapping; None where the key is missing."""
        node = self._values.get(key)
        return None if node is None else Section(self.file, node, self._path(key), known)

    def sections(self, key: str, known: Collection[str] | None) -> list[Section]:
        """Return a list of mappings; empty where the key is missing."""
        node = self._values.get(key)
        if node is None:
            return []
        if not isinstance(node, yaml.SequenceNode):
            raise self.wrong_at(key, f"must be a list of mappings, got {_described(node)}")
        return [Section(self.file, each, f"{self._path(key)}[{i}]", known) for i, each in enumerate(node.value)]

    def scalars(self) -> Mapping[str, str]:
        """Return all keys with their values as they are written; a value is a text, a number, or true or false."""
        found = {}
        for key, node in self._values.items():
            if not isinstance(node, yaml.ScalarNode) or _is(node, "null"):
                raise self.wrong_at(key, f"must be text, a number, or true or false, got {_described(node)}")
            found[key] = node.value
        return found

    def _path(self, key: str) -> str:
        return key if self.name == "the file" else f"{self.name}.{key}"

    def _scalar(self, key: str, expected: str, may_miss: bool) -> yaml.ScalarNode | None:
        node = self._values.get(key)
        if node is None and not may_miss:
            raise self.wrong(f"{self.name} must have the key {key}, which is missing")
        if node is not None and (not isinstance(node, yaml.ScalarNode) or _is(node, "null")):
            raise self.wrong_at(key, f"must be {expected}, got {_described(node)}")
        return node

    def _text(self, key: str, node: yaml.Node, longest: int) -> str:
        if not _is(node, "str"):
            hint = "; put it in quotes" if isinstance(node, yaml.ScalarNode) and not _is(node, "null") else ""
            raise self.wrong(f"{self._path(key)} must be text, got {_described(node)}{hint}", node)
        if not 1 <= len(node.value) <= longest or not node.value.isprintable():
            raise self.wrong(f"{self._path(key)} must be 1 to {longest} printable characters", node)
        return str(node.value)


def _is(node: yaml.Node, kind: str) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == f"tag:yaml.org,2002:{kind}"


def _described(node: yaml.Node) -> str:
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    return _KINDS.get(node.tag.rpartition(":")[2], "another kind of value")


def _shown(text: str) -> str:
    return repr(text[:60])
