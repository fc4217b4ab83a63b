"""The bundle of an inpainter: what it holds, and what happens where it is damaged."""

import json
import shutil

import numpy as np
import pytest
import torch
from small_inpainter import SHAPE, WIDTH, inpainter_files, make_inpainter, make_inpainter_network

from radlens.engines import golden_values
from radlens.engines.golden import Golden
from radlens.engines.opening import is_there
from radlens.engines.opening import open as open_engine
from radlens.engines.parity import stored
from radlens.errors import BundleError, InvalidInput, InvalidParameter, TrainingError
from radlens.families import family_of, load, open_service
from radlens.families.inpainter.making import bundle_inpainter_run
from radlens.families.inpainter.manifest import GRAPH, WEIGHTS, InpainterBundle

ENGINES = [name for name in ("onnxruntime", "openvino", "torch") if is_there(name)]


@pytest.fixture(scope="module")
def bundle():
    """A small one."""
    return load(inpainter_files())


@pytest.fixture
def copy(tmp_path):
    """A copy of its folder, to be damaged."""
    return shutil.copytree(inpainter_files(), tmp_path / "copy")


def test_a_bundle_is_what_was_saved(bundle):
    """Graph with golden values, weights, preprocessing, parity; the same family and network come back."""
    assert isinstance(bundle, InpainterBundle)
    assert set(bundle.manifest.files) == {GRAPH, WEIGHTS, "inpainter.golden.npz"}
    assert (bundle.manifest.input.shape, bundle.manifest.width, bundle.manifest.explainers) == (SHAPE, WIDTH, ())
    assert bundle.damaged == {}
    network = make_inpainter_network()
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in bundle.network().state_dict().items())
    assert not bundle.network().training


@pytest.mark.slow
def test_two_exports_are_equal(bundle, tmp_path):
    """Byte for byte, but for timings that no file holds."""
    again = make_inpainter(tmp_path / "again")
    assert again.manifest.files.keys() == bundle.manifest.files.keys()
    assert again.manifest.files[GRAPH] == bundle.manifest.files[GRAPH]


@pytest.mark.parametrize("engine", ENGINES)
def test_engines_compute_what_the_network_does(bundle, engine):
    """Within the golden values, and at any batch size; values in holes have no effect."""
    opened = open_engine(bundle.graph, engine)
    Golden.load(bundle.graph).check(opened)
    rng = np.random.default_rng(0)
    for n in (1, 3):
        images = rng.normal(size=(n, 1, *SHAPE)).astype(np.float32)
        masks = (rng.random((n, 1, *SHAPE)) > 0.3).astype(np.float32)
        found = opened.run({"images": images, "masks": masks})["inpainted"]
        expected = bundle.network()(torch.from_numpy(images), torch.from_numpy(masks)).numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
        other = opened.run({"images": np.where(masks == 1, images, 9), "masks": masks})["inpainted"]
        np.testing.assert_array_equal(found, other)


def test_parity_is_measured_for_each_engine(bundle):
    """And printed by the family; the first form is the network itself."""
    measured = {each.engine: each for each in stored(bundle.manifest.parity, GRAPH) if each.precision == "f32"}
    assert set(ENGINES) <= set(measured)
    assert all(each.reason is None and each.error < 1e-3 for each in measured.values())
    assert bundle.manifest.parity["inpainter"]["eager"] < 1e-4
    (table,) = family_of("inpainting").bundle_tables(bundle)
    assert [row[0] for row in table.rows] == ["eager"]


@pytest.mark.parametrize("damage", ["altered", "missing"])
def test_the_network_serves_where_its_graph_is_damaged(copy, damage):
    """Refused engines and reason are stated; an engine that was asked for by name is an error."""
    file = copy / GRAPH
    file.unlink() if damage == "missing" else file.write_bytes(file.read_bytes() + b"x")
    bundle = load(copy)
    reason = bundle.damaged[GRAPH]
    assert list(bundle.damaged) == [GRAPH]
    for engine in ("auto", "torch"):
        service = open_service(bundle, engine=engine)
        assert service.engine.name == "torch"
        assert {each.engine for each in service.engine.refused} >= set(ENGINES)
        assert {(each.graph, each.reason) for each in service.engine.refused} == {(GRAPH, reason)}
    with pytest.raises(BundleError, match=reason):
        open_service(bundle, engine="onnxruntime")
    with pytest.raises(BundleError, match=reason):
        open_service(bundle, precision="bf16")


def test_the_network_serves_where_no_engine_passes(copy, caplog):
    """A valid file whose golden values are those of another network: neither it nor the network is used."""
    other = golden_values(copy / GRAPH, dict(Golden.load(copy / GRAPH).inputs))
    wrong = {name: value + 1 for name, value in other.outputs.items()}
    Golden(other.inputs, wrong, other.float32_errors).save(copy / GRAPH)
    with pytest.raises(BundleError, match=r"inpainter\.golden\.npz is not the file this bundle was made with"):
        load(copy)
    unverified = InpainterBundle.load(copy, verify=False)
    with pytest.raises(BundleError, match="inpainted"):
        open_service(unverified)


@pytest.mark.parametrize("file", [WEIGHTS, "inpainter.golden.npz"])
def test_damaged_weights_and_golden_values_are_refused(copy, file):
    """The message names the file."""
    (copy / file).write_bytes(b"x")
    with pytest.raises(BundleError, match=f"{file} is not the file this bundle was made with: its SHA-256 differs"):
        load(copy)
    (copy / file).unlink()
    with pytest.raises(BundleError, match=f"bundle must hold {file}, which is missing"):
        load(copy)


def test_a_damaged_manifest_is_refused(copy):
    """Another task, or a missing field."""
    document = json.loads((copy / "bundle.json").read_text())
    (copy / "bundle.json").write_text(json.dumps(document | {"task": "classification"}))
    with pytest.raises(BundleError, match="task must be 'inpainting', got 'classification'"):
        InpainterBundle.load(copy)
    document.pop("width")
    (copy / "bundle.json").write_text(json.dumps(document))
    with pytest.raises(BundleError, match=r"bundle must hold a readable bundle\.json"):
        load(copy)


def test_options_of_services(bundle):
    """Unknown engines and precisions are named."""
    assert open_service(bundle, engine="onnxruntime", memory_limit=2**31).engine.name == "onnxruntime"
    with pytest.raises(InvalidParameter, match="precision must be one of"):
        open_service(bundle, precision="f7")
    with pytest.raises(InvalidParameter, match="engine must be one of"):
        open_service(bundle, engine="steam")


def test_folders_that_cannot_be_written_or_read(tmp_path):
    """A folder with files; a run that has not finished."""
    (tmp_path / "file").touch()
    with pytest.raises(InvalidInput, match=r"folder must be empty, got .* with files"):
        make_inpainter(tmp_path)
    with pytest.raises(TrainingError, match=r"must hold training\.json, which is missing"):
        bundle_inpainter_run(tmp_path, tmp_path / "new", name="a", version="1.0", report=lambda *stage: None)
