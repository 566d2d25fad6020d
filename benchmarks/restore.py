"""Seconds a face of `--preset official` beside the authors' pipeline: the same tiny weights, crop and settings.

    python benchmarks/restore.py [--theirs PATH --python PYTHON] [--rounds N] [--steps N]

Weights are random, of SDXL's shape and small, at 512 px, with 50 steps of DDPM at guidance 8, which are the released
script's. `--theirs` is a checkout of the authors' repository and PYTHON one whose packages it runs with (diffusers
0.28, transformers 4); both sides then read the weights of `age`. Without it a stock StableDiffusionXLControlNetPipeline
is called with their settings: their pipeline computes the same networks in the same steps, casts the residuals to
float16, which a U-Net of bfloat16 does not take, and decodes every face twice.

Each side is a process of its own with as many threads; they restore a face each in turn. Told are medians and their
ratio to the other side's float32, by the clock and in CPU seconds, which other work on the machine disturbs less. Ends
with 1 where authface takes more than LIMIT of the time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Literal

LIMIT = 0.58
SIZE = 512
SEED = 123
PROMPT, NEGATIVE = "realistic close-up portrait, skin pores", "painting, blur"


def make(folder: Path, aged: bool) -> None:
    """The weights: `make_tiny` at 512 px, and a ControlNet whose every layer is heard; `aged` as in `age`."""
    import torch
    from diffusers import ControlNetModel, UNet2DConditionModel

    from authface.models.families import make_tiny
    from authface.models.tiny import VAES

    make_tiny(folder, seed=1, image_size=SIZE, vae=VAES["f8c16"])
    torch.manual_seed(2)
    control = ControlNetModel.from_unet(UNet2DConditionModel.from_pretrained(folder / "unet"))
    ends = [control.controlnet_mid_block, *control.controlnet_down_blocks, control.controlnet_cond_embedding.conv_out]
    for end in ends:  # zeros as they come
        torch.nn.init.normal_(end.weight, std=0.05)
    control.save_pretrained(folder / "controlnet")
    if aged:
        age(folder)


def age(folder: Path) -> None:
    """Write the weights anew as SDXL's lie, which diffusers 0.28 and transformers 4 read as today's do.

    The VAE has attention in its middle, which that diffusers cannot leave out; the names of the first text encoder's
    weights begin with text_model; the tokenizers lie as vocab.json and merges.txt too.
    """
    import torch
    from diffusers import AutoencoderKL
    from safetensors.torch import load_file, save_file

    from authface.models.tiny import VAES, vae_config

    torch.manual_seed(3)
    AutoencoderKL(**vae_config(SIZE, VAES["f8c16"]) | {"mid_block_add_attention": True}).save_pretrained(folder / "vae")
    path = folder / "text_encoder" / "model.safetensors"
    weights = {"text_model." + name.removeprefix("text_model."): value for name, value in load_file(path).items()}
    save_file(weights, path, {"format": "pt"})
    for name in ("tokenizer", "tokenizer_2"):
        words = json.loads((folder / name / "tokenizer.json").read_text("utf-8"))["model"]
        (folder / name / "vocab.json").write_text(json.dumps(words["vocab"]), "utf-8")
        merges = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in words["merges"]), ""])
        (folder / name / "merges.txt").write_text(merges, "utf-8")


def picture() -> Any:
    """(512, 512, 3) uint8: a smooth picture, the same in every environment."""
    import numpy as np

    y, x = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    return np.rint(127.5 + 127.5 * np.sin(np.stack([9 * x + y, 7 * y, 5 * (x - y)], -1))).astype(np.uint8)


def ours(folder: Path, dtype: Literal["float32", "bfloat16"], steps: int) -> Any:
    """A function that restores a face and returns its latents."""
    from authface.restore.model import diffusion as sampler
    from authface.restore.model import restorer
    from authface.restore.settings import RestoreSettings

    settings = RestoreSettings(
        model=str(folder), preset="official", prompt=PROMPT, negative_prompt=NEGATIVE, steps=steps, dtype=dtype
    )  # fmt: skip
    model = restorer.load_restorer(restorer.find_weights(str(folder)), settings, "cpu")
    assert isinstance(model, sampler.DiffusionRestorer)
    seen: list[Any] = []
    denoise = model._denoise

    def noted(*given: Any) -> Any:
        seen.append(denoise(*given))
        return seen[-1]

    model._denoise = noted  # type: ignore[method-assign, assignment]

    def restore() -> Any:
        model._shared.manual_seed(SEED)  # type: ignore[union-attr]
        model.restore(picture()[None], [0])
        return seen.pop()

    return restore


def theirs(folder: Path, dtype: str, steps: int, code: str) -> Any:
    """The same by the authors' classes in the checkout `code`, or by stock ones where it is empty."""
    import torch
    from diffusers import AutoencoderKL, DDPMScheduler
    from PIL import Image
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    if code:
        sys.path.insert(0, code)
        from models.controlnet_xl import ControlNetModel
        from models.unet_2d_condition_xl import UNet2DConditionModel
        from pipelines.pipeline_xl import StableDiffusionXLControlNetPipeline
    else:
        from diffusers import ControlNetModel, StableDiffusionXLControlNetPipeline, UNet2DConditionModel
    kinds = {
        "unet": UNet2DConditionModel, "controlnet": ControlNetModel, "vae": AutoencoderKL, "scheduler": DDPMScheduler,
        "text_encoder": CLIPTextModel, "text_encoder_2": CLIPTextModelWithProjection,
        "tokenizer": CLIPTokenizer, "tokenizer_2": CLIPTokenizer,
    }  # fmt: skip
    parts = {name: kind.from_pretrained(str(folder), subfolder=name) for name, kind in kinds.items()}
    for name in ("unet", "controlnet", "text_encoder", "text_encoder_2"):
        parts[name].to(getattr(torch, dtype)).eval()
    pipeline = StableDiffusionXLControlNetPipeline(**parts, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    photo = Image.fromarray(picture())
    last: dict[str, Any] = {}

    def restore() -> Any:
        call: dict[str, Any] = {
            "prompt": [PROMPT], "negative_prompt": [NEGATIVE], "image": [photo], "num_inference_steps": steps,
            "guidance_scale": 8.0, "height": SIZE, "width": SIZE, "generator": torch.Generator().manual_seed(SEED),
        }  # fmt: skip
        if code:
            pipeline(**call, callback=lambda step, time, latents: last.update(latents=latents))
            return last["latents"]
        latents = pipeline(**call, output_type="latent").images.float()
        with torch.inference_mode():  # their VAE is of float32, which a stock pipeline would not feed
            pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor)
        return latents

    return restore


