"""Write docs/recipe.md, the page with every key of a build recipe, from the recipe's types and docstrings.

python -m crispedit.pipelines.shipped.recipe_page docs/recipe.md
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from crispedit.bounds import Bound
from crispedit.pipelines.recipe import Recipe
from crispedit.recipe import Pool, models_in

HEAD = """# The keys of a build recipe

A key can also be set on the command line, such as `edit.jpeg_quality=90`. NAME is the name of a category, filter or
editor. The options of a part are set beside its `pool`: `crispedit filters NAME` lists those of a filter,
[editors](editors.md) and [chat models](chat.md) explain the others. This page is written by
`python -m crispedit.pipelines.shipped.recipe_page docs/recipe.md`.
"""


def page() -> str:
    """The page as Markdown: a table for each section of the recipe, and for each kind of source."""
    tables: dict[str, list[str]] = {"Top level": []}
    for name, field in Recipe.model_fields.items():
        models = _sections(field)
        if not models:
            tables["Top level"].append(_row(name, field))
        for model in models:
            title = f"{name}, kind: {model.model_fields['kind'].default}" if len(models) > 1 else name
            tables[title] = list(_rows(model, _inside(name, field)))
    head = "| key | default | meaning |\n|---|---|---|"
    return "\n".join([HEAD, *("\n".join([f"## {title}\n", head, *rows, ""]) for title, rows in tables.items())])


def _rows(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        sections = _sections(field)
        if sections in ([], [Pool]) and (prefix, name) != ("source.", "kind"):
            yield _row(prefix + name, field)
        for section in sections:
            if section is not Pool or prefix == "score.":
                yield from _rows(section, prefix + _inside(name, field))


def _sections(field: FieldInfo) -> list[type[BaseModel]]:
    return [model for model in models_in(field.annotation) if model is not Bound]


def _inside(name: str, field: FieldInfo) -> str:
    """The prefix of the keys inside a section; a mapping's entries have names."""
    return f"{name}.NAME." if "dict[" in str(field.annotation) else f"{name}."


def _row(key: str, field: FieldInfo) -> str:
    default = "" if field.is_required() else field.get_default(call_default_factory=True)
    shown = "" if isinstance(default, BaseModel) else f"`{json.dumps(default)}`"
    text = " ".join((field.description or "").split()).replace("|", "\\|")
    return f"| `{key}` | {'required' if field.is_required() else shown} | {text} |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("out", type=Path, help="the page's file")
    parser.parse_args().out.write_text(page(), encoding="utf-8")
