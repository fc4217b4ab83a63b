"""Answers without a server: the client talks to the service in this process, so both give the same."""

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
    """Give a client of the bundle at ``path``, or of the newest one in ``store``; say on stderr which it is.

    Args:
        path: bundle or archive, of any model.
        store: model store.
        checkpoint: where an explanation of many samples is saved and continued.
        spread: opens the workers that such an explanation is spread over.
        model: name that a bundle in ``store`` must have; None for any.

    Raises:
        BundleError: there is none, or it is damaged.
        InvalidParameter: ``spread`` is given for a model whose explanations are not of many samples.
        InvalidInput: ``checkpoint`` is given for such a model.
        RadlensError: what ``spread`` raises.
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
    """Give the bundle at ``path``, or the newest one in ``store`` that is of CDMAM.

    Raises:
        BundleError: there is none, it is damaged, or of another task.
    """
    path = path or newest_bundle(store, lambda document: document.get("task") == CDC)
    with open_bundle_at(path) as bundle:
        if not isinstance(bundle, Bundle):
            found = f"{bundle.manifest.name} of task {bundle.manifest.task}"
            raise BundleError(f"the bundle must be of a contrast-detail model, got {found}")
        yield bundle
