"""Tables and texts of the study of planted causes, for its own page and for those of the papers."""

from collections.abc import Mapping, Sequence
from typing import Any

from radlens.evaluation.baselines import BASELINES, verdict
from radlens.evaluation.planted import hits_table
from radlens.evaluation.planted_record import RECORD
from radlens.figures import Table, method_title
from radlens.figures.study_page import Cell
from radlens.phantoms.planted import CAUSES

__all__ = ["READING", "cause_table", "causes_table", "chapter", "control_text"]

READING = (
    "Each classifier was trained on images in which one cause alone tells the class; masses, tissue and scanner are "
    "drawn alike for both classes. So the classifier can use nothing else, and the truth of its map is known: the "
    "evidence is at the cause. A map that points at the mass points at what a person would expect, not at what this "
    "classifier uses.",
    "A hit: the largest value of the map of the positive class lies at most three pixels from the cause. Intervals are "
    "Wilson intervals over images; images of one classifier are not quite independent. A star marks methods that hit "
    "more often than the best baseline (p < 0.05, corrected). Share of evidence: the part of the positive values of "
    "the map that lies at the cause, to be compared with the area of the cause.",
    "Control: without the cause, the images that were positive cannot be told from the negative ones; the AUC must "
    "then be 0.5.",
)
"""Paragraphs on how to read the study."""


def control_text(cause: str, found: Mapping[str, Any]) -> str:
    """Return the result of the control for one cause."""
    low, high = found["auc_without_low"], found["auc_without_high"]
    passed = (
        "contains 0.5" if low <= 0.5 <= high else "does NOT contain 0.5: the classifiers use something else as well"
    )
    return (
        f"{CAUSES[cause].capitalize()}: AUC {found['auc']:.3f} on {found['n_test']} test images. With the cause "
        f"removed, AUC {found['auc_without']:.3f}; its 95 % interval, {low:.3f} to {high:.3f}, {passed}. "
        f"{found['flipped']:.0%} of the positive images are called negative once the cause is removed. The cause "
        f"covers {found['area']:.1%} of an image."
    )


def cause_table(cause: str, found: Mapping[str, Any]) -> Table:
    """Return hits, evidence and comparison of every method and baseline for one cause."""
    best = found["best_baseline"]
    ordered = sorted(found["methods"].items(), key=lambda item: -item[1]["n_hits"])
    rows: list[Sequence[Cell]] = [
        (
            method_title(name),
            f"{each['n_hits']} of {each['n']}",
            f"{each['n_hits'] / each['n']:.0%}",
            f"{each['low']:.0%} to {each['high']:.0%}",
            f"{each['share']:.0%}",
            verdict(each["p"]),
        )
        for name, each in ordered
    ]
    rows += [
        (f"baseline: {BASELINES[name]}", None, f"{each['rate']:.0%}", None, None, None)
        for name, each in found["baselines"].items()
    ]
    columns = ("Method", "Hits", "Rate", "95 % interval", "Share of evidence", f"Better than {BASELINES[best]}")
    note = (
        f"Correctly classified positive images. {BASELINES[best].capitalize()} is the best baseline. p: one-sided "
        f"paired permutation test, corrected for {len(ordered)} methods by Holm's procedure."
    )
    return Table(f"Maps that point at the cause: {CAUSES[cause]}", columns, rows, note)


def causes_table(record: Mapping[str, Any], causes: Sequence[str]) -> Table:
    """Return the hit rates of every method for several causes."""
    rows: list[Sequence[Cell]] = [(method_title(name), *cells) for name, *cells in hits_table(record, causes)]
    for name, title in BASELINES.items():
        rates = (f"{record['causes'][cause]['baselines'][name]['rate']:.0%}" for cause in causes)
        rows.append((f"baseline: {title}", *rates))
    rows.append(("AUC with the cause", *(f"{record['causes'][cause]['auc']:.3f}" for cause in causes)))
    rows.append(("AUC without the cause", *(_interval(record["causes"][cause]) for cause in causes)))
    note = (
        f"Hits of the largest value of a map, with 95 % Wilson intervals; * better than the best baseline (p < 0.05, "
        f"corrected). Small classifiers, {record['options']['n_networks']} for each cause, on simulated images: "
        f"`{record['command']}`."
    )
    return Table("Planted causes: maps that point at the only cause", ("Method", *map(CAUSES.get, causes)), rows, note)  # type: ignore[arg-type]


def chapter(results: dict[str, Any]) -> tuple[str, list[Table]]:
    """Return the chapter on planted causes of the page of a paper, from the record that radlens ships."""
    results |= {"command": RECORD["command"], "causes": RECORD["causes"]}
    if not RECORD["causes"]:
        return f"Left out: no result is known yet; `{RECORD['command']}` computes it.", []
    text = (
        "The truth of a map is known only if one knows what the network uses. So small classifiers were trained on "
        "images in which exactly one planted cause tells the class, and the maps of each method were asked to point at "
        "it. The table describes the methods, not the networks of this page; it was computed by "
        f"`{RECORD['command']}`, whose page shows images and controls."
    )
    return text, [causes_table(RECORD, list(RECORD["causes"]))]


def _interval(found: Mapping[str, Any]) -> str:
    return f"{found['auc_without']:.3f} ({found['auc_without_low']:.3f} to {found['auc_without_high']:.3f})"
