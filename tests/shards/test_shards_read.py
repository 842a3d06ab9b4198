"""The reader: every sample once, in one order, whatever the ranks and workers, and resumed exactly."""

import json
import pickle
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shard_pairs import make_pair, write_pairs

from crispedit import images
from crispedit.shards.decode import Pixels, aspect_shapes, decode_pair
from crispedit.shards.pack import Pair
from crispedit.shards.read import Batch, DecodedPair, read_shards

PAIRS = [
    make_pair(str(i), ("add", "style", "color")[i % 3], i % 3 != 1, *((96, 64), (64, 96), (128, 64))[i % 5 % 3])
    for i in range(31)
]
BY_KEY = {pair.key: pair for pair in PAIRS}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shards") / "set"
    write_pairs(folder, PAIRS, 4)
    return folder


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> dict[int, Path]:
    """Sets of the same pairs in shards of 1, 3, 4 and 40 pairs."""
    root = tmp_path_factory.mktemp("sets")
    for size in (1, 3, 4, 40):
        write_pairs(root / str(size), PAIRS, size)
    return {size: root / str(size) for size in (1, 3, 4, 40)}


def keys_of(items) -> list[str]:
    return [key for item in items for key in (item.keys if isinstance(item, Batch) else [item.key])]


def test_stored_bytes_come_back_as_they_were_packed(folder: Path):
    read = {pair.key: pair for pair in read_shards(folder, decode=False)}
    assert read.keys() == BY_KEY.keys()
    for key, pair in read.items():
        want = BY_KEY[key]
        assert isinstance(pair, Pair)
        assert (pair.source_jpeg, pair.edited_jpeg, pair.mask_png) == (
            want.source_jpeg,
            want.edited_jpeg,
            want.mask_png,
        )
        assert (pair.category, pair.meta["instruction"]) == (want.category, want.meta["instruction"])


@pytest.mark.parametrize("workers", [0, 2])
def test_pixels_are_those_of_the_decoder(folder: Path, workers: int):
    with read_shards(folder, workers=workers) as reader:
        count = 0
        for pair in reader:
            assert isinstance(pair, DecodedPair)
            want = BY_KEY[pair.key]
            assert np.array_equal(pair.source, images.decode_jpeg(want.source_jpeg))
            assert np.array_equal(pair.edited, images.decode_jpeg(want.edited_jpeg))
            assert (pair.mask is None) == (want.mask_png is None)
            if want.mask_png is not None:
                assert np.array_equal(pair.mask, images.decode_mask(want.mask_png))
            count += 1
    assert count == len(PAIRS)


@settings(max_examples=60)
@given(
    size=st.sampled_from([1, 3, 4, 40]),
    world_size=st.integers(1, 9),
    seed=st.integers(0, 3),
    epoch=st.integers(0, 2),
    shuffle=st.booleans(),
    window=st.integers(1, 12),
    batch_size=st.none() | st.integers(1, 5),
    coverage=st.sampled_from(["exact", "equal"]),
    stop=st.integers(0, 40),
    data=st.data(),
)
def test_ranks_cover_the_epoch_and_any_stop_resumes(
    sets, size, world_size, seed, epoch, shuffle, window, batch_size, coverage, stop, data
):
    options = {
        "seed": seed,
        "shuffle": shuffle,
        "window_shards": window,
        "coverage": coverage,
        "decode": batch_size is not None,
        "batch_size": batch_size,
        "shapes": None if batch_size is None else [(8, 8), (8, 16)],
        "world_size": world_size,
    }
    epochs = []
    for rank in range(world_size):
        reader = read_shards(sets[size], rank=rank, epoch=epoch, **options)
        assert len(reader) == len(list(reader.items(range(len(reader)))))
        epochs.append([keys_of([item]) for item in reader])
        assert reader.state_dict()["epoch"] == epoch + 1
    read = [key for batches in epochs for batch in batches for key in batch]
    assert len(read) == len(set(read))
    if coverage == "exact":
        assert set(read) == BY_KEY.keys()
    else:
        assert len({len(batches) for batches in epochs}) == 1

    rank = data.draw(st.integers(0, world_size - 1))
    stop = min(stop, len(epochs[rank]))
    first = read_shards(sets[size], rank=rank, epoch=epoch, **options)
    before = [keys_of([item]) for item in islice(first, stop)]
    second = read_shards(sets[size], rank=rank, epoch=99, **options)
    second.load_state_dict(first.state_dict())
    after = [keys_of([item]) for item in second] if second.epoch == epoch else []
    assert before + after == epochs[rank]
    assert second.state_dict() == {**first.state_dict(), "epoch": epoch + 1, "position": 0}


