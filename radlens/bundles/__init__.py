"""Directory of one servable model of any family: files, hashes and manifest."""

from radlens.bundles.bundle import BundleManifest, StoredBundle
from radlens.bundles.files import FORMAT_VERSION, MANIFEST, problems, read_manifest, write_manifest

__all__ = [
    "FORMAT_VERSION",
    "MANIFEST",
    "BundleManifest",
    "StoredBundle",
    "problems",
    "read_manifest",
    "write_manifest",
]
