"""MagicBrush, Emu Edit and AnyBench: their cases from published layouts, and their scores by the published formulae."""

import json

import cv2
import numpy as np
import published_sets as sets
import pytest
import tiny_clip
import tiny_vit
import torch
from PIL import Image as Pillow

from crispedit import benchmarks, parts
from crispedit.benchmark import Benchmark, Case
from crispedit.measures import ClipSpec, DinoSpec, Measures, Models

torchvision_transforms = pytest.importorskip("torchvision.transforms")


@pytest.fixture(scope="module")
def measures(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    clip = ClipSpec(model=f"local-dir:{tiny_clip.save(root / 'clip')}")
    made = Measures(Models(clip=clip, clip_large=clip, dino=DinoSpec(model=str(tiny_vit.save(root / "vit")))))
    made.load()
    return made


def make(name, path, **options):
    return parts.make(benchmarks, name, Benchmark, {"path": path, **options})


def official_distance(generated, truth, loss):
    """`eval_distance` of MagicBrush's image_eval.py for one pair of files."""
    generated, truth = Pillow.fromarray(generated), Pillow.fromarray(truth)
    to_tensor = torchvision_transforms.ToTensor()
    return loss(to_tensor(generated.resize(truth.size)), to_tensor(truth)).item()


def test_magicbrush_pairs_as_the_official_script_does(tmp_path):
    cases = {case.id: case for case in make("magicbrush", sets.magicbrush(tmp_path)).cases()}
    single, multi = "magicbrush-official", "magicbrush-official-multi"
    assert [name for name, case in cases.items() if single in case.protocols] == [
        "139/139_1",
        "30/30_1",
        "139/139_inde_2",
        "139/139_inde_3",
    ]
    assert [name for name, case in cases.items() if multi in case.protocols] == ["30/30_1", "139/139_iter_3"]
    third = cases["139/139_inde_3"]
    assert third.source.path.endswith("139/139-output2.png")  # the ground truth of the turn before
    assert third.target.path.endswith("139/139-output3.png")
    assert third.target_caption == "a picture called 139-output3.png"
    last = cases["139/139_iter_3"]
    assert (last.source, last.after) == (None, "139/139_iter_2")
    assert cases[last.after].protocols == ()
    assert cases[last.after].after == "139/139_1"
    assert all(Case.from_json(case.to_json()) == case for case in cases.values())
    only_single = make("magicbrush", tmp_path, multi_turn=False)
    assert {case.protocols for case in only_single.cases()} == {(single, "magicbrush-anysd")}
    assert list(only_single.protocols) == [single, "magicbrush-anysd"]


def test_magicbrush_scores_are_the_official_formulae(tmp_path, measures):
    benchmark = make("magicbrush", sets.magicbrush(tmp_path))
    case = next(case for case in benchmark.cases() if case.id == "30/30_1")
    edited = sets.picture(7, 50, 80)  # of another size than the ground truth
    (found,) = benchmark.score([sets.answer(case, edited)], measures)
    assert found.values["magicbrush-official"] == found.values["magicbrush-official-multi"]
    values, truth = found.values["magicbrush-official"], sets.picture(31)
    assert values["l1"] == pytest.approx(official_distance(edited, truth, torch.nn.L1Loss()), rel=1e-5)
    assert values["l2"] == pytest.approx(official_distance(edited, truth, torch.nn.MSELoss()), rel=1e-5)
    # eval_clip_i and eval_clip_t: cosines of unresized images and of the caption of the ground truth.
    from crispedit import clip

    model = clip.load(measures.models.clip.model, resize="crop")
    a, b = model.images([edited, truth])
    text = model.texts(["a picture called 30-output1.png"])[0]
    assert values["clip_i"] == pytest.approx(float(torch.cosine_similarity(a, b, dim=0)), abs=1e-5)
    assert values["clip_t"] == pytest.approx(float(torch.cosine_similarity(a, text, dim=0)), abs=1e-5)
    assert -1 <= values["dino"] < 1


def test_what_is_missing_of_magicbrush_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"edit_sessions.json is missing: the sessions of MagicBrush's test.zip"):
        make("magicbrush", tmp_path).cases()
    sets.magicbrush(tmp_path)
    sessions = json.loads((tmp_path / "edit_sessions.json").read_text())
    del sessions["139"][1]["instruction"]
    (tmp_path / "edit_sessions.json").write_text(json.dumps(sessions))
    with pytest.raises(ValueError, match="session 139, turn 2: no 'instruction'"):
        make("magicbrush", tmp_path).cases()


