"""Blinded questionnaire on maps of several methods, and its key: Katzmann et al. 2021, section 3.4.

Requirements:

- The page and the key are two files; the page cannot be unblinded without the key.
- Readers see correctly classified images only, half of them of the positive class, so that they do not judge the
  classification.
- Variant B shows lesions and methods in the reverse order of A: over both variants no lesion and no method comes first.
"""

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from radlens import __version__
from radlens.datasets import Sample
from radlens.errors import InvalidInput, InvalidParameter
from radlens.evaluation.reader_answers import KEY_FORMAT, VERSION
from radlens.evaluation.reader_study import CRITERIA, HIGHEST, LOWEST
from radlens.explainers import probabilities
from radlens.figures.charts import method_title
from radlens.figures.pictures import grey_picture, map_picture
from radlens.figures.questionnaire import LesionPage, Questionnaire, questionnaire_page
from radlens.images import read, to_png
from radlens.studies.cases import Cases, StudyCase
from radlens.studies.maps import explain_cases, method_parameters, methods_of, score_cases
from radlens.studies.models import StudyModel
from radlens.studies.store import Key, Store

__all__ = [
    "KEY",
    "PAGE",
    "FolderCases",
    "ReaderStudy",
    "Variants",
    "make_reader_study",
    "reading_orders",
    "secret_seed",
]

PAGE, KEY = Path("for-readers", "questionnaire.html"), Path("key.json")
"""Files in the folder of a study; the page has a folder of its own, which can be handed out as it is."""

Variants = Literal["A", "B", "both"]
"""Variants in the page."""

MAX_METHODS = 8
"""Largest number of methods that a reader can compare on one page."""

_MAX_SIDE = 256
"""Largest side of a picture in pixels; larger ones would make a page of hundreds of megabytes."""

_CODE = 8
"""Hexadecimal digits of the code of a picture."""

Progress = Callable[[str, float, float], None]


@dataclass(frozen=True)
class ReaderStudy:
    """Plan of a study.

    Args:
        methods: names of the methods, 2 to `MAX_METHODS`; results compare the first one with the others.
        n_lesions: number of lesions, even and at least 2.
        seed: seed of the choice, the order and the codes; at least 0. Whoever knows it and the images can unblind.
        variants: variants in the page.
        threshold: probability of the positive class above which the model calls a lesion positive; between 0 and 1.
        shows_class: whether readers see the class that the model gives to each lesion.

    Raises:
        InvalidParameter: a value is out of range.
    """

    methods: tuple[str, ...]
    n_lesions: int = 24
    seed: int = 0
    variants: Variants = "both"
    threshold: float = 0.5
    shows_class: bool = True

    def __post_init__(self) -> None:
        """Raise for values out of range."""
        if len(set(self.methods)) != len(self.methods) or not 2 <= len(self.methods) <= MAX_METHODS:
            given = ", ".join(self.methods) or "none"
            raise InvalidParameter(f"methods must be 2 to {MAX_METHODS} different names, got {given}")
        if self.n_lesions < 2 or self.n_lesions % 2:
            raise InvalidParameter(f"lesions must be an even number of at least 2, got {self.n_lesions}")
        if self.seed < 0:
            raise InvalidParameter(f"seed must be at least 0, got {self.seed}")
        if not 0 < self.threshold < 1:
            raise InvalidParameter(f"threshold must be between 0 and 1, got {self.threshold}")
        if self.variants not in ("A", "B", "both"):
            raise InvalidParameter(f"variant must be A, B or both, got {self.variants!r}")


