"""`annotate tags --with llava`: an image-text model of transformers, such as LLaVA-1.6, on this machine.

Prompts are padded on the left: on the right a batch answers with empty or wrong text. Decoding is greedy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from authface.annotate.captioners.captioner import Caption, Captioner, CaptionerRequest, CaptionPrompt, load_prompt
from authface.annotate.settings import LlavaSettings
from authface.devices import pick_device
from authface.errors import AuthfaceError, UsageError, one_line
from authface.extras import need
from authface.files import sha256_of
from authface.models.families import snapshot

if TYPE_CHECKING:
    import torch

CUDA_BATCH = 16
REPETITION_PENALTY = 1.2
"""Of the last try (Keskar et al. 2019, CTRL)."""
PATTERNS = ("*.json", "*.txt", "*.jinja", "*.model", "*.safetensors")
"""Files of a model that decide its answers; no pickles, no code."""
ROUNDING = 4
"""Rounding errors of a logit, in units of the largest logit's last digit: a batch sums in another order."""


@dataclass(frozen=True)
class ModelFiles:
    """A model's folder, and its version: a commit of the hub, or sha256 over the folder's files."""

    folder: Path
    version: str


def find_model(settings: LlavaSettings) -> ModelFiles:
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
        return ModelFiles(folder, total.hexdigest())
    if settings.model.count("/") != 1 or settings.model.startswith(("/", ".", "~")):
        raise UsageError(f"no model {name!r}: --model takes a folder, or owner/repository of the hub")
    found = snapshot(settings.model, PATTERNS, settings.revision)
    return ModelFiles(found, found.name)


@dataclass(frozen=True, slots=True)
class Generated:
    """What a model generated for one photo."""

    text: str
    truncated: bool
    """It reached the limit of tokens."""
    ids: tuple[int, ...]
    """New tokens, with those that end and fill."""
    logits: list[torch.Tensor] = field(default_factory=list)
    """(vocabulary,) float32 for each new token, where it was asked for alone."""