def test_emu_edit_is_scored_against_the_source_and_against_emus_answer(tmp_path, measures):
    benchmark = make("emu_edit", sets.emu(tmp_path))
    cases = benchmark.cases()
    assert [(case.id, case.group) for case in cases[:2]] == [("1000", "add"), ("1001", "style")]
    assert np.array_equal(cases[3].source.image(), sets.picture(3))  # of the second row group
    assert np.array_equal(cases[4].target.image(), sets.picture(104))
    edited = sets.picture(77)
    (found,) = benchmark.score([sets.answer(cases[1], edited)], measures)
    source, theirs = found.values["emu-source"], found.values["emu-anysd"]
    l1 = torch.nn.L1Loss()
    assert source["l1"] == pytest.approx(official_distance(edited, sets.picture(1), l1), rel=1e-5)
    assert theirs["l1"] == pytest.approx(official_distance(edited, sets.picture(101), l1), rel=1e-5)
    # AnySD's script scores the caption against Emu Edit's image; here it is the model's.
    assert theirs["clip_t"] == source["clip_t"] == measures.clip_text("clip", edited, "a hill number 1")
    assert theirs["clip_t"] != measures.clip_text("clip", sets.picture(101), "a hill number 1")
    assert found.values["clipdir-ip2p"]["clip_dir"] is not None


def test_equal_captions_have_no_direction(tmp_path, measures):
    benchmark = make("emu_edit", sets.emu(tmp_path))
    (found,) = benchmark.score([sets.answer(benchmark.cases()[0], sets.picture(77))], measures)
    assert found.values["clipdir-ip2p"]["clip_dir"] is None


def test_copying_the_source_is_perfect_under_emu_source(tmp_path, measures):
    """The trap of that protocol, which is why the control stands in every table."""
    benchmark = make("emu_edit", sets.emu(tmp_path, answers=False))
    assert list(benchmark.protocols) == ["emu-source", "clipdir-ip2p"]
    case = benchmark.cases()[1]
    assert case.target is None
    (found,) = benchmark.score([sets.answer(case, sets.picture(1))], measures)
    values = found.values["emu-source"]
    assert (values["l1"], values["clip_i"], values["dino"]) == (0, pytest.approx(1), pytest.approx(1))
    assert values["clip_t"] < 1


def test_the_other_split_is_not_read(tmp_path):
    sets.emu(tmp_path)
    with pytest.raises(ValueError, match=r"no test-\*.parquet of facebook/emu_edit_test_set"):
        make("emu_edit", tmp_path, split="test").cases()


def test_anybench_resizes_the_ground_truth_to_the_answer(tmp_path, measures):
    benchmark = make("anybench", sets.anybench(tmp_path, sizes=((96, 64), (48, 40))))
    cases = {case.id: case for case in benchmark.cases()}
    assert list(cases) == ["add/000", "add/001", "style_change/000", "style_change/001"]
    edited = sets.picture(9)
    (found,) = benchmark.score([sets.answer(cases["add/001"], edited)], measures)
    truth = cv2.resize(sets.picture(51), (48, 40))
    l1 = torch.nn.L1Loss()
    assert found.values["anybench-anysd"]["l1"] == pytest.approx(official_distance(truth, edited, l1), rel=1e-5)
    assert found.values["anybench-anysd"]["l1"] != pytest.approx(official_distance(edited, truth, l1), rel=1e-3)


def test_anybench_reads_a_set_that_repeats_a_file_name(tmp_path):
    folder = sets.anybench(tmp_path)
    file = folder / "add" / "edit_result.json"
    listed = json.loads(file.read_text())
    file.write_text(json.dumps([*listed, {**listed[0], "edit": "another edit"}]))
    cases = [case for case in make("anybench", folder).cases() if case.group == "add"]
    assert [case.id for case in cases] == ["add/000", "add/001", "add/000~2"]
    assert [case.result for case in cases] == ["add/000", "add/001", "add/000"]
    assert cases[2].instruction == "another edit"


def test_anybench_files_do_not_leave_their_folder(tmp_path):
    sets.anybench(tmp_path / "set")
    outside = tmp_path / "outside.png"
    sets.write(outside, sets.picture(1))
    file = tmp_path / "set" / "add" / "edit_result.json"
    listed = json.loads(file.read_text())
    listed[0]["image_file"] = "../../outside.png"
    file.write_text(json.dumps(listed))
    case = make("anybench", tmp_path / "set").cases()[0]
    with pytest.raises(ValueError, match=r"set/outside.png: No such file"):
        case.source.image()