class FolderCases:
    """Images of a folder with one subfolder per class, read on access; equal images count once.

    Args:
        root: folder; its subfolders have the names of classes of the model.
        model: model whose grid the images take.

    Raises:
        InvalidInput: there is no subfolder of the positive class or of another class, a file is not an image, or images
            with equal pixels lie in different classes.
    """

    def __init__(self, root: Path, model: StudyModel) -> None:
        self._root, self._input = root, model.input
        self._files: list[tuple[Path, str, str]] = []
        positive, seen = model.classes[model.positive], dict[str, str]()
        named = [name for name in model.classes if (root / name).is_dir()]
        if positive not in named or len(named) < 2:
            raise InvalidInput(
                f"{root.name} must hold a folder of images named {positive} and one of another class of "
                f"{', '.join(model.classes)}, got {', '.join(named) or 'none'}"
            )
        for name in named:
            for file in sorted(each for each in (root / name).rglob("*") if each.is_file() and each.name[0] != "."):
                digest = _digest(self._sample(file).pixels)
                if digest not in seen:
                    seen[digest] = name
                    self._files.append((file, name, digest))
                elif seen[digest] != name:
                    raise InvalidInput(f"an image must have one class, got {seen[digest]} and {name} for {file.name}")
        self.labels = np.array([int(name == positive) for _, name, _ in self._files], dtype=np.int64)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._files)

    def __getitem__(self, index: int) -> StudyCase:
        """Read one image."""
        sample = self._sample(self._files[index][0])
        image = torch.from_numpy(self._input.scaled(sample.pixels))
        return StudyCase(str(index + 1), int(self.labels[index]), sample, image, self.key(index))

    def key(self, index: int) -> Key:
        """Return the key of an image: its path in the folder and the digest of its pixels on the network's grid."""
        file, _, digest = self._files[index]
        return {"file": file.relative_to(self._root).as_posix(), "sha256": digest, "input": self._input.to_json()}

    def _sample(self, file: Path) -> Sample:
        try:
            return self._input.sample(Sample(read(file.read_bytes()).pixels))
        except InvalidInput as error:
            raise InvalidInput(f"{file.parent.name}/{file.name}: {error}") from error


