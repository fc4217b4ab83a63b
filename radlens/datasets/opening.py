"""Data sets by name, for the command line."""

from collections.abc import Callable
from pathlib import Path

from radlens.datasets.busi import open_busi
from radlens.datasets.case import Dataset
from radlens.datasets.cbis_ddsm import open_cbis_ddsm, open_cbis_ddsm_patches
from radlens.datasets.lidc_idri import open_lidc_idri
from radlens.datasets.oasbud import open_oasbud
from radlens.datasets.omi_db import open_omi_db
from radlens.datasets.rsna import open_rsna_2022
from radlens.errors import InvalidParameter

__all__ = ["DATASETS", "open_dataset"]

DATASETS: dict[str, Callable[[str | Path], Dataset]] = {
    "busi": open_busi,
    "cbis-ddsm": open_cbis_ddsm,
    "cbis-ddsm-patches": open_cbis_ddsm_patches,
    "lidc-idri": open_lidc_idri,
    "oasbud": open_oasbud,
    "omi-db": open_omi_db,
    "rsna-2022": open_rsna_2022,
}
"""Opening functions by the name of the data set."""


def open_dataset(name: str, root: str | Path) -> Dataset:
    """Open a data set on the user's disk with its defaults.

    Raises:
        InvalidParameter: the name is not in `DATASETS`.
        DatasetError: the files of the data set are missing or damaged.
    """
    if name not in DATASETS:
        raise InvalidParameter(f"data set must be one of {', '.join(DATASETS)}; got {name}")
    return DATASETS[name](root)
