"""`annotate tags --with llava`: an image-text model of transformers, such as LLaVA-1.6, on this machine.

Prompts are padded on the left: on the right a batch answers with empty or wrong text. Decoding is greedy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from authface.annotate.captioners.parity import Spoken, difference
from authface.annotate.captioners.prompts import Question
from authface.annotate.captioners.step import Said
from authface.annotate.settings import LlavaSettings
from authface.errors import AuthfaceError, UsageError, one_line
from authface.files import sha256_of
from authface.imaging import decode as images
from authface.models.families import pick_device, snapshot
from authface.records import Crop
from authface.store.photoset import PhotoSet

CUDA_BATCH = 16
REPETITION_PENALTY = 1.2
"""Of the last try (Keskar et al. 2019, CTRL)."""
PATTERNS = ("*.json", "*.txt", "*.jinja", "*.model", "*.safetensors")
"""Files of a model that decide its answers; no pickles, no code."""


@dataclass(frozen=True)
class Located:
    """Where a model's files are, and which they are: a commit of the hub, or sha256 over the folder's files."""

    folder: Path
    version: str


def locate(settings: LlavaSettings) -> Located:
    """The model's files, downloaded where it is a name on the hub. Raises UsageError, AuthfaceError."""
    name = one_line(settings.model)
    folder = Path(settings.model).expanduser()
    if folder.is_dir():
        files = sorted({path for pattern in PATTERNS for path in folder.glob(pattern)})
        if not any(path.suffix == ".safetensors" for path in files):
            raise UsageError(
                f"{name} holds no *.safetensors: give a folder with a model's config, processor and weights"
            )
        total = hashlib.sha256()
        for path in files:
            total.update(f"{path.name}\n{sha256_of(path)}\n".encode())
        return Located(folder, total.hexdigest())
    if settings.model.count("/") != 1 or settings.model.startswith(("/", ".", "~")):
        raise UsageError(f"no model {name!r}: --model takes a folder, or owner/repository of the hub")
    found = snapshot(settings.model, PATTERNS, settings.revision)
    return Located(found, found.name)


