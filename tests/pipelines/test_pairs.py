"""Existing pairs as a source: every shipped mapping on a tiny dataset of exactly that schema, and what goes wrong."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bad_inputs import encode, photo
from pydantic import TypeAdapter, ValidationError

from crispedit.pipelines.sources.pairs import (
    AnySource,
    ImportedPair,
    PairImages,
    PairsSource,
    dig,
    mappings,
    pairs,
    read,
)
from crispedit.record import canonical_json
from crispedit.shards import pack

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def jpeg(name: str) -> bytes:
    return encode(photo(name, 32, 24), "JPEG", quality=80)


def cell(name: str) -> dict[str, bytes | None]:
    return {"bytes": jpeg(name), "path": None}


def images(column: str) -> tuple[pa.DataType, list]:
    return IMAGE, [cell(f"{column} {n}") for n in range(3)]


def texts(column: str) -> tuple[pa.DataType, list]:
    return pa.string(), [f"{column} {n}" for n in range(3)]


def numbers(kind: pa.DataType) -> tuple[pa.DataType, list]:
    return kind, [0, 1, 2]


def parquet(path: Path, columns: dict[str, tuple[pa.DataType, list]], **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({name: pa.array(values, kind) for name, (kind, values) in columns.items()})
    pq.write_table(table, path, **options)
    return path


def tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as out:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return path


def found(path: Path, mapping: str, **more) -> list[ImportedPair]:
    return list(pairs(PairsSource(path=str(path), mapping=mapping, **more)))


# The schemas are those of the datasets' own files, as far as they are known: see the comments in configs/datasets.


def crispedit_2m(root: Path) -> dict:
    kinds = ["add", "background change", "motion change"]
    columns = {
        "input_img": images("input_img"),
        "instruction": texts("instruction"),
        "output_img": images("output_img"),
        "type": (pa.string(), kinds),
    }
    parquet(root / "data" / "add_00000.parquet", columns)
    return {"instruction": "instruction", "source": "input_img", "edited": "output_img", "category": kinds}


def magicbrush(root: Path) -> dict:
    columns = {
        "img_id": texts("img_id"),
        "turn_index": numbers(pa.int32()),
        "source_img": images("source_img"),
        "mask_img": images("mask_img"),
        "instruction": texts("instruction"),
        "target_img": images("target_img"),
    }
    parquet(root / "data" / "train-00000-of-00051.parquet", columns)
    return {"instruction": "instruction", "source": "source_img", "edited": "target_img"}


def instructpix2pix(root: Path) -> dict:
    columns = {
        "original_prompt": texts("original_prompt"),
        "original_image": images("original_image"),
        "edit_prompt": texts("edit_prompt"),
        "edited_prompt": texts("edited_prompt"),
        "edited_image": images("edited_image"),
    }
    parquet(root / "data" / "train-00000.parquet", columns)
    return {
        "instruction": "edit_prompt",
        "source": "original_image",
        "edited": "edited_image",
        "source_caption": "original_prompt",
        "target_caption": "edited_prompt",
    }


def ultraedit(root: Path) -> dict:
    scores = ("clip_sim_source", "clip_sim_target", "clip_sim_dir", "clip_sim_image", "dinov2_sim", "ssim")
    columns = {
        **{score: numbers(pa.float64()) for score in scores},
        "source_caption": texts("source_caption"),
        "target_caption": texts("target_caption"),
        "idx": numbers(pa.int64()),
        "edit_prompt": texts("edit_prompt"),
        "edit_object": texts("edit_object"),
        "source_image": images("source_image"),
        "edited_image": images("edited_image"),
        "mask_image": images("mask_image"),
    }
    parquet(root / "data" / "train.parquet", columns)
    return {
        "instruction": "edit_prompt",
        "source": "source_image",
        "edited": "edited_image",
        "source_caption": "source_caption",
        "target_caption": "target_caption",
    }


def omniedit(root: Path) -> dict:
    lists = [[f"edited_prompt_list {n}", "said otherwise"] for n in range(3)]
    columns = {
        "omni_edit_id": texts("omni_edit_id"),
        "task": texts("task"),
        "src_img": images("src_img"),
        "edited_img": images("edited_img"),
        "edited_prompt_list": (pa.list_(pa.string()), lists),
        "width": numbers(pa.int64()),
        "height": numbers(pa.int64()),
        "sc_score_1": numbers(pa.float64()),
        "sc_score_2": numbers(pa.float64()),
        "sc_reasoning": texts("sc_reasoning"),
        "pq_score": numbers(pa.float64()),
        "pq_reasoning": texts("pq_reasoning"),
        "o_score": numbers(pa.float64()),
    }
    parquet(root / "data" / "train.parquet", columns)
    return {"instruction": "edited_prompt_list", "source": "src_img", "edited": "edited_img", "category": "task"}


def anyedit(root: Path) -> dict:
    columns = {
        "image_id": texts("image_id"),
        "edit_instruction": texts("edit_instruction"),
        "edit_type": texts("edit_type"),
        "image_file": images("image_file"),
        "edited_file": images("edited_file"),
        "visual_input": (IMAGE, [None] * 3),
        "input": texts("input"),
        "output": texts("output"),
    }
    parquet(root / "data" / "train.parquet", columns)
    return {
        "instruction": "edit_instruction",
        "source": "image_file",
        "edited": "edited_file",
        "category": "edit_type",
        "source_caption": "input",
        "target_caption": "output",
    }


def nhr_edit(root: Path) -> dict:
    folder = root / "train" / "images" / "00"
    folder.mkdir(parents=True)
    lines = []
    for n in range(3):
        (folder / f"{n}_original.jpg").write_bytes(jpeg(f"original {n}"))
        (folder / f"{n}_edited_1.jpg").write_bytes(jpeg(f"edited {n}"))
        line = {
            "sample_id": str(n),
            "source_file_name": f"images/00/{n}_original.jpg",
            "edited_file_name": f"images/00/{n}_edited_1.jpg",
            "edit_instruction": f"edit_instruction {n}",
            "augmented_instructions": ["said otherwise"],
            "img_width": 32,
            "img_height": 24,
            "category": "animals",
            "style": "photo",
        }
        lines.append(json.dumps(line))
    (root / "train" / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return {"instruction": "edit_instruction", "source": "original", "edited": "edited"}


def gpt_image_edit(root: Path) -> dict:
    rows = []
    for n in range(3):
        names = [f"omniedit/input/{n}.jpg", f"omniedit/output/{n}.jpg"]
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(jpeg(f"{name.split('/')[1]} {n}"))
        turns = [{"from": "human", "value": f"<image>\nvalue {n}"}, {"from": "gpt", "value": "<image>"}]
        rows.append({"image": names, "conversations": turns})
    (root / "omniedit.json").write_text(json.dumps(rows))
    return {"instruction": "value", "source": "input", "edited": "output"}


def crispedit_shards(root: Path) -> dict:
    members = {}
    for n in range(3):
        meta = {"source_caption": f"source_caption {n}", "target_caption": None, "instruction": f"instruction {n}"}
        pair = pack.Pair(f"{n:032x}", "add", jpeg(f"source {n}"), jpeg(f"edited {n}"), None, meta)
        members[f"{pair.key}.source.jpg"] = pair.source_jpeg
        members[f"{pair.key}.edited.jpg"] = pair.edited_jpeg
        members[f"{pair.key}.json"] = pack.document(pair).encode()
    tar(root / "crispedit-add-000000.tar", members)
    return {
        "instruction": "instruction",
        "source": "source",
        "edited": "edited",
        "category": ["add"] * 3,
        "source_caption": "source_caption",
    }


def of_parquet(source: str, edited: str, instruction: str, category: str | None, *others: str):
    """A dataset of parquet files with these columns, and others of text."""

    def write(root: Path) -> dict:
        columns = {name: texts(name) for name in (instruction, *([category] if category else []), *others)}
        columns |= {name: images(name) for name in (source, edited)}
        parquet(root / "data" / "train-00000.parquet", columns)
        return {"instruction": instruction, "source": source, "edited": edited, "category": category}

    return write


def of_json(name: str, row: dict, folder: str = "."):
    """A dataset of JSON lines, or a JSON list. In `row`, S and E stand for the paths of the images, T for the words."""

    def write(root: Path) -> dict:
        rows = []
        for n in range(3):
            for kind in ("S", "E"):
                path = root / folder / f"Nano-150k/images/{kind}{n}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(jpeg(f"{kind} {n}"))
            text = json.dumps(row).replace('"T"', f'"T {n}"')
            for kind in ("S", "E"):
                text = text.replace(f'"{kind}"', f'"Nano-150k/images/{kind}{n}.jpg"')
            rows.append(json.loads(text))
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("\n".join(map(json.dumps, rows)) if name.endswith(".jsonl") else json.dumps(rows))
        return {
            "instruction": "T",
            "source": "S",
            "edited": "E",
            "category": ["C"] * 3 if "C" in row.values() else None,
        }

    return write


def x2edit(root: Path) -> dict:
    members = {}
    for n in range(3):
        key = f"{n:09d}"
        members[f"{key}.1.0.jpg"] = jpeg(f"1.0 {n}")
        members[f"{key}.2.jpg"] = jpeg(f"2 {n}")
        row = {"instruction": f"instruction {n}", "task": f"task {n}", "caption": "x"}
        members[f"{key}.json"] = json.dumps(row).encode()
        members[f"{key}.txt"] = f"instruction {n}".encode()
    tar(root / "00000.tar", members)
    return {"instruction": "instruction", "source": "1.0", "edited": "2", "category": "task"}


def hq_edit(root: Path) -> dict:
    of_parquet("input_image", "output_image", "edit", None, "inverse_edit", "input", "output")(root)
    return {
        "instruction": "edit",
        "source": "input_image",
        "edited": "output_image",
        "source_caption": "input",
        "target_caption": "output",
    }


GPT_4O = {"input_prompt": "T", "input_image": ["S"], "output_image": "E"}

WRITERS = {
    "hq-edit": hq_edit,
    "imgedit": of_json("x.jsonl", {"input_images": ["S"], "output_images": ["E"], "prompt": "T"}),
    "inter-edit": of_parquet("source_image", "edited_image", "instruction", None),
    "nano-consistent": of_json(
        "Nano-150k/json/action_cleaned.jsonl",
        {"task_type": "ic", "instruction": "T", "input_images": ["S"], "output_image": "E"},
    ),
    "opengpt-4o-image": of_json("editing.json", GPT_4O),
    "pico-banana-400k": of_json(
        "sft.jsonl",
        {"open_image_input_url": "x", "local_input_image": "S", "output_image": "E", "text": "T", "edit_type": "C"},
    ),
    "scaleedit-12m": of_parquet("source_image", "edited_image", "edit_instruction", "edit_task", "id"),
    "sharegpt-4o-image": of_json("text_and_image_to_image.json", GPT_4O),
    "unicedit-10m": of_parquet("src_image", "edit_image", "prompt_en", "edit_subtask", "key", "edit_task", "prompt_cn"),
    "x2edit": x2edit,
    "anyedit": anyedit,
    "crispedit-2m": crispedit_2m,
    "crispedit-shards": crispedit_shards,
    "gpt-image-edit": gpt_image_edit,
    "instructpix2pix": instructpix2pix,
    "magicbrush": magicbrush,
    "nhr-edit": nhr_edit,
    "omniedit": omniedit,
    "ultraedit": ultraedit,
}


def test_every_mapping_is_tested():
    assert sorted(WRITERS) == sorted(mappings())


@pytest.mark.parametrize("name", WRITERS)
def test_a_shipped_mapping_reads_its_dataset(name: str, tmp_path: Path):
    expected = WRITERS[name](tmp_path)
    listed = found(tmp_path, name)
    assert len({pair.uri for pair in listed}) == len(listed) == 3
    for part in ("instruction", "category", "source_caption", "target_caption"):
        column = expected.get(part)
        wanted = column if isinstance(column, list) else [column and f"{column} {n}" for n in range(3)]
        assert [getattr(pair, part) for pair in listed] == wanted, part
    answers = read(listed)
    for n, answer in enumerate(answers):
        assert answer == PairImages(jpeg(f"{expected['source']} {n}"), jpeg(f"{expected['edited']} {n}"))
    assert {pair.dataset for pair in listed} == {mappings()[name].get("dataset")}


def test_a_section_may_override_its_mapping(tmp_path: Path):
    magicbrush(tmp_path)
    source = TypeAdapter(AnySource).validate_python(
        {
            "kind": "pairs",
            "path": str(tmp_path),
            "mapping": "magicbrush",
            "columns": {"mask": "mask_img"},
            "licence": "mine",
        }
    )
    assert source.columns.source == "source_img"
    assert source.licence == "mine"
    (answer, *_) = read(list(pairs(source)))
    assert answer.mask == jpeg("mask_img 0")
    again = PairsSource.model_validate(source.model_dump())
    assert again == source


def test_a_wrong_section_says_what_is_right():
    with pytest.raises(ValidationError, match="no mapping 'magic'; choose from anyedit, crispedit-2m"):
        PairsSource(path="x", mapping="magic")
    with pytest.raises(ValidationError, match="layout"):
        PairsSource(path="x", layout="excel")
    with pytest.raises(ValidationError, match="colour"):
        PairsSource(path="x", mapping="magicbrush", columns={"colour": "x"})


def test_pairs_survive_json(tmp_path: Path):
    anyedit(tmp_path)
    listed = found(tmp_path, "anyedit")
    back = [ImportedPair.from_row(json.loads(canonical_json(pair.to_row()))) for pair in listed]
    assert back == listed
    assert read(back[::-1]) == read(listed)[::-1]


def test_there_must_be_pairs(tmp_path: Path):
    (tmp_path / "readme.md").write_text("hello")
    with pytest.raises(ValueError, match="no pairs in"):
        found(tmp_path, "magicbrush")


# Parquet


def test_a_missing_column_lists_those_there(tmp_path: Path):
    magicbrush(tmp_path)
    with pytest.raises(ValueError, match=r"columns.source: .*no column 'input_img'; it has img_id \(string\)"):
        found(tmp_path, "crispedit-2m")
    with pytest.raises(ValueError, match=r"columns.instruction: column 'turn_index' .* is not text"):
        found(tmp_path, "magicbrush", columns={"instruction": "turn_index"})
    with pytest.raises(ValueError, match=r"columns.category: .*no column 'kind.0'"):
        found(tmp_path, "magicbrush", columns={"category": "kind.0"})


def test_rows_are_found_in_their_row_groups(tmp_path: Path):
    count = 70
    columns = {
        "s": (pa.binary(), [f"s{n}".encode() for n in range(count)]),
        "e": (pa.binary(), [f"e{n}".encode() for n in range(count)]),
        "i": (pa.string(), [f"i{n}" for n in range(count)]),
    }
    parquet(tmp_path / "x.parquet", columns, row_group_size=32)
    source = PairsSource(
        path=str(tmp_path), layout="parquet", columns={"source": "s", "edited": "e", "instruction": "i"}
    )
    listed = list(pairs(source))
    assert [pair.uri for pair in listed] == [f"x.parquet#{n}" for n in range(count)]
    for n in (0, 31, 32, 69):
        assert listed[n].instruction == f"i{n}"
        assert read([listed[n]]) == [PairImages(f"s{n}".encode(), f"e{n}".encode())]


def test_nulls_are_none_and_a_missing_image_is_an_error(tmp_path: Path):
    columns = {
        "source_img": (IMAGE, [cell("s"), None, cell("s")]),
        "target_img": (IMAGE, [cell("e"), cell("e"), {"bytes": None, "path": "gone.jpg"}]),
        "mask_img": (IMAGE, [None, None, None]),
        "instruction": (pa.string(), [None, "  ", "do it"]),
    }
    parquet(tmp_path / "x.parquet", columns)
    listed = found(tmp_path, "magicbrush", columns={"mask": "mask_img"})
    assert [pair.instruction for pair in listed] == [None, None, "do it"]
    whole, no_source, no_edit = read(listed)
    assert whole == PairImages(jpeg("s"), jpeg("e"))
    assert "source image: " in str(no_source)
    assert "null" in str(no_source)
    assert "edited image: x.parquet#2, gone.jpg: No such file" in str(no_edit)


def test_an_empty_list_of_instructions_is_that_rows_error(tmp_path: Path):
    omniedit(tmp_path)
    path = tmp_path / "data" / "train.parquet"
    table = pq.read_table(path)
    lists = pa.array([["one"], [], None], pa.list_(pa.string()))
    pq.write_table(table.set_column(4, "edited_prompt_list", lists), path)
    first, second, third = found(tmp_path, "omniedit")
    assert first.instruction == "one"
    assert "no item 0 in a list of 0" in second.error
    assert "no '0' in NoneType" in third.error
    answers = read([first, second, third])
    assert isinstance(answers[0], PairImages)
    assert all(isinstance(answer, ValueError) for answer in answers[1:])


def test_a_damaged_parquet_is_an_error_row(tmp_path: Path):
    magicbrush(tmp_path)
    (tmp_path / "data" / "train-00001-of-00051.parquet").write_bytes(b"PAR1 nothing")
    listed = found(tmp_path, "magicbrush")
    assert [pair.error is None for pair in listed] == [True, True, True, False]
    assert listed[-1].uri == "data/train-00001-of-00051.parquet#"
    assert isinstance(read(listed)[-1], ValueError)


# WebDataset

COLUMNS = {"source": "a.jpg", "edited": "b.jpg", "mask": "m.png", "instruction": "txt"}


def of_tar(path: Path, **columns: str) -> list[ImportedPair]:
    return list(pairs(PairsSource(path=str(path), layout="webdataset", columns={**COLUMNS, **columns})))


def test_samples_of_a_tar(tmp_path: Path):
    members = {
        "x/1.a.jpg": b"1a",
        "x/1.b.jpg": b"1b",
        "x/1.m.png": b"1m",
        "x/1.txt": b"first",
        "x/1.json": json.dumps({"kind": {"name": ["add"]}, "n": 3}).encode(),
        "x/2.a.jpg": b"2a",
        "x/2.txt": b"second",
        "x/3.a.jpg": b"3a",
        "x/3.b.jpg": b"3b",
        "x/3.txt": b"third",
        "x/3.json": b"{broken",
    }
    path = tar(tmp_path / "s.tar", members)
    one, two, three = of_tar(path, category="json.kind.name.0")
    assert (one.uri, one.instruction, one.category) == ("s.tar#x/1", "first", "add")
    assert read([one]) == [PairImages(b"1a", b"1b", b"1m")]
    assert "no member 'b.jpg' among a.jpg, txt" in two.error
    assert "s.tar#x/3: Expecting property name" in three.error
    assert of_tar(path)[2].error is None
    assert read(of_tar(path))[2] == PairImages(b"3a", b"3b", None)
    assert "category: 'json.n' is int, not text" in of_tar(path, category="json.n")[0].error


def test_the_damaged_end_of_a_tar_is_an_error_row(tmp_path: Path):
    members = {f"{n}.{extension}": b"x" * 600 for n in range(2) for extension in ("a.jpg", "b.jpg", "txt")}
    data = tar(tmp_path / "s.tar", members).read_bytes()
    (tmp_path / "s.tar").write_bytes(data[: 4 * 1536 + 700])
    first, second = of_tar(tmp_path / "s.tar")
    assert first.error is None
    assert second.uri == "s.tar#1"
    assert "ends inside '1.b.jpg'" in second.error


def test_pairs_in_a_bucket(tmp_path: Path):
    fs = fsspec.filesystem("memory")
    try:
        crispedit_shards(tmp_path)
        nhr_edit(tmp_path)
        fs.put(str(tmp_path), "/pairs", recursive=True)
        for mapping, path in (("crispedit-shards", "memory://pairs/*.tar"), ("nhr-edit", "memory://pairs/train")):
            remote = list(pairs(PairsSource(path=path, mapping=mapping)))
            assert len(remote) == 3
            assert all(isinstance(answer, PairImages) for answer in read(remote))
    finally:
        fs.rm("/pairs", recursive=True)


# JSON


def of_lines(path: Path, **options) -> list[ImportedPair]:
    columns = {"source": "from", "edited": "to", "mask": "mask", "instruction": "say"}
    return list(pairs(PairsSource(path=str(path), layout="jsonl", columns=columns, **options)))


def test_lines_that_are_wrong_are_errors_of_their_own(tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    for name in ("a.jpg", "b.jpg", "m.png"):
        (tmp_path / "data" / name).write_bytes(name.encode())
    good = {"from": "a.jpg", "to": "b.jpg", "mask": None, "say": "do it"}
    lines = [
        json.dumps(good),
        json.dumps({**good, "mask": "m.png"}),
        "{not json",
        "",
        json.dumps({**good, "to": "../secret.jpg"}),
        json.dumps({**good, "to": str(tmp_path / "secret.jpg")}),
        json.dumps({**good, "to": 3}),
        json.dumps({"from": "a.jpg"}),
        json.dumps([1]),
        json.dumps({**good, "to": "gone.jpg"}),
    ]
    (tmp_path / "data" / "x.jsonl").write_text("\n".join(lines) + "\n")
    listed = of_lines(tmp_path)
    assert [pair.uri for pair in listed] == [f"data/x.jsonl#{n}" for n in range(9)]
    answers = read(listed)
    assert answers[0] == PairImages(b"a.jpg", b"b.jpg")
    assert answers[1] == PairImages(b"a.jpg", b"b.jpg", b"m.png")
    said = ["Expecting property", "leaves the folder", "outside the folder", "'to' is int", "no 'to' among from"]
    said += ["no 'from' in list", "No such file"]
    for answer, words in zip(answers[2:], said, strict=True):
        assert isinstance(answer, Exception)
        assert words in str(answer)


def test_image_paths_may_start_from_another_folder(tmp_path: Path):
    for name in ("lists/x.jsonl", "pictures/a.jpg", "pictures/b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    row = {"from": "a.jpg", "to": "b.jpg", "mask": None, "say": "do it"}
    (tmp_path / "lists" / "x.jsonl").write_text(json.dumps(row))
    assert read(of_lines(tmp_path / "lists", images="../pictures")) == [PairImages(b"x", b"x")]
    assert isinstance(read(of_lines(tmp_path / "lists"))[0], OSError)


def test_a_json_file_that_is_no_list_is_an_error_row(tmp_path: Path):
    (tmp_path / "x.json").write_text('{"a": 1}')
    (answer,) = read(of_lines(tmp_path / "x.json"))
    assert "expected a list of objects, not dict" in str(answer)


def test_digging():
    inner = {"a": {"b": [1, {"c.d": 2}]}}
    assert dig({**inner, "a.b": 3}, "a.b") == 3
    assert dig(inner, "a.b.0") == 1
    assert dig(inner, "a.b.-1.c.d") == 2
    for path in ("x", "a.x", "a.b.2", "a.b.x", "a.b.0.y"):
        with pytest.raises(LookupError):
            dig(inner, path)
