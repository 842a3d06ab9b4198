"""Presets: a complete EditMGT pipeline of given dimensions with fresh weights.

Presets are the files of `configs/model/`. Nothing is downloaded: the tokenizers of a fresh model read bytes.
"""

from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import yaml

from crispedit import torchvision_ops as torchvision_ops  # before diffusers and transformers
from crispedit import weights
from crispedit.editmgt.pipeline import EditMGTPipeline, load_text, load_vq
from crispedit.editmgt.text import TextEncoder
from crispedit.editmgt.transformer import Transformer, TransformerConfig
from crispedit.editmgt.vq import VQ

PRESETS = Path(str(resources.files("crispedit.configs"))) / "model"

CLIP_TOKENS = 77
BOS, EOS, PAD = 256, 257, 258


def read_preset(name: str | Path) -> dict[str, Any]:
    """A preset by name ("editmgt-tiny") or path. ValueError lists the names."""
    path = Path(name) if str(name).endswith(".yaml") else PRESETS / f"{name}.yaml"
    if not path.is_file():
        names = ", ".join(sorted(p.stem for p in PRESETS.glob("*.yaml")))
        raise ValueError(f"there is no model preset {str(name)!r}; choose from {names}, or give a .yaml file")
    preset: dict[str, Any] = yaml.safe_load(path.read_text())
    missing = {"resolution", "llm_tokens", "transformer", "vqvae", "text_encoder", "llm_encoder"} - set(preset)
    if missing:
        raise ValueError(f"{path}: {', '.join(sorted(missing))} missing")
    return preset


def build(name: str | Path, seed: int = 0) -> EditMGTPipeline:
    """A pipeline of that preset with a fresh transformer. Image tokenizer and text encoders are fresh too, unless the
    preset names trained `encoders`. The same seed gives the same weights; torch's global generator is not touched.
    """
    preset = read_preset(name)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        transformer = build_transformer(preset)
        if "encoders" in preset:
            root = weights.folder(preset["encoders"])
            vq, text = load_vq(root), load_text(root)
            transformer.begin_by_copying(vq.codebook)
        else:
            vq, text = fresh_vq(preset), fresh_text(preset)
    return EditMGTPipeline(transformer, vq, text, resolution=int(preset["resolution"]))


def build_transformer(preset: dict[str, Any]) -> Transformer:
    """The transformer of a preset, initialised for training."""
    model = Transformer(TransformerConfig(**preset["transformer"]))
    model.initialize()
    return model.eval().requires_grad_(False)


def fresh_vq(preset: dict[str, Any]) -> VQ:
    """The image tokenizer of a preset, untrained."""
    from diffusers import VQModel

    return VQ(VQModel(**preset["vqvae"]))


def fresh_text(preset: dict[str, Any]) -> TextEncoder:
    """The text encoders of a preset, untrained: CLIP's and Gemma-2's architectures on bytes (with `text_merges`)."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection, Gemma2Config, Gemma2Model

    size = PAD + 1 + int(preset.get("text_merges", 0))
    ids = {"vocab_size": size, "bos_token_id": BOS, "eos_token_id": EOS, "pad_token_id": PAD}
    clip_config = CLIPTextConfig(**preset["text_encoder"], **ids, max_position_embeddings=CLIP_TOKENS)
    llm_config = Gemma2Config(**preset["llm_encoder"], **ids)
    clip, llm, llm_tokens = CLIPTextModelWithProjection(clip_config), Gemma2Model(llm_config), preset["llm_tokens"]
    return TextEncoder(byte_tokenizer(CLIP_TOKENS), clip, byte_tokenizer(llm_tokens), llm, llm_tokens)


def byte_tokenizer(length: int, merges: Sequence[tuple[str, str]] = ()) -> Any:
    """A tokenizer of UTF-8 bytes with begin and end tokens: reads any text and needs no vocabulary file.

    merges: byte-level BPE merges, most frequent first; without them, a token is a byte.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {symbol: i for i, symbol in enumerate(symbols)} | {"<bos>": BOS, "<eos>": EOS, "<pad>": PAD}
    vocabulary |= {left + right: PAD + 1 + i for i, (left, right) in enumerate(merges)}
    tokenizer = Tokenizer(models.BPE(vocabulary, list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", BOS), ("<eos>", EOS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", model_max_length=length
    )
