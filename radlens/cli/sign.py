"""``radlens sign``: sign an archive, or make the pair of keys that signs."""

from pathlib import Path
from typing import Annotated

import typer

from radlens.cli.console import examples, note
from radlens.cli.options import DEFAULT_STORE, StoreOption
from radlens.errors import InvalidParameter

__all__ = ["EPILOG", "command"]

EPILOG = examples(
    "radlens sign --new-key signing.key",
    "radlens sign cdmam-2.0.mar --key signing.key",
)


def command(
    archive: Annotated[
        str | None, typer.Argument(metavar="ARCHIVE", help="File or directory of the model store, or a path.")
    ] = None,
    key: Annotated[Path | None, typer.Option(metavar="FILE", help="Private key to sign with.")] = None,
    new_key: Annotated[
        Path | None, typer.Option("--new-key", metavar="FILE", help="Make a private key, and its public key FILE.pub.")
    ] = None,
    store: StoreOption = DEFAULT_STORE,
) -> None:
    """Sign an archive with Ed25519; the signature is a file beside it, ARCHIVE.sig.

    A server checks it before it reads the archive, against the public keys in its folder of trusted keys
    (`radlens_trusted_keys` of config.properties). Keep the private key off the machine that serves.
    """
    from radlens.versions.signing import create_pair, sign

    if (new_key is None) == (archive is None) or (archive is None) != (key is None):
        raise InvalidParameter("sign takes an archive with --key, or --new-key alone")
    if new_key is not None:
        fingerprint = create_pair(new_key)
        note(f"wrote {new_key} (private, keep it) and {new_key}.pub (for trusted_keys/), fingerprint {fingerprint}")
        return
    if archive is not None and key is not None:
        path = Path(archive) if Path(archive).exists() else store / archive
        if not path.exists():
            raise InvalidParameter(f"archive must exist, got no file {archive}, here or in {store}")
        note(f"wrote {sign(path, key)}")
