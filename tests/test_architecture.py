"""The walls: imports go one way, and what is light stays light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

MAY_IMPORT = {
    "crispedit": {"crispedit", "configs"},
    "filters": {"crispedit", "filters"},
    "shards": {"crispedit", "shards"},
    "pipelines": {"crispedit", "filters", "shards", "pipelines", "configs"},
}
"""The arrows of the architecture: pipelines -> filters -> crispedit, and pipelines -> shards -> crispedit."""


def imports(file: Path) -> set[str]:
    """The folders that a file imports from anywhere, also inside functions: "filters" of `crispedit.filters`."""
    folders = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            folders |= {_folder(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            folders |= {_folder(f"{node.module}.{alias.name}") for alias in node.names}
    return folders


def _folder(module: str) -> str:
    top, _, rest = module.partition(".")
    inside = rest.partition(".")[0]
    return inside if top == "crispedit" and inside in MAY_IMPORT.keys() | {"configs"} else top


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_go_one_way(package: str):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        wrong = (imports(file) & MAY_IMPORT.keys()) - MAY_IMPORT[package]
        assert not wrong, f"{file.relative_to(ROOT)} imports {', '.join(wrong)}"


def test_the_scheduler_knows_no_build():
    """Training and evaluation use it too: it knows flows, stages and rows, and the recipe's `engine` section."""
    for file in (ROOT / "pipelines" / "scheduling").glob("*.py"):
        modules = re.findall(r"from crispedit\.pipelines\.(\w+)", file.read_text(encoding="utf-8"))
        assert set(modules) <= {"scheduling", "recipe"}, file.name


def test_the_readme_draws_the_layout():
    """Every package is drawn, and everything drawn exists."""
    drawn: set[str] = set()
    top = ""
    for line in re.search(r"```\n(crispedit/ .*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)[
        1
    ].splitlines():
        names = re.split(r"\s{2,}", line.strip())[0].split()
        if not line.startswith(" "):
            top = names[0]
            names = [""]
        drawn |= {top + name for name in names if name == "" or re.search(r"(/|\.py)$", name)}
    for path in drawn:
        assert (ROOT / path).exists(), f"README draws {path}"
    packages = {f"{file.parent.relative_to(ROOT)}/" for file in ROOT.glob("*/*/__init__.py")}
    assert {path for path in packages if path.split("/")[0] in MAY_IMPORT} <= drawn


LIGHT = [
    "crispedit",
    "crispedit.record",
    "crispedit.bounds",
    "crispedit.parts",
    "crispedit.recipe",
    "crispedit.cascade",
    "crispedit.category",
    "crispedit.images",
    "crispedit.normalise",
    "crispedit.annotators.chat",
    "crispedit.annotators.compositor",
    "crispedit.chat.openai",
    "crispedit.chat.transformers",
    "crispedit.editors.compositor",
    "crispedit.filters.judge",
    "crispedit.shards.journal",
    "crispedit.shards.pack",
    "crispedit.pipelines.cli",
    "crispedit.pipelines.evaluate",
    "crispedit.pipelines.recipe",
    "crispedit.pipelines.run",
    "crispedit.pipelines.engine",
    "crispedit.pipelines.audit",
    "crispedit.pipelines.build",
    "crispedit.pipelines.view",
]


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_load_neither_torch_nor_ray(module: str):
    code = f"import sys, {module}; print(*sorted({{'torch', 'ray', 'transformers'}} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == ""


def test_the_recipe_loads_without_torch():
    """A recipe names its parts, and making them loads no weights and no framework."""
    code = (
        "import sys; from crispedit.pipelines import recipe; recipe.load('embedded');"
        "print(*sorted({'torch', 'ray', 'transformers'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == ""


def test_only_view_loads_a_web_server():
    code = "import sys, crispedit.pipelines.build; print(*sorted({'starlette', 'uvicorn'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == ""
