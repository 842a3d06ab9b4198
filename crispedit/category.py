"""Categories: the kinds of edit a run makes. Each is a file of `configs/categories`; a new one needs no code.

The file has the category's definition, the prompt that asks a vision-language model for such an instruction, its names
in other datasets, and the bounds that differ for it (a style edit covers the whole image; an added object does not).
"""

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

import yaml
from pydantic import Field, ValidationError, field_validator

from crispedit.bounds import Bound
from crispedit.recipe import Strict, problems


class Category(Strict):
    """One kind of edit. Its file's name is its `name`."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    definition: str
    """What belongs to the category and what does not, in words that a person or a judge can apply."""
    prompt: str
    """Asks a vision-language model, given a photograph, for an instruction of this category."""
    aliases: tuple[str, ...] = ()
    """What public datasets and benchmarks call it; compared without case, spaces, hyphens and underscores."""
    bounds: dict[str, Bound] = {}
    """Bounds that differ from the filters' own for this category, by "filter.score"."""

    @field_validator("bounds")
    @classmethod
    def _dotted(cls, bounds: dict[str, Bound]) -> dict[str, Bound]:
        for name in bounds:
            if not re.fullmatch(r"[a-z0-9_]+\.[a-z0-9_]+", name):
                raise ValueError(f"bound {name!r} must be named filter.score")
        return bounds


def load_categories(folder: Path | None = None, files: Sequence[Path] = ()) -> dict[str, Category]:
    """The categories of a folder of YAML files, by name, in name order; by default the shipped ones. `files` are the
    user's own category files; they replace a shipped category of the same name.

    ValueError names a wrong file, or two categories with the same alias.
    """
    root = resources.files("crispedit.configs") / "categories" if folder is None else folder
    if not root.is_dir():
        raise ValueError(f"the folder of categories {root} does not exist")
    shipped = sorted((file for file in root.iterdir() if file.name.endswith(".yaml")), key=lambda file: file.name)
    if not shipped:
        raise ValueError(f"there is no category (*.yaml) in {root}")
    categories = {}
    for file in [*shipped, *files]:
        if not file.is_file():
            raise ValueError(f"there is no category file at {file}")
        try:
            category = Category.model_validate(yaml.safe_load(file.read_text(encoding="utf-8")))
        except yaml.YAMLError as error:
            raise ValueError(f"category file {file.name} is not valid YAML: {error}") from None
        except ValidationError as error:
            raise ValueError(f"category file {file.name}: {'; '.join(problems(error))}") from None
        if file.name != f"{category.name}.yaml":
            raise ValueError(f"category file {file.name} names its category {category.name!r}; rename one of them")
        categories[category.name] = category
    _index(categories)
    return categories


def resolve(name: str, categories: Mapping[str, Category]) -> str:
    """The category for a dataset's own name of it: "Motion Change" -> "motion".

    ValueError, with the choices, for a word that names no single category ("attribute_modification", "hybrid"):
    classify the instruction instead (`crispedit.classifier`).
    """
    category = _index(categories).get(_fold(name))
    if category is None:
        raise ValueError(
            f"no category is called {name!r}; choose from {', '.join(categories)}, or add the name to the "
            f"aliases of its file in configs/categories"
        )
    return category


def _fold(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def _index(categories: Mapping[str, Category]) -> dict[str, str]:
    """Category name by folded name and alias."""
    index: dict[str, str] = {}
    for category in categories.values():
        for alias in (category.name, *category.aliases):
            taken = index.setdefault(_fold(alias), category.name)
            if taken != category.name:
                raise ValueError(f"categories {taken!r} and {category.name!r} both claim the alias {alias!r}")
    return index
