"""Copies of benchmark pictures: found when re-encoded, scaled and cropped, by the filter and in a finished set."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from crispedit.compositor.landscape import landscape
from crispedit.copies import LEAST_FINE, Known, fingerprint, pictures_in, read
from crispedit.filters.copies import Copies
from crispedit.images import encode_jpeg
from crispedit.pipelines import cli
from crispedit.record import Sample, content_key
from crispedit.shards.pack import Pair, finish, plan, write_shard

WIDTH, HEIGHT = 320, 240
KINDS = ("meadow", "lake", "desert", "mountains")


def picture(seed: int) -> np.ndarray:
    return landscape(seed, WIDTH, HEIGHT, KINDS[seed % len(KINDS)])


def copy_of(image: np.ndarray, top: int, left: int, scale: float) -> np.ndarray:
    """90 % of each side, scaled."""
    part = image[top : top + HEIGHT * 9 // 10, left : left + WIDTH * 9 // 10]
    return cv2.resize(part, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmark")
    for seed in range(4):
        cv2.imwrite(str(folder / f"{seed}.png"), picture(seed)[..., ::-1])
    return folder


def test_copies_are_found_and_other_pictures_are_not(benchmark: Path):
    filter_ = Copies(against=(str(benchmark),))
    for seed in range(4):
        source = picture(seed)
        sample = Sample(
            "k",
            encode_jpeg(copy_of(source, 7 * seed, 31 - 9 * seed, 0.6 + 0.2 * seed), quality=60),
            encode_jpeg(source[:, ::-1] if seed else picture(50)),  # a mirrored copy is none
        )
        (answer,) = filter_.measure([sample])
        assert answer["source_of"] == str(benchmark / f"{seed}.png")
        assert LEAST_FINE <= answer["source"] <= 1
        assert answer["edited"] == 0
        assert "edited_of" not in answer
    others = [Sample("k", encode_jpeg(picture(seed))) for seed in range(20, 28)]
    assert [answer["source"] for answer in filter_.measure(others)] == [0.0] * 8


def test_a_picture_without_detail_cannot_be_told(benchmark: Path):
    plain = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    (answer,) = Copies(against=(str(benchmark),)).measure([Sample("k", encode_jpeg(plain))])
    assert answer == {"source": None, "edited": None}
    known = Known([("fog.jpg", plain[..., 0])])
    assert known.plain == ["fog.jpg"]
    assert known.find(fingerprint(cv2.cvtColor(picture(0), cv2.COLOR_RGB2GRAY))) is None


def test_the_fingerprint_of_a_run_is_of_what_lies_in_the_folders(benchmark: Path, tmp_path: Path):
    moved = tmp_path / "moved"
    moved.mkdir()
    for path in pictures_in(str(benchmark)):
        (moved / path.name).write_bytes(path.read_bytes())
    (moved / "._0.png").write_bytes(b"what macOS writes beside each file of a foreign disk")
    identity = Copies(against=(str(benchmark),)).identity()
    assert Copies(against=(str(moved),)).identity() == identity
    (moved / "0.png").unlink()
    assert Copies(against=(str(moved),)).identity() != identity
    with pytest.raises(ValueError, match="no image files"):
        Copies(against=(str(tmp_path / "nowhere"),)).identity()
    (moved / "0.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"0\.png: cannot be read"):
        list(read([str(moved)]))


def test_the_command_lists_the_copies_of_a_finished_set(benchmark: Path, tmp_path: Path, capsys):
    pairs = {}
    for seed in (2, 30):
        source = picture(seed)
        key = content_key(str(seed))
        copied = copy_of(source, 10, 10, 0.8)
        pairs[key] = Pair(key, "style", encode_jpeg(copied), encode_jpeg(255 - copied), None, {})
    shards = plan({"style": list(pairs)}, 4, 0, frozenset())
    entries = [write_shard(tmp_path / "set", shard, (pairs[key] for key in shard.keys), "d") for shard in shards]
    finish(tmp_path / "set", entries, {})
    arguments = ["decontaminate", str(tmp_path / "set"), "--against", str(benchmark)]
    assert cli.main([*arguments, "--output", str(tmp_path / "copies.jsonl")]) == 1
    (found,) = [json.loads(line) for line in (tmp_path / "copies.jsonl").read_text().splitlines()]
    assert found["key"] == content_key("2")
    assert (found["side"], found["benchmark"]) == ("source", str(benchmark / "2.png"))
    assert "1 of 2 pairs hold a copy of one of 4 benchmark pictures" in capsys.readouterr().out


def drawing(dark: int, light: int, *, edge: bool = False) -> np.ndarray:
    """Flat shapes, or two flat areas that meet in a slanted edge."""
    down, across = np.indices((HEIGHT, WIDTH))
    if edge:
        lit = across + down // 3 >= 180
    else:
        lit = (np.hypot(down - 80, across - 220) < 50) | ((abs(down - 160) < 40) & (abs(across - 90) < 60))
    return np.where(lit, light, dark).astype(np.uint8)


def test_drawings_that_differ_in_brightness_are_no_copies():
    """They lie on each other exactly, but one is brighter."""
    known = Known([("dark", drawing(20, 90))])
    same, other = (fingerprint(drawing(*levels)) for levels in ((22, 88), (120, 190)))
    assert same is not None
    assert other is not None
    found = known.find(same)
    assert found is not None
    assert found.name == "dark"
    assert known.find(other) is None


def test_copies_of_one_straight_edge_cannot_be_told():
    """Any piece of such an edge lies on any other."""
    known = Known([("edge", drawing(20, 90, edge=True))])
    assert known.plain == ["edge"]


@pytest.mark.parametrize("kept", [0.9, 0.8])
def test_copies_cropped_on_every_side_are_found(kept: float):
    image = cv2.cvtColor(picture(3), cv2.COLOR_RGB2GRAY)
    top, left = round(HEIGHT * (1 - kept) / 2), round(WIDTH * (1 - kept) / 2)
    copied = fingerprint(cv2.resize(image[top : HEIGHT - top, left : WIDTH - left], (300, 300)))
    assert copied is not None
    found = Known([("it", image), ("other", cv2.cvtColor(picture(1), cv2.COLOR_RGB2GRAY))]).find(copied)
    assert found is not None
    assert found.name == "it"
