"""Signatures of archives: Ed25519 (RFC 8032) over the digest of every byte, in a file beside the archive.

``cdmam-2.0.mar.sig`` is JSON with the digest, the signature and the fingerprint of the key. The signature is outside of
the archive, since readers of zip files disagree about what is in them: a signature over the entries that one reader
finds would leave room for those that another finds. Signed is the text
``radlens archive 1 <digest>``, so that a signature fits nothing else.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from radlens import durable
from radlens.errors import BundleError, InvalidParameter
from radlens.extras import named
from radlens.versions.worker import contents

with named():
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["Trust", "create_pair", "digest", "sign", "signature_file"]

_FORMAT = "radlens archive 1"

_PUBLIC = ".pub"
"""Suffix of public keys in the folder of trusted keys."""


def digest(archive: Path) -> str:
    """Return the SHA-256 of an archive, 64 hexadecimal digits.

    Of a file it is that of its bytes, of a folder that of a list with the hash and the name of each file.

    Raises:
        BundleError: A folder holds something else than files and folders, such as a link, or compiled code.
    """
    if archive.is_dir():
        if any(archive.rglob("__pycache__")):
            raise BundleError(f"an archive must not hold compiled code, got a folder __pycache__ in {archive.name}")
        try:
            return contents(archive)
        except ValueError as error:
            raise BundleError(str(error)) from error
    with archive.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def create_pair(file: Path) -> str:
    """Write a new private key to ``file`` (mode 0600) and its public key to ``file.pub``; return the fingerprint.

    Raises:
        InvalidParameter: One of the files exists; a key is never overwritten.
    """
    public_file = file.with_name(file.name + _PUBLIC)
    if exists := [each.name for each in (file, public_file) if each.exists()]:
        raise InvalidParameter(f"files of a new key must not exist, got {', '.join(exists)}")
    private = Ed25519PrivateKey.generate()
    content = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    durable.replace(file, content)
    durable.replace(public_file, _pem(private.public_key()), mode=0o644)
    return _fingerprint(private.public_key())


def signature_file(archive: Path) -> Path:
    """Return the file with the signature of an archive."""
    return archive.with_name(f"{archive.name}.sig")


def sign(archive: Path, key: Path) -> Path:
    """Sign an archive; return the file with the signature, which replaces an earlier one.

    Args:
        archive: File or directory of an archive.
        key: Private key that `create_pair` made.

    Raises:
        InvalidParameter: ``key`` is not an Ed25519 private key.
        ServerError: Others can read ``key``.
    """
    durable.require_private(key)
    try:
        private = serialization.load_pem_private_key(key.read_bytes(), password=None)
    except (ValueError, TypeError) as error:
        raise InvalidParameter(f"key must be an Ed25519 private key without a password, got {key.name}") from error
    if not isinstance(private, Ed25519PrivateKey):
        raise InvalidParameter(f"key must be an Ed25519 private key, got {type(private).__name__}")
    sha256 = digest(archive)
    document = {
        "format": _FORMAT,
        "sha256": sha256,
        "key": _fingerprint(private.public_key()),
        "signature": base64.b64encode(private.sign(_signed(sha256))).decode(),
    }
    target = signature_file(archive)
    durable.replace(target, json.dumps(document, indent=1).encode() + b"\n", mode=0o644)
    return target


@dataclass(frozen=True)
class Trust:
    """Which archives a server accepts.

    Attributes:
        is_required: Whether archives must be signed by a trusted key.
        keys: Trusted public keys by name.
    """

    is_required: bool = False
    keys: Mapping[str, Ed25519PublicKey] | None = None

    @classmethod
    def configured(cls, properties: Mapping[str, str], folder: Path) -> Self:
        """Read ``radlens_signatures`` and ``radlens_trusted_keys`` of ``config.properties``.

        Args:
            properties: Lines of the configuration.
            folder: Folder from which a relative folder of keys counts.

        Raises:
            InvalidParameter: The policy is not ``optional`` or ``required``, or a key cannot be read.
        """
        policy = properties.get("radlens_signatures", "optional")
        if policy not in ("optional", "required"):
            raise InvalidParameter(f"radlens_signatures must be optional or required, got {policy!r}")
        files = sorted((folder / properties.get("radlens_trusted_keys", "trusted_keys")).glob(f"*{_PUBLIC}"))
        return cls(policy == "required", {file.name.removesuffix(_PUBLIC): _public(file) for file in files})

    def check(self, archive: Path) -> tuple[str | None, str]:
        """Return the name of the key that signed an archive, None if none that is trusted, and a sentence for people.

        Raises:
            BundleError: The signature does not fit the archive or is damaged; or the policy requires one, and there is
                none or its key is not trusted.
        """
        file = signature_file(archive)
        if not file.exists():
            return self._refused(f"{archive.name} is not signed")
        try:
            document: dict[str, Any] = json.loads(file.read_bytes())
            stated, fingerprint = document["sha256"], document["key"]
            signature = base64.b64decode(document["signature"], validate=True)
            if document["format"] != _FORMAT:
                raise ValueError(document["format"])
        except (ValueError, KeyError, TypeError) as error:
            raise BundleError(f"{file.name} must hold a signature in format {_FORMAT!r}, got a damaged file") from error
        found = digest(archive)
        if stated != found:
            raise BundleError(
                f"{archive.name} is not the archive that was signed: its SHA-256 is {found[:12]}..., "
                f"signed was {str(stated)[:12]}..."
            )
        for name, key in (self.keys or {}).items():
            if _fingerprint(key) == fingerprint:
                try:
                    key.verify(signature, _signed(found))
                except InvalidSignature as error:
                    raise BundleError(f"the signature of {archive.name} must be by {name}, got a forged one") from error
                return name, f"{archive.name} is signed by {name}"
        return self._refused(f"{archive.name} is signed by a key that is not trusted here ({str(fingerprint)[:16]})")

    def _refused(self, sentence: str) -> tuple[None, str]:
        if self.is_required:
            raise BundleError(f"archives must be signed by a trusted key (radlens_signatures=required); {sentence}")
        return None, sentence


def _public(file: Path) -> Ed25519PublicKey:
    try:
        key = serialization.load_pem_public_key(file.read_bytes())
    except ValueError as error:
        raise InvalidParameter(f"trusted keys must be Ed25519 public keys, got {file.name}") from error
    if not isinstance(key, Ed25519PublicKey):
        raise InvalidParameter(f"trusted keys must be Ed25519 public keys, got {file.name}")
    return key


def _pem(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def _fingerprint(key: Ed25519PublicKey) -> str:
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()


def _signed(sha256: str) -> bytes:
    return f"{_FORMAT} {sha256}".encode()
