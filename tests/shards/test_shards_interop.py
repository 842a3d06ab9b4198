"""Other people's libraries read our shards, and agree with us on every key and byte."""

import io
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from shard_pairs import make_pair, write_pairs

from crispedit.shards import layout
from crispedit.shards.pack import Pair, document

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries; ours are errors everywhere else

UNKNOWN = {"scores": {"ssim": None}, "target_caption": None}
PAIRS = [
    # The first rows know neither score nor caption nor, in "style", a mask: types must not be guessed from them.
    *(
        Pair(p.key, p.category, p.source_jpeg, p.edited_jpeg, p.mask_png, {**p.meta, **UNKNOWN, "scores": SCORES})
        for p, SCORES in ((make_pair(f"null{i}", "add"), {"alignment_px": 1, "ssim": None}) for i in range(7))
    ),
    *(make_pair(f"half{i}", "color", masked=i % 2 == 0) for i in range(9)),
    *(make_pair(f"none{i}", "style", masked=False) for i in range(6)),
]
BY_KEY = {pair.key: pair for pair in PAIRS}


def members_of(pair: Pair) -> dict[str, bytes]:
    members = {layout.SOURCE: pair.source_jpeg, layout.EDITED: pair.edited_jpeg}
    if pair.mask_png is not None:
        members[layout.MASK] = pair.mask_png
    return {**members, layout.META: document(pair).encode()}


EXPECTED = {key: members_of(pair) for key, pair in BY_KEY.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("interop")
    write_pairs(folder, PAIRS, 5)
    return folder


def tars(folder: Path) -> list[str]:
    return sorted(str(path) for path in folder.glob("*.tar"))


def members(sample: dict) -> dict[str, bytes]:
    return {name: data for name, data in sample.items() if not name.startswith("__")}


def test_tarfile(folder: Path):
    found: dict[str, dict[str, bytes]] = {}
    for path in tars(folder):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, name = member.name.partition(".")
                found.setdefault(key, {})[name] = tar.extractfile(member).read()
    assert found == EXPECTED


def test_webdataset(folder: Path):
    import webdataset

    data = webdataset.WebDataset(tars(folder), shardshuffle=False)
    assert {sample["__key__"]: members(sample) for sample in data} == EXPECTED


def test_webdataset_decodes_our_pixels(folder: Path):
    import webdataset

    from crispedit.shards.read import read_shards

    ours = {pair.key: pair for pair in read_shards(folder)}
    for sample in webdataset.WebDataset(tars(folder), shardshuffle=False).decode("rgb8"):
        pair = ours[sample["__key__"]]
        # Another decoder of the same JPEG may differ by a rounding.
        assert abs(sample[layout.SOURCE].astype(int) - pair.source).max() <= 2
        assert sample["json"] == pair.meta


def test_wids(folder: Path, tmp_path: Path):
    wids = pytest.importorskip("wids")

    data = wids.ShardListDataset(
        str(folder / layout.WIDS_INDEX), cache_dir=str(tmp_path), keep=True, transformations=[]
    )
    assert len(data) == len(PAIRS)
    found = {}
    for number in range(len(data)):
        sample = data[number]
        found[sample["__key__"]] = {
            name[1:]: value.read() if isinstance(value, io.IOBase) else value
            for name, value in sample.items()
            if name.startswith(".")
        }
    assert found == EXPECTED


@pytest.mark.parametrize("streaming", [False, True])
def test_hugging_face_datasets(folder: Path, tmp_path: Path, streaming: bool):
    from datasets import Image, load_dataset

    data = load_dataset(
        "webdataset", data_files={"train": tars(folder)}, split="train", streaming=streaming, cache_dir=str(tmp_path)
    )
    for name in (layout.SOURCE, layout.EDITED, layout.MASK):
        assert isinstance(data.features[name], Image)
        data = data.cast_column(name, Image(decode=False))
    found = {}
    for row in data:
        pair = BY_KEY[row["__key__"]]
        assert row["json"] == json.loads(document(pair))
        images = {name: row[name] and row[name]["bytes"] for name in (layout.SOURCE, layout.EDITED, layout.MASK)}
        found[pair.key] = {name: value for name, value in images.items() if value is not None}
    assert found == {
        key: {name: data for name, data in want.items() if name != layout.META} for key, want in EXPECTED.items()
    }


RAY = """
import pickle, sys
import ray
ray.init("local", num_cpus=4, include_dashboard=False, logging_level="error", object_store_memory=200_000_000)
rows = ray.data.read_webdataset(sys.argv[2:], decoder=None, include_paths=False).take_all()
pickle.dump(rows, open(sys.argv[1], "wb"))
"""


def test_ray_data(folder: Path, tmp_path: Path):
    """In a process of its own, so that no cluster outlives the test."""
    import pickle

    out = tmp_path / "rows"
    subprocess.run([sys.executable, "-c", RAY, str(out), *tars(folder)], check=True, timeout=300)
    rows = pickle.loads(out.read_bytes())
    found = {row["__key__"]: {name: data for name, data in members(row).items() if data is not None} for row in rows}
    assert found == EXPECTED


def test_megatron_energon(folder: Path, tmp_path: Path):
    energon = pytest.importorskip("megatron.energon", reason="megatron-energon brings its own torch")
    root = shutil.copytree(folder, tmp_path / "set")
    prepare = [Path(sys.executable).with_name("energon"), "prepare", root, "--non-interactive", "--no-progress"]
    prepare += ["--split-parts", r"train:.*\.tar", "--sample-type", "CrudeWebdataset"]
    subprocess.run(prepare, check=True, timeout=300)

    class AsStored(energon.DefaultTaskEncoder):
        decoder = None
        cookers = (energon.Cooker(energon.stateless(lambda sample: sample)),)

    data = energon.get_train_dataset(
        root,
        worker_config=energon.WorkerConfig(rank=0, world_size=1, num_workers=0),
        batch_size=None,
        shuffle_buffer_size=None,
        max_samples_per_sequence=None,
        repeat=False,
        task_encoder=AsStored(),
    )
    found = {sample["__key__"].rpartition("/")[2]: members(sample) for sample in energon.get_loader(data)}
    assert found == EXPECTED
