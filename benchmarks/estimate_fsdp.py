"""What `authface estimate train prior --sharding fsdp` counts, against an FSDP2 run of the tiny family on CPUs.

    python benchmarks/estimate_fsdp.py DATASET [PROCESSES [SIZE [BATCH [ACCUMULATE]]]]

Stage I is trained for three steps by `authface train prior`'s own code in PROCESSES processes. In the third the
allocator's calls are recorded (torch.profiler), so bytes are those of tensors, exactly; libraries are not among them.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
REAL = """
import json, sys
from pathlib import Path
import torch
from torch.profiler import ProfilerActivity, profile
from authface.console import Console
from authface.devices import rank
from authface.train import loop
from authface.train.prior import train_prior
from authface.train.settings import PriorSettings

settings, out = PriorSettings(**json.loads(sys.argv[1])), Path(sys.argv[2])
found = {}
local = lambda tensor: tensor.to_local() if hasattr(tensor, "to_local") else tensor
size = lambda tensors: sum(local(t).numel() * t.element_size() for t in tensors)  # gradients share storages

def growth(recorded):
    events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    alive = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        alive += event.nbytes()
        most = max(most, alive)
    return most

plain = loop.Trainer._gradient

def gradient(self, batches, numbers):
    if self.step != 2:
        return plain(self, batches, numbers)
    state = self.optimizer.optimizer.state if hasattr(self.optimizer, "optimizer") else self.optimizer.state
    found["trained weights"] = size(self.parameters)
    found["optimizer's moments"] = size(v for one in state.values() for v in one.values() if v.ndim)
    found["moving average"] = size(self.ema._average)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        means = plain(self, batches, numbers)
    found["pass"] = growth(recorded)
    found["gradients after it"] = size(p.grad for p in self.parameters if p.grad is not None)
    return means

loop.Trainer._gradient = gradient
train_prior(settings, Console(), "cpu")
(out / f"{rank()}.json").write_text(json.dumps(found))
"""


def counted(family: Path, settings: Any, processes: int) -> dict[str, int]:
    """The same figures without running anything."""
    from authface.train.estimate.estimate import Estimator
    from authface.train.estimate.stages import find_architecture

    architecture = find_architecture(str(family), settings.size, {})
    sharding = "fsdp" if processes > 1 else "none"
    memory = Estimator(architecture, half=False, processes=processes, sharding=sharding).count(settings).memory
    back = memory.parts["backward"]
    passed = ("gathered weights", "gradients", "copies in bfloat16", "activations")
    return {
        **{name: back[name] for name in ("trained weights", "optimizer's moments", "moving average")},
        "gradients after it": memory.parts["step"]["gradients"],
        "pass": sum(back.get(name, 0) for name in passed),
    }


def real(settings: dict[str, Any], processes: int, out: Path) -> dict[str, int]:
    """Of the process that has most; one in this many is launched as a user does."""
    script = out / "real.py"
    script.write_text(REAL)
    launch = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        str(ROOT / "train/configs/fsdp.yaml"),
    ]
    launch += ["--num_processes", str(processes), "--main_process_port", "0"]
    command = [*(launch if processes > 1 else [sys.executable]), str(script), json.dumps(settings), str(out)]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=ROOT, stdout=subprocess.DEVNULL)
    found = [json.loads(path.read_text()) for path in sorted(out.glob("*.json"))]
    assert len(found) == processes
    return {name: max(one[name] for one in found) for name in found[0]}


def main(dataset: str, processes: int = 2, size: int = 128, batch: int = 4, accumulate: int = 1) -> int:
    """Print counted, measured and their ratio; 1 where they differ by more than a third."""
    from authface.models.families import make_tiny
    from authface.train.settings import PriorSettings

    with tempfile.TemporaryDirectory() as home:
        family, out = Path(home) / "tiny", Path(home) / "out"
        out.mkdir()
        make_tiny(family, seed=0, image_size=size)
        given = {"model": str(family), "dataset": dataset, "out": str(Path(home) / "trained"), "size": size, "steps": 3}
        given |= {"batch": batch, "accumulate": accumulate, "validate_every": 0, "tracker": "none", "precision": "fp32"}
        ours, theirs = counted(family, PriorSettings(**given), processes), real(given, processes, out)
    print(f"tiny, {size} px, batch {batch} x {accumulate}, float32, {processes} processes; MB on the fullest")
    print(f"{'':26}{'counted':>10}{'measured':>10}{'ratio':>8}")
    for name, value in ours.items():
        print(f"{name:26}{value / 1e6:10.1f}{theirs[name] / 1e6:10.1f}{value / theirs[name]:8.3f}")
    return int(any(not 0.75 < value / theirs[name] < 4 / 3 for name, value in ours.items()))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], *map(int, sys.argv[2:])))
