"""A newcomer names a folder: what is in it is found out, said, and refused with a reason where nothing can be read."""

import csv
import json
from pathlib import Path

import pytest
from test_pairs import cell, images, jpeg, parquet, tar, texts

from crispedit.pipelines import init
from crispedit.pipelines.sources import layout, pairs
from crispedit.pipelines.sources.pairs import Columns, PairImages, PairsSource

SHARED = Path(__file__).parents[3] / "shared/pairs"


def write_images(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jpeg(name))


def rows(folder: Path, **more) -> list[dict]:
    write_images(folder, *(f"{n}_{kind}.jpg" for n in range(3) for kind in "ab"))
    return [
        {"id": n, "before": f"{n}_a.jpg", "after": f"{n}_b.jpg", "prompt": f"Add a dog {n}", **more} for n in range(3)
    ]


def as_json_lines(folder: Path) -> None:
    text = "\n".join(json.dumps(row) for row in rows(folder, license="MIT", dataset="mine"))
    (folder / "train.jsonl").write_text(text)


def as_json(folder: Path) -> None:
    (folder / "train.json").write_text(json.dumps(rows(folder, license="MIT", dataset="mine")))


def as_csv(folder: Path, delimiter: str = ",") -> None:
    made = rows(folder, license="MIT", dataset="mine")
    with (folder / "train.csv").open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(made[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(made)


def as_parquet(folder: Path) -> None:
    columns = {"src_img": images("a"), "edited_img": images("b"), "edit_prompt": texts("Add a dog")}
    columns |= {"id": ((texts("x")[0]), ["0", "1", "2"]), "licence": (texts("x")[0], ["MIT"] * 3)}
    parquet(folder / "x.parquet", columns | {"dataset": (texts("x")[0], ["mine"] * 3)})


def as_tar(folder: Path) -> None:
    members = {}
    for n in range(3):
        members[f"{n}.source.jpg"], members[f"{n}.edited.jpg"] = jpeg(f"{n}_a.jpg"), jpeg(f"{n}_b.jpg")
        row = {"instruction": f"Add a dog {n}", "id": n, "license": "MIT", "dataset": "mine"}
        members[f"{n}.json"] = json.dumps(row).encode()
    tar(folder / "x.tar", members)


def as_files(folder: Path) -> None:
    write_images(folder, *(f"in/{n}_source.jpg" for n in range(3)), *(f"in/{n}_edited.jpg" for n in range(3)))
    for n in range(3):
        row = {"prompt": f"Add a dog {n}", "id": n, "license": "MIT", "dataset": "mine"}
        (folder / f"in/{n}.json").write_text(json.dumps(row))


WRITERS = {
    "jsonl": as_json_lines,
    "json": as_json,
    "csv": as_csv,
    "parquet": as_parquet,
    "webdataset": as_tar,
    "folder": as_files,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_layout_is_found_with_its_columns(kind: str, tmp_path: Path):
    WRITERS[kind](tmp_path)
    source = layout.detected(PairsSource(path=str(tmp_path)))
    assert source.layout == ("jsonl" if kind == "json" else kind)
    listed = list(pairs.pairs(source))
    assert [pair.error for pair in listed] == [None] * 3
    assert [pair.instruction for pair in listed] == [f"Add a dog {n}" for n in range(3)]
    assert [(pair.id, pair.licence, pair.dataset) for pair in listed] == [(str(n), "MIT", "mine") for n in range(3)]
    assert all(isinstance(answer, PairImages) for answer in pairs.read(listed))
    told = layout.survey(source).text()
    assert f"layout {source.layout}" in told
    assert "looked at all 3 pairs" in told
    assert PairsSource.model_validate(source.model_dump()) == source


def test_a_parquet_beside_tars_is_their_index(tmp_path: Path):
    as_tar(tmp_path)
    parquet(tmp_path / "index.parquet", {"tar": texts("x.tar")})
    assert layout.detected(PairsSource(path=str(tmp_path))).layout == "webdataset"


def test_a_csv_may_be_divided_by_semicolons(tmp_path: Path):
    as_csv(tmp_path, ";")
    assert [pair.id for pair in pairs.pairs(layout.detected(PairsSource(path=str(tmp_path))))] == ["0", "1", "2"]


def test_what_is_named_wins_over_what_is_found(tmp_path: Path):
    as_json_lines(tmp_path)
    given = Columns(source="after", edited="before")
    source = layout.detected(PairsSource(path=str(tmp_path), columns=given))
    assert (source.columns.source, source.columns.edited, source.columns.instruction) == ("after", "before", "prompt")


def test_columns_that_may_mean_either_image_must_be_named(tmp_path: Path):
    columns = {"image": images("a"), "edit_image": images("b"), "prompt": texts("Add a dog")}
    parquet(tmp_path / "x.parquet", columns)
    with pytest.raises(ValueError, match=r"DiffSynth-Studio's edit_image is the source\. Name them"):
        init.recipe_for(str(tmp_path))
    named = PairsSource(path=str(tmp_path), columns=Columns(source="edit_image"))
    with pytest.raises(ValueError, match=r"source\.columns\.edited: no column"):
        layout.detected(named)
    named = PairsSource(path=str(tmp_path), columns=Columns(source="edit_image", edited="image"))
    assert layout.detected(named).columns.instruction == "prompt"


def test_a_column_that_is_not_found_lists_those_there(tmp_path: Path):
    (tmp_path / "x.jsonl").write_text(json.dumps({"source": "a.jpg", "edited": "b.jpg", "words": "Add a dog"}))
    with pytest.raises(ValueError, match=r"source\.columns\.instruction: no column .* one of source, edited, words"):
        layout.detected(PairsSource(path=str(tmp_path)))


def test_a_folder_without_pairs_says_what_is_there(tmp_path: Path):
    (tmp_path / "readme.md").write_text("x")
    with pytest.raises(ValueError, match=r"no pairs in .*looked for \.parquet, .*; there are 1 \.md"):
        layout.detected(PairsSource(path=str(tmp_path)))


def test_an_edited_file_that_is_not_there_is_that_pairs_error(tmp_path: Path):
    as_files(tmp_path)
    (tmp_path / "in/1_edited.jpg").unlink()
    source = layout.detected(PairsSource(path=str(tmp_path)))
    bad = [pair.error for pair in pairs.pairs(source) if pair.error is not None]
    assert len(bad) == 1
    assert f"there is no {tmp_path}/in/1_edited.jpg" in bad[0]


def test_a_source_of_which_nothing_can_be_read_is_refused_with_the_path_that_was_tried(tmp_path: Path):
    lines = [json.dumps({"source": f"gone/{n}.jpg", "edited": "b.jpg", "prompt": "x"}) for n in range(50)]
    (tmp_path / "x.jsonl").write_text("\n".join(lines))
    source = layout.detected(PairsSource(path=str(tmp_path)))
    with pytest.raises(ValueError, match="none of the first 50 pairs") as refused:
        layout.survey(source)
    told = str(refused.value)
    assert f"source image at {tmp_path}/gone/0.jpg: x.jsonl#0: No such file" in told
    assert "The columns are source, edited, prompt" in told
    assert "image paths start from source.images=." in told


def test_rows_without_the_columns_are_refused_with_what_they_have(tmp_path: Path):
    (tmp_path / "x.jsonl").write_text("\n".join(json.dumps({"a": 1, "b": 2}) for _ in range(3)))
    source = PairsSource(path=str(tmp_path), layout="jsonl", columns=Columns(source="s", edited="e", instruction="i"))
    with pytest.raises(ValueError, match=r"first: x\.jsonl#0: no 's' among a, b\. The columns are a, b"):
        layout.survey(source)


def test_some_readable_pairs_are_enough_and_the_rest_is_told(tmp_path: Path):
    as_json_lines(tmp_path)
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write("\n{broken\n" + json.dumps({"before": "0_a.jpg", "after": "0_b.jpg"}))
    found = layout.survey(layout.detected(PairsSource(path=str(tmp_path))))
    assert found.pairs == 5
    assert found.errors.total() == 2
    assert "cannot be read: 2" in found.text()


def test_words_without_an_alias_and_second_images_are_counted(tmp_path: Path):
    made = rows(tmp_path)
    made[0] |= {"type": "add", "prompt": "Add the hat of the second image"}
    made[1] |= {"type": "reasoning"}
    made[2] |= {"type": "reasoning"}
    (tmp_path / "x.jsonl").write_text("\n".join(map(json.dumps, made)))
    found = layout.survey(layout.detected(PairsSource(path=str(tmp_path))))
    assert found.without_alias == {"reasoning": 2}
    assert found.second_image == 1
    assert "'reasoning' 2" in found.text()
    assert "need a second image, which are refused: 1" in found.text()


def test_an_image_list_column_is_taken_by_its_first(tmp_path: Path):
    columns = {"input_images": (images("a")[0], [cell("a")]), "prompt": (texts("x")[0], ["x"])}
    parquet(tmp_path / "x.parquet", columns)
    with pytest.raises(ValueError, match=r"source\.columns\.edited: no column"):
        layout.detected(PairsSource(path=str(tmp_path)))


def test_the_shared_pairs_are_read_by_naming_their_folder():
    if not SHARED.exists():
        pytest.skip(f"{SHARED} is not there")
    source = layout.detected(PairsSource(path=str(SHARED)))
    assert (source.layout, source.columns.id, source.columns.licence) == ("jsonl", "id", "licence")
    assert layout.survey(source).pairs == 113