@dataclass
class Llava(Captioner):
    """An image-text model on this machine."""

    settings: LlavaSettings
    prompt: CaptionPrompt
    version: str
    """Of the model's files; see `ModelFiles`."""
    device: str = "auto"
    _model: Any = field(default=None, repr=False)
    _processor: Any = field(default=None, repr=False)
    _text: str = ""
    """The prompt in the model's chat template."""
    _tested: bool = False

    name = "llava"
    gpu = True

    @classmethod
    def make(cls, request: CaptionerRequest) -> Self:
        """Of the settings' `llava` and `prompt`."""
        need("annotate tags --with llava", "annotate", "torch", "transformers")
        if request.settings.llava.four_bit:
            need("annotate.tags.llava.four_bit", "4bit", "bitsandbytes")
        settings = request.settings
        version = find_model(settings.llava).version
        return cls(settings.llava, load_prompt(settings.prompt), version, request.device)

    def __post_init__(self) -> None:
        settings = self.settings.model_dump(mode="json", exclude={"batch", "self_test", "revision"})
        self.parameters = settings | self.prompt.parameters
        self.weights = {self.settings.model: self.version}
        self._set_batch(1)

    def open(self) -> None:
        """Load model and processor. Raises AuthfaceError."""
        from transformers import AutoModelForImageTextToText, AutoProcessor
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        device, folder = pick_device(self.device), find_model(self.settings).folder
        self._set_batch(self.settings.batch or (CUDA_BATCH if device.type == "cuda" else 1))
        kind = {"local_files_only": True, "trust_remote_code": False}
        try:
            self._processor = AutoProcessor.from_pretrained(str(folder), **kind)
            options = self._precision(device)
            self._model = AutoModelForImageTextToText.from_pretrained(
                str(folder), use_safetensors=True, **kind, **options
            ).eval()
            if "device_map" not in options:
                self._model.to(device)
            self._text = self._chat_text()
        except AuthfaceError:
            raise
        except Exception as error:  # a model's files and code raise nearly anything
            where = one_line(self.settings.model)
            raise AuthfaceError(f"cannot load {where}: {one_line(f'{type(error).__name__}: {error}')}") from error

    def answer(self, photos: Sequence[NDArray[np.uint8]], *, penalty: bool = False) -> list[Caption]:
        """In batches that fit the memory. Raises AuthfaceError where one photo does not, or the self-test fails."""
        if not self._tested and self.settings.self_test > 1 and min(len(photos), self.batch_size) > 1:
            self._test(photos[: min(self.settings.self_test, self.batch_size)])
        captions: list[Caption] = []
        while len(captions) < len(photos):
            batch = photos[len(captions) : len(captions) + self.batch_size]
            captions += [Caption(found.text, found.truncated) for found in self._generate_fitting(batch, penalty)]
        return captions

    def _set_batch(self, size: int) -> None:
        """Set the batch's size: where a batch may be to blame for a bad caption, the photo is first tried alone."""
        self.batch_size = size
        self.retries = (False, True) if size > 1 else (True,)

    def _generate_fitting(self, photos: Sequence[NDArray[np.uint8]], penalty: bool = False) -> list[Generated]:
        """Answers to as many of the photos as the memory holds: to all, a half, a quarter."""
        import torch

        while True:
            try:
                return self._generate(photos, penalty)
            except torch.OutOfMemoryError:
                if len(photos) == 1:
                    raise AuthfaceError(
                        "CUDA's memory does not hold the model and one photo: "
                        "set annotate.tags.llava.four_bit=true, or take a smaller model or a larger GPU"
                    ) from None
            torch.cuda.empty_cache()  # outside of the handler, which would keep the tensors of the failed try
            self._set_batch(len(photos) // 2)
            photos = photos[: self.batch_size]

    def _generate(
        self, photos: Sequence[NDArray[np.uint8]], penalty: bool = False, logits: bool = False
    ) -> list[Generated]:
        import torch

        begin = self._processor.tokenizer.bos_token
        inputs = self._processor(
            text=[self._text] * len(photos),
            images=[[Image.fromarray(photo)] for photo in photos],
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
            Generated(text.strip(), len(ids) >= limit and not ends & set(ids), tuple(ids), steps)
            for text, ids in zip(texts, new, strict=True)
        ]

    def _test(self, photos: Sequence[NDArray[np.uint8]]) -> None:
        """Raise AuthfaceError where photos read otherwise in a batch than alone."""
        import torch

        together = self._generate_fitting(photos)
        for at, batched in enumerate(together):
            alone = self._generate([photos[at]], logits=True)[0]
            if found := difference(batched, alone, self._ends(), torch.finfo(self._model.dtype).eps):
                raise AuthfaceError(
                    f"photo {at + 1} of {len(together)} reads {one_line(batched.text, 80)!r} in a batch and "
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

        quantised = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
        return {"dtype": dtype, "quantization_config": quantised, "device_map": {"": device}}

    def _chat_text(self) -> str:
        """The prompt in the chat template that the model was trained with."""
        tokenizer = self._processor.tokenizer
        tokenizer.padding_side = "left"
        if tokenizer.pad_token is None:
            tokenizer.pad_token = tokenizer.eos_token
        content = [{"type": "image"}, {"type": "text", "text": self.prompt.text}]
        chat = [{"role": "user", "content": content}]
        return str(self._processor.apply_chat_template(chat, add_generation_prompt=True))


def difference(together: Generated, alone: Generated, ends: Collection[int], epsilon: float) -> str:
    """The text alone where it differs from that of the batch by more than rounding, else nothing.

    Where both first part, a tie is rounding: the logits of their two tokens, alone, are as near as `epsilon` (of the
    model's numbers) allows. Behind a tie every difference is possible.
    """
    ours, theirs = _ended(together.ids, ends), _ended(alone.ids, ends)
    if ours == theirs:
        return ""
    at = next((i for i, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), -1)
    if 0 <= at < len(alone.logits):
        logits = alone.logits[at]
        gap = float(abs(logits[theirs[at]] - logits[ours[at]]))
        if gap <= ROUNDING * epsilon * float(logits.abs().max()):
            return ""
    return alone.text or "(nothing)"


def _ended(ids: tuple[int, ...], ends: Collection[int]) -> tuple[int, ...]:
    """The tokens up to and with the first that ends them."""
    end = next((at + 1 for at, token in enumerate(ids) if token in ends), len(ids))
    return ids[:end]
