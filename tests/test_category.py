"""Categories load from files, and datasets' names for them resolve."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crispedit.bounds import Bound
from crispedit.category import Category, load_categories, resolve

SEVEN = ("add", "background", "color", "motion", "remove", "replace", "style")
CATEGORIES = load_categories()


def write(folder: Path, name: str, text: str) -> None:
    (folder / f"{name}.yaml").write_text(text)


def test_the_shipped_categories_are_the_papers_seven():
    assert tuple(CATEGORIES) == SEVEN
    assert all(len(c.definition) > 80 and len(c.prompt) > 200 for c in CATEGORIES.values())


@pytest.mark.parametrize(
    ("name", "category"),
    [
        ("background change", "background"),  # CrispEdit-2M
        ("motion change", "motion"),
        ("swap", "replace"),  # OmniEdit
        ("removal", "remove"),
        ("env", "background"),
        ("color_alter", "color"),  # AnyEdit, GEdit-Bench
        ("style_change", "style"),
        ("subject-add", "add"),
        ("Action", "motion"),  # ImgEdit
        ("Change Color", "color"),  # UltraEdit
    ],
)
def test_public_names_resolve(name, category):
    assert resolve(name, CATEGORIES) == category


@given(st.sampled_from([n for c in CATEGORIES.values() for n in (c.name, *c.aliases)]), st.sampled_from(" -_"))
def test_case_and_separators_do_not_matter(name, separator):
    respelt = name.upper().replace(" ", separator).replace("_", separator).replace("-", separator)
    assert resolve(respelt, CATEGORIES) == resolve(name, CATEGORIES)


@pytest.mark.parametrize("name", ["attribute_modification", "hybrid", "", "colours"])
def test_an_unknown_name_lists_the_choices(name):
    with pytest.raises(ValueError, match="choose from add, background, color"):
        resolve(name, CATEGORIES)


def test_a_folder_of_ones_own(tmp_path):
    write(tmp_path, "relight", "{name: relight, definition: d, prompt: p, bounds: {region.area: {min: 0.5}}}")
    assert load_categories(tmp_path) == {
        "relight": Category(name="relight", definition="d", prompt="p", bounds={"region.area": Bound(min=0.5)})
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{name: relight, definition: d, prompt: p, promt: q}", "relight.yaml: promt"),
        ("{name: relight, definition: d}", "relight.yaml: prompt: Field required"),
        ("{name: other, definition: d, prompt: p}", "rename one"),
        ("{name: relight, definition: d, prompt: p, bounds: {area: {min: 1}}}", "filter.score"),
        ("[not: closed", "not valid YAML"),
        ("", "relight.yaml"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, text, message):
    write(tmp_path, "relight", text)
    with pytest.raises(ValueError, match=message):
        load_categories(tmp_path)


def test_two_categories_cannot_claim_one_alias(tmp_path):
    write(tmp_path, "light", "{name: light, definition: d, prompt: p, aliases: [Re-Light]}")
    write(tmp_path, "relight", "{name: relight, definition: d, prompt: p}")
    with pytest.raises(ValueError, match="'light' and 'relight' both claim"):
        load_categories(tmp_path)


def test_a_folder_without_categories_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no category"):
        load_categories(tmp_path)
    with pytest.raises(ValueError, match="does not exist"):
        load_categories(tmp_path / "absent")


def test_it_is_a_light_module():
    code = "import sys, crispedit.category; assert not {'torch', 'ray', 'pipelines'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
