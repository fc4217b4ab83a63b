"""Archives of a model store: what is damaged is found before a server reads it."""

import json
import zipfile

import pytest
from archives import make_archive
from tiny_bundle import make_bundle

from radlens.errors import BundleError
from radlens.versions.card import card
from radlens.versions.stored import damaged, inspect


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A small archive."""
    folder = tmp_path_factory.mktemp("made")
    return make_archive(make_bundle(folder / "bundle"), folder / "cdmam-1.0.mar")


@pytest.fixture
def archive(made, tmp_path):
    """A copy of it."""
    copy = tmp_path / made.name
    copy.write_bytes(made.read_bytes())
    return copy


def rewrite(archive, name, change):
    """Replace the content of an entry, with a right checksum of the zip."""
    with zipfile.ZipFile(archive) as old:
        contents = {each: old.read(each) for each in old.namelist()}
    contents[name] = change(contents[name])
    with zipfile.ZipFile(archive, "w") as new:
        for each, content in contents.items():
            if content is not None:
                new.writestr(each, content)


def weights(archive):
    """Return the name of a file of the bundle."""
    return next(iter(json.loads(zipfile.ZipFile(archive).read("bundle.json"))["files"]))


def test_a_whole_archive_is_read(archive):
    """Name, version and the hash that answers state."""
    found = inspect(archive)
    assert found.stored == ("cdmam", "1.0", "cdmam-1.0.mar")
    assert len(found.bundle_hash) == 64
    assert found.bundle["name"] == "cdmam"


def test_what_is_damaged_is_named(archive):
    """A byte of the zip, a file of the bundle that was exchanged or is missing, the manifest."""
    whole, name = archive.read_bytes(), weights(archive)
    with zipfile.ZipFile(archive) as entries:
        start = entries.getinfo(name).header_offset + 30 + len(name) + 5
    archive.write_bytes(whole[:start] + bytes([whole[start] ^ 1]) + whole[start + 1 :])
    with pytest.raises(BundleError, match=rf"cdmam-1\.0\.mar is damaged: the checksum of {name} differs"):
        inspect(archive)
    archive.write_bytes(whole)
    rewrite(archive, name, lambda content: content + b"x")
    with pytest.raises(BundleError, match=rf"is damaged: the SHA-256 of {name} differs from the bundle's"):
        inspect(archive)
    rewrite(archive, name, lambda content: None)
    with pytest.raises(BundleError, match=rf"is damaged: {name} is missing or cannot be read"):
        inspect(archive)
    rewrite(archive, "bundle.json", lambda content: b"{}")
    with pytest.raises(BundleError, match=r"is damaged: bundle\.json cannot be read"):
        inspect(archive)
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BundleError, match=r"cdmam-1\.0\.mar must be an archive, got a file that cannot be read"):
        inspect(archive)
    assert damaged(archive.parent) == ["cdmam-1.0.mar"]
    with pytest.raises(BundleError, match=r"archive must exist, got no file nothing\.mar"):
        inspect(archive.with_name("nothing.mar"))


def test_folders_are_archives_too(archive, tmp_path):
    """TorchServe's form without a zip."""
    folder = tmp_path / "folder" / "cdmam-1.0"
    with zipfile.ZipFile(archive) as entries:
        entries.extractall(folder)
    assert inspect(folder).bundle_hash == inspect(archive).bundle_hash
    (folder / weights(archive)).write_bytes(b"")
    with pytest.raises(BundleError, match=r"cdmam-1\.0 is damaged: the SHA-256 of"):
        inspect(folder)


def test_the_card_says_what_the_archive_holds(archive):
    """Task, training, hashes and signature, as Markdown."""
    found = inspect(archive)
    text = card(found, "0" * 64, "cdmam-1.0.mar is not signed")
    assert text.startswith("# cdmam 1.0\n")
    assert f"- bundle: {found.bundle_hash}" in text
    assert f"- task: {found.bundle['task']}" in text
    assert "- signature: cdmam-1.0.mar is not signed" in text
    for name, sha256 in found.bundle["files"].items():
        assert f"| {name} | {sha256} |" in text
