"""Who imports whom: each floor of the house imports only from those it is allowed to (docs/developer.md)."""

import ast
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import radlens

ROOT = Path(radlens.__file__).parent

EVERYTHING = None
BELOW = (
    "errors extras pools waiting wire images maps networks phantoms datasets evaluation bundles engines graphs "
    "explainers service figures dicom"
)
"""What a family stands on."""

ALLOWED: dict[str, str | None] = {
    "errors": "",
    "lazy": "extras",
    "pools": "",
    "cache": "",
    "waiting": "errors",
    "durable": "errors",
    "sbom": "",
    "keys": "errors durable",
    "audit": "errors durable",
    "dicom_audit": "errors durable audit",
    "extras": "errors",
    "images": "errors",
    "maps": "errors",
    "networks": "errors extras",
    "phantoms": "errors lazy",
    "server": "errors extras waiting",
    "engines": "errors cache extras",
    "bundles": "errors",
    "wire": "errors images",
    "datasets": "errors lazy extras images",
    "evaluation": "errors lazy extras phantoms pools",
    "graphs": "errors extras engines",
    "client": "errors wire server",
    "web": "errors extras waiting wire client server keys audit",
    "explainers": "errors extras waiting graphs images maps",
    "service": "errors waiting images maps engines explainers wire",
    "versions": "errors extras durable audit server client",
    "node": "errors wire images client",
    "dicom": "errors figures images wire",
    "figures": "errors lazy evaluation explainers images maps phantoms",
    "families/base": "errors bundles dicom engines figures images maps service",
    "families/*": f"{BELOW} lazy families/base families/companions client",
    "families/companions": f"{BELOW} families/base families/inpainter",
    "families": "errors extras wire bundles service families/base",
    "archives": "errors extras lazy bundles families",
    "studies": f"{BELOW} families families/cdmam families/classifier families/companions families/inpainter",
    "local": "errors wire bundles families service",
    "notebook": "errors extras wire client explainers families figures images local",
    "doctor": "errors cache extras engines server",
    "cli": EVERYTHING,
}
"""What each room of `radlens` may import, beside itself and the version."""

LAZY = {("explainers", "graphs")}
"""Arrows of one file alone, inside its functions: `radlens.explainers.eager`."""


def room(module: str) -> str:
    """Return the room of a module, given without ``radlens.``."""
    parts = module.split(".")
    if parts[0] != "families" or len(parts) == 1:
        return parts[0]
    # What families share lies below them, and the registry above.
    is_family = (ROOT / "families" / parts[1]).is_dir()
    return f"families/{parts[1] if is_family else 'base'}"


def allowed_to(name: str) -> str | None:
    """Return the rooms that a module may import; every family may import the same."""
    own = room(name)
    return ALLOWED[own] if own in ALLOWED else ALLOWED["families/*"]


def imported() -> dict[str, dict[str, list[str]]]:
    """Return the modules that each module imports, wherever in its file, with the places."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for file in ROOT.rglob("*.py"):
        name = f".{'.'.join(file.relative_to(ROOT).with_suffix('').parts)}".removesuffix(".__init__")[1:]
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "radlens":
                targets = [f"{node.module}.{each.name}" for each in node.names]
            elif isinstance(node, ast.Import):
                targets = [each.name for each in node.names if each.name.startswith("radlens.")]
            else:
                continue
            for target in targets:
                module = target if is_module(target) else target.rpartition(".")[0]
                found[name][module.removeprefix("radlens").removeprefix(".")].append(f"{file.name}:{node.lineno}")
    return found


def is_module(dotted: str) -> bool:
    """Return whether a dotted name is a file or folder of the library."""
    path = ROOT.parent / Path(*dotted.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def test_rooms_import_only_what_they_may():
    """An arrow that is not in the table is named with its file and line."""
    wrong = [
        f"{name} -> {target} ({', '.join(places)})"
        for name, targets in imported().items()
        if name and (allowed := allowed_to(name)) is not EVERYTHING
        for target, places in targets.items()
        if target and room(target) not in {room(name), *allowed.split()}
    ]
    assert wrong == []


def test_rooms_do_not_run_in_circles():
    """Not even by imports inside functions."""
    arrows: dict[str, set[str]] = defaultdict(set)
    for name, targets in imported().items():
        if name:
            arrows[room(name)] |= {room(target) for target in targets if target} - {room(name)}
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        pytest.fail(f"rooms import each other: {' -> '.join(error.args[1])}")


def test_methods_reach_graphs_in_one_file():
    """A bare module is compiled where a rule of Captum does not fit it; nothing else of the methods knows graphs."""
    by = {name for name, targets in imported().items() for target in targets if (room(name), room(target)) in LAZY}
    assert by == {"explainers.eager"}
