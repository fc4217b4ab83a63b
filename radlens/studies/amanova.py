"""Amanova et al. 2022: OMIG maps of a contrast-detail phantom, with the recipe of the paper and a registered one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from radlens.bundles import MANIFEST
from radlens.errors import InvalidParameter
from radlens.evaluation.published import AMANOVA_CITATION, AMANOVA_COVERAGE, AMANOVA_PARAMETERS
from radlens.explainers import Explainer, Sensitivity, UpsampledMap
from radlens.families.cdmam.export import export_bundle
from radlens.families.cdmam.manifest import Bundle
from radlens.families.cdmam.model import open_bundle
from radlens.families.cdmam.training import load_run, train
from radlens.figures import (
    LARGE_DISKS,
    SMALL_DISKS,
    Box,
    Curve,
    MethodsRow,
    PathLength,
    PictureBlock,
    Table,
    UpsampledRow,
    figure_cdc,
    figure_error_uncertainty,
    figure_methods,
    figure_path_lengths,
    figure_rotation,
    figure_scenario,
    figure_upsampled,
    region,
    save_small,
)
from radlens.figures.amanova import (
    CurveChange,
    CutoutRow,
    PhantomPicture,
    figure_changes,
    figure_cutouts,
    figure_phantoms,
)
from radlens.figures.study_page import Cell
from radlens.studies import amanova_texts as texts
from radlens.studies.amanova_images import (
    RECORDED,
    SCENARIO_TITLES,
    StudyImage,
    recordings,
    scenario,
    stand_in,
    turned,
)
from radlens.studies.amanova_maps import (
    METHODS,
    ShownMap,
    before_after,
    disks_of,
    sample_maps,
    upsampled_with_twin,
)
from radlens.studies.amanova_options import PAPER, REGISTERED, AmanovaOptions
from radlens.studies.amanova_recipes import Predicted, Recipe, bundle_recipe, run_recipe
from radlens.studies.amanova_tested import GROUPS, TestedGroup, TestPhantoms
from radlens.studies.output import Chapter, StudyReport, Written, times_table, write_study
from radlens.studies.reproduction import Progress
from radlens.studies.store import Store

__all__ = ["agreement", "reproduce_amanova"]

_TITLES = {REGISTERED: "registered recipe", PAPER: "paper's recipe"}
_REDUCED = 50
_TRAINED_SPACING_MM = 0.07


def reproduce_amanova(
    folder: Path, options: AmanovaOptions | None = None, *, on_progress: Progress | None = None
) -> list[Path]:
    """Run the study and write its page, tables, pictures and ``results.json``; an interrupted study resumes.

    Args:
        folder: output folder, also for the training run, graphs and intermediate results.
        options: options of the study.
        on_progress: called as ``on_progress(stage, done, total)``.

    Returns:
        The files that were written, the page first.

    Raises:
        InvalidParameter: there is no registered model, or a model has another recipe.
        TrainingError: the folder contains a run of another recipe.
        InvalidInput: the recordings cannot be used.
        UnreadableImage: no phantom is found in a recording.
    """
    study = _Amanova(folder, options or AmanovaOptions(), on_progress or (lambda *_: None))
    study.registered_path()  # raises before hours of training, not after
    return write_study(folder, study.report(), study.chapters())


def agreement(first: UpsampledMap, second: UpsampledMap) -> float:
    """Return the correlation of two maps of any shapes after reduction to 50 × 50 means over visits."""
    means = [_reduced(found).ravel() for found in (first, second)]
    both = np.isfinite(means[0]) & np.isfinite(means[1])
    return float(np.corrcoef(means[0][both], means[1][both])[0, 1]) if both.sum() > 2 else math.nan


@dataclass(frozen=True, eq=False)
class _Amanova:
    """The study; each chapter computes its results when it is written."""

    folder: Path
    options: AmanovaOptions
    on_progress: Progress

    def report(self) -> StudyReport:
        return StudyReport(
            title="OMIG maps of a contrast-detail phantom",
            citation=AMANOVA_CITATION,
            simulated=True,
            ran=self._ran,
            provenance=self._provenance,
            warnings=self._warnings,
            how_to_read=texts.READING,
            limits=texts.LIMITS,
            published_note=texts.PUBLISHED,
        )

    def chapters(self) -> list[Chapter]:
        return [
            Chapter("Recipes and parameters", "parameters", self._parameters),
            Chapter("Fig. 1: images", "images", self._images),
            Chapter("Fig. 2: curves, errors and uncertainty", "curves", self._curves),
            Chapter("Section 2.2: coverage of the 95 % intervals", "coverage", self._coverage),
            Chapter("Fig. 3: three methods on downsampled images", "methods", self._methods),
            Chapter("Fig. 4: upsampled maps and large disks", "large-disks", self._large_disks),
            Chapter("Fig. 5: small disks", "small-disks", self._small_disks),
            Chapter("Fig. 6: scenario 4", "scenario-4", self._scenario_4),
            Chapter("Fig. 7: the image turned by 90°", "rotation", self._rotation),
            Chapter("Fig. 12: upsampled sensitivity", "sensitivity", self._sensitivity),
            Chapter("Fig. 13: effect of the map on the curve", "before-after", self._before_after),
            Chapter("Fig. 14: choice of c", "path-lengths", self._path_lengths),
            Chapter("Time", "time", self._time),
        ]

    @cached_property
    def store(self) -> Store:
        return Store(self.folder / "work")

    def registered_path(self) -> Path:
        """Return the folder of the registered model; raise if it does not exist."""
        path = self.options.runs.get(REGISTERED)
        if path is None or not path.is_dir():
            raise InvalidParameter(f"runs must hold a folder for {REGISTERED}, got {path}; give one with --run")
        return path

    @cached_property
    def registered(self) -> Recipe:
        recipe = self._opened(REGISTERED, self.registered_path())
        if not recipe.is_registered:
            raise InvalidParameter("the registered model must see registered phantoms, got one with the paper's recipe")
        return recipe

    @cached_property
    def paper(self) -> Recipe | None:
        """The paper's recipe, trained now if there is no run; None if it is left out."""
        if not self.options.with_paper:
            return None
        path = self.options.runs.get(PAPER)
        if path is None:
            path = self.folder / "runs" / PAPER
            train(path, self.options.preset, on_progress=lambda stage, *of: self.on_progress(f"paper: {stage}", *of))
        recipe = self._opened(PAPER, path)
        if recipe.is_registered:
            raise InvalidParameter("the model of the paper's recipe must see whole images, got a registered one")
        return recipe

    @property
    def recipes(self) -> list[Recipe]:
        return [recipe for recipe in (self.registered, self.paper) if recipe is not None]

    @cached_property
    def recorded(self) -> list[StudyImage]:
        """Recordings; empty if a simulated image replaces them."""
        return [] if self.options.recordings is None else recordings(self.options.recordings)

    @cached_property
    def shown(self) -> dict[str, StudyImage]:
        """Images of the figures, by name."""
        first = self.recorded[0] if self.recorded else stand_in(self.options.spacing_mm)
        drawn = {name: scenario(name, self.options.spacing_mm) for name in ("1", "4", "ood")}
        return {RECORDED: first, **drawn, "turned": turned(first)}

    def _opened(self, name: str, path: Path) -> Recipe:
        """Open a run or a bundle; a run is exported to a bundle with graphs unless the engine is eager."""
        engine = self.options.engine
        if (path / MANIFEST).is_file():
            bundle = Bundle.load(path)
        elif engine == "eager":
            return run_recipe(name, path)
        else:
            plain = run_recipe(name, path)
            bundle_folder = self.folder / "bundles" / f"{name}-{plain.identity[:12]}"
            if (bundle_folder / MANIFEST).is_file():
                bundle = Bundle.load(bundle_folder)
            else:
                bundle_folder.parent.mkdir(parents=True, exist_ok=True)
                bundle = export_bundle(
                    load_run(path),
                    bundle_folder,
                    on_progress=lambda stage, *of: self.on_progress(f"{name}: {stage}", *of),
                )
        if engine == "eager":
            return bundle_recipe(name, bundle)
        opened = open_bundle(bundle, engine)
        return bundle_recipe(name, bundle, opened, engine=opened.name)

    def _ran(self) -> Mapping[str, str]:
        parameters = self.options.parameters
        images = "real recordings and simulated images" if self.recorded else "simulated images"
        return {
            "Images": f"{images}, pixels of {self.options.spacing_mm:g} mm",
            "Maps": parameters.text("c", "L", "t", "N", "seed"),
            "Recipes": "; ".join(
                f"{_TITLES[recipe.name]}, {recipe.n_members} networks, {recipe.engine}" for recipe in self.recipes
            ),
        }

    def _warnings(self) -> list[str]:
        found = [] if self.recorded else [texts.STAND_IN]
        if self.paper is not None and self.options.spacing_mm != _TRAINED_SPACING_MM:
            found.append(texts.OTHER_SPACING.format(spacing=self.options.spacing_mm))
        if self.registered.calibration is None:
            found.append(texts.UNCALIBRATED)
        return found

    def _provenance(self) -> Mapping[str, Any]:
        models = {recipe.name: {"sha256": recipe.identity, "engine": recipe.engine} for recipe in self.recipes}
        return {"parameters": vars(self.options.parameters), "models": models}

    def _parameters(self, results: dict[str, Any]) -> Written:
        options, paper = self.options, self.paper
        numbers = {
            "c": options.path_length,
            "L": options.n_steps,
            "t": options.zscore,
            "N": options.n_samples,
            "members": self.registered.n_members,
        }
        results |= numbers | {"paper members": None if paper is None else paper.n_members}
        names = {
            "c": "length of the path (c)",
            "L": "steps of the path (L)",
            "t": "threshold of the Z-score (t)",
            "N": "samples of an upsampled map (N)",
            "members": "networks",
        }
        rows: list[Sequence[Cell]] = []
        for name, title in names.items():
            published = AMANOVA_PARAMETERS[name]
            own = None if paper is None else f"{paper.n_members if name == 'members' else numbers[name]:g}"
            rows.append((title, f"{published.value:g}", f"{numbers[name]:g}", own, published.source))
        table = Table(
            "Parameters", ("", "Paper", "Registered recipe", "Paper's recipe, here", "Source"), rows, published=(1, 4)
        )
        return f"{self._departures()}\n\n{texts.RECORDINGS}" if self.recorded else self._departures(), [table]

    def _departures(self) -> str:
        if self.paper is None:
            members, n_images = "fewer", "fewer"
        else:
            preset = self.paper.record.get("preset", {})
            members = str(self.paper.n_members)
            n_images = str(preset["n_simulated"] + preset["n_recorded"]) if preset else "fewer"
        text = texts.DEPARTURES.format(
            paper_members=members, paper_images=n_images, registered_samples=self.registered.n_samples
        )
        left_out = "\n\nThe paper's recipe was left out of this run."
        return text if self.paper is not None else text + left_out

    def _images(self, results: dict[str, Any]) -> Written:
        chosen = [self.shown[name] for name in (RECORDED, "1", "ood", "4")]
        results |= {image.title: {"shape": image.pixels.shape, "truth_um": image.truth_um} for image in chosen}
        figure = figure_phantoms([PhantomPicture(each.title, each.pixels, each.spacing_mm) for each in chosen])
        caption = (
            f"Images at full size, pixels of {self.options.spacing_mm:g} mm. The paper shows samples of 250 × 250 "
            "pixels of the first three; scenario 4 is that of Fig. 6."
        )
        return "", [PictureBlock("Images of the phantom", save_small(figure), caption)]

    def _curves(self, results: dict[str, Any]) -> Written:
        drawn = []
        for recipe in self.recipes:
            curves = []
            for name in (RECORDED, "1", "ood"):
                image = self.shown[name]
                read = recipe.read(image.seen_by(recipe), seed=self.options.seed)
                results.setdefault(recipe.name, {})[image.title] = {
                    "mean_um": read.mean,
                    "interval_um": read.interval,
                    "truth_um": image.truth_um,
                }
                curves.append(Curve(read.mean, read.interval, image.truth_um, image.title))
            caption = (
                f"{recipe.n_members} networks, mean of {_counted(recipe.n_samples, 'sample')}, seed "
                f"{self.options.seed}. Dashed: truth, the expected automated read-out."
            )
            figure = figure_cdc(curves, size=(7.5, 5.2))
            drawn.append(PictureBlock(f"Fig. 2 a: curves, {_TITLES[recipe.name]}", save_small(figure), caption))
        for recipe in self.recipes:
            tested = self.tested[recipe.name]
            groups = [group for group in GROUPS if len(tested[group])]
            errors = np.concatenate([tested[group].mean - tested[group].truth for group in groups])
            totals = np.concatenate([tested[group].total for group in groups])
            names = [_group_title(group) for group in groups for _ in range(len(tested[group]))]
            covered = {_group_title(group): tested[group].coverage for group in groups}
            figure = figure_error_uncertainty(errors, totals, names, coverage=covered)
            caption = (
                f"All 12 points of {len(names)} test images: {self._counts(recipe)}. Pixels of "
                f"{self.options.spacing_mm:g} mm, mean of {_counted(recipe.n_samples, 'sample')}."
            )
            title = f"Fig. 2 b: error against total uncertainty, {_TITLES[recipe.name]}"
            drawn.append(PictureBlock(title, save_small(figure), caption))
        return texts.FIG_2.format(registered_samples=self.registered.n_samples), drawn

    @cached_property
    def tested(self) -> dict[str, dict[str, TestedGroup]]:
        """Curves of the test images, by recipe and group."""
        phantoms = TestPhantoms(
            self.options.n_test, self.options.spacing_mm, self.options.seed, self.recorded, str(self.options.recordings)
        )
        return phantoms.read(self.recipes, self.store, lambda done, total: self.on_progress("test images", done, total))

    def _counts(self, recipe: Recipe) -> str:
        counts = {group: len(self.tested[recipe.name][group]) for group in GROUPS}
        if len(set(counts.values())) == 1:
            return f"{counts[RECORDED]} of each row of Table 1 and of {RECORDED}"
        return ", ".join(f"{n} of {_group_title(group)}" for group, n in counts.items())

    def _coverage(self, results: dict[str, Any]) -> Written:
        rows: list[Sequence[Cell]] = []
        columns = ["Test images", "Paper, its phantoms and networks"]
        for recipe in self.recipes:
            columns += [f"{_TITLES[recipe.name]}, {where}".capitalize() for where in ("here", "training record")]
        for group in GROUPS:
            row: list[Cell] = [_group_title(group), f"{AMANOVA_COVERAGE[_published_name(group)].value:.1%}"]
            for recipe in self.recipes:
                tested = self.tested[recipe.name][group]
                results.setdefault(recipe.name, {})[_group_title(group)] = {
                    "coverage": tested.coverage if len(tested) else None,
                    "n": len(tested),
                    "n_refused": tested.n_refused,
                    "record": _recorded_coverage(recipe, group),
                }
                row += [
                    f"{tested.coverage:.1%}" if len(tested) else None,
                    _as_percent(_recorded_coverage(recipe, group)),
                ]
            rows.append(row)
        counts = "; ".join(f"{_TITLES[recipe.name]}: {self._counts(recipe)}" for recipe in self.recipes)
        refused = sum(self.tested[recipe.name][group].n_refused for recipe in self.recipes for group in GROUPS)
        note = (
            f"Fraction of true thresholds within their 95 % interval. Here: {counts}; {refused} images in which no "
            "phantom was found are left out. Paper: 24 recorded images, 1200 of each scenario, 200 of OOD. Training "
            "record: the causal record of the registered recipe, the evaluation of the paper's recipe."
        )
        text = (
            "Paper: the intervals of scenarios 1 to 3 and OOD are rather conservative, those of scenario 4 cover only "
            "61 %. The intervals of the registered recipe are calibrated to 95 % over all exposures of the training "
            "range. OOD is outside that range."
        )
        return text, [Table("Coverage", columns, rows, note, published=(1,))]

    def _methods(self, results: dict[str, Any]) -> Written:
        drawn: list[Table | PictureBlock] = []
        parameters = self.options.parameters
        for recipe in self.recipes:
            rows, table_rows = [], []
            for place, name in enumerate((RECORDED, "1", "ood")):
                image = self.shown[name]
                maps, twins = self._sample_maps(recipe, name)
                self.on_progress(f"three methods, {_TITLES[recipe.name]}", place + 1, 3)
                rows.append(MethodsRow(image.title, *maps))
                table_rows += self._method_rows(recipe, image, maps, twins)
            caption = (
                f"One sample of 250 × 250 pixels of each image. OMIG: {parameters.text('c', 'L', 't')}. Occlusion: "
                f"{parameters.text('occlusion')}, set to 0. {parameters.text('seed').capitalize()}."
            )
            figure = save_small(figure_methods(rows))
            drawn.append(PictureBlock(f"Three methods, {_TITLES[recipe.name]}", figure, caption))
            results[recipe.name] = [dict(zip(_METHOD_KEYS, row, strict=True)) for row in table_rows]
            note = (
                "From one sample, which has less than 1 % of the pixels at the size of the paper. The columns are "
                "explained under How to read this page."
            )
            drawn.append(Table(f"Disks in these maps, {_TITLES[recipe.name]}", _METHOD_COLUMNS, table_rows, note))
        return texts.FIG_3, drawn

    def _sample_maps(self, recipe: Recipe, name: str) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
        """Return the maps of Fig. 3 of an image and of its disk-free twin."""
        view = self.shown[name].seen_by(recipe)
        explainers = [repr(each) for each in self.options.parameters.explainers()]
        key = {**self._key(name), "model": [recipe.identity, recipe.engine], "explainers": explainers}

        def compute() -> Mapping[str, NDArray[Any]]:
            parameters = self.options.parameters
            return {
                "maps": np.stack(sample_maps(recipe, view, parameters)),
                "twins": np.stack(sample_maps(recipe, view.twin(), parameters)),
            }

        found = self.store.arrays("three methods", {**key, "seed": self.options.seed}, compute)
        return list(found["maps"]), list(found["twins"])

    def _method_rows(
        self, recipe: Recipe, image: StudyImage, maps: Sequence[NDArray[Any]], twins: Sequence[NDArray[Any]]
    ) -> list[tuple[Cell, ...]]:
        view, seed = image.seen_by(recipe), self.options.seed
        rows: list[tuple[Cell, ...]] = []
        for method, own, twin in zip(METHODS, maps, twins, strict=True):
            with_disks, without = (disks_of(recipe, view, each, image.truth_um, seed=seed) for each in (own, twin))
            numbers = (_number(with_disks.large.t), _number(without.large.t))
            rows.append((f"{image.title}: {method}", with_disks.large.n, *numbers))
        return rows

    def _large_disks(self, results: dict[str, Any]) -> Written:
        drawn: list[Table | PictureBlock] = []
        for recipe in self.recipes:
            maps = {name: self._omig(recipe, name) for name in (RECORDED, "1")}
            title = f"Maps and large disks, {_TITLES[recipe.name]}"
            drawn += self._upsampled_blocks(recipe, maps, title, "c", "L", "t", results=results)
        return texts.FIG_4, drawn

    def _upsampled_blocks(
        self, recipe: Recipe, maps: Mapping[str, ShownMap], title: str, *names: str, results: dict[str, Any]
    ) -> list[Table | PictureBlock]:
        """Return upsampled maps with their large disks enlarged, and the disk statistics of the maps."""
        rows = [
            UpsampledRow(
                self.shown[name].title,
                shown.on_image,
                _box(self.shown[name], LARGE_DISKS),
                self.shown[name].spacing_mm,
            )
            for name, shown in maps.items()
        ]
        caption = f"{self._made_with(*names, 'N', 'seed')} {self._statements(maps)}"
        return [
            PictureBlock(title, save_small(figure_upsampled(rows)), caption),
            self._statistic_table(recipe, maps, results),
        ]

    def _small_disks(self, results: dict[str, Any]) -> Written:
        maps = {name: self._omig(self.registered, name) for name in (RECORDED, "1")}
        rows = [
            CutoutRow(
                self.shown[name].title,
                self.shown[name].pixels,
                shown.on_image,
                _box(self.shown[name], SMALL_DISKS),
                self.shown[name].spacing_mm,
            )
            for name, shown in maps.items()
        ]
        results |= {name: {"small": shown.statistic.as_json()["small"]} for name, shown in maps.items()}
        small = "; ".join(
            f"{self.shown[name].title}: {shown.statistic.small.n} disks of 0.4 mm and less, t "
            f"{shown.statistic.small.t:.1f}, "
            f"with the disks removed {shown.twin.small.t:.1f}"
            for name, shown in maps.items()
        )
        caption = f"{self._made_with('c', 'L', 't', 'N', 'seed')} Thick small disks: {small}."
        return texts.FIG_5, [
            PictureBlock(f"Small disks, {_TITLES[REGISTERED]}", save_small(figure_cutouts(rows)), caption)
        ]

    def _scenario_4(self, results: dict[str, Any]) -> Written:
        image = self.shown["4"]
        drawn: list[Table | PictureBlock] = []
        for recipe in self.recipes:
            shown = self._omig(recipe, "4")
            box = _box(image, LARGE_DISKS)
            figure = figure_scenario(image.pixels, shown.on_image, box, spacing_mm=image.spacing_mm)
            read = recipe.read(shown.view, seed=self.options.seed)
            midpoints = f"Midpoint {read.midpoint:.3f} µm, true {image.truth_um.mean():.3f} µm."
            caption = f"{self._made_with('c', 'L', 't', 'N', 'seed')} {midpoints} {shown.sentence}"
            drawn.append(PictureBlock(f"Scenario 4, {_TITLES[recipe.name]}", save_small(figure), caption))
            drawn.append(self._statistic_table(recipe, {"4": shown}, results))
        return texts.FIG_6, drawn

    def _rotation(self, results: dict[str, Any]) -> Written:
        image = self.shown["turned"]
        drawn: list[Table | PictureBlock] = []
        for recipe in self.recipes:
            before, shown = self._omig(recipe, RECORDED), self._omig(recipe, "turned")
            on_image, unturned = shown.on_image, before.on_image
            box = _box(image, LARGE_DISKS)
            figure = figure_rotation(image.pixels, on_image, box, spacing_mm=image.spacing_mm)
            moved, stayed = agreement(on_image, _turned_map(unturned)), agreement(on_image, unturned)
            numbers = (
                f"Correlation with the map of Fig. 4: {moved:.2f} if that map is turned with the image, {stayed:.2f} "
                "if it is not."
            )
            caption = f"{self._made_with('c', 'L', 't', 'N', 'seed')} {numbers} {shown.sentence}"
            drawn.append(PictureBlock(f"Turned image, {_TITLES[recipe.name]}", save_small(figure), caption))
            drawn.append(self._statistic_table(recipe, {"turned": shown}, results))
            results[recipe.name] |= {"turned with the image": moved, "left as it is": stayed}
        return texts.FIG_7, drawn

    def _sensitivity(self, results: dict[str, Any]) -> Written:
        maps = {
            name: self._map(self.registered, name, Sensitivity(), "sensitivity", self.options.n_samples)
            for name in (RECORDED, "1")
        }
        title = f"Upsampled sensitivity, {_TITLES[REGISTERED]}"
        return texts.FIG_12, self._upsampled_blocks(self.registered, maps, title, results=results)

    def _before_after(self, results: dict[str, Any]) -> Written:
        drawn = []
        lengths = dict.fromkeys((self.options.path_length, self.options.clear_path_length))
        for c in lengths:
            changes = []
            for name in (RECORDED, "1", "4"):
                before, after = self._moved(name, c)
                results.setdefault(f"c = {c:g}", {})[self.shown[name].title] = {
                    "before_um": before.midpoint,
                    "after_um": after.midpoint,
                }
                pair = (Curve(each.mean, each.interval) for each in (before, after))
                changes.append(CurveChange(f"{self.shown[name].title}, c = {c:g}", *pair))
            caption = (
                f"{self.options.parameters.text('c', 'L', 't', 'seed', c=f'{c:g}')}; mean of "
                f"{_counted(self.registered.n_samples, 'sample')}, to each of which its own map was added."
            )
            figure = save_small(figure_changes(changes))
            drawn.append(PictureBlock(f"Before and after, c = {c:g}, {_TITLES[REGISTERED]}", figure, caption))
        return texts.FIG_13.format(registered_samples=self.registered.n_samples), drawn

    def _path_lengths(self, results: dict[str, Any]) -> Written:
        n, name = self.options.n_samples_of_lengths, "1"
        maps = {
            c: self._map(self.registered, name, self.options.parameters.omig(c), f"c = {c:g}", n)
            for c in self.options.path_lengths
        }
        studies, rows = [], []
        for c, shown in maps.items():
            before, after = self._moved(name, c)
            studies.append(PathLength(c, shown.on_image, before.midpoint, after.midpoint))
            rows.append((f"c = {c:g}", before.midpoint, after.midpoint, *_statistic_cells(shown)))
            results[f"{c:g}"] = {"before_um": before.midpoint, "after_um": after.midpoint, **shown.as_json()}
        caption = f"{self.options.parameters.text('L', 't', 'N', 'seed', N=n)}, {self.shown[name].title}."
        columns = ("", "midpoint before, µm", "after, µm", *_STATISTIC_COLUMNS)
        return texts.FIG_14, [
            PictureBlock(
                f"Maps over c, {_TITLES[REGISTERED]}", save_small(figure_path_lengths(studies, n_columns=3)), caption
            ),
            Table(f"Disks in these maps, {_TITLES[REGISTERED]}", columns, rows, _STATISTIC_NOTE),
        ]

    def _time(self, results: dict[str, Any]) -> Written:
        training = {
            f"training of the {_TITLES[recipe.name]}": float(sum(recipe.record["seconds_per_member"]))
            for recipe in self.recipes
            if "seconds_per_member" in recipe.record
        }
        results |= training | self.store.seconds
        return "Training happens once; a finished run skips it.", [times_table(training | self.store.seconds)]

    def _omig(self, recipe: Recipe, name: str) -> ShownMap:
        return self._map(recipe, name, self.options.parameters.omig(), "OMIG", self.options.n_samples)

    def _map(self, recipe: Recipe, name: str, explainer: Explainer, what: str, n_samples: int) -> ShownMap:
        image = self.shown[name]
        stage = f"{what}, {image.title}, {_TITLES[recipe.name]}"
        return upsampled_with_twin(
            recipe,
            image.seen_by(recipe),
            explainer,
            image.truth_um,
            n_samples=n_samples,
            store=self.store,
            key=self._key(name),
            seed=self.options.seed,
            on_samples=lambda done, total: self.on_progress(stage, done, total),
        )

    def _moved(self, name: str, c: float) -> tuple[Predicted, Predicted]:
        """Return the curves of an image before and after its map is added, from the store or computed now."""
        explainer = self.options.parameters.omig(c)
        key = {**self._key(name), "model": [self.registered.identity, self.registered.engine]}

        def compute() -> Mapping[str, NDArray[Any]]:
            view = self.shown[name].seen_by(self.registered)
            pair = before_after(self.registered, view, explainer, seed=self.options.seed)
            self.on_progress(f"before and after, {self.shown[name].title}, c = {c:g}", 1, 1)
            return {f"{field}{i}": values for i, each in enumerate(pair) for field, values in vars(each).items()}

        whole = {**key, "explainer": repr(explainer), "seed": self.options.seed}
        found = self.store.arrays("before and after", whole, compute)
        before, after = (
            Predicted(**{field: found[f"{field}{i}"] for field in ("mean", "total", "interval")}) for i in range(2)
        )
        return before, after

    def _key(self, name: str) -> dict[str, Any]:
        is_real = bool(self.recorded) and name in (RECORDED, "turned")
        return {"image": name, "source": str(self.options.recordings) if is_real else self.options.spacing_mm}

    def _made_with(self, *names: str) -> str:
        return f"{self.options.parameters.text(*names)}."

    def _statements(self, maps: Mapping[str, ShownMap]) -> str:
        return " ".join(f"{self.shown[name].title.capitalize()}: {shown.sentence}" for name, shown in maps.items())

    def _statistic_table(self, recipe: Recipe, maps: Mapping[str, ShownMap], results: dict[str, Any]) -> Table:
        """Return the disk statistics of maps beside those of their twins."""
        results[recipe.name] = {self.shown[name].title: shown.as_json() for name, shown in maps.items()}
        rows = [(self.shown[name].title, *_statistic_cells(shown)) for name, shown in maps.items()]
        title = f"Disks in {'this map' if len(maps) == 1 else 'these maps'}, {_TITLES[recipe.name]}"
        return Table(title, ("Image", *_STATISTIC_COLUMNS), rows, _STATISTIC_NOTE)


