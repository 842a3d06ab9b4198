"""What is installed: one import name, every package and every data file, in a wheel as in a checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("crispedit", "filters", "shards", "pipelines", "configs")
DATA = {".yaml", ".json", ".jinja", ".css", ".js", ".svg", ".safetensors", ".typed"}


def test_every_package_is_listed():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    packages = {
        ".".join(("crispedit", *file.parent.relative_to(ROOT).parts)).replace("crispedit.crispedit", "crispedit")
        for folder in FOLDERS
        for file in (ROOT / folder).rglob("__init__.py")
    }
    assert set(settings["packages"]) == packages


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, made by the build backend itself in a copy: it writes beside what it builds."""
    copy = tmp_path_factory.mktemp("checkout")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, copy / file)
    code = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, str(copy / "dist")], cwd=copy, capture_output=True, check=True)
    return next((copy / "dist").glob("*.whl"))


def test_a_wheel_claims_one_import_name_and_holds_every_file(wheel: Path):
    names = set(zipfile.ZipFile(wheel).namelist())
    tops = {name.partition("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"crispedit"}
    for folder in FOLDERS:
        for file in (ROOT / folder).rglob("*"):
            if file.suffix in DATA | {".py"}:
                inside = file.relative_to(ROOT / "crispedit" if folder == "crispedit" else ROOT)
                assert f"crispedit/{inside.as_posix()}" in names


def test_a_wheel_runs_without_the_checkout(wheel: Path, tmp_path: Path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import crispedit; assert sys.argv[1] in crispedit.__file__;"
        "from crispedit.pipelines import recipe; print(*recipe.load('embedded').pair_cascade.filters)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "site")], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "unchanged" in done.stdout
