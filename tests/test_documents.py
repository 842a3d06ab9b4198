"""What the documents show can be run: commands parse, recipes load with their overrides, modules and links exist."""

from __future__ import annotations

import ast
import importlib
import re
import shlex
from collections.abc import Iterator

import pytest
from documents import ROOT, blocks

from crispedit.pipelines import cli
from crispedit.pipelines import recipe as build_recipe
from crispedit.pipelines.shipped import recipe_page
from crispedit.pipelines.training import recipe as train_recipe

DOCUMENTS = ["README.md", "CONTRIBUTING.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]

COMMAND = re.compile(r"(OMP_\w+=\w+ )?((\.venv/bin/)?crispedit|python -m) [a-z]")


COMMAND = re.compile(r"(OMP_\w+=\w+ )?((\.venv/bin/)?crispedit|python -m) [a-z]")


def commands(document: str) -> Iterator[list[str]]:
    """The words of each command in a shell block or a block without a language, continued lines joined."""
    for language in ("sh", "bash", ""):
        for block in blocks(document, language):
            for line in block.replace("\\\n", " ").splitlines():
                text = line.removeprefix("$ ").strip()
                if COMMAND.match(text):
                    # In a usage line: [optional], one|another, and dots for what the reader fills in.
                    text = re.sub(r"[\[\]]|(?<=\w)\|[\w|]+", "", text).replace("...", "FILLED_IN")
                    yield [word for word in shlex.split(text, comments=True) if not word.startswith("OMP_")]


def parsed(words: list[str]) -> None:
    """Parse a line of `crispedit` as the command would, without running it. SystemExit if it is wrong."""
    words = [word for word in words if word not in cli.GENERAL]
    whole, chosen = cli.parser_of(words[0])
    chosen.check_flags(words[1:])
    args = whole.parse_args(words)
    path = str(getattr(args, "recipe", ""))
    load = {"build": build_recipe.load, "train": train_recipe.load}.get(words[0])
    if load is not None and path.startswith("configs/"):
        load(path, [word for word in args.overrides if "=" in word])


@pytest.mark.parametrize("document", DOCUMENTS)
def test_commands_parse(document: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(ROOT)
    wrong = []
    for words in commands(document):
        if words[0].endswith("crispedit"):
            try:
                parsed(words[1:])
            except SystemExit as ended:
                if ended.code:
                    wrong.append(f"{shlex.join(words)}: {capsys.readouterr().err.strip().splitlines()[-1]}")
            except ValueError as error:
                wrong.append(f"{shlex.join(words)}: {error}")
        elif importlib.util.find_spec(words[2]) is None:
            wrong.append(f"{shlex.join(words)}: there is no module {words[2]}")
        elif words[2].startswith("benchmarks."):
            source = (ROOT / f"{words[2].replace('.', '/')}.py").read_text()
            wrong += [
                f"{shlex.join(words)}: {word} is no flag"
                for word in words[3:]
                if word.startswith("--") and f'"{word.partition("=")[0]}"' not in source
            ]
    assert not wrong


@pytest.mark.parametrize("document", DOCUMENTS)
def test_imports_of_the_code_exist(document: str):
    for block in blocks(document, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "crispedit":
                module = importlib.import_module(node.module)
                missing = [
                    name.name
                    for name in node.names
                    if not hasattr(module, name.name) and importlib.util.find_spec(f"{node.module}.{name.name}") is None
                ]
                assert not missing, f"{document}: {node.module} has no {missing}"
            elif isinstance(node, ast.ImportFrom) and node.module:
                assert not (ROOT / node.module.split(".")[0]).is_dir(), f"{document}: import crispedit.{node.module}"


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str):
    folder = (ROOT / document).parent
    text = (ROOT / document).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    assert not [link for link in links if not (folder / link).exists()]


def test_the_page_of_recipe_keys_is_up_to_date():
    assert (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8") == recipe_page.page()
