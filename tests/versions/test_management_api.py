"""TorchServe's management API, answered by a function; `tests/serving` has the real one."""

import os
import time

import httpx
import pytest

from radlens.errors import InvalidParameter, ServerError
from radlens.versions import management as module
from radlens.versions.management import Management


def asking(answer):
    """Return a connection whose requests ``answer`` responds to."""
    return Management(httpx.MockTransport(answer), "secret")


def described(pending=0, version="1.0", pids=()):
    """Return TorchServe's description of a version."""
    workers = [{"pid": pid, "status": "READY"} for pid in pids]
    return {"modelVersion": version, "workers": workers, "jobQueueStatus": {"pendingRequests": pending}}


def registering(status):
    """Return a connection to a server that says ``status`` of an archive."""

    def answer(request):
        assert request.headers["authorization"] == "Bearer secret"
        if request.method == "POST":
            return httpx.Response(200, json={"status": status})
        if request.url.path == "/models":
            return httpx.Response(200, json={"models": [{"modelName": "cdmam"}]})
        return httpx.Response(200, json=[described()])

    return asking(answer)


def test_an_archive_says_which_model_it_is():
    """Name and version come from TorchServe."""
    found = registering('Model "lesions" Version: 2.0 registered with 1 initial workers')
    assert found.register("a.mar") == ("lesions", "2.0")


def test_a_server_must_say_what_it_registered():
    """Nobody could ask for it."""
    with pytest.raises(ServerError, match="the server must name the registered version, got 'done'"):
        registering("done").register("a.mar")


@pytest.mark.parametrize("archive", ["/etc", "../a.mar", "folder/a.mar", "https://x/a.mar", "file:///a", ".", "..", ""])
def test_only_names_are_registered(archive):
    """TorchServe takes any folder of the machine, so a path never reaches it."""

    def answer(request):
        raise AssertionError(request.url)

    with pytest.raises(InvalidParameter, match="archive must be the name of a file in the model store, got"):
        asking(answer).register(archive)


def test_all_pages_are_read():
    """TorchServe lists 100 models at a time."""

    def answer(request):
        if request.url.path != "/models":
            return httpx.Response(200, json=[described()])
        if "next_page_token" in request.url.params:
            return httpx.Response(200, json={"models": [{"modelName": "last"}]})
        return httpx.Response(200, json={"models": [{"modelName": "first"}], "nextPageToken": "2"})

    assert [version.model for version in asking(answer).versions()] == ["first", "last"]


def test_versions_are_drained_before_they_go(monkeypatch):
    """A version is removed once its queue has been empty for a while, and not before."""
    monkeypatch.setattr(module, "_QUIET_S", 0.3)
    waiting, deleted = iter([1, 1]), []

    def answer(request):
        assert request.url.path == "/models/cdmam/1.0"
        if request.method == "DELETE":
            deleted.append(next(waiting, "drained"))
            return httpx.Response(200, json={"status": "unregistered"})
        return httpx.Response(200, json=[described(next(waiting, 0))])

    asking(answer).unregister("cdmam", "1.0")
    assert deleted == ["drained"]


def test_a_worker_that_computes_is_waited_for(monkeypatch):
    """Its request is in no queue; the time of its process tells. This process computes in each question."""
    monkeypatch.setattr(module, "_QUIET_S", 0.5)
    n_asked = 0

    def answer(request):
        nonlocal n_asked
        n_asked += 1
        if n_asked <= 10:
            end = sum(os.times()[:2]) + 0.1
            while sum(os.times()[:2]) < end:
                pass
        return httpx.Response(200, json=[described(pids=[os.getpid()])])

    asking(answer).drain("cdmam", "1.0")
    assert n_asked > 10


def test_the_quiet_time_begins_with_a_measurement(monkeypatch):
    """An answer that takes longer than the quiet time says nothing of what workers did meanwhile."""
    monkeypatch.setattr(module, "_QUIET_S", 0.1)
    n_asked = 0

    def answer(request):
        nonlocal n_asked
        n_asked += 1
        time.sleep(0.2)
        return httpx.Response(200, json=[described()])

    asking(answer).drain("cdmam", "1.0")
    assert n_asked == 2


def test_processes_that_ended_do_not_hide_others():
    """Their time is gone from the sum."""
    assert module._grown({1: 100.0, 2: 5.0}, {2: 6.0}) == 1.0
    assert module._grown({}, {3: 0.5}) == 0.5


def test_versions_that_stay_busy_stay():
    """The wait has an end."""
    busy = asking(lambda request: httpx.Response(200, json=[described(3)]))
    with pytest.raises(ServerError, match=r"cdmam 1\.0 must have answered all in 0\.2 s, got requests left"):
        busy.unregister("cdmam", "1.0", timeout_s=0.2)


def test_no_version_is_left_without_workers():
    """Zero workers is not a number of workers."""
    with pytest.raises(InvalidParameter, match="number of workers must be at least 1, got 0; retire a version instead"):
        asking(lambda request: httpx.Response(500)).scale("cdmam", "1.0", 0)
