"""Measure the error of one member of the phantom model against the number of training steps.

    python benchmarks/training_time.py build/training-time --steps 750 1500 3000 6000

Members are trained as with preset demo, with fewer or more steps, each with the complete learning rate schedule. The
error is the root mean square of log(predicted / true) of the midpoint on phantoms that no member saw. The phantoms are
stored as layers, to which new noise in the usual range is added; each is read once, and as the mean of eight readings
with different noise. ``--data`` reuses the training phantoms of an earlier run.
"""

import argparse
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from measuring import machine, machine_line, save, show

from radlens.cli.console import stages
from radlens.families.cdmam.training import PRESETS
from radlens.families.cdmam.training_layers import NOISE_LEVELS, LayerSet, build_layers
from radlens.families.cdmam.training_registered import RegisteredPreset, prepare, train_member
from radlens.networks import CdmamNet

TEST_SEED, N_READINGS = 77, 8


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder for phantoms and results, from which the command resumes")
    parser.add_argument("--steps", type=int, nargs="+", default=[750, 1500, 3000, 6000], help="numbers of steps")
    parser.add_argument("--data", type=Path, help="folder of a run whose training phantoms are reused")
    parser.add_argument("--test", type=int, default=200, help="number of test phantoms (default 200)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    preset = PRESETS["demo"]
    assert isinstance(preset, RegisteredPreset), "the demo preset is of the registered recipe"
    run = options.data or options.folder
    with stages() as report:
        prepare(run, preset, partial(report, "drawing phantoms"))
        test = build_layers(options.folder / "test", options.test, TEST_SEED)
        rows = []
        for steps in options.steps:
            file = options.folder / f"{steps}.json"
            if not file.exists():
                checkpoint = options.folder / f"{steps}.checkpoint.pt"
                chosen = replace(preset, n_steps=steps)
                net, seconds = train_member(run, checkpoint, 0, chosen, "cpu", partial(report, f"{steps} steps"))
                checkpoint.unlink(missing_ok=True)
                file.write_text(json.dumps({"steps": steps, "minutes": seconds / 60, **errors(net, test)}))
            rows.append(json.loads(file.read_text()))
    print(machine_line(machine()))
    show("Error of the midpoint of one member", list(rows[0]), [list(row.values()) for row in rows])
    if options.output is not None:
        save(options.output, {"machine": machine(), "n_test": options.test, "rows": rows})


@torch.no_grad()
def errors(net: CdmamNet, test: LayerSet) -> dict[str, float]:
    """Return the errors of single readings and of means of several."""
    logs = np.empty((len(test), N_READINGS))
    for k in range(len(test)):
        rng = np.random.default_rng([TEST_SEED, k])
        level = float(np.exp(rng.uniform(*np.log(NOISE_LEVELS))))
        images, labels = zip(*(test.image_at(k, level, rng) for _ in range(N_READINGS)), strict=True)
        curves = net(torch.from_numpy(np.stack(images))[:, None])[0].exp().mean(dim=1).double().numpy()
        logs[k] = np.log(curves / np.exp(labels[0]).mean())
    single = float(np.sqrt(np.mean(logs**2)))
    averaged = float(np.sqrt(np.mean(logs.mean(axis=1) ** 2)))
    return {"one reading": single, "mean of 8": averaged}


if __name__ == "__main__":
    main()