def make_reader_study(
    folder: Path,
    model: StudyModel,
    cases: Cases,
    plan: ReaderStudy,
    *,
    key_file: Path | None = None,
    on_progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the questionnaire and its key, and return the key.

    Args:
        folder: folder of the study, created if missing; it keeps maps, so that an interrupted command continues.
        model: model to explain.
        cases: labelled images.
        plan: plan of the study.
        key_file: file of the key; by default `KEY` in the folder.
        on_progress: called as ``on_progress(stage, done, total)``.

    Raises:
        InvalidParameter: the page or the key exists, they would lie side by side, or the model does not allow a method.
        InvalidInput: too few images of a class are classified correctly.
    """
    key_file = key_file or folder / KEY
    if key_file.resolve().parent == (folder / PAGE).resolve().parent:
        raise InvalidParameter(f"the key must lie outside the folder {PAGE.parent}, which is for readers")
    for file in (folder / PAGE, key_file):
        if file.exists():
            raise InvalidParameter(
                f"{file.name} must be a new file, got one that exists: answers to a page are lost without its own key; "
                "choose another folder"
            )
    for name in plan.methods:
        if name not in model.methods:
            reason = f": {model.refused[name]}" if name in model.refused else ""
            raise InvalidParameter(f"methods must be among {', '.join(model.methods)}, got {name}{reason}")
    store, rng = Store(folder / "work"), np.random.default_rng(plan.seed)
    logits = score_cases(model, cases, store, on_progress=on_progress)
    probability = probabilities(torch.from_numpy(logits)).numpy()[:, model.positive]
    chosen = _chosen(cases.labels, probability > plan.threshold, plan.n_lesions, rng, model)
    maps = explain_cases(
        model, cases, dict.fromkeys(chosen, model.positive), methods_of(plan.methods), store, on_progress=on_progress
    )
    codes = _codes(plan.n_lesions * (1 + len(plan.methods)), rng)
    originals, pictures, places, lesions = {}, {}, {}, []
    for index in chosen:
        pixels, lesion = cases[index].sample.pixels, next(codes)
        originals[lesion] = to_png(grey_picture(pixels, max_side=_MAX_SIDE))
        lesions.append(
            {
                "lesion": lesion,
                "label": _label(model, bool(cases.labels[index])),
                "probability": float(probability[index]),
                "image": dict(cases.key(index)),
                "sha256": _digest(pixels),
            }
        )
        for method in plan.methods:
            code = next(codes)
            pictures[code] = to_png(map_picture(pixels, maps.map(method, index), "overlay", max_side=_MAX_SIDE))
            places[code] = {"lesion": lesion, "method": method, "sha256": hashlib.sha256(pictures[code]).hexdigest()}
    variants = reading_orders(places, rng)
    shown = ("A", "B") if plan.variants == "both" else (plan.variants,)
    content = _content(model, plan, next(codes), originals, pictures, lesions, {name: variants[name] for name in shown})
    page = questionnaire_page(content).encode("utf-8")
    key = {
        "format": KEY_FORMAT,
        "version": VERSION,
        "study": content.study,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "radlens": __version__,
        "seed": plan.seed,
        "model": {"name": model.name, "title": model.title, "identity": model.identity, "classes": list(model.classes)},
        "criteria": dict(CRITERIA),
        "methods": {
            name: {"title": method_title(name), "parameters": method_parameters(maps.methods[name])}
            for name in plan.methods
        },
        "lesions": lesions,
        "pictures": places,
        "variants": {
            name: [{"lesion": each.lesion, "pictures": list(each.pictures)} for each in content.variants[name]]
            for name in shown
        },
        "threshold": plan.threshold,
        "shows_class": plan.shows_class,
        "page_sha256": hashlib.sha256(page).hexdigest(),
    }
    # A page without a key must never exist.
    _write(key_file, json.dumps(key, indent=1, ensure_ascii=False).encode("utf-8"), mode=0o600)
    _write(folder / PAGE, page)
    return key


def secret_seed(folder: Path) -> int:
    """Return a random seed, the same one whenever it is asked for in one folder, so that a study can be continued."""
    file = folder / "work" / "seed"
    if not file.exists():
        _write(file, str(secrets.randbelow(2**53)).encode(), mode=0o600)
    return int(file.read_bytes())


def _chosen(
    labels: np.ndarray, called: np.ndarray, n_lesions: int, rng: np.random.Generator, model: StudyModel
) -> list[int]:
    """Return the indices of correctly classified images, the same number of both classes, in random order."""
    found: list[int] = []
    for label in (0, 1):
        correct = np.flatnonzero((labels == label) & (called == bool(label)))
        if len(correct) < n_lesions // 2:
            wanted, n_all = _label(model, bool(label)), int((labels == label).sum())
            raise InvalidInput(
                f"images must include {n_lesions // 2} correctly classified ones that are {wanted}, got {len(correct)} "
                f"of {n_all}; give more images or fewer lesions"
            )
        found += rng.choice(correct, n_lesions // 2, replace=False).tolist()
    return [int(index) for index in rng.permutation(found)]


def _label(model: StudyModel, is_positive: bool) -> str:
    """Return the name of the positive class or of the other one, which has no name of its own among three."""
    positive = model.classes[model.positive]
    if is_positive:
        return positive
    return next(name for name in model.classes if name != positive) if len(model.classes) == 2 else f"not {positive}"


def _codes(n: int, rng: np.random.Generator) -> Any:
    """Return random codes that differ: one for each picture and lesion, and one for the study."""
    found: dict[str, None] = {}
    while len(found) <= n:
        found[rng.bytes(_CODE // 2).hex()] = None
    return iter(found)


def reading_orders(places: Mapping[str, Mapping[str, str]], rng: np.random.Generator) -> dict[str, list[LesionPage]]:
    """Return variant A, a random order of lesions and of the pictures of each, and its reverse B.

    Args:
        places: lesion and method of each picture, by code.
        rng: random numbers.
    """
    lesions = list(dict.fromkeys(each["lesion"] for each in places.values()))
    first = []
    for lesion in rng.permutation(lesions).tolist():
        pictures = [code for code, each in places.items() if each["lesion"] == lesion]
        first.append(LesionPage(lesion, rng.permutation(pictures).tolist()))
    return {"A": first, "B": [LesionPage(each.lesion, each.pictures[::-1]) for each in reversed(first)]}


def _content(
    model: StudyModel,
    plan: ReaderStudy,
    study: str,
    originals: Mapping[str, bytes],
    pictures: Mapping[str, bytes],
    lesions: Sequence[Mapping[str, Any]],
    variants: Mapping[str, Sequence[LesionPage]],
) -> Questionnaire:
    positive, other = _label(model, True), _label(model, False)
    n = len(plan.methods)
    return Questionnaire(
        study=study,
        title="How good are these explanations?",
        introduction=(
            f"A computer program classified {plan.n_lesions} lesions as {positive} or {other}, all of them correctly. "
            f"For each lesion you see its image and {n} pictures, in which {n} methods explain the decision by "
            "colours. The order of the methods changes from lesion to lesion.",
            f"Please give each picture three scores from \N{MINUS SIGN}{-LOWEST} (low) to {HIGHEST} (high). Does it "
            f"look reasonable? Does it make sense as a reason to call the lesion {positive} or {other}? Does it look "
            "good?",
            "This browser keeps your answers, also when you close the page, until you save them as a file at the end. "
            "Tab moves between the questions, the arrow keys choose a score.",
        ),
        legend=f"Red speaks for {positive}, blue for {other}.",
        originals=originals,
        verdicts={
            each["lesion"]: f"The program says: {each['label']}." if plan.shows_class else "" for each in lesions
        },
        pictures=pictures,
        variants=variants,
    )


def _digest(pixels: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(pixels).tobytes()).hexdigest()


def _write(file: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write a file atomically."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as stream:
            stream.write(content)
        beside.replace(file)
    finally:
        beside.unlink(missing_ok=True)
