"""The diffusers editor: real pipelines, tiny and untrained, loaded from folders; edits that lie on their source."""

import json
import pickle
import shutil
import sys
from functools import wraps
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

sys.path.insert(0, str(Path(__file__).parents[1]))
import tiny_pipelines
from diffusers import DiffusionPipeline, FluxKontextPipeline, FluxTransformer2DModel
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.joyimage.image_processor import JoyImageEditImageProcessor
from diffusers.pipelines.stable_diffusion import StableDiffusionPipelineOutput
from peft import LoraConfig, get_peft_model_state_dict

from crispedit import weights
from crispedit.canvas import Canvas, stable_sizes
from crispedit.compositor.landscape import landscape
from crispedit.editors.diffusers import Diffusers, pipeline_class
from crispedit.filters.alignment import Alignment
from crispedit.images import encode_jpeg
from crispedit.record import Edit, Job, Refusal, Sample

LONGCAT = dict(pipeline="LongCatImageEditPipeline", area_px=1 << 20, multiple_px=16)
QWEN = dict(negative=" ", call={"true_cfg_scale": 4.0}, area_px=1024 * 1024, multiple_px=32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pipelines")


@pytest.fixture(scope="module")
def kontext(folder):
    return tiny_pipelines.kontext(folder / "kontext")


def editor(model, pipeline="FluxKontextPipeline", **options):
    return Diffusers(pipeline=pipeline, model=str(model), dtype="float32", **({"steps": 2} | options))


def job(instruction="make the sky red"):
    return Job("photograph", "color", instruction, "", "")


def photographs(*sizes):
    return [landscape(seed, *size) for seed, size in enumerate(sizes)]


def edits(of, sources, instructions=None, seeds=None):
    instructions = instructions or ["make the sky red"] * len(sources)
    answers = of.edit(sources, [job(text) for text in instructions], seeds or list(range(len(sources))))
    assert all(isinstance(answer, Edit) for answer in answers)
    return [answer.edited for answer in answers]


@pytest.mark.parametrize(
    ("make", "pipeline", "options"),
    [
        (tiny_pipelines.kontext, "FluxKontextPipeline", {"guidance": 2.5}),
        (tiny_pipelines.kontext, "FluxKontextPipeline", {"area_px": 9000}),
        (tiny_pipelines.kontext, "FluxKontextPipeline", {"storage": "float8"}),
        (tiny_pipelines.pix2pix, "StableDiffusionInstructPix2PixPipeline", {"call": {"image_guidance_scale": 1.5}}),
        (tiny_pipelines.klein, "Flux2KleinPipeline", {"call": {"text_encoder_out_layers": [1, 2]}}),
        (tiny_pipelines.klein, "Flux2KleinKVPipeline", {"call": {"text_encoder_out_layers": [1, 2]}}),
        (tiny_pipelines.flux2, "Flux2Pipeline", {"guidance": 4.0, "call": {"text_encoder_out_layers": [1, 2]}}),
        (tiny_pipelines.qwen_image_21, "QwenImage21Pipeline", {"area_px": 128 * 128, "multiple_px": 32}),
        (tiny_pipelines.qwen_edit, "QwenImageEditPlusPipeline", QWEN | {"steps": 1}),
        (tiny_pipelines.longcat, "LongCatImageEditPipeline", LONGCAT | {"guidance": 1.0, "steps": 1}),
        (tiny_pipelines.joyimage, "JoyImageEditPipeline", {"guidance": 1.0, "steps": 1}),
    ],
    ids=["kontext", "area", "float8", "pix2pix", "klein", "klein_kv", "flux2", "qwen21", "qwen", "longcat", "joyimage"],
)
def test_a_pipeline_edits_at_the_sources_own_size(folder, make, pipeline, options):
    model = make(folder / make.__name__)
    (source,) = photographs((99, 66))
    made = editor(model, **({"pipeline": pipeline} | options))
    (first,) = edits(made, [source], seeds=[1])
    assert first.shape == source.shape
    assert first.dtype == np.uint8
    if make not in (tiny_pipelines.qwen_edit, tiny_pipelines.longcat, tiny_pipelines.joyimage):
        # These see a megapixel whatever they are given, so they are not quick.
        again, other = edits(pickle.loads(pickle.dumps(made)), [source] * 2, seeds=[1, 2])
        assert np.array_equal(again, first)
        assert not np.array_equal(other, first)
        assert not np.array_equal(edits(made, [source], ["add a boat"], [1])[0], first)


def test_a_batch_answers_each_job_like_one_alone(kontext):
    sources = photographs((64, 48), (96, 64), (64, 48), (64, 48))
    texts = ["add a boat", "add a tree", "make it winter, with snow on every roof", "remove the tree"]
    alone = [edits(editor(kontext), [s], [t], [n])[0] for n, (s, t) in enumerate(zip(sources, texts, strict=True))]
    together = edits(editor(kontext, batch_size=3), sources, texts)
    for one, other in zip(alone, together, strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1  # matrix products of another shape round otherwise


class Confined(FluxKontextPipeline):
    """A pipeline on a device whose memory holds two edits."""

    asked = []

    @wraps(FluxKontextPipeline.__call__)
    def __call__(self, image=None, prompt=None, **kwargs):
        self.asked.append(1 if isinstance(prompt, str) else len(prompt))
        if self.asked[-1] > 2:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return super().__call__(image, prompt, **kwargs)


class Full(FluxKontextPipeline):
    """A pipeline on a device whose memory holds none."""

    def __call__(self, image=None, prompt=None, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_a_batch_too_big_for_the_memory_is_halved_and_stays_so(kontext):
    sources = photographs(*[(64, 48)] * 7)
    Confined.asked.clear()
    halved = edits(editor(kontext, f"{__name__}.Confined", batch_size=5), sources)
    assert Confined.asked == [5, 2, 2, 2, 1]
    for one, other in zip(halved, edits(editor(kontext), sources), strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1
    with pytest.raises(torch.OutOfMemoryError):
        editor(kontext, f"{__name__}.Full").edit(sources[:1], [job()], [0])


class Unchanged(DiffusionPipeline):
    """A pipeline that answers with its input: the identity edit."""

    def __init__(self, unet):
        super().__init__()
        self.register_modules(unet=unet)
        self.image_processor = VaeImageProcessor(vae_scale_factor=16)

    def __call__(self, image, prompt, generator, num_inference_steps, output_type):
        pixels = self.image_processor.preprocess(image)
        images = self.image_processor.postprocess(pixels, output_type=output_type)
        return StableDiffusionPipelineOutput(images, ["unsafe" in prompt])


class Stretched(Unchanged):
    """The identity edit of a pipeline that brings its input to a size of its own."""

    def __call__(self, image, prompt, **kwargs):
        return super().__call__(image.resize((image.width + 16, image.height)), prompt, **kwargs)


@pytest.fixture(scope="module")
def unchanged(folder):
    unet = tiny_pipelines.UNet2DConditionModel(
        block_out_channels=(8,), norm_num_groups=4, down_block_types=("DownBlock2D",), up_block_types=("UpBlock2D",)
    )
    Unchanged(unet).save_pretrained(folder / "unchanged")
    return folder / "unchanged"


def aligned(source, edited):
    sample = Sample("k", encode_jpeg(source), encode_jpeg(edited), category="color")
    (scores,) = Alignment().measure([sample])
    return scores


@pytest.mark.parametrize("size", [(1024, 1024), (1283, 1024), (1100, 1651), (1819, 1024)])
@pytest.mark.parametrize("area", [None, 1024 * 1024])
def test_an_identity_edit_lies_on_its_source(unchanged, size, area):
    (source,) = photographs(size)
    multiple = None if area is None else 32
    made = editor(unchanged, f"{__name__}.Unchanged", area_px=area, multiple_px=multiple)
    (edited,) = edits(made, [source])
    scores = aligned(source, edited)
    assert scores["aspect_error"] == 0
    assert scores["displacement_px"] <= 0.1
    if area is None:
        assert np.array_equal(edited, source)
    # What the usual rounding of both sides gives, a stretch, is seen by the same filter.
    stretched = np.ascontiguousarray(edited[:, : edited.shape[1] * 63 // 64])
    stretched = np.asarray(Pillow.fromarray(stretched).resize(size))
    assert aligned(source, stretched)["displacement_px"] > Alignment.bounds["displacement_px"].max


def test_an_answer_of_another_size_is_an_error_and_an_unsafe_one_a_refusal(unchanged):
    (source,) = photographs((64, 48))
    with pytest.raises(ValueError, match="canvas of 64x48 with 80x48"):
        editor(unchanged, f"{__name__}.Stretched").edit([source], [job()], [0])
    made = editor(unchanged, f"{__name__}.Unchanged")
    answers = made.edit([source] * 2, [job("unsafe"), job()], [0, 1])
    assert answers[0] == Refusal("unsafe")
    assert isinstance(answers[1], Edit)


PACKAGE = """
import diffusers

class OtherTransformer(diffusers.FluxTransformer2DModel):
    pass

# Where the index of a published model looks for it.
diffusers.OtherTransformer = OtherTransformer
"""
PIPELINE = """
from diffusers import FluxKontextPipeline

class OtherPipeline(FluxKontextPipeline):
    pass
"""


def test_a_pipeline_of_another_package_is_found_by_its_path(kontext, folder, tmp_path, monkeypatch):
    """As Step1X-Edit's is, whose class and transformer are in no release of diffusers, but which its published model
    names as if they were."""
    (tmp_path / "another").mkdir()
    (tmp_path / "another" / "__init__.py").write_text(PACKAGE)
    (tmp_path / "another" / "editing.py").write_text(PIPELINE)
    model = shutil.copytree(kontext, folder / "another")
    for index, key, value in (
        ("model_index.json", "_class_name", "OtherPipeline"),
        ("model_index.json", "transformer", ["diffusers", "OtherTransformer"]),
        ("transformer/config.json", "_class_name", "OtherTransformer"),
    ):
        written = json.loads((model / index).read_text())
        (model / index).write_text(json.dumps(written | {key: value}))
    sources = photographs((64, 48))
    with pytest.raises(ValueError, match=r"another.editing, .* cannot be imported"):
        editor(model, "another.editing.OtherPipeline").load()
    monkeypatch.syspath_prepend(tmp_path)
    made = editor(model, "another.editing.OtherPipeline", batch_size=2)
    assert np.array_equal(edits(made, sources)[0], edits(editor(kontext), sources)[0])
    assert type(made.loaded).__name__ == "OtherPipeline"
    assert type(made.loaded.transformer).__name__ == "OtherTransformer"
    with pytest.raises(ValueError, match=r"another.editing .* has no Absent"):
        editor(model, "another.editing.Absent").load()


@settings(max_examples=200)
@given(st.integers(1, 4000), st.integers(1, 4000), st.sampled_from([(None, 16), (1 << 20, 32), (9000, 8)]))
def test_a_canvas_holds_its_source(width, height, rule):
    area, multiple = rule
    canvas = Canvas.of(width, height, multiple, area)
    assert canvas.width % multiple == canvas.height % multiple == 0
    assert canvas.inner[0] <= canvas.width
    assert canvas.inner[1] <= canvas.height
    if area is None:
        assert canvas.inner == (width, height)
        assert canvas.width - width < multiple
    else:
        assert (canvas.width, canvas.height) in stable_sizes(area, multiple)
        if 0.5 < width / height < 2:
            used = canvas.inner[0] * canvas.inner[1] / (canvas.width * canvas.height)
            assert used > (0.96 if area > 9000 else 0.85)
            assert abs(canvas.width * canvas.height / area - 1) < (0.06 if area > 9000 else 0.2)


@pytest.fixture(scope="module")
def lora(folder):
    transformer = FluxTransformer2DModel.from_pretrained(folder / "kontext", subfolder="transformer")
    torch.manual_seed(1)
    transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    layers = get_peft_model_state_dict(transformer)
    FluxKontextPipeline.save_lora_weights(folder / "lora", transformer_lora_layers=layers)
    return folder / "lora"


def test_loras_are_fused_at_their_scales_and_are_part_of_the_identity(kontext, lora, folder):
    sources = photographs((64, 48))

    def with_loras(*scales, path=lora):
        return editor(kontext, loras=[{"path": str(path), "scale": scale} for scale in scales])

    plain, none, one, halves = (
        edits(made, sources)[0].astype(int)
        for made in (editor(kontext), with_loras(0.0), with_loras(10.0), with_loras(5.0, 5.0))
    )
    assert np.array_equal(plain, none)
    assert np.abs(plain - one).max() > 8
    assert np.abs(one - halves).max() <= 1
    made = with_loras(1.0)
    made.load()
    assert not any("lora" in name for name, _ in made.loaded.transformer.named_parameters())
    elsewhere = shutil.copytree(lora, folder / "moved" / "lora")
    assert with_loras(1.0, path=elsewhere).identity() == made.identity()
    assert with_loras(0.9).identity() != made.identity() != editor(kontext).identity()
    file = elsewhere / "pytorch_lora_weights.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    weights.digest.cache_clear()
    assert with_loras(1.0, path=elsewhere).identity() != made.identity()


def test_a_schedule_of_few_steps(kontext):
    sources = photographs((64, 48))
    shifted = editor(kontext, scheduler={"shift": 5.0})
    assert not np.array_equal(edits(shifted, sources)[0], edits(editor(kontext), sources)[0])
    with pytest.raises(
        ValueError, match=r"scheduler.shiftt is not an option of FlowMatch.*; choose from .*shift_terminal"
    ):
        editor(kontext, scheduler={"shiftt": 5.0}).load()


def test_a_step_cache_skips_what_changes_little_and_forgets_between_edits(folder, monkeypatch):
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as module

    for name in ("VAE_IMAGE_SIZE", "CONDITION_IMAGE_SIZE"):  # a megapixel takes too long here
        monkeypatch.setattr(module, name, 64 * 64)
    qwen = tiny_pipelines.qwen_edit(folder / "cached")
    (source,) = photographs((64, 48))
    options = dict(area_px=64 * 64, multiple_px=32, steps=3, pipeline="QwenImageEditPlusPipeline")

    def with_cache(threshold):
        return editor(qwen, **options, cache={"threshold": threshold})

    plain = edits(editor(qwen, **options), [source])[0]
    assert np.array_equal(edits(with_cache(1e-9), [source])[0], plain)
    first, again = edits(with_cache(100.0), [source] * 2, seeds=[0, 0])
    assert not np.array_equal(first, plain)
    assert np.array_equal(first, again)
    assert with_cache(100.0).identity() != with_cache(1e-9).identity()


def test_cache_dit_skips_what_changes_little_and_forgets_between_edits(folder):
    pytest.importorskip("cache_dit", reason="the package cache-dit is not installed")
    klein = tiny_pipelines.klein(folder / "cache_dit")
    options = {"steps": 12, "call": {"text_encoder_out_layers": [1, 2]}}  # it computes the first 8 in full
    (source,) = photographs((64, 64))

    def blocks_run(cache):
        made = editor(klein, "Flux2KleinPipeline", **options, **cache)
        made.load()
        ran = []
        made.loaded.transformer.transformer_blocks[1].register_forward_hook(lambda *_: ran.append(1))
        first, again = edits(made, [source] * 2, seeds=[0, 0])
        assert np.array_equal(first, again)
        return len(ran), first

    always, plain = blocks_run({})
    never_skipped, same = blocks_run({"cache": {"kind": "cache_dit", "threshold": 1e-9}})
    skipped, _ = blocks_run({"cache": {"kind": "cache_dit", "threshold": 100.0}})
    assert always == never_skipped == 24
    assert np.array_equal(plain, same)
    assert 16 <= skipped < 24


@pytest.mark.parametrize("how", [{"quantize": "int8"}, {"quantize": "float8"}, {"storage": "float8"}])
def test_matrices_in_8_bits(kontext, lora, how):
    sources = photographs((64, 48))
    options = {"loras": [{"path": str(lora)}]}
    if "quantize" in how:
        pytest.importorskip("torchao", reason="8-bit matrices need torchao")
    made = editor(kontext, **how, **options)
    off = np.abs(edits(made, sources)[0].astype(int) - edits(editor(kontext, **options), sources)[0])
    assert 0 < off.max()
    assert off.mean() < 12
    if "storage" in how:
        assert made.loaded.transformer.transformer_blocks[0].attn.to_q.weight.dtype == torch.float8_e4m3fn
        return
    assert "torchao" in type(made.loaded.transformer.x_embedder.weight).__module__


@pytest.mark.skipif(not torch.cuda.is_available(), reason="diffusers' 4-bit loading needs a GPU")
def test_matrices_in_4_bits(kontext):
    bitsandbytes = pytest.importorskip("bitsandbytes", reason="4-bit matrices need bitsandbytes")
    sources = photographs((64, 48))
    made = editor(kontext, quantize="nf4")
    off = np.abs(edits(made, sources)[0].astype(int) - edits(editor(kontext), sources)[0])
    assert 0 < off.max()
    assert off.mean() < 40
    matrix = made.loaded.transformer.x_embedder
    assert isinstance(matrix, bitsandbytes.nn.Linear4bit)
    assert matrix.weight.dtype == torch.uint8
    assert made.identity() != editor(kontext).identity()


def test_older_candidates_keep_their_keys(kontext):
    """An option that is not used is not in the identity."""
    assert not {"loras", "scheduler", "cache", "quantize"} & editor(kontext).identity()["options"].keys()


class Bucketed(DiffusionPipeline):
    """The identity edit of a pipeline that knows some sizes only, with JoyImage's own image processor."""

    def __init__(self, unet):
        super().__init__()
        self.register_modules(unet=unet)
        self.vae_image_processor = JoyImageEditImageProcessor(vae_scale_factor=8, basesize=1024)

    def __call__(self, image, prompt, generator, num_inference_steps, output_type, height=None, width=None):
        size = self.vae_image_processor.get_default_height_width(image, height, width)
        made = self.vae_image_processor.resize_center_crop(image, size)
        return StableDiffusionPipelineOutput([made], None)


@pytest.mark.parametrize("size", [(1024, 1024), (1100, 1651)])
def test_a_pipeline_of_some_sizes_only_keeps_the_source_in_place(unchanged, size):
    (source,) = photographs(size)
    scores = aligned(source, edits(editor(unchanged, f"{__name__}.Bucketed"), [source])[0])
    assert scores["aspect_error"] == 0
    assert scores["displacement_px"] <= 0.15


@pytest.mark.parametrize(
    ("pipeline", "multiple"),
    [("QwenImageEditPlusPipeline", 32), ("LongCatImageEditPipeline", 16), ("QwenImage21Pipeline", 32)],
)
def test_each_pipelines_own_choice_of_size_leaves_the_canvases_as_they_are(pipeline, multiple):
    module = sys.modules[pipeline_class(pipeline).__module__]
    for width, height in ((1024, 1024), (1283, 1024), (1100, 1651), (1819, 1024), (600, 2000)):
        canvas = Canvas.of(width, height, multiple, 1 << 20, module.calculate_dimensions)
        size = canvas.width, canvas.height
        assert module.calculate_dimensions(1 << 20, canvas.width / canvas.height)[:2] == size
        assert max(canvas.inner[0] / canvas.width, canvas.inner[1] / canvas.height) == 1


def test_qwens_own_rounding_leaves_the_canvases_as_they_are():
    from diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus import VAE_IMAGE_SIZE, calculate_dimensions

    sizes = stable_sizes(VAE_IMAGE_SIZE, 32)
    assert len(sizes) > 40
    assert all(calculate_dimensions(VAE_IMAGE_SIZE, w / h) == (w, h) for w, h in sizes)
    with pytest.raises(ValueError, match="no size of area_px=300"):
        stable_sizes(300, 512)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"pipeline": "NoSuchPipeline"}, r"diffusers \(.*\) has no NoSuchPipeline: .* package.module.Class"),
        ({"pipeline": "torch.nn.Linear"}, "torch.nn.Linear is not a pipeline class"),
        ({"pipeline": "torch.nn.Editor"}, "torch.nn .* has no Editor"),
        ({"pipeline": "absent.a.Pipeline"}, r"absent.a, .* of absent.a.Pipeline, .* \(.*\): install it here"),
        ({"pipeline": "DDPMPipeline"}, "its call has no image and no prompt"),
        ({"call": {"true_scale": 2}}, r"call.true_scale .* choose from .*true_cfg_scale"),
        ({"call": {"prompt": "other"}}, "call.prompt"),
        ({"pipeline": "QwenImageEditPlusPipeline", "batch_size": 2}, "references of one edit"),
        ({"pipeline": "Flux2KleinPipeline", "negative": " "}, "takes no negative prompt"),
        ({"offload": "model", "device": "cpu"}, "this machine has none"),
        ({"pipeline": "QwenImage21Pipeline", "guidance": 4.0}, "takes no guidance; .*call.true_cfg_scale"),
        ({"pipeline": "Flux2KleinKVPipeline", "guidance": 1.0}, "takes no guidance; drop guidance=1"),
        ({"pipeline": "QwenImageEditPlusPipeline", "call": {"true_cfg_scale": 4}}, "ignores .* without a negative"),
        ({"pipeline": "LongCatImageEditPipeline"}, "chooses the size .* set area_px .* 1048576"),
        (LONGCAT | {"loras": [{"path": "x"}]}, "cannot load LoRAs"),
        ({"cache": {}}, "with the first-block cache: its call names no cache context"),
        (LONGCAT | {"cache": {}}, "mixes kinds of blocks"),
        ({"pipeline": "QwenImage21Pipeline", "cache": {}}, "does not know QwenImage21TransformerBlock"),
        ({"call": {"height": 512}}, "call.height is not an argument .* that can be set here"),
        ({"storage": "float8", "quantize": "int8"}, "set one of them"),
        ({"quantize": "nf4", "loras": [{"path": "x"}]}, "cannot fuse LoRAs"),
        ({"pipeline": "StableDiffusionInstructPix2PixPipeline", "quantize": "nf4"}, "no transformer"),
        ({"quantize": "nf4", "device": "cpu"}, "'nf4' needs a GPU"),
    ],
)
def test_wrong_options_are_refused_before_weights_are_read(tmp_path, options, said):
    with pytest.raises(ValueError, match=said):
        editor(tmp_path / "absent", **({"pipeline": "FluxKontextPipeline"} | options)).load()


def test_checking_a_recipe_refuses_what_the_call_would_refuse(tmp_path):
    from crispedit.pipelines import recipe

    file = tmp_path / "recipe.yaml"
    file.write_text(
        "run: run\nsource: {kind: folder, path: photos}\ncategories: {color: 1}\n"
        "edit: {editors: {mine: {editor: diffusers, model: absent, "
        "pipeline: QwenImage21Pipeline}}}\n"
    )
    assert recipe.load(str(file)).editors["mine"].steps == 28
    with pytest.raises(ValueError, match=r"edit.editors.mine: .* takes no guidance"):
        recipe.load(str(file), ["edit.editors.mine.guidance=4"])


def test_the_identity_is_the_weights_and_not_their_place(kontext, folder):
    made = editor(kontext)
    copy = folder / "elsewhere" / "kontext"
    for path in sorted(kontext.rglob("*")):
        if path.is_file():
            (copy / path.relative_to(kontext)).parent.mkdir(parents=True, exist_ok=True)
            (copy / path.relative_to(kontext)).write_bytes(path.read_bytes())
    assert editor(copy, device="cpu", batch_size=4).identity() == made.identity()
    assert editor(copy, steps=3).identity() != made.identity()
    file = copy / "transformer" / "diffusion_pytorch_model.safetensors"
    data = bytearray(file.read_bytes())
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    last = max(value["data_offsets"][0] for name, value in header.items() if name != "__metadata__")
    data[8 + int.from_bytes(data[:8], "little") + last] ^= 1
    file.write_bytes(data)
    weights.digest.cache_clear()
    assert editor(copy).identity() != made.identity()
