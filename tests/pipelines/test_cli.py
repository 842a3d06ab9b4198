"""The command line: every command is there, explains itself, and loads only what it needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

from crispedit.pipelines import cli


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_a_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    assert f"usage: crispedit {command}" in capsys.readouterr().out


def test_edit_is_a_step_or_a_tool_by_itself():
    assert cli.module_of("edit", ["edit", "recipe.yaml", "run=r"]) == "crispedit.pipelines.step"
    assert (
        cli.module_of("edit", ["edit", "a.jpg", "make it red", "--model", "m"]) == "crispedit.pipelines.edit"
    )
    assert cli.module_of("edit", ["edit", "a.jpg", "make it red", "--model=m"]) == "crispedit.pipelines.edit"


def test_help_lists_every_command_and_loads_none():
    code = (
        "import sys; from crispedit.pipelines import cli\n"
        "try: cli.main(['--help'])\nfinally: print(sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    listed, _, modules = done.stdout.rpartition("[")
    assert all(command in listed for command in cli.COMMANDS)
    assert not any(f"'{name}'" in modules for name in ("ray", "torch", "duckdb", "crispedit.pipelines.build"))
