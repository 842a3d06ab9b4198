"""TorchScript archives give their tensors and run no code; CLIP loads from one, as from OpenAI's `ViT-B-32.pt`."""

import io
import pickle
import zipfile

import pytest
import tiny_clip
import torch
from PIL import Image as Pillow

from crispedit import clip, images, torchscript
from crispedit.compositor.landscape import landscape
from crispedit.filters.clip import Clip as ClipFilter
from crispedit.record import Sample

import open_clip  # isort: skip  (after crispedit.clip, which mends torchvision)

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")  # what writes the format, deprecated


@pytest.fixture(scope="module")
def openai(tmp_path_factory):
    """(architecture, archive, network): a tiny CLIP with QuickGELU and half-precision weights, as OpenAI saves it."""
    folder = tmp_path_factory.mktemp("openai")
    tiny_clip.save(folder / "tiny-of-openai")
    open_clip.add_model_config(folder / "tiny-of-openai.json")
    torch.manual_seed(7)
    network = open_clip.create_model("tiny-of-openai", force_quick_gelu=True, load_weights=False).eval()
    for parameter in network.parameters():  # every value is one that half precision has
        parameter.data = parameter.data.half().float()
    network.logit_bias = None

    class Published(torch.nn.Module):
        """The module tree of the network, with the three numbers that OpenAI's archives hold beside the weights."""

        def __init__(self) -> None:
            super().__init__()
            for name, child in network.named_children():
                setattr(self, name, child)
            for name, parameter in network.named_parameters(recurse=False):
                setattr(self, name, parameter)
            for name in ("input_resolution", "context_length", "vocab_size"):
                self.register_buffer(name, torch.tensor(32))

        def forward(self, pixels):
            return self.visual(pixels)

    with torch.inference_mode(False), torch.no_grad():
        traced = torch.jit.trace(Published(), torch.zeros(1, 3, 32, 32), check_trace=False)
    torch.jit.save(traced.half(), folder / "ViT-tiny.pt")
    return "tiny-of-openai", folder / "ViT-tiny.pt", network.float()


def test_the_tensors_are_those_that_torch_reads(openai):
    _, file, _ = openai
    expected = torch.jit.load(file).state_dict()
    found = torchscript.state_dict(file)
    assert expected.keys() <= found.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert found["visual.conv1.weight"].dtype == torch.float16


def test_clip_loads_openais_archive_and_runs_it_with_quickgelu(openai):
    name, file, network = openai
    model = clip.load(name, str(file), resize="crop")
    image = landscape(1, 96, 64)
    with torch.inference_mode():
        pixels = model.preprocess(Pillow.fromarray(image))[None]
        expected = network.encode_image(pixels, normalize=True)
        words = network.encode_text(open_clip.get_tokenizer(name)(["a lake"]), normalize=True)
    torch.testing.assert_close(model.images([image]), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(model.texts(["a lake"]), words, atol=1e-5, rtol=0)


def test_the_clip_filter_loads_it_too(openai):
    name, file, _ = openai
    made = ClipFilter(model=name, pretrained=str(file))
    made.load()
    image = landscape(1, 96, 64)
    (scores,) = made.measure([Sample("a", images.encode_jpeg(image), images.encode_jpeg(255 - image))])
    assert not isinstance(scores, Exception)
    assert -1 <= scores["image"] < 1


def test_a_checkpoint_is_no_archive(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "plain.pt")
    (tmp_path / "text.pt").write_text("no zip")
    assert not torchscript.is_archive(tmp_path / "plain.pt")
    assert not torchscript.is_archive(tmp_path / "text.pt")


def archive(path, pickled, tensors=()):
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("m/data.pkl", pickled)
        out.writestr("m/constants.pkl", pickle.dumps(()))
        for name, data in tensors:
            out.writestr(f"m/data/{name}", data)
    return path


def test_what_is_no_tensor_is_refused_and_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return eval, ("1",)  # not print: Ray puts another in its place

    file = archive(tmp_path / "evil.pt", pickle.dumps(Evil(), protocol=2))
    with pytest.raises(ValueError, match=r"can be read safely: it holds __builtin__\.eval"):
        torchscript.state_dict(file)


@pytest.mark.parametrize(
    ("size", "data", "message"), [((3,), b"\0" * 8, "cut short"), ((9,), b"\0" * 12, "reaches outside its bytes")]
)
def test_a_damaged_archive_is_named(tmp_path, size, data, message):
    class Storage:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            return ("storage", torch.FloatStorage, "0", "cpu", 3) if isinstance(obj, Storage) else None

    class Lazy:
        def __reduce__(self):
            return torch._utils._rebuild_tensor_v2, (Storage(), 0, size, (1,), False, {})

    out = io.BytesIO()
    Pickler(out, protocol=2).dump(Lazy())
    with pytest.raises(ValueError, match=message):
        torchscript.state_dict(archive(tmp_path / "cut.pt", out.getvalue(), [("0", data)]))


def test_an_archive_of_another_model_is_refused(openai, tmp_path):
    name, _, _ = openai
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other.pt do not load as tiny-of-openai: no tensor"):
        clip.load(name, str(tmp_path / "other.pt"))
