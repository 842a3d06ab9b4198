"""The command line: every command explains itself, loads only what it needs, and suggests what was misspelt."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import RECIPE

import crispedit
from crispedit import console
from crispedit.pipelines import cli
from crispedit.shards.pack import finish


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_a_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: crispedit {command}" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["", *cli.COMMANDS])
def test_every_argument_and_flag_has_help(command: str):
    _, parser = cli.parser_of(command)
    actions = list(parser.actions())
    assert actions
    assert [action.option_strings or action.dest for action in actions if not action.help] == []


def test_help_lists_every_command_by_task_and_loads_none():
    code = (
        "import sys; from crispedit.pipelines import cli\n"
        "try: cli.main(['--help'])\nfinally: print(sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    listed, _, modules = done.stdout.rpartition("[")
    assert all(f"\n  {command}" in listed for command in cli.COMMANDS)
    assert all(f"\n{group}:" in listed for group in cli.GROUPS)
    assert not any(f"'{name}'" in modules for name in ("ray", "torch", "duckdb", "crispedit.pipelines.build"))


@pytest.mark.parametrize(
    ("line", "suggestion"),
    [
        ("biuld embedded", "there is no command 'biuld'; did you mean build?"),
        ("zzz", "there is no command 'zzz'; see crispedit --help"),
        ("build embedded --dryrun 5", "there is no flag --dryrun; did you mean --dry-run?"),
        ("edit a.jpg red -o b.png --modle x", "there is no flag --modle; did you mean --model?"),
        ("step select run --dry_run", "there is no flag --dry_run; did you mean --dry-run?"),
        ("--versoin", "there is no flag --versoin; did you mean --version?"),
    ],
)
def test_what_is_misspelt_is_suggested(line: str, suggestion: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        cli.main(line.split())
    assert ended.value.code == 2
    assert suggestion in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0
    assert capsys.readouterr().out == f"crispedit {crispedit.__version__}\n"


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]):
    assert cli.main([]) == 2
    assert "build a dataset:" in capsys.readouterr().out


def test_quiet_and_verbose_stand_anywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    try:
        assert cli.main(["audit", str(tmp_path), "-v"]) == 2
        assert "Traceback" in capsys.readouterr().err
    finally:
        root.setLevel(level)
        root.handlers[:] = handlers
    assert cli.main(["-q", "audit", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "Traceback" not in said


def test_quiet_hides_progress_and_ends_with_the_command(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert console.shows_progress()
    with console.quiet(True):
        assert not console.shows_progress()
    assert console.shows_progress()


def test_shells_complete_commands_and_flags(tmp_path: Path):
    pytest.importorskip("argcomplete", reason="pip install 'crispedit[completion]'")

    def completions(line: str) -> list[str]:
        answer = tmp_path / "answer"
        variables = {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line)), "IFS": "\n"}
        variables |= {"_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_STDOUT_FILENAME": str(answer)}
        code = "from crispedit.pipelines import cli; raise SystemExit(cli.main())"
        subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, **variables})
        return answer.read_text().split()

    assert completions("crispedit tok") == ["tokenize"]
    assert "--dry-run" in completions("crispedit build --dr")


@pytest.mark.parametrize(
    ("arguments", "status"),
    [
        ("merge {out} {empty}", 1),
        ("reshard {out} {empty}", 1),
        ("tokenize {empty} {out} --recipe tiny", 1),
        ("export {empty} --to folder --output {out}", 2),
        ("export {empty} --to parquet --output {out}", 2),
        ("duplicates {empty}", 2),
        ("decontaminate {empty} --against {pictures}", 2),
        ("inspect {empty}", 2),
        ("train tiny shards={empty} run={out}", 2),
    ],
)
def test_a_set_without_pairs_is_no_success(
    arguments: str, status: int, tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
):
    finish(tmp_path / "empty", [], {})
    given = arguments.format(empty=tmp_path / "empty", out=tmp_path / "out", pictures=photos)
    assert cli.main(given.split()) == status
    said = capsys.readouterr().err.splitlines()
    assert re.search(r"error: .*(no pairs|0 pairs|nothing was kept|names none of the shards)", said[-1])


def test_a_step_that_has_nothing_to_do_is_no_success(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    small = "curate.filters.resolution.bounds.short_side_px.min=5000"
    given = [str(tmp_path / "recipe.yaml"), f"run={tmp_path / 'run'}", f"source.path={photos}", small]
    assert cli.main(["step", "curate", *given]) == 0
    assert cli.main(["step", "annotate", *given]) == 1
    assert "error: annotate had nothing to do" in capsys.readouterr().err
    assert cli.main(["select", *given]) == 1


def test_overrides_may_stand_behind_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    line = ["build", "embedded", "--dry-run", "3", "source.kind=folder", f"source.path={tmp_path}", "--log-json"]
    assert cli.main([*line, f"run={tmp_path / 'run'}"]) == 2
    assert str(tmp_path) in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["inspect", str(tmp_path), "key", "--pairs", "1", "run=y"])
    assert "unrecognized arguments: run=y" in capsys.readouterr().err