RESUMED = {"seed": 5, "shuffle": True, "batch_size": 2, "shapes": [(16, 24), (24, 16)]}


@pytest.fixture(scope="module")
def by_workers(folder: Path):
    """Readers of one order with 0 to 4 workers."""
    with ExitStack() as stack:
        yield [stack.enter_context(read_shards(folder, workers=n, **RESUMED)) for n in range(5)]


@settings(max_examples=40)
@given(before=st.integers(0, 4), after=st.integers(0, 4), start=st.integers(0, 15), stop=st.integers(0, 16))
def test_any_stop_resumes_with_any_workers(by_workers, folder, before, after, start, stop):
    reader = read_shards(folder, **RESUMED)
    whole = [batch for _ in range(2) for batch in list(reader)]
    state = {**read_shards(folder, **RESUMED).state_dict(), "position": start}
    first, second = by_workers[before], by_workers[after]
    first.load_state_dict(state)
    got = list(islice(first, stop))
    second.load_state_dict(first.state_dict())
    got += list(second)
    if start + len(got) <= len(reader):
        got += list(second)
    assert [batch.keys for batch in got] == [batch.keys for batch in whole[start : start + len(got)]]
    assert start + len(got) == len(whole)
    for ours, theirs in zip(got, whole[start:], strict=True):
        assert np.array_equal(ours.source, theirs.source)
        assert np.array_equal(ours.mask, theirs.mask)


def test_world_size_may_change_between_epochs_only(folder: Path):
    reader = read_shards(folder, world_size=2, decode=False, shuffle=True)
    next(iter(reader))
    other = read_shards(folder, world_size=3, decode=False, shuffle=True)
    with pytest.raises(ValueError, match="world_size"):
        other.load_state_dict(reader.state_dict())
    list(reader)
    other.load_state_dict(reader.state_dict())
    assert (other.epoch, other.position) == (1, 0)


@pytest.mark.parametrize(
    ("option", "value"),
    [("seed", 1), ("shuffle", False), ("window_shards", 3), ("weights", {"add": 2.0}), ("coverage", "equal")],
)
def test_state_of_another_order_is_refused(folder: Path, option: str, value: object):
    reader = read_shards(folder, decode=False, shuffle=True)
    other = read_shards(folder, **{"decode": False, "shuffle": True, option: value})
    with pytest.raises(ValueError, match=option):
        other.load_state_dict(reader.state_dict())


def test_state_of_another_set_is_refused(sets):
    reader = read_shards(sets[3], decode=False)
    with pytest.raises(ValueError, match="another shard set"):
        read_shards(sets[4], decode=False).load_state_dict(reader.state_dict())


def test_delivered_arrays_never_change_while_they_are_held(folder: Path):
    with read_shards(folder, workers=2) as reader:
        held = list(reader)  # far more than the ring has slots
        again = list(reader)
    for first, second in zip(held, again, strict=True):
        assert first.key == second.key
        assert np.array_equal(first.source, second.source)
        assert np.array_equal(first.source, images.decode_jpeg(BY_KEY[first.key].source_jpeg))


def test_arrays_and_their_views_outlive_the_reader(folder: Path):
    with read_shards(folder, workers=1) as reader:
        pair = next(iter(reader))
    view = pair.source[::2, ::2]
    key = pair.key
    del pair, reader
    assert np.array_equal(view, images.decode_jpeg(BY_KEY[key].source_jpeg)[::2, ::2])


def test_a_dead_worker_is_an_error_that_names_the_keys(folder: Path):
    with read_shards(folder, workers=1) as reader:
        iterator = iter(reader)
        next(iterator)
        process = reader.ring.workers[0].process
        process.kill()
        process.wait()
        with pytest.raises(RuntimeError, match=r"worker died.*-9.*[0-9a-f]{32}"):
            list(iterator)


def test_two_iterations_at_once_are_refused(folder: Path):
    with read_shards(folder, workers=1) as reader:
        iterator = iter(reader)
        next(iterator)
        with pytest.raises(RuntimeError, match="already being iterated"):
            next(iter(reader))


def test_random_access_by_key(folder: Path):
    reader = read_shards(folder, decode=False)
    for key, want in BY_KEY.items():
        assert reader.get(key).edited_jpeg == want.edited_jpeg
    assert np.array_equal(read_shards(folder).get(PAIRS[3].key).source, images.decode_jpeg(PAIRS[3].source_jpeg))
    with pytest.raises(KeyError):
        reader.get("0" * 32)


