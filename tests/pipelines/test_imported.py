"""Existing pairs: measured, selected, packed and audited as our own are, and refused for the same reasons."""

from __future__ import annotations

import io
import json
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import webdataset
from conftest import HEIGHT, WIDTH, make_run
from PIL import Image

from crispedit.compositor.landscape import landscape
from crispedit.pipelines import audit, build, recipe
from crispedit.pipelines.records import EDIT
from crispedit.pipelines.run import Run
from crispedit.shards import journal


def jpeg(image: np.ndarray) -> dict[str, bytes | None]:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=95)
    return {"bytes": out.getvalue(), "path": None}


def edited(image: np.ndarray) -> np.ndarray:
    """A shaded red ball where there was none."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    far = np.hypot(x - WIDTH / 2, y - HEIGHT / 2) / 40
    light = np.clip(1.1 - 0.5 * np.hypot(x - WIDTH / 2 + 14, y - HEIGHT / 2 + 14) / 40, 0.2, 1)[..., None]
    ball = np.array([225, 40, 35], np.float32) * light
    return np.where(far[..., None] < 1, ball, image).astype(np.uint8)


def released(folder: Path) -> None:
    """Eight rows in the layout of the released CrispEdit-2M, of which two are good."""
    rows = []
    for number, kind in enumerate(("meadow", "desert", "beach", "mountains", "snow", "lake", "room", "sunset")):
        source = landscape(number, WIDTH, HEIGHT, kind)
        rows.append(
            {
                "input_img": jpeg(source),
                "output_img": jpeg(edited(source)),
                "instruction": "Add a red ball.",
                "type": "add",
            }
        )
    rows[1] |= {"type": "background change", "instruction": "Add a red ball in the middle."}  # mislabelled
    rows[7]["type"] = "gizmo"  # no category claims it
    rows[2]["output_img"] = rows[2]["input_img"]  # a no-op
    stretched = cv2.resize(edited(landscape(3, WIDTH, HEIGHT, "mountains")), (WIDTH - 40, HEIGHT))
    rows[3]["output_img"] = jpeg(stretched)
    rows[4]["output_img"] = {"bytes": b"not an image", "path": None}
    rows[5]["instruction"] = None
    rows[6]["input_img"] = {"bytes": rows[6]["input_img"]["bytes"][:900], "path": None}
    write_pairs(folder, rows)


def write_pairs(folder: Path, rows: list[dict]) -> None:
    folder.mkdir(parents=True)
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema(
        [("input_img", image), ("instruction", pa.string()), ("output_img", image), ("type", pa.string())]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), folder / "add_00000.parquet")


def refiltered(tmp_path: Path, source: Path, *overrides: str) -> Run:
    small = [
        "curate.filters.resolution.bounds.short_side_px.min=200",
        "filters.resolution.bounds.short_side_px.min=200",
        "engine.kind=inprocess",
    ]
    given = [f"source.path={source}", f"run={tmp_path / 'run'}", *small, *overrides]
    run = Run(recipe.load("configs/refilter-crispedit2m.yaml", given))
    build.build(run)
    return run


def outcomes(run: Run) -> dict[str, tuple[str, str | None]]:
    """(outcome, reason) of every candidate, by its row in the file."""
    rows = {row["key"]: row for row in pq.read_table(run.folder("select") / "selection.parquet").to_pylist()}
    candidates = journal.read(run.folder("edit"), EDIT).to_pylist()
    return {
        json.loads(row["options"])["uri"].rpartition("#")[2]: (rows[row["key"]]["outcome"], rows[row["key"]]["reason"])
        for row in candidates
    }


def test_the_released_layout_is_filtered_and_every_pair_has_an_outcome(tmp_path: Path):
    released(tmp_path / "data")
    run = refiltered(tmp_path, tmp_path / "data", "filters.sharpness=null")  # it is cheaper, and sees a stretch too
    outcome = outcomes(run)
    assert outcome["0"] == ("kept", None)
    assert outcome["7"] == ("kept", None)
    assert outcome["2"][1].startswith("unchanged.")
    assert outcome["3"][1].startswith("alignment.")
    assert outcome["4"] == ("error", "edit")
    report = audit.audit(run)
    assert report.without_alias == {"gizmo": 1}
    assert "without an alias, whose instructions are classified instead: 'gizmo' 1" in audit.summary(report)
    counts = {(c.step, c.category): c for c in report.counts}
    assert counts["curate", ""].error == {"unreadable": 1}
    assert counts["annotate", "add"].rejected == {"no_instruction": 1}
    samples = list(
        webdataset.WebDataset([str(p) for p in sorted(run.folder("shards").glob("*.tar"))], shardshuffle=False)
    )
    metas = [json.loads(sample["json"]) for sample in samples]
    assert {meta["dataset"] for meta in metas} == {"CrispEdit-2M"}
    assert {meta["editor"] for meta in metas} == {"imported"}


def test_what_was_moved_is_laid_back_and_recorded_where_that_is_asked(tmp_path: Path):
    kinds = ("meadow", "mountains", "room")
    sources = [landscape(number + 20, WIDTH, HEIGHT, kind) for number, kind in enumerate(kinds)]
    moved = np.array([[1.01, 0, 5.0], [0, 1.01, -4.0]])
    shifted = cv2.warpAffine(
        edited(sources[1]), moved, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    # No crop explains a stretch of 15 % along one axis only: this picture was drawn anew.
    stretched = cv2.resize(edited(sources[2]), (WIDTH * 115 // 100, HEIGHT), interpolation=cv2.INTER_CUBIC)
    images = [edited(sources[0]), shifted, np.ascontiguousarray(stretched[:, 20 : 20 + WIDTH])]
    write_pairs(
        tmp_path / "data",
        [
            {"input_img": jpeg(a), "output_img": jpeg(b), "instruction": "Add a red ball.", "type": "add"}
            for a, b in zip(sources, images, strict=True)
        ],
    )
    only = [f"filters.{name}=null" for name in ("resolution", "region", "sharpness", "exposure", "preservation")]
    as_they_came = refiltered(tmp_path / "a", tmp_path / "data", *only)
    repaired = refiltered(tmp_path / "b", tmp_path / "data", "edit.repair=true", *only)
    before, after = (outcomes(run) for run in (as_they_came, repaired))
    assert before["0"] == after["0"] == ("kept", None)
    assert before["1"] == ("rejected", "alignment.displacement_px:high")
    assert after["1"] == ("kept", None)
    # Which filter sees it first depends on what can be followed in it.
    assert before["2"][0] == after["2"][0] == "rejected"
    assert audit.audit(as_they_came).repaired is None
    assert audit.audit(repaired).repaired == {"realigned": 1, "in_place": 2}
    assert "1 of the 2 edited images were moved back" in (repaired.folder("shards") / "README.md").read_text()

    def packed(run: Run) -> dict[str, dict[str, bytes]]:
        urls = [str(path) for path in sorted(run.folder("shards").glob("*.tar"))]
        samples = list(webdataset.WebDataset(urls, shardshuffle=False))
        return {json.loads(sample["json"])["uri"].rpartition("#")[2]: sample for sample in samples}

    def transform(sample: dict[str, bytes]) -> list[list[float]]:
        return json.loads(json.loads(sample["json"])["transform"])

    plain, laid = packed(as_they_came), packed(repaired)
    assert plain["0"]["edited.jpg"] == laid["0"]["edited.jpg"]
    assert "transform" not in json.loads(plain["0"]["json"])
    assert transform(laid["0"]) == [[1, 0, 0], [0, 1, 0]]
    # Both images are cropped to what they share: nothing is filled in, and the source of the pair is a new one.
    back, onto = (np.asarray(Image.open(io.BytesIO(laid["1"][f"{name}.jpg"]))) for name in ("edited", "source"))
    assert back.shape == onto.shape < sources[1].shape
    corner = np.array(transform(laid["1"])) @ [0, 0, 1]
    x, y = np.rint(np.linalg.solve(moved[:, :2], corner - moved[:, 2])).astype(int)
    np.testing.assert_allclose(np.array(transform(laid["1"]))[:, :2], moved[:, :2], atol=0.003)
    part = np.s_[y : y + back.shape[0], x : x + back.shape[1]]
    assert cv2.absdiff(onto, sources[1][part]).mean() < 4  # two JPEGs lie between
    off = [cv2.absdiff(image, edited(sources[1])[part]).mean() for image in (back, shifted[part])]
    assert off[0] < off[1] / 2, off


def test_our_own_shards_are_filtered_again(tmp_path: Path, photos: Path):
    first = make_run(tmp_path / "first", photos, "categories={add: 1, style: 1}")
    build.build(first)
    manifest = json.loads((first.folder("shards") / "manifest.json").read_text())
    run = refiltered(tmp_path, first.folder("shards"), "source.mapping=crispedit-shards")
    again = json.loads((run.folder("shards") / "manifest.json").read_text())
    assert again["categories"] == manifest["categories"]
