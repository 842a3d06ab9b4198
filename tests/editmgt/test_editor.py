"""The editor part and `crispedit edit`, with a checkpoint on disk."""

from __future__ import annotations

import argparse
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image as Pillow
from safetensors.torch import load_file, save_file

from crispedit import editors, parts
from crispedit.editmgt.preset import build
from crispedit.images import encode_mask
from crispedit.parts import Editor
from crispedit.pipelines import edit
from crispedit.record import Job


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    pipeline = build("editmgt-tiny", seed=1)
    pipeline.resolution = 64
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for number, name in enumerate(("a.png", "b.jpg", "sub/c.png")):
        pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Pillow.fromarray(pixels).resize((80, 60), Pillow.Resampling.BICUBIC).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def jobs(count):
    return [Job(f"{i:032x}", "color", f"make it {'red' if i % 2 else 'blue'}", "", "") for i in range(count)]


def make(checkpoint, **options):
    return parts.make(editors, "editmgt", Editor, {"model": str(checkpoint), "steps": 2, **options})


def test_part_answers_in_order_and_alike_in_any_batch(checkpoint, photos):
    part = make(checkpoint, hold=0.2)
    images = [np.asarray(Pillow.open(photos / name)) for name in ("a.png", "b.jpg", "sub/c.png")]
    seeds = [1 << 62, 5, 6]
    together = part.edit(images, jobs(3), seeds)
    pickled = pickle.loads(pickle.dumps(part))  # after loading: the weights stay behind
    assert len(pickle.dumps(part)) < 2000
    for i in (2, 0, 1):
        (alone,) = pickled.edit(images[i : i + 1], jobs(3)[i : i + 1], seeds[i : i + 1])
        assert np.array_equal(alone.edited, together[i].edited)
        assert alone.edited.shape == images[i].shape
        assert alone.mask is None


def test_identity_follows_the_weights(checkpoint, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(checkpoint, copy)
    base, device = make(copy).identity(), make(copy, device="cpu", batch_size=4).identity()
    assert base == device
    assert base["name"] == "editmgt"
    assert base["weights"] == make(checkpoint).identity()["weights"]
    assert make(copy, steps=3).identity() != base
    trained = tmp_path / "trained"
    shutil.copytree(checkpoint, trained)
    file = trained / "transformer" / "diffusion_pytorch_model.safetensors"
    save_file({name: value + 1e-3 for name, value in load_file(file).items()}, file)
    assert make(trained).identity()["weights"] != base["weights"]


def test_the_part_is_light_until_it_is_loaded():
    code = "import sys, crispedit.editors.editmgt; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def command(*arguments):
    parser = argparse.ArgumentParser()
    edit.add_arguments(parser)
    return edit.run(parser.parse_args([str(a) for a in arguments]))


@pytest.fixture
def common(checkpoint):
    return ("--model", checkpoint, "--steps", 2)


def test_one_image(photos, tmp_path, common, capsys):
    out = tmp_path / "new" / "out.png"
    assert command(photos / "a.png", "make it red", "-o", out, "--map", "--hold", 0.2, *common) == 0
    first = Pillow.open(out)
    assert first.size == (80, 60)
    assert Pillow.open(tmp_path / "new" / "out.map.png").size == (80, 60)
    assert "2 steps" in capsys.readouterr().out
    many = tmp_path / "many.jpg"
    assert command(photos / "a.png", "make it red", "-o", many, "--count", 2, *common) == 0
    assert sorted(p.name for p in tmp_path.glob("many*")) == ["many-0.jpg", "many-1.jpg"]


def test_a_folder(photos, tmp_path, common, capsys):
    (photos / "broken.png").write_bytes(b"not an image")
    assert command(photos, "make it red", "-o", tmp_path / "out", *common) == 1
    written = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*"))
    assert written == ["a.png", "b.png", "sub/c.png"]
    assert "broken.png" in capsys.readouterr().err


def test_a_list(photos, tmp_path, common):
    mask = np.zeros((60, 80), bool)
    mask[:30] = True
    (photos / "mask.png").write_bytes(encode_mask(mask))
    rows = [
        {"image": "a.png", "instruction": "make it red", "seed": 3},
        {"image": "b.jpg", "instruction": "add a dog", "mask": "mask.png", "output": "dog.png"},
    ]
    (photos / "jobs.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    assert command(photos / "jobs.jsonl", "-o", tmp_path / "out", "--paste", *common) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "dog.png"]
    source, out = (np.asarray(Pillow.open(p)) for p in (photos / "b.jpg", tmp_path / "out" / "dog.png"))
    assert np.array_equal(source[-10:], out[-10:])  # far below the mask: the very pixels
    assert not np.array_equal(source[:30], out[:30])


def test_mistakes(photos, tmp_path, common):
    def refused(match, *arguments):
        with pytest.raises(ValueError, match=match):
            command(*arguments, *common)

    refused("say what to change", photos / "a.png", "-o", tmp_path / "o.png")
    refused("does not exist", photos / "z.png", "x", "-o", tmp_path / "o.png")
    refused("choose one of", photos / "a.png", "x", "-o", tmp_path / "o.gif")
    refused("is the source itself", photos / "a.png", "x", "-o", photos / "a.png")
    (tmp_path / "empty").mkdir()
    refused("holds no images", tmp_path / "empty", "x", "-o", tmp_path / "out")
    for line, match in (
        ("{", r"jobs\.jsonl: line 1 is not JSON"),
        ("[]", "line 1: expected an object, not list"),
        ('{"instruction": "x"}', 'line 1: no "image"'),
        ('{"image": "a.png", "prompt": "x"}', "unknown key 'prompt'; choose from image"),
        ('{"image": "a.png", "instruction": 3}', "instruction must be str, not 3"),
        ('{"image": "a.png"}', "no instruction"),
        ('{"image": "a.png", "instruction": "x", "output": "../x.png"}', "must be a file name"),
        ('{"image": "a.png", "instruction": "x"}\n{"image": "sub/a.jpg", "instruction": "y"}', "would both be"),
    ):
        (photos / "jobs.jsonl").write_text(line)
        refused(match, photos / "jobs.jsonl", "-o", tmp_path / "out")
