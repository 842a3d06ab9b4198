"""The DINO filter: real ViTs, tiny and untrained, compare the two pictures of a pair."""

import torch

from crispedit import torchvision_ops as torchvision_ops  # before timm and transformers

# isort: split
from timm import create_model
from transformers import Dinov2Config, Dinov2Model

from crispedit import dino
from crispedit.compositor.landscape import landscape
from crispedit.filters.dino import Dino
from crispedit.images import encode_jpeg
from crispedit.record import Sample
from crispedit.weights import digest


def pair(source, edited):
    jpegs = [encode_jpeg(landscape(seed, 96, 64)) for seed in (source, edited)]
    return Sample("k", *jpegs, category="color")


def dinov2(folder, seed=0):
    torch.manual_seed(seed)
    config = Dinov2Config(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=224, patch_size=32)
    Dinov2Model(config).save_pretrained(folder)
    return folder


def test_the_cosine_is_that_of_the_two_class_tokens(tmp_path):
    folder = dinov2(tmp_path / "dinov2")
    made = Dino(model=str(folder))
    same, other = made.measure([pair(1, 1), pair(1, 2)])
    assert same == {"image": 1.0, "no_model": 0}
    assert other["image"] < 0.99
    one, two = dino.load(str(folder)).images([pair(1, 2).source, pair(1, 2).edited])
    assert other["image"] == round(float(one @ two), 5)
    assert made.measure([pair(1, 2)]) == [other]
    assert made.measure([]) == []


def test_bf16_is_near_and_named_in_the_identity(tmp_path):
    folder = str(dinov2(tmp_path / "dinov2"))
    (exact,), (near,) = (Dino(model=folder, precision=p).measure([pair(1, 2)]) for p in ("fp32", "bf16"))
    assert abs(exact["image"] - near["image"]) < 0.02
    assert Dino(model=folder).identity() != Dino(model=folder, precision="bf16").identity()


def test_a_timm_architecture_takes_a_file(tmp_path):
    file = tmp_path / "vit.pth"
    torch.manual_seed(0)
    torch.save(create_model("vit_tiny_patch16_224", num_classes=0).state_dict(), file)
    (scores,) = Dino(model="vit_tiny_patch16_224", weights=str(file)).measure([pair(1, 2)])
    assert scores["image"] < 0.999
    assert scores["no_model"] == 0


def test_without_a_model_the_score_is_unknown():
    assert Dino().measure([pair(1, 2)]) == [{"image": None, "no_model": 1}]


def test_the_identity_is_the_weights_and_not_their_place(tmp_path):
    here, there, other = (
        dinov2(tmp_path / "a" / "v2"),
        dinov2(tmp_path / "b" / "v2"),
        dinov2(tmp_path / "c" / "v2", 1),
    )
    identities = [Dino(model=str(folder)).identity() for folder in (here, there, other)]
    assert identities[0] == identities[1] != identities[2]
    assert digest(here) == digest(there) != digest(other)


def test_the_identity_without_a_model_does_not_depend_on_the_working_folder(tmp_path, monkeypatch):
    here = Dino().identity()
    (tmp_path / "some.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    assert Dino().identity() == here
