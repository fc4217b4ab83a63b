"""The shadow report: what two versions make of the same images."""

import json

import httpx
import numpy as np
import pytest
from sample_images import noise
from tiny_bundle import make_bundle

from radlens.client import Client
from radlens.errors import InvalidParameter
from radlens.images import to_npy
from radlens.local import LocalTransport
from radlens.versions.shadow import shadow, stored_samples, warm


class Versions(httpx.BaseTransport):
    """A server in this process with one bundle for each version."""

    def __init__(self, bundles):
        self.transports = {version: LocalTransport(bundle) for version, bundle in bundles.items()}
        self.asked = []

    def handle_request(self, request):
        """Answer with the bundle of the version in the path."""
        version = request.url.path.rpartition("/")[2]
        self.asked.append(version)
        return self.transports[version].handle_request(request)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """1.0 and 2.0 differ in their weights; 1.1 is 1.0 under another version."""
    made = {}
    for version, seed in (("1.0", 0), ("1.1", 0), ("2.0", 1)):
        made[version] = make_bundle(tmp_path_factory.mktemp("bundle") / version, version=version, seed=seed)
    return made


@pytest.fixture
def client(bundles):
    """A client of that server."""
    with Client("http://local", model="cdmam", transport=Versions(bundles)) as asked:
        yield asked


@pytest.fixture
def samples(tmp_path):
    """Two images."""
    for seed in range(2):
        (tmp_path / f"Doe-{seed}.npy").write_bytes(to_npy(noise(seed=seed)))
    return stored_samples(tmp_path)


@pytest.mark.slow
def test_equal_versions_do_not_differ(client, samples):
    """Numbers and maps are the same, bit for bit."""
    report = shadow(client, "1.0", "1.1", samples)
    assert (report["failed"], report["judged_differently"]) == (0, 0)
    for row in report["samples"]:
        assert row["largest_difference"]["relative"] == 0
        assert row["map"]["largest_difference"] == 0
        assert row["map"]["correlation"] == pytest.approx(1)


@pytest.mark.slow
def test_other_weights_differ(client, bundles, samples):
    """The report says by how much, and is what both versions answer alone."""
    report = shadow(client, "1.0", "2.0", samples)
    assert report["bundle_hash"] == bundles["2.0"].bundle_hash
    for row, sample in zip(report["samples"], samples, strict=True):
        largest = row["largest_difference"]
        assert largest["relative"] > 0.001
        name, _, field = largest["field"].partition(".")
        old, new = (client.predict(sample, version=version)[name][field] for version in ("1.0", "2.0"))
        change = np.abs(np.subtract(new, old))
        assert abs(largest["new"] - largest["old"]) == pytest.approx(change.max())
        assert largest["relative"] == pytest.approx(change.max() / np.abs(old).max())
        maps = [client.explain(sample, version=version)["explanation"]["map"] for version in ("1.0", "2.0")]
        assert row["map"]["correlation"] == pytest.approx(np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1])
    assert "Doe" not in json.dumps(report)


def test_what_the_new_version_refuses_counts_as_failed(client, samples, monkeypatch):
    """What both refuse does not."""
    (samples[0].parent / "no image.png").write_bytes(b"no image")
    report = shadow(client, "1.0", "2.0", stored_samples(samples[0].parent), maps=False)
    assert report["failed"] == 0
    assert [len(row["error"]) for row in report["samples"]] == [0, 0, 2]
    real = Client.predict

    def predict(self, image, *, version=None, **options):
        if version == "2.0":
            raise InvalidParameter("another size")
        return real(self, image, version=version, **options)

    monkeypatch.setattr(Client, "predict", predict)
    report = shadow(client, "1.0", "2.0", samples, maps=False)
    assert (report["failed"], report["judged_differently"]) == (2, 2)
    assert report["samples"][0]["error"] == {"2.0": "another size"}


def test_every_worker_is_warmed(client, samples):
    """As many requests at a time as there are workers."""
    warm(client, "2.0", samples[0], 3)
    assert client._http._transport.asked == ["2.0"] * 3


def test_no_samples_is_told(tmp_path):
    """With what to do."""
    with pytest.raises(InvalidParameter, match=r"the versions are compared on images in .*, got none there; put some"):
        stored_samples(tmp_path / "nothing")
