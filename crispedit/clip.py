"""CLIP: embeddings of images and texts by any open_clip model: published, from a local file, or the small embedded one.

The small one (`model="embedded"`, in `crispedit/weights/clip`, with its card) needs no download and was trained on the
compositor's pairs: it matches captions to such edits but knows little about real photographs. For those use published
weights, `model="ViT-L-14", pretrained="openai"`, or a file of them.
"""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image as Pillow

from crispedit import embedding, torchscript, torchvision_ops, weights
from crispedit.record import Image

torchvision_ops.declare()

import open_clip  # noqa: E402  (imports torchvision: see crispedit.torchvision_ops)
from open_clip.transform import PreprocessCfg, image_transform_v2  # noqa: E402

EMBEDDED = "embedded"
Precision = Literal["fp32", "fp16", "bf16"]
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
Resize = Literal["squash", "crop"]
"""How an image is brought to the model's size: "squash" ignores the aspect ratio, as InstructPix2Pix's filter does;
"crop" scales the short side and crops the centre, as CLIP itself does (CLIP-I, CLIP-T)."""


@dataclass(frozen=True)
class ClipModel:
    """A loaded model. Embeddings are [N, D] fp32 on the CPU, of length 1, in order."""

    network: Any
    preprocess: Callable[[Pillow.Image], torch.Tensor]
    tokenize: Callable[[list[str]], torch.Tensor]
    device: torch.device
    dtype: torch.dtype

    def images(self, images: Sequence[Image]) -> torch.Tensor:
        pixels = [self.preprocess(Pillow.fromarray(image)).to(self.dtype) for image in images]
        return embedding.embed(partial(self.network.encode_image, normalize=True), pixels, self.device)

    def texts(self, texts: Sequence[str]) -> torch.Tensor:
        tokens = list(self.tokenize(list(texts))) if texts else []
        return embedding.embed(partial(self.network.encode_text, normalize=True), tokens, self.device)


def load(
    model: str = EMBEDDED, pretrained: str = "", precision: Precision = "fp32", resize: Resize = "squash"
) -> ClipModel | None:
    """The model with its weights; None if there are no embedded weights or no way to download.

    `model` is "embedded", an open_clip architecture, or "local-dir:FOLDER" in open_clip's layout; `pretrained` a tag of
    that architecture or a file: safetensors, a checkpoint that loads weights-only, or a TorchScript archive as OpenAI
    publishes (`ViT-B-32.pt`), from which only tensors are read. It never runs with random weights. ValueError, with the
    choices, for an unknown model, tag, folder or file.
    """
    if model == EMBEDDED:
        if pretrained:
            raise ValueError(f"clip: the embedded model has its own weights; drop pretrained={pretrained!r}")
        if weights.fingerprint("clip") is None:
            return None
        model = f"local-dir:{weights.folder('clip')}"
    check(model, pretrained)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sized = {"resize_mode": "squash" if resize == "squash" else "shortest"}
    create = partial(open_clip.create_model, model, precision=precision, device=device, force_preprocess_cfg=sized)
    try:
        if os.path.isfile(pretrained) and torchscript.is_archive(Path(pretrained)):
            network = _from_archive(create, Path(pretrained))
        else:
            quick = quick_gelu(model, pretrained)
            network = create(pretrained=pretrained or None, force_quick_gelu=quick, require_pretrained=True)
    except RuntimeError as error:
        if "Failed to download" in str(error):
            return None
        raise ValueError(f"clip: the weights {pretrained or model} do not load as {model}: {error}") from error
    preprocess = image_transform_v2(PreprocessCfg(**network.visual.preprocess_cfg), is_train=False)
    return ClipModel(network.eval(), preprocess, open_clip.get_tokenizer(model), device, DTYPES[precision])


def _from_archive(create: Callable[..., Any], archive: Path) -> Any:
    """The network with weights from a TorchScript archive, OpenAI's format; it always uses QuickGELU, as they do.
    RuntimeError if a tensor is missing or has another shape."""
    logging.disable(logging.WARNING)  # open_clip warns of random weights, which are replaced below
    try:
        network = create(force_quick_gelu=True, load_weights=False)
    finally:
        logging.disable(logging.NOTSET)
    state, wanted = torchscript.state_dict(archive), network.state_dict()
    if absent := sorted(wanted.keys() - state.keys()):
        raise RuntimeError(f"no tensor {absent[0]!r}")
    network.load_state_dict({name: state[name] for name in wanted})
    return network


def check(model: str, pretrained: str) -> None:
    """ValueError, with the choices, for a model or weights that open_clip does not know."""
    if model.startswith("hf-hub:"):
        return
    if model.startswith("local-dir:"):
        folder = Path(model.removeprefix("local-dir:"))
        if not (folder / "open_clip_config.json").is_file():
            raise ValueError(f"clip: there is no open_clip model (open_clip_config.json) in {folder}")
        return
    if model not in open_clip.list_models():
        raise ValueError(f"clip: open_clip has no model {model!r}; choose from {', '.join(open_clip.list_models())}")
    tags = open_clip.list_pretrained_tags_by_model(model)
    if pretrained not in tags and not os.path.isfile(pretrained):
        raise ValueError(
            f"clip: pretrained={pretrained!r} is neither a file nor a tag of {model}: {', '.join(tags) or 'none'}"
        )


def quick_gelu(model: str, pretrained: str) -> bool:
    """Whether the weights were trained with QuickGELU, as OpenAI's were; open_clip only warns if they are run without.

    For a file, name the architecture that fits it: "ViT-L-14-quickgelu" for OpenAI's.
    """
    return bool(open_clip.get_pretrained_cfg(model, pretrained).get("quick_gelu", False))
