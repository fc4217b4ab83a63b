"""Archives as TorchServe wants them: a zip file with a manifest, the handler, the bundle and the library."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

import radlens
from radlens.archives import library_files
from radlens.families.cdmam.manifest import Bundle
from radlens.families.classifier.manifest import ClassifierBundle

LIBRARY = Path(radlens.__file__).parent
HANDLERS = LIBRARY.parent / "handlers"


def make_archive(bundle: Bundle | ClassifierBundle, file: Path, *, changed: Mapping[str, str] | None = None) -> Path:
    """Write ``bundle`` with its handler and library to ``file``.

    Args:
        bundle: any.
        file: ends in ``.mar``.
        changed: text of library files that differ from the installed library's, by name within the archive.
    """
    manifest = {
        "runtime": "python",
        "model": {
            "modelName": bundle.manifest.name,
            "modelVersion": bundle.manifest.version,
            "handler": "model_handler.py",
            "configFile": "classifier-config.yaml" if isinstance(bundle, ClassifierBundle) else "model-config.yaml",
        },
        "archiverVersion": "0.12.0",
    }
    library = {str(p.relative_to(LIBRARY.parent)): p for p in library_files(HANDLERS)}
    files = {p.name: p for folder in (HANDLERS, bundle.path) for p in folder.iterdir() if p.is_file()} | library
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("MAR-INF/MANIFEST.json", json.dumps(manifest))
        for name, path in files.items():
            archive.writestr(name, (changed or {}).get(name) or path.read_bytes())
    return file
