"""The aesthetic filter reads LAION's two kinds of head and applies them to real CLIP embeddings."""

import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))
import tiny_clip

from crispedit import clip
from crispedit.compositor.landscape import landscape
from crispedit.filters.aesthetic import Aesthetic, read_head
from crispedit.images import encode_jpeg
from crispedit.record import Sample


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return f"local-dir:{tiny_clip.save(tmp_path_factory.mktemp('clip') / 'tiny')}"


def v1(path, width=tiny_clip.WIDTH):
    torch.manual_seed(1)
    torch.save(nn.Linear(width, 1).state_dict(), path)
    return path


def v2():
    """LAION-Aesthetics V2's layout: linear layers with dropout between, under the name `layers`."""
    torch.manual_seed(2)
    sizes = (tiny_clip.WIDTH, 24, 12, 6, 3, 1)
    layers = []
    for i, (a, b) in enumerate(pairwise(sizes)):
        layers += [nn.Linear(a, b), nn.Dropout(0.2)] if i < 3 else [nn.Linear(a, b)]
    return nn.Sequential(*layers).eval()


def photo(seed):
    return Sample(key=str(seed), source_jpeg=encode_jpeg(landscape(seed, 96, 64)))


def test_a_linear_head_scores_photographs_and_pairs(model, tmp_path):
    head = v1(tmp_path / "sa_0_4_vit_l_14_linear.pth")
    state = torch.load(head, weights_only=True)
    pair = photo(2)
    pair.edited_jpeg = photo(3).source_jpeg
    rows = Aesthetic(head=str(head), model=model, pretrained="").measure([photo(1), pair])
    images = clip.load(model, resize="crop").images([photo(1).source, pair.source, pair.edited])
    expected = (images @ state["weight"].T + state["bias"])[:, 0].tolist()
    assert rows[0] == {"source": pytest.approx(expected[0], abs=1e-4), "edited": None, "no_model": 0}
    assert [rows[1]["source"], rows[1]["edited"]] == pytest.approx(expected[1:], abs=1e-4)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_stack_of_linear_layers_is_one_linear_layer(tmp_path, suffix):
    network, path = v2(), tmp_path / f"head.{suffix}"
    state = {f"layers.{name}": value for name, value in network.state_dict().items()}
    torch.save(state, path) if suffix == "pth" else save_file(state, path)
    weight, bias = read_head(path)
    x = torch.randn(5, tiny_clip.WIDTH)
    torch.testing.assert_close(x @ weight + bias, network(x)[:, 0])


def test_wrong_heads_are_refused(model, tmp_path):
    with pytest.raises(ValueError, match="the head file"):
        Aesthetic(head=str(tmp_path / "absent.pth")).load()
    torch.save({"weight": torch.ones(2, 4), "bias": torch.ones(2)}, tmp_path / "two.pth")
    with pytest.raises(ValueError, match="is not a linear head with one output"):
        read_head(tmp_path / "two.pth")
    with pytest.raises(ValueError, match=r"embeddings of 768, but local-dir.* gives 32"):
        Aesthetic(head=str(v1(tmp_path / "l14.pth", 768)), model=model, pretrained="").measure([photo(1)])


def test_the_identity_is_the_heads_content_not_its_place(tmp_path):
    here, there = v1(tmp_path / "a.pth"), tmp_path / "b.pth"
    there.write_bytes(here.read_bytes())
    assert Aesthetic(head=str(here)).identity() == Aesthetic(head=str(there)).identity()
    there.write_bytes(b"another")
    assert Aesthetic(head=str(here)).identity() != Aesthetic(head=str(there)).identity()
