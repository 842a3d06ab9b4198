"""DINO: the class token of real ViTs, loaded from a folder or a file, never with random weights."""

import numpy as np
import pytest
import timm
import tiny_vit
import torch
from PIL import Image as Pillow
from safetensors.torch import save_file
from torch.nn.functional import normalize
from transformers import ViTModel

from crispedit import dino
from crispedit.compositor.landscape import landscape

IMAGES = [landscape(seed, 300, 240) for seed in range(3)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_vit.save(tmp_path_factory.mktemp("vit") / "vit")


def published_preprocess(image):
    """MagicBrush's transform by hand: bicubic to a short side of 256, the middle 224, ImageNet's mean and deviation."""
    picture = Pillow.fromarray(image)
    scale = 256 / min(picture.size)
    picture = picture.resize((int(picture.width * scale), int(picture.height * scale)), Pillow.Resampling.BICUBIC)
    left, top = round((picture.width - 224) / 2), round((picture.height - 224) / 2)
    pixels = np.asarray(picture.crop((left, top, left + 224, top + 224)), np.float32) / 255
    pixels = (pixels - np.float32([0.485, 0.456, 0.406])) / np.float32([0.229, 0.224, 0.225])
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


def test_a_folder_gives_its_class_tokens(folder):
    network = ViTModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        tokens = [network(published_preprocess(image)).last_hidden_state[:, 0] for image in IMAGES]
    found = dino.load(str(folder)).images(IMAGES)
    torch.testing.assert_close(found, normalize(torch.cat(tokens), dim=-1), atol=1e-5, rtol=1e-4)
    assert len(dino.load(str(folder)).images([])) == 0


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_file_of_weights_gives_the_same_as_timm(tmp_path, suffix):
    """timm's pooled output without a head is what torch.hub's DINO returns: the normalised class token."""
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0).eval()
    file = tmp_path / f"weights.{suffix}"
    (torch.save if suffix == "pth" else save_file)(network.state_dict(), file)
    with torch.inference_mode():
        expected = normalize(network(published_preprocess(IMAGES[0])), dim=-1)
    found = dino.load("vit_tiny_patch16_224", str(file)).images(IMAGES[:1])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_nothing_runs_with_random_weights(tmp_path, folder):
    with pytest.raises(ValueError, match=r"must be a file of vit_small_patch16_224\.dino's weights"):
        dino.load("vit_small_patch16_224.dino")
    with pytest.raises(ValueError, match=r"neither a folder nor a timm model; its DINO models: .*dino"):
        dino.load("vit_of_mine")
    with pytest.raises(ValueError, match="brings its weights"):
        dino.load(str(folder), "weights.pth")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="not a model folder of transformers"):
        dino.load(str(tmp_path / "empty"))
    wrong = tmp_path / "wrong.safetensors"
    save_file({"cls_token": torch.zeros(1, 1, 8)}, wrong)
    with pytest.raises(ValueError, match="do not load as vit_tiny_patch16_224"):
        dino.load("vit_tiny_patch16_224", str(wrong))
    code = tmp_path / "code.pth"  # a checkpoint that would run code when unpickled
    torch.save({"cls_token": print}, code)
    with pytest.raises(ValueError, match="do not load as vit_tiny_patch16_224"):
        dino.load("vit_tiny_patch16_224", str(code))
