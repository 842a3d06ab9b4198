"""CLIP models load through open_clip from folders, files and names, never with random weights."""

import numpy as np
import pytest
import tiny_clip
import torch
from PIL import Image as Pillow

from crispedit import clip, weights
from crispedit.compositor.landscape import landscape

import open_clip  # isort: skip  (after crispedit.clip, which mends torchvision)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_clip.save(tmp_path_factory.mktemp("clip") / "tiny-clip-of-the-tests")


@pytest.fixture(scope="module")
def model(folder):
    return clip.load(f"local-dir:{folder}")


IMAGES = [landscape(seed, 96, 64) for seed in range(3)]
TEXTS = ["a red car", "a photo of a lake", ""]


def test_embeddings_are_open_clips_own(folder, model):
    network, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{folder}", image_resize_mode="squash")
    network.eval()
    with torch.inference_mode():
        pixels = torch.stack([preprocess(Pillow.fromarray(image)) for image in IMAGES])
        images = network.encode_image(pixels, normalize=True)
        texts = network.encode_text(open_clip.get_tokenizer(f"local-dir:{folder}")(TEXTS), normalize=True)
    torch.testing.assert_close(model.images(IMAGES), images)
    torch.testing.assert_close(model.texts(TEXTS), texts)
    torch.testing.assert_close(model.images(IMAGES).norm(dim=1), torch.ones(3))


def test_an_embedding_does_not_depend_on_its_neighbours(model):
    together = model.images(IMAGES)
    for image, row in zip(IMAGES, together, strict=True):
        assert torch.equal(model.images([image])[0], row)
    assert torch.equal(model.images(IMAGES[::-1]).flip(0), together)
    assert len(model.images([])) == len(model.texts([])) == 0


def test_squash_sees_the_edges_and_crop_does_not(folder):
    image = IMAGES[0]
    marked = image.copy()
    marked[:, :8] = (255, 0, 0)  # outside the middle 64 columns of 96
    for resize, sees in (("squash", True), ("crop", False)):
        model = clip.load(f"local-dir:{folder}", resize=resize)
        a, b = model.images([image, marked])
        assert torch.equal(a, b) is not sees


def test_a_file_of_weights_loads_into_a_named_architecture(folder, model):
    open_clip.add_model_config(folder.parent / f"{folder.name}.json")
    named = clip.load(folder.name, str(folder / "open_clip_model.safetensors"))
    torch.testing.assert_close(named.texts(TEXTS), model.texts(TEXTS))
    with pytest.raises(ValueError, match="neither a file nor a tag of tiny-clip-of-the-tests: none"):
        clip.load(folder.name, "no-such-tag")


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_lower_precision_gives_nearly_the_same(folder, model, precision):
    low = clip.load(f"local-dir:{folder}", precision=precision)
    assert low.images(IMAGES).dtype == torch.float32
    assert float((low.images(IMAGES) * model.images(IMAGES)).sum(1).min()) > 0.99


def test_openai_weights_run_with_quickgelu_and_others_without():
    assert clip.quick_gelu("ViT-L-14", "openai")
    assert not clip.quick_gelu("ViT-L-14", "laion2b_s32b_b82k")
    assert not clip.quick_gelu("ViT-L-14", "/weights/of/mine.safetensors")


def test_quickgelu_changes_what_a_model_computes(tmp_path, model):
    other = clip.load(f"local-dir:{tiny_clip.save(tmp_path / 'quick', quick_gelu=True)}")
    assert any(type(module).__name__ == "QuickGELU" for module in other.network.modules())
    assert not torch.allclose(other.texts(TEXTS), model.texts(TEXTS), atol=1e-5)


@pytest.mark.parametrize(
    ("model", "pretrained", "message"),
    [
        ("ViT-Z-99", "openai", "no model 'ViT-Z-99'; choose from .*ViT-L-14"),
        ("ViT-L-14", "", "neither a file nor a tag of ViT-L-14: openai"),
        ("ViT-L-14", "/no/such/file.pt", "neither a file nor a tag"),
        ("local-dir:/no/such/folder", "", "no open_clip model .* in /no/such/folder"),
        ("embedded", "openai", "has its own weights"),
    ],
)
def test_a_wrong_name_is_told_with_the_choices(model, pretrained, message):
    with pytest.raises(ValueError, match=message):
        clip.load(model, pretrained)


def test_weights_of_another_architecture_are_refused(folder, tmp_path):
    wrong = tiny_clip.save(tmp_path / "wrong", embed_dim=16)
    (wrong / "open_clip_model.safetensors").write_bytes((folder / "open_clip_model.safetensors").read_bytes())
    with pytest.raises(ValueError, match="do not load"):
        clip.load(f"local-dir:{wrong}")


def test_the_embedded_model_loads_and_tells_colors_apart():
    model = clip.load()
    assert weights.fingerprint("clip")
    assert model is not None
    flat = [np.full((64, 64, 3), color, np.uint8) for color in ((60, 120, 220), (230, 140, 40))]
    cosines = model.images(flat) @ model.texts(["A photo in shades of blue.", "A photo in shades of orange."]).T
    assert cosines.argmax(1).tolist() == [0, 1]
