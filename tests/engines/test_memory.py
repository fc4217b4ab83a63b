import os
import subprocess
import sys

import numpy as np
import psutil
import pytest
from onnx import helper
from onnx_graphs import filtered, save

from radlens import engines
from radlens.engines import GraphFile, memory
from radlens.errors import InvalidParameter


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [("1", 1), ("512M", 2**29), ("2G", 2**31), ("1.5GiB", 3 * 2**29), (" 3kb ", 3072), ("1T", 2**40)],
)
def test_sizes_are_read(text, n_bytes):
    """Numbers with a unit, powers of 1024."""
    assert memory.parse_memory(text) == n_bytes


@pytest.mark.parametrize("text", ["", "0", "-1G", "G", "2 X", "1e9", "two"])
def test_other_sizes_are_refused(text):
    """The message shows the form."""
    with pytest.raises(InvalidParameter, match=f"memory must be a size such as 512M or 2G, got '{text}'"):
        memory.parse_memory(text)


def test_sizes_are_written_for_a_person():
    """Three digits and the unit."""
    assert [memory.format_memory(n) for n in (12, 2**20, 3 * 2**29, 2**41)] == ["12B", "1M", "1.5G", "2T"]


def test_the_limit_is_given_or_stated_or_a_part_of_what_is_free(monkeypatch):
    """In this order."""
    monkeypatch.setattr(memory, "available_memory", lambda: 1000)
    monkeypatch.delenv("RADLENS_MEMORY_LIMIT", raising=False)
    assert memory.memory_limit() == 400
    monkeypatch.setenv("RADLENS_MEMORY_LIMIT", "2K")
    assert memory.memory_limit() == 2048
    assert memory.memory_limit(7) == 7
    with pytest.raises(InvalidParameter, match="memory_limit must be at least 1 byte, got 0"):
        memory.memory_limit(0)


@pytest.mark.parametrize(
    ("folder", "names", "stat"),
    [
        ("", ("memory.max", "memory.current"), "anon 1\ninactive_file 50\n"),
        ("memory", ("memory.limit_in_bytes", "memory.usage_in_bytes"), "inactive_file 1\ntotal_inactive_file 50\n"),
    ],
)
def test_a_container_allows_less_than_the_machine_has(tmp_path, monkeypatch, folder, names, stat):
    """Control groups of both versions; pages of files that can be dropped are free."""
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.available_memory() == pytest.approx(psutil.virtual_memory().available, rel=0.5)
    (tmp_path / folder).mkdir(exist_ok=True)
    (tmp_path / folder / "memory.stat").write_text(stat)
    (tmp_path / folder / names[0]).write_text("1000\n")
    (tmp_path / folder / names[1]).write_text("300\n")
    assert memory.available_memory() == 750
    (tmp_path / folder / names[0]).write_text("max\n")
    assert memory.available_memory() > 10**6


def test_the_footprint_is_the_largest_sum_of_what_lives(tmp_path):
    """By hand: convolution of (1, 8, 8) into (4, 8, 8): both its ends and ReLU's result do not live at once."""
    found = memory.footprint(GraphFile.load(filtered(tmp_path / "graph.onnx")), overhead=1.0)
    one = 8 * 8 * 4
    # ReLU: its input and output, 4 channels each; the image is no longer read.
    assert found.per_sample == 8 * one
    assert found.fixed == memory.WEIGHT_COPIES * (4 * 9 * 4 + 4 * 8)
    assert found.peak(3) == found.fixed + 3 * found.per_sample
    assert found.largest_batch(found.peak(5)) == 5
    assert found.largest_batch(1) == 1


def test_open_dimensions_leave_the_footprint_unknown(tmp_path):
    """Height and width of any size: nobody knows."""
    node = helper.make_node("Relu", ["x"], ["y"])
    path = save(tmp_path / "graph.onnx", [node], {"x": ["n", 1, "h", "w"]}, {"y": ["n", 1, "h", "w"]})
    assert memory.footprint(GraphFile.load(path)) is None


def test_the_limit_bounds_the_batch(tmp_path):
    """An engine by name computes 8 together, or as many as fit."""
    path = filtered(tmp_path / "graph.onnx")
    needed = memory.footprint(GraphFile.load(path), engines.OnnxRuntimeEngine.overhead)
    assert engines.open(path, "onnxruntime").batch_size == 8
    assert engines.open(path, "onnxruntime", memory_limit=needed.peak(3)).batch_size == 3
    assert engines.open(path, memory_limit=needed.peak(1)).batch_size == 1


_PEAK = """
import sys
import numpy as np
from radlens import engines
def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
path, name, n = sys.argv[1], sys.argv[2], int(sys.argv[3])
engine = engines.open(path, name, batch_size=n)
images = np.zeros((n, 1, 64, 64), np.float32)
engine.run({"images": images[:1]})
# What came before must not hide the peak of the run: 5 sets it back to what is resident now, see proc(5).
open("/proc/self/clear_refs", "w").write("5")
before = peak()
engine.run({"images": images})
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnxruntime", "openvino", "torch"])
def test_the_estimate_holds(tmp_path, name):
    """The measured peak of 64 samples above that of one stays within the estimate, and is not a tenth of it."""
    kernels = {f"k{i}": np.ones((16, 1 if i == 0 else 16, 3, 3), np.float32) for i in range(3)}
    nodes = [
        helper.make_node("Conv", [f"x{i}" if i else "images", f"k{i}"], [f"c{i}"], pads=[1, 1, 1, 1]) for i in range(3)
    ]
    nodes += [helper.make_node("Relu", [f"c{i}"], [f"x{i + 1}"]) for i in range(3)]
    nodes = [nodes[i] for i in (0, 3, 1, 4, 2, 5)]
    path = save(tmp_path / "graph.onnx", nodes, {"images": ["n", 1, 64, 64]}, {"x3": ["n", 16, 64, 64]}, kernels)
    # Heap that importing left behind must not serve the run: large arrays get memory of their own, see mallopt(3).
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", _PEAK, path, name, "64"]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    estimate = memory.footprint(GraphFile.load(path), engines.engine_class(name).overhead)
    assert 0.1 * estimate.peak(64) < int(run.stdout) < estimate.peak(64)
