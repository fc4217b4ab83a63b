"""Results of a reader study: Tables 2 to 4 of Katzmann et al. 2021, agreement, factor analysis and order effects."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np

from radlens.errors import InvalidParameter
from radlens.evaluation.reader_answers import Readings
from radlens.evaluation.reader_study import (
    Agreement,
    centred,
    criteria_correlation,
    factor_scores,
    first_factor,
    group_test,
    kaiser_meyer_olkin,
    method_mean,
    observer_agreement,
    paired_test,
    ranks,
    z_adjusted,
)

__all__ = ["TABLES", "answers_csv", "study_results", "tables_csv"]

TABLES = {
    "raw": "Raw scores, -4 to 4, higher is better (Table 2)",
    "z_adjusted": "z-adjusted by lesion and criterion, higher is better (Table 3 by the text of the paper)",
    "centred": "Centred by lesion and criterion, higher is better (Table 3 as printed)",
    "ranks": "Ranks, lower is better (Table 4)",
}
"""Tables by name, with their titles."""

_ADJUSTED: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "raw": lambda scores: scores,
    "z_adjusted": z_adjusted,
    "centred": centred,
    "ranks": ranks,
}


def study_results(readings: Readings, *, reference: str | None = None, seed: int = 0) -> dict[str, Any]:
    """Return all results of a study as JSON values; numbers that are not defined or not finite are None.

    Args:
        readings: answers of all readers.
        reference: method that the others are compared with; by default the first one of the key.
        seed: seed of the intervals as printed in the paper.

    Raises:
        InvalidParameter: the reference is not a method of the study.
    """
    key, scores = readings.key, readings.scores
    reference = reference or key.methods[0]
    if reference not in key.methods:
        raise InvalidParameter(f"reference must be one of {', '.join(key.methods)}, got {reference}")
    correlation = criteria_correlation(scores)
    factor = first_factor(correlation)
    preferred = factor_scores(scores, factor.weights)
    readers = [
        {
            "reader": sheet.reader,
            "variant": sheet.variant,
            "file": sheet.file,
            "n_answers": sheet.n_answers,
            "n_missing": key.n_answers - sheet.n_answers,
        }
        for sheet in readings.sheets
    ]
    found = {
        "study": key.study,
        "readers": readers,
        "n_lesions": {label: key.labels.count(label) for label in sorted(set(key.labels))},
        "methods": dict(key.titles),
        "reference": reference,
        "tables": {name: _table(adjust(scores), readings, reference, seed) for name, adjust in _ADJUSTED.items()},
        "by_class": _by_class(readings, seed),
        "agreement": {
            name: _agreement(observer_agreement(scores[:, :, i]), readings) for i, name in enumerate(key.criteria)
        },
        "correlation": {
            first: {second: float(correlation[i, j]) for j, second in enumerate(key.criteria)}
            for i, first in enumerate(key.criteria)
        },
        "kmo": kaiser_meyer_olkin(correlation),
        "factor": {
            "share": factor.share,
            "weights": dict(zip(key.criteria, factor.weights, strict=True)),
            "eigenvalues": list(factor.eigenvalues),
            "means": {name: method_mean(preferred[:, :, j], seed=seed)._asdict() for j, name in enumerate(key.methods)},
        },
        "order": _order(readings),
        "left_out": list(readings.left_out),
    }
    return _finite(found)


def tables_csv(results: Mapping[str, Any]) -> str:
    """Return all tables of `study_results` as one CSV text, one line for each table, criterion and method."""
    columns = ("mean", "low", "high", "low_single", "high_single", "n_readers", "n_answers")
    tested = ("difference", "t", "df", "p", "p_paper", "t_single", "p_single")
    lines: list[tuple[Any, ...]] = [("table", "criterion", "method", *columns, "reference", *tested)]
    for table, criteria in results["tables"].items():
        for criterion, methods in criteria["means"].items():
            for method, mean in methods.items():
                test = criteria["tests"][criterion].get(method)
                ends = ("", *("" for _ in tested))
                if test is not None:
                    ends = (results["reference"], *(test[name] for name in tested))
                lines.append((table, criterion, method, *(mean[name] for name in columns), *ends))
    return _csv(lines)


def answers_csv(readings: Readings) -> str:
    """Return every answer as a CSV text with its lesion and method, raw and adjusted; missing ones are empty."""
    key, adjusted = readings.key, {name: adjust(readings.scores) for name, adjust in _ADJUSTED.items()}
    lines: list[tuple[Any, ...]] = [("reader", "variant", "lesion", "class", "criterion", "method", *adjusted)]
    for place in np.ndindex(*readings.scores.shape):
        reader, lesion, criterion, method = place
        sheet = readings.sheets[reader]
        named = (sheet.reader, sheet.variant, key.lesions[lesion], key.labels[lesion])
        values = (_number(float(each[place])) for each in adjusted.values())
        lines.append((*named, key.criteria[criterion], key.methods[method], *values))
    return _csv(lines)


def _table(values: np.ndarray, readings: Readings, reference: str, seed: int) -> dict[str, Any]:
    key = readings.key
    means: dict[str, Any] = {}
    tests: dict[str, Any] = {}
    pairs: dict[str, Any] = {}
    for i, criterion in enumerate(key.criteria):
        of = {name: values[:, :, i, j] for j, name in enumerate(key.methods)}
        means[criterion] = {name: method_mean(each, seed=seed)._asdict() for name, each in of.items()}
        tests[criterion] = {
            name: paired_test(of[reference], each)._asdict() for name, each in of.items() if name != reference
        }
        pairs[criterion] = [
            {"first": first, "second": second, **paired_test(of[first], of[second])._asdict()}
            for first, second in combinations(key.methods, 2)
        ]
    return {"means": means, "tests": tests, "pairs": pairs}


def _by_class(readings: Readings, seed: int) -> dict[str, Any]:
    """Return mean and interval of raw and z-adjusted scores by class of the lesion (Fig. 7, right)."""
    key, found = readings.key, {}
    for name in ("raw", "z_adjusted"):
        values = _ADJUSTED[name](readings.scores)
        found[name] = {
            label: {
                criterion: {
                    method: method_mean(values[:, np.array(key.labels) == label, i, j], seed=seed)._asdict()
                    for j, method in enumerate(key.methods)
                }
                for i, criterion in enumerate(key.criteria)
            }
            for label in sorted(set(key.labels))
        }
    return found


def _agreement(found: Agreement, readings: Readings) -> dict[str, Any]:
    names = [sheet.reader for sheet in readings.sheets]
    return {
        "rho": found.rho,
        "n_pairs": found.n_pairs,
        "undefined": [[names[i], names[j]] for i, j in found.undefined],
    }


def _order(readings: Readings) -> dict[str, Any]:
    """Return the comparison of the first two variants for each criterion and method; empty with one variant."""
    key, scores = readings.key, readings.scores
    if len(key.variants) < 2:
        return {}
    first, second = (scores[readings.of_variant(variant)] for variant in key.variants[:2])
    return {
        criterion: {
            method: group_test(first[:, :, i, j], second[:, :, i, j])._asdict() for j, method in enumerate(key.methods)
        }
        for i, criterion in enumerate(key.criteria)
    }


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"


def _csv(lines: list[tuple[Any, ...]]) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(_cells(lines))
    return stream.getvalue()


def _cells(lines: list[tuple[Any, ...]]) -> Iterator[list[str]]:
    for line in lines:
        yield ["" if each is None else f"{each:.6g}" if isinstance(each, float) else str(each) for each in line]
