"""The CLIP filter's cosines, against open_clip and the definitions, and its nulls."""

import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))
import tiny_clip

from crispedit import clip, weights
from crispedit.compositor.landscape import landscape
from crispedit.embedding import Remembered
from crispedit.filters.clip import Clip
from crispedit.images import encode_jpeg
from crispedit.record import Sample


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return f"local-dir:{tiny_clip.save(tmp_path_factory.mktemp('clip') / 'tiny')}"


def pair(seed, before="a lake", after="a lake with a boat"):
    source, edited = (encode_jpeg(landscape(seed + offset, 96, 64)) for offset in (0, 100))
    return Sample(key=str(seed), source_jpeg=source, edited_jpeg=edited, source_caption=before, target_caption=after)


def test_the_scores_are_the_published_definitions(model):
    sample = pair(1)
    loaded = clip.load(model)
    source, edited = loaded.images([sample.source, sample.edited])
    before, after = loaded.texts(["a lake", "a lake with a boat"])
    cosine = {
        "source": source @ before,
        "target": edited @ after,
        "image": source @ edited,
        "direction": F.cosine_similarity(edited - source, after - before, dim=0),
    }
    scores = Clip(model=model).measure([sample])[0]
    assert scores == {name: pytest.approx(float(value), abs=2e-5) for name, value in cosine.items()} | {"no_model": 0}


def test_a_pair_is_measured_alike_in_any_company(model):
    samples = [pair(seed, f"a view of {seed} hills") for seed in range(3)]
    filter_ = Clip(model=model)
    together = filter_.measure(samples)
    assert together == [filter_.measure([sample])[0] for sample in samples]
    assert together[::-1] == filter_.measure(samples[::-1])
    assert len({row["image"] for row in together}) == 3


def test_what_cannot_be_known_is_null(model):
    without, same, still = pair(1, None, "a lake"), pair(2, "a lake", "a lake"), pair(3)
    still.edited_jpeg = still.source_jpeg
    rows = Clip(model=model).measure([without, same, still])
    assert rows[0]["source"] is None
    assert rows[0]["direction"] is None
    assert rows[0]["target"] is not None
    assert rows[1]["direction"] is None
    assert rows[1]["source"] is not None
    assert rows[2]["direction"] is None
    assert rows[2]["image"] == 1.0


def test_without_weights_every_score_is_null_and_says_why(monkeypatch, tmp_path):
    monkeypatch.setattr(weights, "folder", lambda name: tmp_path / name)
    scores = Clip().measure([pair(1), pair(2)])
    assert scores == [{"source": None, "target": None, "image": None, "direction": None, "no_model": 1}] * 2


def test_a_wrong_model_stops_the_run_when_it_loads():
    with pytest.raises(ValueError, match="no model 'ViT-Z-99'"):
        Clip(model="ViT-Z-99", pretrained="openai").load()


def test_the_identity_names_the_weights(model):
    assert Clip().identity()["weights"] == weights.fingerprint("clip")
    assert Clip(model=model).identity()["options"]["model"] == model
    assert Clip(model=model).identity() != Clip(model=model, resize="crop").identity()


def test_nothing_heavy_is_imported_before_it_loads():
    import subprocess

    modules = "crispedit.filters.clip, crispedit.filters.aesthetic"
    code = f"import sys, {modules}; assert not {{'torch', 'open_clip'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_embedded_model_measures_an_edit():
    sample = pair(1, "A photo in shades of blue.", "A photo in shades of blue; on the left there is a red kite.")
    scores = Clip().measure([sample])[0]
    assert scores["no_model"] == 0
    assert all(-1 <= scores[name] <= 1 for name in ("source", "target", "image", "direction"))


def test_without_open_clip_there_is_no_model_and_no_error():
    measure = (
        "import sys; sys.modules['open_clip'] = None\n"
        "from crispedit.record import Sample; from crispedit.filters.clip import Clip\n"
        "print(Clip().measure([Sample('pair', b'', b'')])[0], Clip().identity()['weights'])"
    )
    told = subprocess.run([sys.executable, "-c", measure], capture_output=True, text=True, check=True).stdout
    nothing = {"source": None, "target": None, "image": None, "direction": None, "no_model": 1}
    assert told == f"{nothing} None\n"
    assert Clip().identity()["weights"] is not None


def test_a_shared_photograph_and_caption_are_embedded_once(model, monkeypatch):
    edits = [pair(seed, "a lake", f"a lake with {seed} boats") for seed in range(3)]
    for edit in edits[1:]:
        edit.source_jpeg = edits[0].source_jpeg
    apart = [Clip(model=model).measure([edit])[0] for edit in edits]
    loaded = clip.load(model)
    monkeypatch.setattr(clip, "load", lambda *_: loaded)
    filter_ = Clip(model=model)
    through = {"image": 0, "text": 0}
    for tower, module in (("image", loaded.network.visual), ("text", loaded.network.transformer)):
        module.register_forward_hook(lambda *_, tower=tower: through.update({tower: through[tower] + 1}))
    assert filter_.measure(edits[:2]) + filter_.measure(edits[2:]) == apart
    assert through == {"image": 4, "text": 4}
    assert filter_.measure(edits[::-1]) == apart[::-1]
    assert through == {"image": 4, "text": 4}


def test_only_so_many_embeddings_are_remembered():
    embedded = []

    def embed(items):
        embedded.extend(items)
        return torch.tensor([[float(item)] for item in items])

    cache = Remembered(embed, limit=3)
    for keys in ("abc", "bd", "abd"):  # "a" is forgotten for "d"
        assert cache({key: partial(ord, key) for key in keys}) == {key: torch.tensor([ord(key)]) for key in keys}
    assert "".join(map(chr, embedded)) == "abcda"
