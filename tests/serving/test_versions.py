"""Versions of a model side by side, each with the library it was archived with."""

import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from archives import make_archive
from programs import needs
from sample_images import noise
from shared_server import versioned
from tiny_bundle import make_bundle

from radlens import errors
from radlens.archives import archive
from radlens.families.cdmam.manifest import save
from radlens.images import to_npy
from radlens.versions.management import Version

pytestmark = pytest.mark.serving


def test_versions_live_side_by_side(client, management, store, tmp_path):
    """Register, compare, make default, go back, remove; requests that name no version follow the default."""
    bundle = make_bundle(tmp_path / "bundle", version="2.0", seed=1)
    make_archive(bundle, store / "cdmam-2.mar", changed=versioned("2.0-archived"))
    image = to_npy(noise())
    assert management.register("cdmam-2.mar") == ("cdmam", "2.0")
    assert management.versions() == [Version("cdmam", "1.0", True, 2, 0), Version("cdmam", "2.0", False, 2, 0)]

    old, new = (client.predict(image, version=version) for version in ("1.0", "2.0"))
    assert client.predict(image)["provenance"]["version"] == "1.0"
    assert new["provenance"]["bundle_hash"] == bundle.bundle_hash != old["provenance"]["bundle_hash"]
    assert new["prediction"] != old["prediction"]
    # Each archive runs its own code, although both workers run in an environment with another.
    assert [found["provenance"]["libraries"]["radlens"] for found in (old, new)] == ["1.0-archived", "2.0-archived"]

    management.set_default("cdmam", "2.0")
    assert client.predict(image)["provenance"]["version"] == "2.0"
    with pytest.raises(errors.InvalidInput, match="Cannot remove default version"):
        management.unregister("cdmam", "2.0")
    management.set_default("cdmam", "1.0")
    management.unregister("cdmam", "2.0")
    with pytest.raises(errors.ModelNotFound, match=r"Model version: 2\.0 does not exist"):
        client.predict(image, version="2.0")


@pytest.mark.slow
def test_exported_models_are_served(client, management, store, exported, tmp_path):
    """A trained model in TorchServe's directory form: an engine without autograd computes, whichever is fastest."""
    folder = shutil.copytree(exported.path, tmp_path / "bundle")
    bundle = save(folder, replace(exported.manifest, name="cdmam", version="4.0"))
    assert management.register(archive(bundle, store, form="directory").name) == ("cdmam", "4.0")
    image = to_npy(noise((250, 250)))
    served = client.predict(image, version="4.0")
    assert served["provenance"]["engine"] in ("llvm", "onnxruntime", "openvino")
    assert served["provenance"]["refused_engines"] == []
    local = bundle.model().predict(bundle.preprocess(noise((250, 250)))).mean[0]
    # Two float32 implementations of the same sums.
    np.testing.assert_allclose(served["prediction"]["mean_um"], local, rtol=1e-4)
    assert client.explain(image, version="4.0", n_steps=2)["explanation"]["map"].any()
    management.unregister("cdmam", "4.0")


def test_registering_twice_is_refused(client, management):
    """The version that runs is left alone."""
    with pytest.raises(errors.InvalidInput, match=r"Model version 1\.0 is already registered for model cdmam"):
        management.register("cdmam-1.mar")
    assert client.predict(to_npy(noise()))["prediction"]


def test_corrupt_archives_are_refused(management, store):
    """And leave nothing behind."""
    (store / "corrupt.mar").write_bytes((store / "cdmam-1.mar").read_bytes()[:5000])
    with pytest.raises(errors.RadlensError, match=r"corrupt\.mar"):
        management.register("corrupt.mar")
    assert [version.version for version in management.versions()] == ["1.0"]


@pytest.mark.slow
def test_archives_that_do_not_start_are_removed(management, store, tmp_path):
    """TorchServe would keep the version without a worker, and every request to it would hang."""
    bundle = make_bundle(tmp_path / "bundle", version="3.0")
    make_archive(
        bundle, store / "broken.mar", changed={"radlens/families/cdmam/service.py": "import nothing_of_that_name"}
    )
    with pytest.raises(errors.ServerError, match=r"Failed to start workers for model cdmam version: 3\.0"):
        management.register("broken.mar")
    assert [version.version for version in management.versions()] == ["1.0"]


def test_missing_archives_are_named(management):
    """By their name in the store."""
    with pytest.raises(errors.InvalidInput, match=r"nowhere\.mar"):
        management.register("nowhere.mar")


@needs({"curl": "curl"})
def test_grpc_answers_with_its_key_alone(server):
    """TorchServe's gRPC ports cannot be closed; a call without the key lists, registers and predicts nothing."""
    state = server.state
    calls = {
        state.ports.grpc_management: "org.pytorch.serve.grpc.management.ManagementAPIsService/ListModels",
        state.ports.grpc_inference: "org.pytorch.serve.grpc.inference.InferenceAPIsService/Ping",
    }
    for port, call in calls.items():
        command = ["curl", "--silent", "--http2-prior-knowledge", "--dump-header", "-", "--output", "/dev/null"]
        command += ["--header", "content-type: application/grpc", "--header", "te: trailers", "--data-binary", "@-"]
        url = f"http://127.0.0.1:{port}/{call}"
        # An empty message: not compressed, of length 0.
        asked = subprocess.run([*command, url], input=bytes(5), capture_output=True, check=True, timeout=60)
        status = re.search(rb"grpc-status: (\d+)", asked.stdout)
        assert status, asked.stdout
        assert int(status[1]) != 0


def test_unknown_versions_cannot_become_default(management):
    """404."""
    with pytest.raises(errors.ModelNotFound, match=r"9\.9"):
        management.set_default("cdmam", "9.9")
