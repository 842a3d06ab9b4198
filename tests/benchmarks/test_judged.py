"""GEdit-Bench and ImgEdit-Bench: a judge's marks through a real chat server, asked as the published scripts ask or in
our own way; what cannot be read is null."""

import json
import math
from base64 import b64decode

import numpy as np
import published_sets as sets
import pytest
import simplejpeg
from chat_server import serving

from crispedit import benchmarks, parts
from crispedit.benchmark import Benchmark
from crispedit.judge import GIVE_UP
from crispedit.measures import Measures, Models


def make(name, path, **options):
    return parts.make(benchmarks, name, Benchmark, {"path": path, **options})


def judged(benchmark, answers, reply):
    """What the benchmark makes of answers, and what its judge was asked."""
    with serving(lambda asked: '{"ready": true}' if asked.is_hello else reply(asked)) as server:
        measures = Measures(Models(judge=server.spec))
        measures.load()
        return benchmark.score(answers, measures), [asked for asked in server.asked if not asked.is_hello]


def said(*score, key="score"):
    return json.dumps({"reasoning": "because", key: score})


def viescore(asked):
    return said(8, 6) if "SC of" in asked.text else said(5, 9)


@pytest.fixture
def gedit(tmp_path):
    return make("gedit", sets.gedit(tmp_path / "set"), prompts=sets.vie_prompts(tmp_path / "vie_prompts.py"))


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_gedit_reads_its_files(tmp_path, suffix):
    cases = make("gedit", sets.gedit(tmp_path, suffix)).cases()
    assert [case.id for case in cases] == [
        "color_alter/en/k0en",
        "color_alter/en/k1en",
        "subject-add/en/k2en",
        "style_change/en/k3en",
    ]
    assert np.array_equal(cases[2].source.image(), sets.picture(2))
    assert [len(case.protocols) for case in cases] == [2, 1, 2, 1]
    assert len(make("gedit", tmp_path, language="cn").cases()) == 4


def test_gedit_scores_are_viescores(gedit):
    answers = [sets.answer(case, sets.picture(40, 33, 50)) for case in gedit.cases()]
    found, asked = judged(gedit, answers, viescore)
    expected = {"SC": 6, "PQ": 5, "O": math.sqrt(30), "balance": 2 * 8 * 6 / 14}
    assert [dict(one.values["gedit"]) for one in found] == [pytest.approx(expected)] * 4
    assert set(found[0].values) == {"gedit", "gedit-intersection"}
    semantics = [a for a in asked if "SC of" in a.text]
    assert {a.text for a in semantics} == {f"CONTEXT\nTWO IMAGES\nSC of edit {n}" for n in range(4)}
    assert {a.text for a in asked if a not in semantics} == {"CONTEXT\nPQ"}
    assert {len(a.images) for a in semantics} == {2}
    assert {len(a.images) for a in asked if a not in semantics} == {1}
    for url in (url for a in asked for url in a.images):  # the answer is shown at the source's size
        jpeg = b64decode(url.partition(",")[2])
        assert simplejpeg.decode_jpeg_header(jpeg)[:2] == (sets.HEIGHT, sets.WIDTH)


def test_gedit_as_editmgt_ran_it_shows_the_raw_source(tmp_path):
    prompts = sets.vie_prompts(tmp_path / "vie_prompts.py")
    benchmark = make("gedit", sets.gedit(tmp_path / "set"), prompts=prompts, protocol="gedit-editmgt")
    found, asked = judged(benchmark, [sets.answer(benchmark.cases()[0], sets.picture(40))], viescore)
    assert "gedit-editmgt" in found[0].values
    sizes = {simplejpeg.decode_jpeg_header(b64decode(url.partition(",")[2]))[:2] for a in asked for url in a.images}
    side = 512 / math.sqrt(sets.WIDTH * sets.HEIGHT)
    assert sizes == {(int(sets.HEIGHT * side), int(sets.WIDTH * side))}


@pytest.mark.parametrize("bad", ["I would say eight.", said(), said(8, 11), '{"score": "8/10"}'])
def test_what_the_judge_garbles_is_null_not_random(gedit, bad):
    cases = gedit.cases()
    answers = [sets.answer(case, sets.picture(40)) for case in cases[:2]]

    def reply(asked):
        spoiled = any("SC of edit 1" in str(m["content"]) for m in asked.body["messages"])
        return bad if spoiled else viescore(asked)

    found, _ = judged(gedit, answers, reply)
    assert [one.unparsed for one in found] == [False, True]
    assert set(found[1].values["gedit"].values()) == {None}
    assert bad in found[1].words
    assert None not in found[0].values["gedit"].values()


