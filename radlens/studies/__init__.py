"""Complete studies: models, images, maps, measures, and the page with the results."""

import radlens.extras.needs_torch  # noqa: F401 (raises without torch)
from radlens.studies.amanova import reproduce_amanova
from radlens.studies.amanova_options import AmanovaOptions
from radlens.studies.byra import reproduce_byra
from radlens.studies.cases import CaseSet, CaseSource, StudyCase, open_cases
from radlens.studies.evaluation import MEASURES, Examined, Plan, evaluate, examine, source_of
from radlens.studies.faithfulness import Effort, Faithfulness, MethodFaithfulness, measure_faithfulness
from radlens.studies.katzmann import KatzmannOptions, reproduce_katzmann
from radlens.studies.localisation import BoxRule, Localisation, measure_localisation
from radlens.studies.major import MajorOptions, reproduce_major
from radlens.studies.maps import MapSet, explain_cases, methods_of, score_cases, targets_of
from radlens.studies.models import StudyModel, bundle_model, class_methods, is_bundle, run_model
from radlens.studies.planted import PlantedOptions, reproduce_planted
from radlens.studies.pointing_game import PointingGame, measure_pointing, regions_of
from radlens.studies.randomisation import RandomisationCheck, check_randomisation, stored_randomisation
from radlens.studies.reader_study import FolderCases, ReaderStudy, make_reader_study
from radlens.studies.reproduction import StudyOptions
from radlens.studies.sam_millan import reproduce_sam_millan
from radlens.studies.store import Store

__all__ = [
    "MEASURES",
    "AmanovaOptions",
    "BoxRule",
    "CaseSet",
    "CaseSource",
    "Effort",
    "Examined",
    "Faithfulness",
    "FolderCases",
    "KatzmannOptions",
    "Localisation",
    "MajorOptions",
    "MapSet",
    "MethodFaithfulness",
    "Plan",
    "PlantedOptions",
    "PointingGame",
    "RandomisationCheck",
    "ReaderStudy",
    "Store",
    "StudyCase",
    "StudyModel",
    "StudyOptions",
    "bundle_model",
    "check_randomisation",
    "class_methods",
    "evaluate",
    "examine",
    "explain_cases",
    "is_bundle",
    "make_reader_study",
    "measure_faithfulness",
    "measure_localisation",
    "measure_pointing",
    "methods_of",
    "open_cases",
    "regions_of",
    "reproduce_amanova",
    "reproduce_byra",
    "reproduce_katzmann",
    "reproduce_major",
    "reproduce_planted",
    "reproduce_sam_millan",
    "run_model",
    "score_cases",
    "source_of",
    "stored_randomisation",
    "targets_of",
]