@dataclass
class Llava:
    """A captioner; see `authface.annotate.captioners.step.Captioner`."""

    settings: LlavaSettings
    question: Question
    version: str
    """Of the model's files; see `Located`."""
    device: str = "auto"
    name: str = "llava"
    _model: Any = field(default=None, repr=False)
    _processor: Any = field(default=None, repr=False)
    _text: str = ""
    """The prompt in the model's chat template."""
    _batch: int = 1
    _tested: bool = False

    @property
    def asked(self) -> dict[str, Any]:
        """Settings but those of memory and tests, and the prompt."""
        settings = self.settings.model_dump(mode="json", exclude={"batch", "self_test", "revision"})
        return {**settings, "prompt": self.question.name, "prompt_sha256": self.question.sha256}

    @property
    def weights(self) -> dict[str, str]:
        """The model's version."""
        return {self.settings.model: self.version}

    @property
    def batch_size(self) -> int:
        """As set, or by the device; less once memory ran out."""
        return self._batch

    @property
    def retries(self) -> tuple[bool, ...]:
        """Alone as before, where a batch may be to blame; then with a penalty."""
        return (False, True) if self._batch > 1 else (True,)

    def open(self) -> None:
        """Load model and processor. Raises AuthfaceError."""
        from transformers import AutoModelForImageTextToText, AutoProcessor
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        device, folder = pick_device(self.device), locate(self.settings).folder
        self._batch = self.settings.batch or (CUDA_BATCH if device.type == "cuda" else 1)
        kind = {"local_files_only": True, "trust_remote_code": False}
        try:
            self._processor = AutoProcessor.from_pretrained(str(folder), **kind)
            options = self._precision(device)
            self._model = AutoModelForImageTextToText.from_pretrained(
                str(folder), use_safetensors=True, **kind, **options
            ).eval()
            if "device_map" not in options:
                self._model.to(device)
            self._text = self._asked_text()
        except AuthfaceError:
            raise
        except Exception as error:  # a model's files and code raise nearly anything
            where = one_line(self.settings.model)
            raise AuthfaceError(f"cannot load {where}: {one_line(f'{type(error).__name__}: {error}')}") from error

    def prepare(self, photoset: PhotoSet, crop: Crop) -> NDArray[np.uint8]:
        """The crop's pixels. Raises ImageError."""
        return images.decode(photoset.read(crop.file)).rgb

    def answer(self, photos: Sequence[NDArray[np.uint8]], *, penalty: bool = False) -> list[Said]:
        """In batches that fit the memory. Raises AuthfaceError where one photo does not, or the self-test fails."""
        if not self._tested and self.settings.self_test > 1 and min(len(photos), self._batch) > 1:
            self._test(photos[: min(self.settings.self_test, self._batch)])
        said: list[Said] = []
        while len(said) < len(photos):
            batch = photos[len(said) : len(said) + self._batch]
            said += [Said(spoken.text, spoken.cut) for spoken in self._fitting(batch, penalty)]
        return said

    def _fitting(self, photos: Sequence[NDArray[np.uint8]], penalty: bool = False) -> list[Spoken]:
        """Answers to as many of the photos as the memory holds: to all, a half, a quarter."""
        import torch

        while True:
            try:
                return self._spoken(photos, penalty)
            except torch.OutOfMemoryError:
                if len(photos) == 1:
                    raise AuthfaceError(
                        "CUDA's memory does not hold the model and one photo: "
                        "set annotate.tags.llava.four_bit=true, or take a smaller model or a larger GPU"
                    ) from None
            torch.cuda.empty_cache()  # outside of the handler, which would keep the tensors of the failed try
            self._batch = len(photos) // 2
            photos = photos[: self._batch]

    def _spoken(self, photos: Sequence[NDArray[np.uint8]], penalty: bool = False, logits: bool = False) -> list[Spoken]:
        import torch

        shown = [[Image.fromarray(photo)] for photo in photos]
        begin = self._processor.tokenizer.bos_token
        inputs = self._processor(
            text=[self._text] * len(photos),
            images=shown,
            padding=True,
            return_tensors="pt",
            add_special_tokens=not (begin and self._text.startswith(begin)),  # some templates write it themselves
        )
        inputs = inputs.to(self._model.device, self._model.dtype)
        limit = self.settings.max_new_tokens
        with torch.inference_mode():
            out = self._model.generate(
                **inputs,
                do_sample=False,
                num_beams=1,
                max_new_tokens=limit,
                repetition_penalty=REPETITION_PENALTY if penalty else 1.0,
                pad_token_id=self._processor.tokenizer.pad_token_id,
                output_logits=logits,
                return_dict_in_generate=True,
            )
        new = out.sequences[:, inputs["input_ids"].shape[1] :].tolist()
        texts = self._processor.tokenizer.batch_decode(new, skip_special_tokens=True)
        ends = self._ends()
        steps = [step[0].float() for step in out.logits] if logits else []
        return [
            Spoken(text.strip(), len(ids) >= limit and not ends & set(ids), tuple(ids), steps)
            for text, ids in zip(texts, new, strict=True)
        ]

    def _test(self, photos: Sequence[NDArray[np.uint8]]) -> None:
        """Raise AuthfaceError where photos read otherwise in a batch than alone."""
        import torch

        together = self._fitting(photos)
        for at, spoken in enumerate(together):
            alone = self._spoken([photos[at]], logits=True)[0]
            if found := difference(spoken, alone, self._ends(), torch.finfo(self._model.dtype).eps):
                raise AuthfaceError(
                    f"photo {at + 1} of {len(together)} reads {one_line(spoken.text, 80)!r} in a batch and "
                    f"{one_line(found, 80)!r} alone: this model cannot batch (is it padded on the left?): set "
                    "annotate.tags.llava.batch=1, or dtype=float32; self_test=0 takes it as it is"
                )
        self._tested = True

    def _ends(self) -> set[int]:
        """Tokens that end an answer or fill what follows its end."""
        end = self._model.generation_config.eos_token_id
        ends = set(end) if isinstance(end, list) else {end}
        return {token for token in ends | {self._processor.tokenizer.pad_token_id} if token is not None}

    def _precision(self, device: Any) -> dict[str, Any]:
        import torch

        half = "bfloat16" if device.type == "cuda" else "float32"
        dtype = getattr(torch, half if self.settings.dtype == "auto" else self.settings.dtype)
        if not self.settings.four_bit:
            return {"dtype": dtype}

        from transformers import BitsAndBytesConfig

        if find_spec("bitsandbytes") is None:
            raise UsageError("annotate.tags.llava.four_bit needs bitsandbytes: pip install 'authface[4bit]'")
        quantised = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
        return {"dtype": dtype, "quantization_config": quantised, "device_map": {"": device}}

    def _asked_text(self) -> str:
        """The prompt as the model was trained to be asked."""
        tokenizer = self._processor.tokenizer
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        content = [{"type": "image"}, {"type": "text", "text": self.question.text}]
        asked = [{"role": "user", "content": content}]
        return str(self._processor.apply_chat_template(asked, add_generation_prompt=True))