def test_inaction_is_not_balanced(gedit):
    answers = [sets.answer(gedit.cases()[0], sets.picture(0))]
    found, _ = judged(gedit, answers, lambda asked: said(0, 10) if "SC" in asked.text else said(9, 9))
    assert found[0].values["gedit"] == {"SC": 0, "PQ": 9, "O": 0, "balance": 0}


def test_without_a_judge_all_is_null(gedit, tmp_path):
    measures = Measures(Models())
    measures.load()
    for benchmark in (gedit, make("imgedit", sets.imgedit(tmp_path / "imgedit"))):
        (found,) = benchmark.score([sets.answer(benchmark.cases()[0], sets.picture(1))], measures)
        assert {value for values in found.values.values() for value in values.values()} == {None}
        assert not found.unparsed


def test_own_prompts_have_an_id_of_their_own(tmp_path):
    own = make("gedit", sets.gedit(tmp_path / "gedit"))
    assert list(own.protocols) == ["gedit-own-prompts", "gedit-own-prompts-intersection"]
    answers = [sets.answer(own.cases()[0], sets.picture(40))]
    found, asked = judged(own, answers, lambda a: said(7, 7))
    assert found[0].values["gedit-own-prompts"]["O"] == 7
    assert sum("edit 0" in a.text for a in asked) == 1
    published = make("gedit", tmp_path / "gedit", prompts=sets.vie_prompts(tmp_path / "vie_prompts.py"))
    assert own.identity() != published.identity()
    imgedit = make("imgedit", sets.imgedit(tmp_path / "imgedit"))
    assert list(imgedit.protocols) == ["imgedit-basic-own-prompts"]


def test_a_file_that_is_not_the_published_prompts_is_named(tmp_path):
    (tmp_path / "other.py").write_text("_context_no_delimit = 'x'")
    benchmark = make("gedit", sets.gedit(tmp_path / "set"), prompts=tmp_path / "other.py")
    measures = Measures(Models())
    with pytest.raises(ValueError, match=r"not the published vie_prompts.py: no '_prompts_0shot_two_image"):
        benchmark.identity()
    measures.load()


def imgedit_lines(asked, first=5):
    """A reply in the lines that the prompt asks for, whichever kind it is of."""
    names = [line.partition(":")[0] for line in asked.text.splitlines() if "A number from" in line]
    return "\n".join(["Brief reasoning: x", *(f"{name}: {first - n}" for n, name in enumerate(names))])


@pytest.mark.parametrize("protocol", ["imgedit-basic", "imgedit-basic-official"])
def test_imgedit_is_the_mean_of_three_marks(tmp_path, protocol):
    folder = sets.imgedit(tmp_path)
    benchmark = make("imgedit", folder, prompts=folder / "prompts.json", protocol=protocol)
    cases = benchmark.cases()
    assert [(case.id, case.group) for case in cases] == [("1082", "adjust"), ("1083", "style"), ("1084", "adjust")]
    answers = [sets.answer(case, sets.picture(40)) for case in cases]

    def reply(asked):
        return "I cannot rate this." if "edit 2" in asked.text else imgedit_lines(asked)

    found, asked = judged(benchmark, answers, reply)
    assert found[0].values[protocol] == {"first": 5, "second": 4, "third": 3, "mean": 4}
    assert [one.unparsed for one in found] == [False, False, True]
    assert set(found[2].values[protocol].values()) == {None}
    assert any(a.text.startswith("Rate this style: edit 1") for a in asked)  # questions come in any order
    assert all("response_format" not in a.body for a in asked)
    assert benchmark.protocols[protocol].labels["style"]["first"] == "Style Fidelity"


def test_imgedit_held_to_json_by_its_server_is_read_too(tmp_path):
    folder = sets.imgedit(tmp_path)
    benchmark = make("imgedit", folder, prompts=folder / "prompts.json")
    answers = [sets.answer(benchmark.cases()[0], sets.picture(40))]
    found, _ = judged(benchmark, answers, lambda asked: said(3, 2, 2, key="scores"))
    assert found[0].values["imgedit-basic"]["mean"] == pytest.approx(7 / 3)


