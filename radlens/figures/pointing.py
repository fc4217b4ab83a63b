"""Regions of a breast ultrasound image and the extremes of its map: Byra et al. 2022, Figs. 3 and 4."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np
from matplotlib import patheffects
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike

from radlens.errors import InvalidInput, InvalidParameter
from radlens.evaluation.checks import finite_map, mask
from radlens.evaluation.pointing import pointing_hits
from radlens.figures.panels import Spacing
from radlens.figures.pictures import (
    add_sign_bar,
    checked_pair,
    draw_edges,
    draw_picture,
    grey_picture,
    map_picture,
    outline_of,
    panel_grid,
    scale_text,
    tallness_of,
)

__all__ = ["PointingCase", "figure_pointing", "figure_regions"]

_TITLES = {"mass": "Mass", "peritumoral": "Peritumoral region", "below": "Region below the mass"}
_SHORT = {"peritumoral": "ring"}
_COLOURS = {"mass": "#FFD400", "peritumoral": "#2ECC71", "below": "#FF8AE2"}
_OTHERS = ("#00C8C8", "#FF9F40", "#C0C0C0")
_LARGEST = (2.4, 2.6)  # inches
_STROKE = [patheffects.withStroke(linewidth=4.0, foreground="black")]


@dataclass(frozen=True, eq=False)
class PointingCase:
    """One image of `figure_pointing`.

    Attributes:
        pixels: ``(h, w)`` image, finite.
        map: ``(h, w)``, signed, finite.
        regions: masks ``(h, w)`` by name, as from `radlens.evaluation.breast_regions`.
        group: heading, such as "benign"; cases of one group are drawn together.
        title: title above the image, such as "p(malignant) = 0.04".
        spacing_mm: (row, column) pixel spacing, mm.
    """

    pixels: np.ndarray
    map: np.ndarray
    regions: Mapping[str, ArrayLike]
    group: str
    title: str = ""
    spacing_mm: Spacing = None


def figure_regions(
    pixels: ArrayLike, regions: Mapping[str, ArrayLike], *, spacing_mm: Spacing = None, title: str | None = None
) -> Figure:
    """Draw an image and each of its regions, with the fraction of the image that the region covers (Fig. 3).

    Args:
        pixels: ``(h, w)`` image.
        regions: masks ``(h, w)`` by name.
        spacing_mm: (row, column) pixel spacing, mm, which sets the aspect ratio.
        title: title of the figure.

    Raises:
        InvalidInput: there is no region, the shapes differ, or a value is not finite.
    """
    image = finite_map("image", pixels)
    masks = _masks(image, regions)
    colours = _colours(masks)
    tallness = tallness_of(image.shape, spacing_mm)
    figure, grid = panel_grid(tallness, 1, 1 + len(masks), largest=_LARGEST, text_height=0.25, extra=(0.0, 0.4))
    grey = grey_picture(image)
    draw_picture(grid[0, 0], grey, image.shape, spacing_mm)
    grid[0, 0].set_title("A. Image", size=10)
    for axes, letter, (name, region) in zip(grid[0, 1:], "BCDEFGHIJ", masks.items(), strict=False):
        _draw_region(axes, grey, region, colours[name], spacing_mm)
        axes.set_title(f"{letter}. {_TITLES.get(name, name)}", size=10)
        axes.set_xlabel(f"{region.mean():.0%} of the image", size=9, labelpad=3)
    figure.suptitle(title or "", size=11)
    return figure


def figure_pointing(cases: Sequence[PointingCase], *, max_columns: int = 4, title: str | None = None) -> Figure:
    """Draw images above their maps, with the outlines of the regions and crosses at the extremes (Fig. 4).

    A white cross is an extreme inside a region (a hit), a grey cross an extreme outside every region. If several pixels
    share an extreme, the one nearest to their mean is marked. A constant map has no extreme.

    Args:
        cases: cases to draw, at least one.
        max_columns: largest number of cases per group, at least 1; the figure states if there are more.
        title: title of the figure.

    Raises:
        InvalidInput: there is no case, the shapes differ, or a value is not finite.
        InvalidParameter: ``max_columns`` is below 1.
    """
    if not cases:
        raise InvalidInput("cases must hold at least one, got none")
    if max_columns < 1:
        raise InvalidParameter(f"max_columns must be at least 1, got {max_columns}")
    groups: dict[str, list[PointingCase]] = {}
    for case in cases:
        groups.setdefault(case.group, []).append(case)
    n_columns = min(max_columns, max(map(len, groups.values())))
    tallness = max(tallness_of(np.shape(case.pixels), case.spacing_mm) for case in cases)
    figure, grid = panel_grid(
        tallness, 2 * len(groups), n_columns, largest=_LARGEST, text_height=0.25, extra=(0.4, 1.3)
    )
    for i, (name, group) in enumerate(groups.items()):
        left_out = f" ({n_columns} of {len(group)})" if len(group) > n_columns else ""
        grid[2 * i, 0].set_ylabel(f"{name}{left_out}\nimage", size=10)
        grid[2 * i + 1, 0].set_ylabel(f"{name}\nmap", size=10)
        for column in range(n_columns):
            if column < len(group):
                _draw_case(grid[2 * i, column], grid[2 * i + 1, column], group[column])
            else:
                grid[2 * i, column].axis("off")
                grid[2 * i + 1, column].axis("off")
    add_sign_bar(figure, "red raises, blue lowers the score; the scale of each map is below it")
    _add_legend(figure, cases)
    figure.suptitle(title or "", size=11)
    return figure


def _masks(image: np.ndarray, regions: Mapping[str, ArrayLike]) -> dict[str, np.ndarray]:
    if not regions:
        raise InvalidInput("regions must hold at least one mask, got none")
    masks = {name: mask(f"region {name}", region) for name, region in regions.items()}
    for name, region in masks.items():
        if region.shape != image.shape:
            raise InvalidInput(f"region {name} must have the shape of the image {image.shape}, got {region.shape}")
    return masks


def _colours(names: Iterable[str]) -> dict[str, str]:
    others = cycle(_OTHERS)
    return {name: _COLOURS.get(name) or next(others) for name in names}


def _draw_region(axes: Axes, grey: np.ndarray, region: np.ndarray, colour: str, spacing_mm: Spacing) -> None:
    """Draw an image darkened outside a region."""
    draw_picture(axes, grey, region.shape, spacing_mm)
    shade = np.zeros((*region.shape, 4))
    shade[..., 3] = np.where(region, 0.0, 0.65)
    axes.imshow(shade, extent=axes.images[0].get_extent(), interpolation="nearest")
    draw_edges(axes, outline_of(region), spacing_mm, colors=colour, linewidths=1.5)


def _draw_case(above: Axes, below: Axes, case: PointingCase) -> None:
    image, values = checked_pair(case.pixels, case.map, "map")
    masks = _masks(image, case.regions)
    draw_picture(above, grey_picture(image), image.shape, case.spacing_mm)
    above.set_title(case.title, size=10)
    draw_picture(below, map_picture(image, values, "overlay"), image.shape, case.spacing_mm)
    # The mass is drawn last: its outline overlaps those of the other regions.
    for name, colour in reversed(_colours(masks).items()):
        edges = outline_of(masks[name])
        draw_edges(above, edges, case.spacing_mm, colors=colour, linewidths=1.0)
        draw_edges(below, edges, case.spacing_mm, colors=colour, linewidths=1.0)
    if values.min() < values.max():
        _draw_extremes(below, values, masks, case.spacing_mm)
    hits = [_SHORT.get(name, name) for name, hit in pointing_hits(values, masks).items() if hit]
    below.set_xlabel(f"hits: {', '.join(hits) or 'none'}\n{scale_text(values)}", size=8, labelpad=2)


def _draw_extremes(axes: Axes, values: np.ndarray, masks: Mapping[str, np.ndarray], spacing_mm: Spacing) -> None:
    down, right = spacing_mm or (1.0, 1.0)
    for shared in (values == values.max(), values == values.min()):
        row, column = _middle(shared)
        # The rule of `pointing_hits`, applied to one extreme at a time.
        hit = any(2 * np.count_nonzero(region & shared) >= np.count_nonzero(shared) for region in masks.values())
        (cross,) = axes.plot((column + 0.5) * right, (row + 0.5) * down, "x", color="white" if hit else "0.65")
        cross.set(clip_on=False, markersize=10, markeredgewidth=2.2, path_effects=_STROKE)


def _middle(pixels: np.ndarray) -> tuple[int, int]:
    """Return the row and column of the pixel of a mask nearest to the mean position."""
    places = np.argwhere(pixels)
    row, column = places[np.argmin(((places - places.mean(axis=0)) ** 2).sum(axis=1))].tolist()
    return row, column


def _add_legend(figure: Figure, cases: Sequence[PointingCase]) -> None:
    names = dict.fromkeys(name for case in cases for name in case.regions)
    handles = [Line2D([], [], color=colour, linewidth=2) for colour in _colours(names).values()]
    crosses = [
        Line2D([], [], color=colour, marker="x", linestyle="", markersize=8, markeredgewidth=2, path_effects=_STROKE)
        for colour in ("white", "0.65")
    ]
    texts = [_TITLES.get(name, name) for name in names]
    figure.legend(
        [*handles, *crosses],
        [*texts, "extreme in a region", "extreme outside"],
        loc="outside lower center",
        ncols=min(5, max(1, int(figure.get_figwidth() / 1.9))),
        fontsize=9,
        frameon=False,
    )
