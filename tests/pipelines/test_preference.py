"""The preference export: a real run with several candidates, opened by `datasets`."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import make_run
from datasets import load_dataset
from PIL import Image

from crispedit.compositor.landscape import landscape
from crispedit.images import encode_jpeg
from crispedit.pipelines import build, cli, tables
from crispedit.pipelines.run import Run
from crispedit.pipelines.sharing import preference
from crispedit.shards import journal

MADE = ("edit.editors={compositor: {seeds: 3}}", "categories={add: 1, remove: 1}")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder, rng = tmp_path_factory.mktemp("grainy"), np.random.default_rng(0)
    for seed in range(3):
        noisy = landscape(seed, 288, 256) + rng.normal(0, 9, (256, 288, 3))  # the compositor's seeds vary grain
        (folder / f"{seed}.jpg").write_bytes(encode_jpeg(noisy.clip(0, 255).astype(np.uint8)))
    run = make_run(tmp_path_factory.mktemp("built") / "run", folder, *MADE, "select.best={unchanged.mean_abs: 1}")
    build.build(run)
    return run


@pytest.mark.filterwarnings("ignore")  # of datasets' own dependencies
def test_datasets_opens_it_with_the_names_of_trl_and_of_diffusion_dpo(run: Run, tmp_path: Path, capsys):
    out = tmp_path / "out"
    assert cli.main(["export", str(run.root), "--to", "preference", "--output", str(out)]) == 0
    assert "6 preferences" in capsys.readouterr().out
    trl = load_dataset(str(out), "trl", split="train", cache_dir=str(tmp_path / "cache"))
    assert {"prompt", "images", "chosen", "rejected"} <= set(trl.column_names)
    dpo = load_dataset(str(out), "diffusion_dpo", split="train", cache_dir=str(tmp_path / "cache"))
    assert {"jpg_0", "jpg_1", "label_0", "caption"} <= set(dpo.column_names)
    edits = {
        row["key"]: row
        for row in tables.connect(run)
        .sql('SELECT e.*, s."unchanged.mean_abs" AS worth FROM candidate e JOIN score s USING (key)')
        .to_arrow_table()
        .to_pylist()
    }
    selected = pq.read_table(run.folder("select") / "selection.parquet").to_pylist()
    outcomes = {row["key"]: row["outcome"] for row in selected}
    # To remove a thing, the compositor composes a source for each seed: such candidates share no source.
    assert trl["category"] == ["add"] * 6
    for ours, theirs in zip(trl, dpo, strict=True):
        chosen, rejected = edits[ours["chosen_key"]], edits[ours["key"]]
        assert (outcomes[chosen["key"]], outcomes[rejected["key"]]) == ("kept", "rejected")
        assert chosen["job_key"] == rejected["job_key"]
        assert chosen["worth"] > rejected["worth"]
        assert ours["prompt"] == theirs["caption"] == chosen["instruction"]
        assert (ours["reason"], theirs["label_0"]) == ("not_best", 1.0)
        assert theirs["jpg_0"] == journal.read_blob(run.root, chosen["edited"])
        assert theirs["jpg_1"] == journal.read_blob(run.root, rejected["edited"])
        assert np.array_equal(ours["chosen"], Image.open(io.BytesIO(theirs["jpg_0"])))
        assert np.array_equal(ours["rejected"], Image.open(io.BytesIO(theirs["jpg_1"])))
        (source,) = ours["images"]
        original = Image.open(io.BytesIO(journal.read_blob(run.root, chosen["source"])))
        assert np.array_equal(source, original)
        assert np.array_equal(theirs["source"], original)
        worth = {score["name"]: score["value"] for score in ours["rejected_scores"]}
        assert worth["unchanged.mean_abs"] == rejected["worth"]


def test_the_order_of_editors_is_no_preference(run: Run, tmp_path: Path):
    unordered = make_run(run.root, Path(run.recipe.source.path), *MADE)
    build.step(unordered, "select")
    with pytest.raises(ValueError, match=r"select\.best"):
        preference.export(unordered, str(tmp_path / "out"))
    build.step(run, "select")


def test_a_rejection_by_a_bound_is_a_preference_with_its_reason(run: Run, tmp_path: Path):
    """The bound lies between the candidates of each job, so that the better one alone passes."""
    worths = (
        tables.connect(run)
        .execute("""SELECT list(s."unchanged.mean_abs" ORDER BY s."unchanged.mean_abs") FROM candidate
            JOIN score s USING (key) WHERE category = 'add' GROUP BY job_key""")
        .fetchall()
    )
    low, _, high = worths[0][0]
    bound = f"filters.unchanged={{bounds: {{mean_abs: {{min: {(low + high) / 2}}}}}}}"
    bounded = make_run(run.root, Path(run.recipe.source.path), *MADE, bound)
    build.step(bounded, "select")
    assert preference.export(bounded, str(tmp_path / "out"), ["add"])
    reasons = pq.read_table(tmp_path / "out" / "trl").column("reason").to_pylist()
    assert set(reasons) == {"unchanged.mean_abs:low"}
    build.step(run, "select")


def test_bad_inputs_say_the_way_out(run: Run, tmp_path: Path, capsys):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    wrong = {
        "not an empty folder": [str(run.root), "--output", str(tmp_path / "full")],
        "one run": [str(run.root), str(run.root), "--output", str(tmp_path / "out")],
        "no preferences of these categories": [
            str(run.root),
            "--output",
            str(tmp_path / "out"),
            "--categories",
            "style",
        ],
    }
    for words, arguments in wrong.items():
        assert cli.main(["export", *arguments, "--to", "preference"]) == 2
        assert words in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