def work(given: argparse.Namespace) -> None:
    """A side's process: restores a face for each line of standard input and tells its seconds; saves the latents."""
    import numpy as np

    who, dtype, folder = given.work
    own = (Path(folder), dtype, given.steps)
    run = ours(*own) if who == "ours" else theirs(*own, given.theirs)
    print("ready", flush=True)
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        latents = run()
        told = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        np.save(line.strip(), latents.numpy())
        print(json.dumps(told), flush=True)


class Side:
    """One of the processes, and what it told of its rounds."""

    def __init__(self, who: str, dtype: str, home: Path, given: argparse.Namespace) -> None:
        theirs = given.theirs or "stock pipeline, the authors' settings"
        self.name = f"{'authface' if who == 'ours' else theirs}, {dtype}"
        self.latents = home / f"{who}-{dtype}.npy"
        self.rounds: list[dict[str, float]] = []
        python = sys.executable if who == "ours" else given.python
        command = [python, __file__, "--work", who, dtype, str(home / "model"), "--steps", str(given.steps)]
        self.process = subprocess.Popen(
            [*command, "--theirs", given.theirs], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            env=os.environ | {"OMP_WAIT_POLICY": "PASSIVE"},
        )  # fmt: skip
        self._read()

    def _read(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def round(self) -> None:
        """Restore a face."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{self.latents}\n")
        self.process.stdin.flush()
        self.rounds.append(json.loads(self._read()))

    def seconds(self, clock: str) -> float:
        """The median, of `wall` or `cpu`."""
        return statistics.median(told[clock] for told in self.rounds)


def compare(home: Path, given: argparse.Namespace) -> int:
    """Run the sides in turn, print seconds, ratios and how far the latents differ; 1 where a ratio is above LIMIT."""
    import numpy as np

    kinds = [("theirs", "float32"), ("ours", "float32"), ("ours", "bfloat16")]
    kinds += [] if given.theirs else [("theirs", "bfloat16")]
    sides = [Side(who, dtype, home, given) for who, dtype in kinds]
    for _ in range(given.rounds):
        for side in sides:
            side.round()
    base, *others = sides
    for side in sides:
        side.process.communicate()
        wall, cpu = side.seconds("wall"), side.seconds("cpu")
        line = f"{wall:7.2f} s, {cpu:7.2f} CPU s: {side.name}"
        if side is not base:
            apart = np.abs(np.load(side.latents) - np.load(base.latents))
            line += f"; ratio {wall / base.seconds('wall'):.3f}, CPU {cpu / base.seconds('cpu'):.3f}"
            line += f"; latents differ by {apart.max():.1e} at most, {apart.mean():.1e} on average"
        print(line)
    return int(any(side.seconds("wall") > LIMIT * base.seconds("wall") for side in others[:2]))


def main() -> int:
    """Make the weights and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--theirs", default="", help="a checkout of the authors' repository")
    parser.add_argument("--python", default=sys.executable, help="the Python of its environment")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--work", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(given)
        return 0
    with tempfile.TemporaryDirectory() as home:
        make(Path(home) / "model", aged=bool(given.theirs))
        return compare(Path(home), given)


if __name__ == "__main__":
    raise SystemExit(main())