def test_official_questions_are_sent_as_the_published_scripts_send_them(tmp_path):
    prompts = sets.vie_prompts(tmp_path / "vie_prompts.py")
    gedit = make("gedit", sets.gedit(tmp_path / "set"), prompts=prompts, protocol="gedit-official")
    _, asked = judged(gedit, [sets.answer(gedit.cases()[0], sets.picture(40, 33, 50))], viescore)
    for one in asked:
        assert set(one.body) == {"model", "messages", "max_completion_tokens"}
        assert one.body["max_completion_tokens"] == 1400
        assert one.body["messages"][0]["content"][0]["type"] == "text"
    imgedit = sets.imgedit(tmp_path / "imgedit")
    imgedit = make("imgedit", imgedit, prompts=imgedit / "prompts.json", protocol="imgedit-basic-official")
    _, asked = judged(imgedit, [sets.answer(imgedit.cases()[0], sets.picture(40))], imgedit_lines)
    assert set(asked[0].body) == {"model", "messages"}
    assert all(url.startswith("data:image/png;base64,") for url in asked[0].images)
    for name, path in (("gedit", tmp_path / "set"), ("imgedit", tmp_path / "imgedit")):
        option = {"gedit": "gedit-official", "imgedit": "imgedit-basic-official"}[name]
        with pytest.raises(ValueError, match="asks with the published prompts"):
            make(name, path, protocol=option)


def test_imgedits_official_mean_counts_as_its_script_does(tmp_path):
    folder = sets.imgedit(tmp_path)
    benchmark = make("imgedit", folder, prompts=folder / "prompts.json", protocol="imgedit-basic-official")
    answers = [sets.answer(benchmark.cases()[0], sets.picture(40))]
    extra = "Cars: 1\n"  # a line that ends in a number is a mark to the published script
    found, _ = judged(benchmark, answers, lambda asked: extra + imgedit_lines(asked))
    assert found[0].values["imgedit-basic-official"]["mean"] == round((1 + 5 + 4 + 3) / 4, 2)
    assert found[0].values["imgedit-basic-official"]["first"] is None


def test_a_question_is_paid_for_once(gedit, tmp_path):
    answers = [sets.answer(gedit.cases()[0], sets.picture(40)) for _ in range(2)]
    with serving(lambda asked: '{"ready": true}' if asked.is_hello else viescore(asked)) as server:
        measures = Measures(Models(judge=server.spec), tmp_path / "kept")
        first = gedit.score(answers, measures)
        assert len(server.asked) == 2  # two equal answers: one question of each kind
        again = gedit.score(answers, Measures(Models(judge=server.spec), tmp_path / "kept"))
        assert len(server.asked) == 2
        assert [one.values for one in again] == [one.values for one in first]
        assert (first[0].usage.asked, again[0].usage.asked, again[0].usage.kept) == (2, 0, 2)
        second = [sets.answer(gedit.cases()[0], sets.picture(40), repeat=1)]
        gedit.score(second, measures)
        assert len(server.asked) == 4  # another judgement is another question


def test_a_judge_that_is_down_is_asked_a_bounded_number_of_questions(gedit):
    from chat_server import Said

    case = gedit.cases()[0]
    answers = [sets.answer(case, sets.picture(100 + n)) for n in range(40)]
    with serving(lambda asked: Said(status=400)) as server:
        measures = Measures(Models(judge=server.spec | {"concurrency": 8}))
        found = gedit.score(answers, measures)
    assert all(isinstance(one, Exception) for one in found)
    assert measures.judge.down
    assert GIVE_UP <= len(server.asked) < GIVE_UP + 8
    assert "not asked: the judge failed" in str(found[-1])


def test_imgedit_refuses_what_it_cannot_ask_or_open(tmp_path):
    folder = sets.imgedit(tmp_path)
    (folder / "few.json").write_text('{"adjust": "Rate"}')
    with pytest.raises(ValueError, match="no prompt for edits of kind 'style'"):
        make("imgedit", folder, prompts=folder / "few.json").cases()
    items = json.loads((folder / "basic_edit.json").read_text())
    items["1082"]["id"] = "../../secret.jpg"
    (folder / "basic_edit.json").write_text(json.dumps(items))
    with pytest.raises(ValueError, match=r"item 1082: '../../secret.jpg' leaves the folder"):
        make("imgedit", folder).cases()


def test_a_judge_that_does_not_answer_is_an_error_not_a_score(gedit):
    answers = [sets.answer(case, sets.picture(40)) for case in gedit.cases()[:2]]

    def reply(asked):
        from chat_server import Said

        return Said(status=400) if "SC of edit 1" in asked.text else viescore(asked)

    found, _ = judged(gedit, answers, reply)
    assert isinstance(found[1], Exception)
    assert found[0].values["gedit"]["SC"] == 6
