"""One TorchScript module as a file that depends on the module alone: two exports of a model are equal byte for byte.

``torch.jit.save`` also writes where each line of the model and of its callers stood, with the paths of this machine,
and numbers classes in the order in which the process made them. The first is left out, the second starts at 0.
"""

import io
import re
import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

__all__ = ["save_traced"]

_NUMBER = re.compile(rb"(?<=___torch_mangle_)\d+")
"""Number of a class in names of files and in code; in pickles it stands in lines without a length (opcode GLOBAL)."""

_OF_THE_PROCESS = (".debug_pkl", ".data/serialization_id")
"""Ends of the names of entries that are not needed: line numbers, and a hash of all entries."""

_CODE = (".py", ".pkl")


def save_traced(module: nn.Module, images: Tensor, file: Path) -> None:
    """Trace a module in evaluation mode with example ``images`` and write it to ``file``."""
    with torch.no_grad(), warnings.catch_warnings():
        # Of sizes that a trace fixes; who writes the file compares it with the module.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        # The first class of a name has no number, so another trace takes all names beforehand.
        torch.jit.trace(module, images, check_trace=False)
        traced = torch.jit.trace(module, images, check_trace=False)
    saved = io.BytesIO()
    torch.jit.save(traced, saved)
    with zipfile.ZipFile(saved) as entries:
        contents = {name: entries.read(name) for name in entries.namelist() if not name.endswith(_OF_THE_PROCESS)}
    found = {int(number) for name in contents for number in _NUMBER.findall(name.encode())}
    numbers = {b"%d" % number: b"%d" % place for place, number in enumerate(sorted(found))}

    def renumbered(text: bytes) -> bytes:
        return _NUMBER.sub(lambda match: numbers[match[0]], text)

    with zipfile.ZipFile(file, "w") as written:
        for name, content in contents.items():
            # Without a time: that of an entry is 1980 then.
            entry = zipfile.ZipInfo(renumbered(name.encode()).decode())
            written.writestr(entry, renumbered(content) if name.endswith(_CODE) else content)
