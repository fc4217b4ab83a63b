"""Signatures of archives: every byte counts, and only trusted keys do."""

import base64
import json
import stat

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from radlens.errors import BundleError, InvalidParameter, ServerError
from radlens.versions.signing import Trust, create_pair, digest, sign, signature_file


@pytest.fixture(params=["file", "folder"])
def archive(request, tmp_path):
    """An archive in each form."""
    path = tmp_path / "model-1.0.mar"
    if request.param == "file":
        path.write_bytes(b"weights" * 1000)
    else:
        (path / "MAR-INF").mkdir(parents=True)
        (path / "MAR-INF" / "MANIFEST.json").write_text("{}")
        (path / "handler.py").write_text("pass")
    return path


@pytest.fixture
def key(tmp_path):
    """A private key, whose public key is trusted by the name ``release``."""
    create_pair(tmp_path / "signing.key")
    (tmp_path / "trusted_keys").mkdir()
    (tmp_path / "signing.key.pub").rename(tmp_path / "trusted_keys" / "release.pub")
    return tmp_path / "signing.key"


def trust(folder, policy="required"):
    """Return the trust of a configuration in ``folder``."""
    return Trust.configured({"radlens_signatures": policy}, folder)


def change(archive, add=b"x"):
    """Change one byte of an archive."""
    file = archive if archive.is_file() else archive / "handler.py"
    content = bytearray(file.read_bytes())
    content[0] ^= 1
    file.write_bytes(bytes(content))


def test_a_signed_archive_is_accepted(archive, key, tmp_path):
    """By the name of the key; the signature is the same each time."""
    file = sign(archive, key)
    first = file.read_bytes()
    assert trust(tmp_path).check(archive) == ("release", "model-1.0.mar is signed by release")
    assert sign(archive, key).read_bytes() == first
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_a_changed_archive_is_refused(archive, key, tmp_path):
    """Under each policy."""
    sign(archive, key)
    change(archive)
    for policy in ("required", "optional"):
        with pytest.raises(BundleError, match=r"model-1\.0\.mar is not the archive that was signed: its SHA-256 is"):
            trust(tmp_path, policy).check(archive)


def test_a_folder_is_its_files(tmp_path):
    """A file that is added, renamed or empty changes the digest; links have no place in an archive."""
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a").write_text("1")
    seen = {digest(folder)}
    (folder / "b").touch()
    seen.add(digest(folder))
    (folder / "b").rename(folder / "c")
    seen.add(digest(folder))
    (folder / "d").mkdir()
    (folder / "c").rename(folder / "d" / "c")
    seen.add(digest(folder))
    assert len(seen) == 4
    (folder / "__pycache__").mkdir()
    with pytest.raises(BundleError, match="an archive must not hold compiled code, got a folder __pycache__ in folder"):
        digest(folder)
    (folder / "__pycache__").rmdir()
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(BundleError, match="an archive must hold files and folders, got link, which is neither"):
        digest(folder)


def test_unsigned_archives_are_told_or_refused(archive, key, tmp_path):
    """As the policy says."""
    assert trust(tmp_path, "optional").check(archive) == (None, "model-1.0.mar is not signed")
    with pytest.raises(BundleError, match=r"must be signed by a trusted key \(radlens_signatures=required\); model-1"):
        trust(tmp_path).check(archive)


def test_keys_that_are_not_trusted_do_not_count(archive, key, tmp_path):
    """Somebody else's signature is none."""
    create_pair(tmp_path / "other.key")
    sign(archive, tmp_path / "other.key")
    signer, sentence = trust(tmp_path, "optional").check(archive)
    assert signer is None
    assert "is signed by a key that is not trusted here (" in sentence
    with pytest.raises(BundleError, match="must be signed by a trusted key"):
        trust(tmp_path).check(archive)


def test_forged_signatures_are_refused(archive, key, tmp_path):
    """A file that names a trusted key, with the right digest and another signature."""
    document = json.loads(sign(archive, key).read_bytes())
    document["signature"] = base64.b64encode(Ed25519PrivateKey.generate().sign(b"x")).decode()
    signature_file(archive).write_text(json.dumps(document))
    for policy in ("required", "optional"):
        with pytest.raises(BundleError, match="must be by release, got a forged one"):
            trust(tmp_path, policy).check(archive)


def test_a_signature_fits_one_archive(archive, key, tmp_path):
    """That of another one, with the digest set right, is forged."""
    other = tmp_path / "other.mar"
    other.write_bytes(b"other")
    document = json.loads(sign(other, key).read_bytes())
    signature_file(archive).write_text(json.dumps(document | {"sha256": digest(archive)}))
    with pytest.raises(BundleError, match="got a forged one"):
        trust(tmp_path).check(archive)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "x", "sha256": "", "key": "", "signature": ""}'])
def test_damaged_signatures_are_refused(archive, key, tmp_path, text):
    """And not taken for none."""
    signature_file(archive).write_text(text)
    with pytest.raises(BundleError, match=r"model-1\.0\.mar\.sig must hold a signature in format 'radlens archive 1'"):
        trust(tmp_path, "optional").check(archive)


def test_keys_are_never_overwritten(key):
    """A key that is lost cannot be made again."""
    before = key.read_bytes()
    with pytest.raises(InvalidParameter, match=r"files of a new key must not exist, got signing\.key"):
        create_pair(key)
    assert key.read_bytes() == before


def test_private_keys_must_be_private(archive, key):
    """And Ed25519."""
    key.chmod(0o644)
    with pytest.raises(ServerError, match=r"signing\.key must have mode 600"):
        sign(archive, key)
    key.chmod(0o600)
    key.write_bytes(b"no key")
    with pytest.raises(InvalidParameter, match=r"key must be an Ed25519 private key without a password, got signing"):
        sign(archive, key)
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    key.write_bytes(X25519PrivateKey.generate().private_bytes(serialization.Encoding.PEM, *private))
    with pytest.raises(InvalidParameter, match="key must be an Ed25519 private key, got X25519PrivateKey"):
        sign(archive, key)


def test_trust_is_checked(tmp_path):
    """An unknown policy, or a trusted key that is not one, would accept what it should not."""
    with pytest.raises(InvalidParameter, match="radlens_signatures must be optional or required, got 'yes'"):
        trust(tmp_path, "yes")
    (tmp_path / "trusted_keys").mkdir()
    (tmp_path / "trusted_keys" / "release.pub").write_text("no key")
    with pytest.raises(InvalidParameter, match=r"trusted keys must be Ed25519 public keys, got release\.pub"):
        trust(tmp_path)