_STATISTIC_COLUMNS = ("large thick disks", "t", "t of the twin", "redder than their ring", "reliability")
_STATISTIC_NOTE = (
    "t: paired t value of the large thick disks against their rings. The twin is the same image with every disk "
    "replaced by its surroundings; its map is made from the same samples."
)
_METHOD_COLUMNS = ("Map", "large thick disks", "t", "t of the twin")
_METHOD_KEYS = ("map", "n", "t", "t_of_twin")


def _statistic_cells(shown: ShownMap) -> tuple[Cell, ...]:
    large = shown.statistic.large
    redder = None if math.isnan(large.redder) else f"{large.redder:.0%}"
    reliability = None if math.isnan(shown.reliability) else f"{shown.reliability:.2f}"
    return large.n, _number(large.t), _number(shown.twin.large.t), redder, reliability


def _number(value: float) -> str | None:
    return f"{value:.1f}" if math.isfinite(value) else None


def _counted(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _group_title(group: str) -> str:
    return SCENARIO_TITLES.get(group, group)


def _published_name(group: str) -> str:
    return SCENARIO_TITLES.get(group, RECORDED)


def _recorded_coverage(recipe: Recipe, group: str) -> float | None:
    """Return the coverage in the training record; None if the record does not state it."""
    causal = recipe.record.get("causal", {}).get("groups", {})
    if found := causal.get(SCENARIO_TITLES.get(group, "")):
        return found["coverage"]["value"]
    evaluated = recipe.record.get("evaluation", {}).get(f"scenario {group}", {})
    value = evaluated.get("coverage") if isinstance(evaluated, Mapping) else None
    return float(value) if isinstance(value, int | float) else None


def _as_percent(value: float | None) -> str | None:
    return None if value is None else f"{value:.1%}"


def _box(image: StudyImage, centre: tuple[float, float]) -> Box:
    """Return the square around a point of the grid in an image with the phantom upright or on its side."""
    found = region(image.phantom.layout, centre)
    return Box(found.left, found.top, found.width, found.height) if image.phantom.is_transposed else found


def _turned_map(found: UpsampledMap) -> UpsampledMap:
    return UpsampledMap(np.rot90(found.map), np.rot90(found.visits), found.n_samples, found.normalize)


def _reduced(found: UpsampledMap) -> NDArray[np.float64]:
    """Return means over visits in 50 × 50 parts, nan without a visit."""
    total, visits = found.total.astype(np.float64), found.visits.astype(np.float64)
    for axis in (0, 1):
        edges = np.arange(_REDUCED) * total.shape[axis] // _REDUCED
        total, visits = (np.add.reduceat(values, edges, axis=axis) for values in (total, visits))
    return np.divide(total, visits, out=np.full(total.shape, np.nan), where=visits > 0)
