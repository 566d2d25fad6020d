"""A tiny LLaVA-1.6 whose words are tags, and a photo set of small crops."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from authface.annotate.vocabulary.vocabulary import GROUP_OF
from authface.imaging import decode as images
from authface.records import Crop, Face, Photo
from authface.store.photoset import PhotoSet, Provenance

SIZES = ((64, 64), (128, 128), (100, 128), (128, 70), (64, 64), (120, 60))
"""Height and width of the crops: LLaVA-NeXT makes prompts of different lengths of them."""
MADE = Provenance("made for a test", 1, {}, {})


@pytest.fixture(scope="session")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a whole LLaVA-NeXT of random weights."""
    folder = tmp_path_factory.mktemp("model") / "llava"
    save_tiny_llava(folder)
    return folder


@pytest.fixture
def photoset(tmp_path: Path) -> PhotoSet:
    """A set of two parts with two and four crops."""
    return crops_of(tmp_path / "set", SIZES[:2], SIZES[2:])


def crops_of(root: Path, *parts: Sequence[tuple[int, int]]) -> PhotoSet:
    """A set whose parts have crops of these heights and widths, all noise."""
    photoset = PhotoSet(root)
    rng = np.random.default_rng(0)
    for part, sizes in enumerate(parts):
        photos, faces, crops = [], [], []
        for place, size in enumerate(sizes):
            photo_id = f"{part:x}{place}".ljust(64, "a")
            file = photoset.crop_file(f"{photo_id}-0")
            photoset.save(file, images.encode_png(rng.integers(0, 255, (*size, 3), dtype=np.uint8)))
            photos.append(Photo(id=photo_id, source="folder", source_id=f"{part}/{place}.png", file=file))
            faces.append(Face(id=f"{photo_id}-0", photo_id=photo_id, photo_file=file, index=0))
            crops.append(Crop(id=f"{photo_id}-0", photo_id=photo_id, file=file, size=size[1]))
        photoset.photos.write(part, photos, MADE, "")
        photoset.faces.write(part, faces, MADE, "")
        photoset.crops.write(part, crops, MADE, "")
    return photoset


TEMPLATE = (
    "{% for message in messages %}[INST] {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %} [/INST]{% endfor %}"
)


def tag_tokenizer() -> Any:
    """One token a tag of the vocabulary with its comma; every word of a prompt is the same unknown token."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    words = ["<s>", "</s>", "<pad>", "<unk>", "<image>", *(f"{name}," for name in GROUP_OF)]
    inner = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=["<image>"],
        model_max_length=4096,
    )


def save_tiny_llava(folder: Path, seed: int = 0) -> None:
    """Write a processor and a model with random weights, which loads like any LLaVA-NeXT."""
    import torch
    from transformers import (
        CLIPVisionConfig,
        GenerationConfig,
        LlavaNextConfig,
        LlavaNextForConditionalGeneration,
        LlavaNextImageProcessor,
        LlavaNextProcessor,
        MistralConfig,
    )  # fmt: skip

    tokenizer = tag_tokenizer()
    pinpoints = [[56, 112], [112, 56], [112, 112]]
    size = {"shortest_edge": 56}
    images = LlavaNextImageProcessor(size=size, crop_size={"height": 56, "width": 56}, image_grid_pinpoints=pinpoints)
    processor = LlavaNextProcessor(
        images,
        tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )
    vision = CLIPVisionConfig(
        image_size=56, patch_size=14, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2
    )
    text = MistralConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, initializer_range=0.5, max_position_embeddings=4096,
    )  # fmt: skip
    config = LlavaNextConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=pinpoints,
        image_seq_length=16,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlavaNextForConditionalGeneration(config)
    model.generation_config = GenerationConfig(bos_token_id=0, eos_token_id=1, pad_token_id=2)
    model.save_pretrained(str(folder))
    processor.save_pretrained(str(folder))