def test_categories_choose_and_weights_repeat(folder: Path):
    keys = keys_of(read_shards(folder, decode=False, categories=["style"]))
    assert {BY_KEY[key].category for key in keys} == {"style"}
    keys = keys_of(read_shards(folder, decode=False, shuffle=True, weights={"style": 3, "add": 0}))
    assert sorted(keys) == sorted(
        key for key, pair in BY_KEY.items() for _ in range({"style": 3, "add": 0}.get(pair.category, 1))
    )
    with pytest.raises(ValueError, match=r"no 'ad'; choose from add"):
        read_shards(folder, categories=["ad"])


def test_a_mixture_repeats_sets_and_a_selection_leaves_pairs_out(folder: Path, tmp_path: Path):
    manifest = json.loads((folder / "manifest.json").read_text())
    first, *others = [str(folder / shard["name"]) for shard in manifest["shards"]]
    paths = [first, *others]
    once = keys_of(read_shards(first, decode=False))
    keys = keys_of(read_shards(paths, decode=False, shuffle=True, mixture={first: 2, others[0]: 0}))
    twice = Counter(keys)
    assert {key for key, count in twice.items() if count == 2} == set(once)
    assert not set(keys_of(read_shards(others[0], decode=False))) & set(keys)

    chosen = read_shards(paths, decode=False, select=lambda index: np.arange(len(index)) % 2 == 0)
    left = read_shards(paths, decode=False, select=lambda index: np.arange(len(index)) % 2 == 1)
    assert sorted(keys_of(chosen) + keys_of(left)) == sorted(BY_KEY)
    with pytest.raises(ValueError, match=r"mixture: .* names none of the shards"):
        read_shards(first, decode=False, mixture={others[0]: 2})
    with pytest.raises(ValueError, match="between 0 and 1000"):
        read_shards(first, decode=False, mixture={first: -1})


def test_bytes_need_no_batch_and_options_are_checked(folder: Path):
    for options in (
        {"decode": False, "batch_size": 2},
        {"rank": 1},
        {"batch_size": 0},
        {"shapes": []},
        {"shapes": [(0, 8)]},
        {"window_shards": 0, "shuffle": True},
        {"weights": {"nothing": 1.0}},
        {"coverage": "most"},
    ):
        with pytest.raises(ValueError, match="|".join(options)):
            read_shards(folder, **options)


def test_batches_without_shapes_group_equal_sizes(folder: Path):
    batches = list(read_shards(folder, batch_size=4))
    assert sorted(keys_of(batches)) == sorted(BY_KEY)
    assert {batch.source.shape[1:] for batch in batches} == {(64, 96, 3), (96, 64, 3), (64, 128, 3)}
    for batch in batches:
        assert batch.masked.tolist() == [BY_KEY[key].mask_png is not None for key in batch.keys]
        assert not batch.mask[~batch.masked].any()


def test_buckets_take_the_nearest_aspect(folder: Path):
    shapes = [(32, 64), (32, 48), (48, 32)]
    for batch in read_shards(folder, batch_size=3, shapes=shapes):
        for key in batch.keys:
            height, width = images.decode_jpeg(BY_KEY[key].source_jpeg).shape[:2]
            nearest = min(shapes, key=lambda s: abs(np.log(s[1] / s[0]) - np.log(width / height)))
            assert batch.source.shape[1:3] == nearest


def test_aspect_shapes_hold_the_area():
    for height, width in aspect_shapes(512):
        assert height % 64 == width % 64 == 0
        assert 0.85 < height * width / 512**2 < 1.15
        assert 0.5 <= width / height <= 2
    assert (512, 512) in aspect_shapes(512)


@pytest.mark.parametrize("shape", [(64, 96), (32, 48), (40, 40), (20, 61), (100, 100), (128, 192)])
def test_image_and_mask_go_through_one_geometry(shape: tuple[int, int]):
    """A white rectangle on black, which is also the mask: after any reshaping the two still agree."""
    mask = np.zeros((64, 96), bool)
    mask[16:40, 24:72] = True
    jpeg = images.encode_jpeg(np.repeat(mask[..., None], 3, axis=2).astype(np.uint8) * 255, quality=100)
    source, edited = (np.empty((*shape, 3), np.uint8) for _ in range(2))
    out = np.empty(shape, bool)
    decode_pair(jpeg, jpeg, images.encode_mask(mask), (64, 96), Pixels(source, edited, out))
    assert np.array_equal(source, edited)
    white = source.mean(axis=2) >= 128
    edge = (white != out).mean()
    assert edge < 0.02 if shape != (64, 96) else edge == 0
    assert 0.1 < out.mean() < 0.9


