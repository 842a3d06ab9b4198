"""What every benchmark promises, tested for whatever lies in the folder."""

import importlib
import pickle

import numpy as np
import published_sets as sets
import pytest
from pydantic import ValidationError

from crispedit import benchmarks, parts
from crispedit.benchmark import Answer, Benchmark, Case, Picture
from crispedit.measures import Measures, Models

NAMES = parts.names(benchmarks)
WRITERS = {
    "magicbrush": sets.magicbrush,
    "emu_edit": sets.emu,
    "anybench": sets.anybench,
    "gedit": sets.gedit,
    "imgedit": sets.imgedit,
    "gedit_v2": sets.gedit_v2,
    "edit_compass": sets.edit_compass,
}
POINTWISE = [name for name in NAMES if not parts.find(benchmarks, name, Benchmark).pairwise]


@pytest.fixture
def made(request, tmp_path):
    """The benchmark with the cases of a small published set; `shards` is given its own."""
    name = request.param
    if name in WRITERS:
        path = WRITERS[name](tmp_path)
        more = {"prompts": path / "Prompt"} if name == "edit_compass" else {}
        return parts.make(benchmarks, name, Benchmark, {"path": path, **more})
    shards = parts.make(benchmarks, name, Benchmark, {"path": str(tmp_path)})
    for n in range(4):
        sets.write(tmp_path / f"{n}.png", sets.picture(n))
    pictures = [Picture(str(tmp_path / f"{n}.png")) for n in range(4)]
    cases = [Case(str(n), "edit", pictures[n], target=pictures[n + 1], protocols=("shards",)) for n in range(3)]
    return shards.listed(cases)


@pytest.mark.parametrize("made", NAMES, indirect=True)
def test_a_benchmark_says_what_it_is_and_lists_cases_that_score(made):
    assert importlib.import_module(type(made).__module__).__doc__
    with pytest.raises(ValidationError):
        type(made)(path="x", no_such_option=1)
    assert pickle.loads(pickle.dumps(made)).identity() == made.identity()
    for protocol in made.protocols.values():
        assert protocol.headline in protocol.metrics
        assert protocol.about
    cases = made.cases()
    assert list(cases) == list(made.cases())
    assert len({case.id for case in cases}) == len(cases)
    assert {p for case in cases for p in case.protocols} == set(made.protocols)


@pytest.mark.parametrize("made", POINTWISE, indirect=True)
def test_a_score_does_not_depend_on_its_batch(made):
    measures = Measures(Models())
    measures.load()
    answers = [sets.answer(case, sets.picture(60 + n)) for n, case in enumerate(made.cases()) if case.source]
    whole = made.score(answers, measures)
    assert [made.score([answer], measures)[0] for answer in answers] == whole
    assert made.score(answers[::-1], measures)[::-1] == whole
    for answer, found in zip(answers, whole, strict=True):
        assert set(found.values) >= set(answer.case.protocols)
        for protocol in answer.case.protocols:
            assert set(found.values[protocol]) == set(made.protocols[protocol].metrics)


def test_a_picture_is_a_file_a_range_or_a_cell(tmp_path):
    image = sets.picture(3)
    data = sets.png(image)
    (tmp_path / "range").write_bytes(b"before" + data + b"after")
    assert np.array_equal(Picture(str(tmp_path / "range"), offset=6, size=len(data)).image(), image)
    sets.write(tmp_path / "file.png", image)
    assert np.array_equal(Picture(str(tmp_path / "file.png")).image(), image)
    sets.emu(tmp_path / "emu")
    (file,) = (tmp_path / "emu").rglob("*.parquet")
    assert np.array_equal(Picture(str(file), row=4, column="image").image(), sets.picture(4))
    for wrong, message in (
        (Picture(str(tmp_path / "none.png")), "none.png: No such file"),
        (Picture(str(tmp_path / "range")), "range is not an image"),
        (Picture(str(file), row=9, column="image"), "no row 9, it has 5"),
        (Picture(str(file), row=0, column="task"), "row 0 has no bytes in 'task'"),
    ):
        with pytest.raises(ValueError, match=message):
            wrong.image()


def test_a_mask_of_shards_keeps_every_pixel_of_the_edit(tmp_path):
    mask = np.zeros((64, 96), bool)
    mask[10, 20] = True
    from PIL import Image as Pillow

    Pillow.fromarray(mask).save(tmp_path / "mask.png")
    shards = parts.make(benchmarks, "shards", Benchmark, {"path": "x", "short_side_px": 32})
    small = shards.mask(Picture(str(tmp_path / "mask.png")))
    assert small.shape == (32, 48)
    assert small.sum() == 1
    assert small[5, 10]
    whole = parts.make(benchmarks, "shards", Benchmark, {"path": "x"})
    assert np.array_equal(whole.mask(Picture(str(tmp_path / "mask.png"))), mask)
    answer = Answer(Case("1", "edit", None, protocols=("shards",)), *(sets.picture(1),) * 3, mask)
    measures = Measures(Models())
    measures.load()
    (found,) = whole.score([answer], measures)
    assert found.values["shards"]["leakage"] == 0
