"""Measures: null without their model, an error where a named one is not there, one embedding an image."""

import pytest
import tiny_clip
import tiny_vit
import torch

from crispedit.compositor.landscape import landscape
from crispedit.measures import ClipSpec, DinoSpec, Measures, Models

BEFORE, AFTER = landscape(1, 160, 96), landscape(2, 160, 96)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    clip = ClipSpec(model=f"local-dir:{tiny_clip.save(root / 'clip')}")
    return Models(clip=clip, clip_large=clip, dino=DinoSpec(model=str(tiny_vit.save(root / "dino"))))


@pytest.fixture(scope="module")
def measures(models):
    made = Measures(models)
    made.load()
    return made


def test_without_a_model_nothing_is_known():
    made = Measures(Models())
    made.load()
    assert made.clip_image("clip", BEFORE, AFTER) is None
    assert made.clip_text("clip", BEFORE, "a lake") is None
    assert made.clip_direction("clip_large", (BEFORE, AFTER), ("a lake", "a hill")) is None
    assert made.dino_image(BEFORE, AFTER) is None


def test_a_named_model_that_is_not_there_is_an_error():
    with pytest.raises(ValueError, match="neither a file nor a tag"):
        Measures(Models(clip=ClipSpec(pretrained="/no/such/file.pt"))).load()
    with pytest.raises(ValueError, match="must be a file"):
        Measures(Models(dino=DinoSpec())).load()


def test_cosines_are_the_definitions(models, measures):
    from crispedit import clip

    crop = clip.load(models.clip.model, resize="crop")
    squash = clip.load(models.clip.model, resize="squash")
    a, b = crop.images([BEFORE, AFTER])
    said, told = crop.texts(["a lake", "a hill"])
    assert measures.clip_image("clip", BEFORE, AFTER) == pytest.approx(float(a @ b), abs=1e-5)
    assert measures.clip_text("clip", AFTER, "a hill") == pytest.approx(float(b @ told), abs=1e-5)
    a, b = squash.images([BEFORE, AFTER])
    expected = torch.cosine_similarity(b - a, told - said, dim=0)
    captions = ("a lake", "a hill")
    found = measures.clip_direction("clip_large", (BEFORE, AFTER), captions)
    assert found == pytest.approx(float(expected), abs=1e-4)
    assert measures.dino_image(BEFORE, BEFORE) == pytest.approx(1, abs=1e-5)
    assert measures.dino_image(BEFORE, AFTER) < 1


def test_no_caption_and_no_change_have_no_cosine(measures):
    assert measures.clip_text("clip", BEFORE, None) is None
    assert measures.clip_text("clip", BEFORE, "") is None
    pair = BEFORE, AFTER
    assert measures.clip_direction("clip_large", pair, ("a lake", None)) is None
    assert measures.clip_direction("clip_large", pair, ("a lake", "a lake")) is None
    assert measures.clip_direction("clip_large", (BEFORE, BEFORE), ("a lake", "a hill")) is None


def test_identity_follows_the_weights(tmp_path):
    first, second = (Models(dino=DinoSpec(model=str(tiny_vit.save(tmp_path / str(n) / "vit", seed=n)))) for n in (0, 1))
    assert first.identity() != second.identity()
    assert first.identity() != Models().identity()
    same = Models(dino=DinoSpec(model=str(tiny_vit.save(tmp_path / "copy" / "vit", seed=0))))
    assert same.identity() == first.identity()

    def clip_of(name: str, data: bytes) -> dict[str, object]:
        (tmp_path / name).write_bytes(data)
        return Models(clip=ClipSpec(pretrained=str(tmp_path / name))).identity()

    assert clip_of("a.pt", b"weights") == clip_of("b.pt", b"weights") != clip_of("c.pt", b"other weights")
    folders = [
        Models(clip=ClipSpec(model=f"local-dir:{tmp_path / str(n) / 'vit'}")).identity()["clip"]["pretrained"]
        for n in (0, 1)
    ]
    assert folders[0] != folders[1]