def test_reduced_decoding_is_near_the_full_one():
    pair = make_pair("large", width=512, height=384)
    full = images.decode_jpeg(pair.source_jpeg)
    want = cv2.resize(full, (128, 96), interpolation=cv2.INTER_AREA)
    source, edited = (np.empty((96, 128, 3), np.uint8) for _ in range(2))
    decode_pair(pair.source_jpeg, pair.edited_jpeg, None, (384, 512), Pixels(source, edited, np.empty((96, 128), bool)))
    assert np.abs(source.astype(int) - want).mean() < 1


def test_a_reader_pickles_with_its_place(folder: Path):
    with read_shards(folder, shuffle=True, decode=False) as reader:
        next(iter(reader))
        copy = pickle.loads(pickle.dumps(reader))
        assert keys_of(copy) == keys_of(reader)


def test_unfinished_and_foreign_sets_are_refused(folder: Path, tmp_path: Path):
    write_pairs(tmp_path / "set", PAIRS[:3], 4)
    (tmp_path / "set" / "manifest.json").rename(tmp_path / "set" / "kept.json")
    with pytest.raises(ValueError, match="unfinished"):
        read_shards(tmp_path / "set")
    text = (tmp_path / "set" / "kept.json").read_text().replace('"format": 1', '"format": 2')
    (tmp_path / "set" / "manifest.json").write_text(text)
    with pytest.raises(ValueError, match="format 2"):
        read_shards(tmp_path / "set")
    (tmp_path / "set" / "manifest.json").write_text("{}")
    with pytest.raises(ValueError, match="not a manifest"):
        read_shards(tmp_path / "set")
    with pytest.raises(ValueError, match="more than once"):
        read_shards([folder, folder])
    with pytest.raises(ValueError, match="nothing matches"):
        read_shards(tmp_path / "*.tar")


def test_several_sets_and_single_tars_read_as_one(sets, tmp_path: Path):
    write_pairs(tmp_path / "more", [make_pair("more", "motion")], 4)
    reader = read_shards([sets[3], tmp_path / "more"], decode=False)
    assert len(reader) == len(PAIRS) + 1
    tars = str(sets[4] / "crispedit-{add,style}-00000{0..1}.tar")
    some = keys_of(read_shards(tars, decode=False))
    assert {BY_KEY[key].category for key in some} == {"add", "style"}
    assert keys_of(read_shards(str(sets[4] / "*.tar"), decode=False)) == keys_of(read_shards(sets[4], decode=False))


def test_plain_tars_without_index_are_scanned(sets, tmp_path: Path):
    for tar in sets[4].glob("*.tar"):
        (tmp_path / tar.name).write_bytes(tar.read_bytes())
    scanned = read_shards(str(tmp_path / "*.tar"))
    indexed = read_shards(sets[4])
    for ours, theirs in zip(scanned, indexed, strict=True):
        assert (ours.key, ours.category, ours.meta) == (theirs.key, theirs.category, theirs.meta)
        assert np.array_equal(ours.source, theirs.source)


def test_unicode_keys_read_by_index_and_by_scan(tmp_path: Path):
    first = PAIRS[0]
    keys = {"ключ", "k" * 150, "é" * 100}
    pairs = [Pair(k, "add", first.source_jpeg, first.edited_jpeg, first.mask_png, {"instruction": k}) for k in keys]
    write_pairs(tmp_path, pairs, 4)
    indexed = {pair.key: pair for pair in read_shards(tmp_path, decode=False)}
    (tmp_path / "manifest.json").unlink()
    scanned = {pair.key: pair for pair in read_shards(str(tmp_path / "*.tar"), decode=False)}
    assert indexed == scanned
    assert {key: pair.meta["instruction"] for key, pair in indexed.items()} == {key: key for key in keys}


def test_threads_decode_alike(folder: Path):
    """Readers of different threads do not disturb each other (each has its own descriptors)."""

    def read(_: int) -> list:
        return [(pair.key, pair.source.tobytes()) for pair in read_shards(folder)]

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(read, range(4)))
    assert all(result == results[0] for result in results)
