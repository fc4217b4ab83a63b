"""The transport that answers in this process, and where its bundle comes from."""

import json
import os
import threading
import zipfile

import httpx
import pytest
from archives import make_archive

from radlens.cli.local import local_client
from radlens.errors import BundleError, ModelNotFound
from radlens.local import LocalTransport, Pieces, newest_bundle, open_bundle_at
from radlens.service import Response


@pytest.fixture
def store(bundle, tmp_path):
    """A model store with an archive, and a newer bundle beside it."""
    make_archive(bundle, tmp_path / "cdmam-1.0.mar")
    unpacked = tmp_path / "bundles" / "cdmam-1.0"
    unpacked.mkdir(parents=True)
    (unpacked / "bundle.json").touch()
    os.utime(tmp_path / "cdmam-1.0.mar", (100, 100))
    os.utime(unpacked, (200, 200))
    return tmp_path


def test_the_newest_bundle_is_taken(store):
    """Unpacked or archived, whichever is newer; unpacked where both are of one time."""
    unpacked, archived = store / "bundles" / "cdmam-1.0", store / "cdmam-1.0.mar"
    assert newest_bundle(store) == unpacked
    os.utime(archived, (300, 300))
    assert newest_bundle(store) == archived
    os.utime(unpacked, (300, 300))
    assert newest_bundle(store) == unpacked


def test_a_directory_archive_is_a_bundle_too(store, bundle):
    """TorchServe's no-archive form lies directly in the store."""
    (store / "cdmam-2.0").mkdir()
    (store / "cdmam-2.0" / "bundle.json").touch()
    assert newest_bundle(store) == store / "cdmam-2.0"


def test_an_archive_is_unpacked_and_verified(store, bundle):
    """The bundle of an archive is the bundle it was made from."""
    with open_bundle_at(store / "cdmam-1.0.mar") as unpacked:
        assert unpacked.bundle_hash == bundle.bundle_hash
        folder = unpacked.path
    assert not folder.exists()


@pytest.mark.parametrize("content", [b"no zip", None])
def test_what_holds_no_bundle_is_refused(tmp_path, content):
    """Neither a broken file nor a zip file of something else is a bundle."""
    file = tmp_path / "broken.mar"
    if content is None:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("bundle.json", "[]")
    else:
        file.write_bytes(content)
    with pytest.raises(BundleError, match="archive must be a zip file that holds a bundle"), open_bundle_at(file):
        pass


def test_an_empty_store_is_refused(tmp_path):
    """The message says how to make one."""
    with pytest.raises(BundleError, match="must hold a bundle or an archive, got none: make one with `radlens export`"):
        newest_bundle(tmp_path)


def test_another_model_is_not_found(bundle, noise):
    """A client that asks for another model gets what a server would say."""
    with local_client(bundle.path, bundle.path) as client:
        client.model = "other"
        with pytest.raises(ModelNotFound, match=r"model must be cdmam/1.0, the model of this bundle, got other"):
            client.predict(noise)


def test_reading_a_stream_to_its_end_gives_a_complete_map(bundle, noise):
    """Pieces come in their order, the last one says that the map is complete."""
    lines = [json.loads(line) for line in _streamed(bundle, noise).iter_lines()]
    assert lines[0]["event"] == "progress"
    assert (lines[-1]["event"], lines[-1]["complete"]) == ("result", True)


def test_closing_a_stream_ends_its_thread():
    """Work for a reader who left stops at the next piece."""
    closed, stopped = threading.Event(), threading.Event()

    def work(emit):
        emit(b"first")
        closed.wait(10)
        try:
            emit(b"second")
        finally:
            stopped.set()

    pieces = Pieces(Response(200, "text/plain", stream=work))
    reader = iter(pieces)
    assert next(reader) == b"first"
    pieces.close()
    closed.set()
    assert stopped.wait(10)
    assert list(reader) == []


def _streamed(bundle, image):
    headers = {"accept": "application/json", "x-radlens-n-samples": "16", "x-radlens-n-steps": "2"}
    request = httpx.Request("POST", "http://local/explanations/cdmam", headers=headers, content=image.read_bytes())
    return LocalTransport(bundle).handle_request(request)
