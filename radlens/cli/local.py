"""Answers without a server: the client calls the service in this process, so both give the same answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

from radlens.bundles import StoredBundle
from radlens.cli.console import note
from radlens.client import Client
from radlens.errors import BundleError, InvalidParameter
from radlens.explainers import Checkpoint
from radlens.families.cdmam.computing import Workers
from radlens.families.cdmam.manifest import Bundle
from radlens.local import LocalTransport, newest_bundle, open_bundle_at
from radlens.wire import CDC

__all__ = ["Spread", "local_client", "open_cdmam_bundle"]

Spread = Callable[[Bundle], AbstractContextManager[Workers]]
"""Opens workers for a bundle, such as :func:`radlens.families.cdmam.cluster.open_cluster`."""


@contextmanager
def local_client(
    path: Path | None,
    store: Path,
    checkpoint: Checkpoint | None = None,
    spread: Spread | None = None,
    *,
    model: str | None = None,
) -> Iterator[Client]:
    """Yield a client of the bundle at ``path``, or of the newest one in ``store``, and name it on stderr.

    Args:
        path: bundle or archive of any model; None for the newest one in ``store``.
        store: model store.
        checkpoint: checkpoint to save and continue an explanation of many samples.
        spread: function that opens workers for such an explanation.
        model: name that a bundle in ``store`` must have; None for any name.

    Raises:
        BundleError: There is no bundle, or it is damaged.
        InvalidParameter: ``spread`` is given for a model that is not explained with many samples.
        InvalidInput: ``checkpoint`` is given for a model that is not explained with many samples.
        RadlensError: ``spread`` raised this error.
    """
    path = path or newest_bundle(store, lambda document: model in (None, document.get("name")))
    with open_bundle_at(path) as bundle, ExitStack() as stack:
        manifest = bundle.manifest
        note(f"computing here with {manifest.name} {manifest.version} ({bundle.bundle_hash[:12]}) from {path}")
        workers = None if spread is None else stack.enter_context(spread(_of_samples(bundle)))
        transport = LocalTransport(bundle, checkpoint=checkpoint, workers=workers)
        yield stack.enter_context(Client("http://local", model=manifest.name, transport=transport))


def _of_samples(bundle: StoredBundle[Any]) -> Bundle:
    if not isinstance(bundle, Bundle):
        task = bundle.manifest.task
        raise InvalidParameter(f"--workers needs a model that is explained with many samples, got one of task {task}")
    return bundle


@contextmanager
def open_cdmam_bundle(path: Path | None, store: Path) -> Iterator[Bundle]:
    """Yield the bundle at ``path``, or the newest bundle of a CDMAM model in ``store``.

    Raises:
        BundleError: There is no bundle, it is damaged, or of another task.
    """
    path = path or newest_bundle(store, lambda document: document.get("task") == CDC)
    with open_bundle_at(path) as bundle:
        if not isinstance(bundle, Bundle):
            found = f"{bundle.manifest.name} of task {bundle.manifest.task}"
            raise BundleError(f"the bundle must be of a contrast-detail model, got {found}")
        yield bundle
