"""Write ``docs/methods.md``: every method of explanation, as it describes itself."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from radlens import explainers
from radlens.explainers import Explainer
from radlens.families.cdmam.export import EXPLAINERS
from radlens.families.cdmam.methods import ABLATION, AblationMethod, ablation_parameters, defaults_of
from radlens.families.cdmam.settings import explanation_parameters
from radlens.families.classifier.settings import PREDICTED
from radlens.images.sampling import SAMPLED_SHAPE
from radlens.service.parameters import method_parameters
from radlens.wire import CDC, CLASSIFICATION

PAGE = Path(__file__).with_suffix(".md")

SHAPE = (224, 224)
"""Rows and columns of the image whose cost is stated."""

CLASSES = {"score": "score", "unit": "logit of the class", "image": "unit of the preprocessed image"}
PHANTOMS = {"score": "midpoint of the curve", "unit": "µm of gold", "image": "standard deviation of the image's noise"}
"""Names of what methods explain, in each family."""

MOST_IMAGES = explainers.images_per_call(torch.empty(1, *SHAPE))
"""Most images that a request for an image of `SHAPE` may have computed together; fewer for larger images."""

SAMPLER = "stratified"
"""Default sampler of the phantom models that radlens trains."""

HEAD = f"""# Methods of explanation

Written by `python docs/methods.py` from the methods themselves (`radlens.explainers`): titles, units, meanings,
parameters, ranges and defaults are those that requests are checked with. A parameter is passed as `?n_steps=20` in a
request, as `-p n_steps=20` to `radlens explain`, and as `n_steps=20` in Python.

*Needs* are the questions that a method asks of a model (`radlens.graphs.asks`); a bundle that lacks the graph of one
refuses the method and says why. *Cost* is about how often the network is evaluated for one image of
{SHAPE[0]}x{SHAPE[1]} with the default parameters; a gradient counts as one evaluation.
"""

OF_CLASSIFIERS = f"""## Classifiers (task `{CLASSIFICATION}`)

A request may add `target` (a class, its number, or `{PREDICTED}`, the default), `members`, `output` and `trust`, see
[hospital-engineer.md](hospital-engineer.md#requests). `baseline` is in units of the preprocessed image; 0 is its mean.
Bundles for images whose shorter side s is below 512 pixels set another default window for occlusion: s / 7 pixels, with
half of it as stride. The limit of `internal_batch_size` is that for images of {SHAPE[0]}x{SHAPE[1]}; it is lower for
larger ones. The parameter changes memory and time, but no value.
"""

OF_PHANTOMS = f"""## Phantom models (task `{CDC}`)

The score is the midpoint of the predicted curve. A method explains samples of {SAMPLED_SHAPE[0]}x{SAMPLED_SHAPE[1]}
pixels, `n_samples` of them, and their maps are joined. *Registered* models see the phantom in its own coordinates;
models trained by the paper's own recipe see the image as it is.
"""

OF_ABLATION = f"""`{ABLATION}` is asked for like a method and answers with a table of cells in place of a map. It
evaluates the network {AblationMethod().cost(*SAMPLED_SHAPE)} times for each sample.
"""


def pages() -> Iterator[str]:
    """Yield the parts of the page."""
    yield HEAD
    yield _table(["method", "title", "models", "needs", "cost"], [_overview(name) for name in explainers.names()])
    yield OF_CLASSIFIERS
    for name in explainers.names():
        if explainers.get(name).for_classes:
            yield from _section(name)
    yield OF_PHANTOMS
    yield _table(["method", "unit", "meaning of a value"], [_described(name) for name in EXPLAINERS])
    yield _table(
        ["method", "parameter", "values", "default", "default if registered", "default of the method"],
        [row for name in EXPLAINERS for row in _served(name)],
    )
    yield OF_ABLATION
    parameters = ablation_parameters(SAMPLER).items()
    rows = [(f"`{name}`", each.expected, f"{each.default}") for name, each in parameters if name != "method"]
    yield _table([f"parameter of `{ABLATION}`", "values", "default"], rows)


def _overview(name: str) -> tuple[str, ...]:
    method = explainers.create(name)
    families = ["classifiers"] * method.for_classes + ["phantoms"] * (name in EXPLAINERS)
    needs = ", ".join(f"`{need}`" for need in method.needs)
    return f"`{name}`", method.title, ", ".join(families), needs, str(method.cost(*SHAPE))


def _section(name: str) -> Iterator[str]:
    """Yield the heading, the meaning and the parameters of a method of classifiers."""
    method = explainers.create(name)
    described = method.described(**CLASSES)
    yield f"### {method.title}: `{name}`\n"
    source = inspect.getmodule(type(method))
    assert source is not None, "a method is defined in a module"
    yield f"{_first_line(source)}\n"
    channels = "parts of the whole" if method.per_channel else "the same map"
    yield f"A value: {described['meaning']}. Unit: {described['unit']}. Channels of an image: {channels}.\n"
    rows = [
        (f"`{name}`", parameter.expected, f"`{_word(parameter.default)}`", _said(type(method), name))
        for name, parameter in method_parameters(name, {}, most_images=MOST_IMAGES).items()
    ]
    yield _table(["parameter", "values", "default", "meaning"], rows) if rows else "It has no parameters.\n"


def _described(name: str) -> tuple[str, ...]:
    own: dict[str, Any] = {"effect": "rise"} if name == "occlusion" else {}
    described = explainers.create(name, **own).described(**PHANTOMS)
    return f"`{name}`", described["unit"], described["meaning"]


def _served(name: str) -> Iterator[tuple[str, ...]]:
    """Yield the parameters of a method of phantom models, with the defaults of both kinds of model."""
    plain, registered = (explanation_parameters(SAMPLER, EXPLAINERS, name, defaults_of(each)) for each in (False, True))
    for field in fields(explainers.get(name)):  # type: ignore[arg-type]
        if field.name in plain:
            values = plain[field.name].expected, plain[field.name].default, registered[field.name].default
            yield (f"`{name}`", f"`{field.name}`", *(f"{_word(value)}" for value in values), f"{_word(field.default)}")


def _said(method: type[Explainer], name: str) -> str:
    """Return what the docstring of a method, or of its base, says of a parameter."""
    for kind in method.__mro__:
        arguments = inspect.cleandoc(kind.__doc__ or "").partition("\nArgs:\n")[2]
        found = re.search(rf"^    {name}: (.+(?:\n {{5,}}.+)*)", arguments, re.MULTILINE)
        if found:
            text = re.sub(r":\w+:`~?([^`]*)`", r"`\1`", " ".join(found[1].split())).replace("``", "`")
            # A reference that is the whole text leads to what the column of values holds.
            return "" if text.startswith("see ") else text
    raise ValueError(f"the docstring of {method.__name__} must say what {name} is")


def _first_line(module: object) -> str:
    text = (inspect.getdoc(module) or "").split("\n\n", 1)[0]
    return " ".join(text.split()).rstrip(".") + "."


def _word(value: object) -> str:
    """Return a value as requests state it."""
    return str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("|  |", "| |") for line in lines) + "\n"


def render() -> str:
    """Return the page."""
    return "\n".join(pages())


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
