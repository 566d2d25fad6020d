"""What `authface estimate` counts against a real forward and backward of the tiny U-Net on the CPU, float32.

    python benchmarks/estimate.py [SIZE [BATCH]]

The real pass runs in a process of its own: its weights and its pass are what its peak memory grows by. Memory of the
real one holds what no count sees: workspaces of convolutions, and what malloc keeps.
"""

import json
import os
import subprocess
import sys
import time
from typing import Any

REAL = """
import ctypes, gc, json, resource, sys, time
import torch
from diffusers import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode
from authface.models.tiny import unet_config

size, batch = int(sys.argv[1]), int(sys.argv[2])
now = lambda: int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
most = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

def step(unet, n, side):
    noisy, states = torch.randn(n, unet.config.in_channels, side, side), torch.randn(n, 77, 128)
    added = {"text_embeds": torch.randn(n, 64), "time_ids": torch.zeros(n, 6)}
    timesteps = torch.zeros(n, dtype=torch.long)
    guess = unet(noisy, timesteps, encoder_hidden_states=states, added_cond_kwargs=added).sample
    torch.nn.functional.mse_loss(guess, noisy).backward()

torch.manual_seed(0)
with FlopCounterMode(display=False) as flops:  # small: what libraries allocate once is there before measuring
    small = UNet2DConditionModel(**unet_config(64)).train()
    step(small, 1, small.config.sample_size)
gc.collect()
ctypes.CDLL(None).malloc_trim(0)
start = now()
unet = UNet2DConditionModel(**unet_config(size)).train()
for p in unet.parameters():
    p.data.normal_(std=0.02)
weights = now() - start
for p in unet.parameters():
    p.grad = torch.zeros_like(p).add_(1)
gradients = now() - start - weights
before = now()
begun = time.perf_counter()
step(unet, batch, unet.config.sample_size)
seconds = time.perf_counter() - begun
peak = most() - before
with FlopCounterMode(display=False) as flops:
    step(unet, batch, unet.config.sample_size)
print(json.dumps({"weights, MB": weights / 1e6, "gradients, MB": gradients / 1e6, "seconds": seconds,
                  "forward and backward, MB": peak / 1e6, "GFLOP a micro-batch": flops.get_total_flops() / 1e9}))
"""


def counted(size: int, batch: int) -> dict[str, float]:
    """The same figures without running anything."""
    from authface.train.estimate.estimate import Estimator
    from authface.train.estimate.stages import find_architecture
    from authface.train.settings import PriorSettings

    settings = PriorSettings(size=size, batch=batch, accumulate=2)  # gradients are there before the pass
    found = Estimator(find_architecture("new", size, {}), half=False).count(settings)
    parts = found.memory.parts["backward"]
    return {
        "weights, MB": parts["trained weights"] / 1e6,
        "gradients, MB": parts["gradients"] / 1e6,
        "forward and backward, MB": parts["activations"] / 1e6,
        "GFLOP a micro-batch": found.flops / 1e9,
    }


def real(size: int, batch: int) -> dict[str, Any]:
    """One pass in a fresh process, where memory that is freed goes back at once."""
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    environment["OMP_WAIT_POLICY"] = "PASSIVE"
    command = [sys.executable, "-c", REAL, str(size), str(batch)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    measured: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return measured


def main(size: int, batch: int) -> int:
    """Print counted, measured and their ratio; 1 where they differ by more than a third."""
    begun = time.perf_counter()
    ours = counted(size, batch)
    seconds = time.perf_counter() - begun
    theirs = real(size, batch)
    print(f"tiny, {size} px, batch {batch}, float32: counted in {seconds:.1f} s, run in {theirs['seconds']:.1f} s")
    print(f"{'':26}{'counted':>10}{'measured':>10}{'ratio':>8}")
    for name, value in ours.items():
        print(f"{name:26}{value:10.1f}{theirs[name]:10.1f}{value / theirs[name]:8.3f}")
    return int(any(not 0.75 < value / theirs[name] < 4 / 3 for name, value in ours.items()))


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[1:3]]
    raise SystemExit(main(*[*given, *(256, 8)[len(given) :]]))
