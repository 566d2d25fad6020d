"""What docs/builtin.md reports beside `authface evaluate`: the classical baseline, the sheet of triples, the prompts.

python benchmarks/builtin.py sharpen sets/medium/degraded out/sharpened
python benchmarks/builtin.py sheet sets/medium out/default sheet.png
python benchmarks/builtin.py steer MODEL steer.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np

TRIPLES = 24
SAMPLES = 24
"""Of each prompt; the same noise for both prompts of a pair."""
STEPS = 12
PAIRS = (
    ("smiling", "smiling, mouth open", "mouth closed"),
    ("light from the left", "light from the left", "light from the right"),
    ("light from the right", "light from the right", "light from the left"),
    ("black and white", "black and white", "vivid colours"),
)
"""The tag that is counted, and what is asked of the first and the second half."""
COMMON = "close-up portrait, facing the camera, looking at the camera"


def sharpen(source: Path, out: Path) -> None:
    """The classical baseline: the degraded faces, bicubic to 256 px where they are smaller, and an unsharp mask."""
    out.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.glob("*.png")):
        image = cv2.imread(str(path))
        image = cv2.resize(image, (256, 256), interpolation=cv2.INTER_CUBIC) if len(image) < 256 else image
        soft = cv2.GaussianBlur(image, (0, 0), 2).astype(np.float32)
        sharp = np.clip(np.rint(image + 0.8 * (image - soft)), 0, 255).astype(np.uint8)
        cv2.imwrite(str(out / path.name), sharp)


def sheet(pairs: Path, restored: Path, out: Path) -> None:
    """Degraded, restored, clean of every so many-th face, three triples a row: chosen by place alone."""
    names = [path.name for path in sorted((pairs / "clean").glob("*.png"))]
    chosen = [names[i] for i in np.linspace(0, len(names) - 1, TRIPLES).astype(int)]
    triples = [
        np.hstack([cv2.imread(str(folder / name)) for folder in (pairs / "degraded", restored, pairs / "clean")])
        for name in chosen
    ]
    gap = np.full((triples[0].shape[0], 16, 3), 255, np.uint8)
    rows = [np.hstack([triples[i], gap, triples[i + 1], gap, triples[i + 2]]) for i in range(0, TRIPLES, 3)]
    cv2.imwrite(str(out), np.vstack(rows))


def steer(model: str, out: Path) -> None:
    """Sample faces by prompt from the prior, measure their tags, and print how many have the one asked for."""
    import torch

    from authface.annotate.measured import measure, tags
    from authface.annotate.settings import MeasuredSettings
    from authface.faces.detector import RetinaFace
    from authface.faces.landmarks import Dlib68
    from authface.models import load, resolve

    parts = load(resolve(model), ("unet", "vae", "scheduler", "tokenizer", "tokenizer_2", "text_encoder",
                                  "text_encoder_2"), "cpu", torch.float32)  # fmt: skip
    detector, landmarker = RetinaFace(0.5), Dlib68()
    shown = []
    for tag, *asked in PAIRS:
        for prompt in asked:
            faces = sample(parts, f"{COMMON}, {prompt}")
            found, seen = 0, 0
            for rgb in faces:
                detections = detector.detect(rgb)
                if not detections:
                    continue
                seen += 1
                measured = measure(rgb, landmarker.landmarks(rgb, detections[0]))
                found += any(said.name == tag for said in tags(measured, MeasuredSettings()))
            print(f"{prompt!r}: {tag!r} measured in {found} of {seen} faces found in {SAMPLES} samples", flush=True)
            shown.append(np.hstack(list(faces[:8])))
    cv2.imwrite(str(out), np.vstack(shown)[..., ::-1])


def sample(parts, prompt):  # type: ignore[no-untyped-def]  # of a script
    """(SAMPLES, side, side, 3) faces of one prompt, DDIM, guidance 3."""
    import torch
    from diffusers import DDIMScheduler, StableDiffusionXLPipeline

    from authface import sdxl

    text = sdxl.encode_prompts(parts, [prompt, ""])
    scheduler = DDIMScheduler.from_config(parts.scheduler.config, clip_sample=False, timestep_spacing="trailing")
    pipeline = StableDiffusionXLPipeline(
        vae=parts.vae, text_encoder=None, text_encoder_2=None, tokenizer=None, tokenizer_2=None, unet=parts.unet,
        scheduler=scheduler, add_watermarker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    size = parts.unet.config.sample_size * 8
    made = []
    for first in range(0, SAMPLES, 8):
        latents = pipeline(
            prompt_embeds=text.states[:1].expand(8, -1, -1), pooled_prompt_embeds=text.pooled[:1].expand(8, -1),
            negative_prompt_embeds=text.states[1:].expand(8, -1, -1),
            negative_pooled_prompt_embeds=text.pooled[1:].expand(8, -1),
            height=size, width=size, num_inference_steps=STEPS, guidance_scale=3.0, output_type="latent",
            generator=[torch.Generator().manual_seed(first + i) for i in range(8)],
        ).images  # fmt: skip
        with torch.inference_mode():
            made += [sdxl.to_rgb(sdxl.decode(parts.vae, one[None]))[0] for one in latents]
    return np.stack(made)


def main() -> None:
    """One of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("sharpen", "sheet", "steer"))
    parser.add_argument("arguments", nargs="+")
    given = parser.parse_args()
    if given.what == "steer":
        steer(given.arguments[0], Path(given.arguments[1]))
    else:
        {"sharpen": sharpen, "sheet": sheet}[given.what](*map(Path, given.arguments))


if __name__ == "__main__":
    main()
