"""DINO: embeddings of images by a self-supervised ViT, through timm (by name and file) or transformers (a folder).

The published evaluations use ViT-S/16 of DINO (Caron et al. 2021): `model="vit_small_patch16_224.dino"` with the file
`dino_deitsmall16_pretrain.pth` or its safetensors, or a folder of `facebook/dino-vits16`. A folder of DINOv2 loads
likewise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image as Pillow
from torch import Tensor

from crispedit import embedding, torchscript, torchvision_ops
from crispedit.record import Image

torchvision_ops.declare()

from torchvision import transforms  # noqa: E402  (see crispedit.torchvision_ops)

SIZE_PX = 224

PREPROCESS = transforms.Compose(
    [
        transforms.Resize(256, interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.CenterCrop(SIZE_PX),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
)
"""As in MagicBrush's and AnySD's evaluations: bicubic to a short side of 256, the middle 224, ImageNet's mean."""

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class DinoModel:
    """A loaded model. Embeddings are [N, D] fp32 on the CPU: the normalised class token, of length 1, in order."""

    network: Any
    device: torch.device
    dtype: torch.dtype = torch.float32

    def images(self, images: Sequence[Image]) -> Tensor:
        pixels = [PREPROCESS(Pillow.fromarray(image)).to(self.dtype) for image in images]
        return embedding.embed(self._class_token, pixels, self.device)

    def _class_token(self, pixels: Tensor) -> Tensor:
        if hasattr(self.network, "forward_features"):  # timm
            tokens = self.network.forward_features(pixels)
        else:
            tokens = self.network(pixel_values=pixels).last_hidden_state
        return torch.nn.functional.normalize(tokens[:, 0].float(), dim=-1)


def load(model: str, weights: str = "", precision: Precision = "fp32") -> DinoModel:
    """A folder in transformers' layout (safetensors), or a timm architecture with a file of weights.

    A model never runs with random weights, and nothing is downloaded. ValueError for what is not there or does not fit.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if Path(model).is_dir() and weights:
        raise ValueError(f"dino: the folder {model} brings its weights; drop weights={weights!r}")
    network = _from_folder(model) if Path(model).is_dir() else _from_file(model, weights)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    return DinoModel(network.eval().to(device, dtype), device, dtype)


def _from_folder(folder: str) -> Any:
    from transformers import AutoModel

    try:
        return AutoModel.from_pretrained(folder, use_safetensors=True, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"dino: {folder} is not a model folder of transformers: {error}") from error


def _from_file(model: str, weights: str) -> Any:
    import timm

    if not timm.is_model(model):
        close = ", ".join(timm.list_models("*dino*", pretrained=True))
        raise ValueError(f"dino: {model!r} is neither a folder nor a timm model; its DINO models: {close}")
    if not Path(weights).is_file():
        raise ValueError(f"dino: weights={weights!r} must be a file of {model}'s weights")
    network = timm.create_model(model, pretrained=False, num_classes=0)
    try:
        network.load_state_dict(torchscript.tensors(Path(weights)))
    except Exception as error:  # torch raises many kinds of errors for a file that is not a checkpoint
        raise ValueError(f"dino: the weights {weights} do not load as {model}: {error}") from error
    return network
