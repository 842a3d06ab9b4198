"""Recipes: YAML to a strict typed object, with `key=value` overrides, and errors that name the key and the choices."""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from crispedit.bounds import Bound


class Strict(BaseModel):
    """A recipe section: an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Pool(Strict):
    """The actors that run a stage, and the resources of each."""

    actors: int | None = Field(None, ge=1)
    """Number of actors; null: as many as fit. Without a GPU, stages then share processes."""
    cpus: float = Field(1.0, gt=0)
    """CPUs per actor."""
    gpus: float | None = Field(None, ge=0)
    """GPUs per actor; null: what the part declares."""
    memory_gb: float | None = Field(None, gt=0)
    """Memory per actor, for Ray's placement; null: not counted."""
    batch: int = Field(8, ge=1)
    """Rows that an actor processes at a time."""


class PartSpec(BaseModel):
    """A part in a recipe: `pool`, and the part's own options beside it."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    pool: Pool = Pool()
    """The actors that run the part, as in `score.pool`."""

    @property
    def options(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class FilterSpec(PartSpec):
    """A filter in a recipe: its options, and the bounds that decide on what it measures."""

    filter: str | None = None
    """The part, if the entry has another name: a module of your own, `package.module`."""
    bounds: dict[str, Bound] = {}
    """Bounds by score, in place of the filter's own."""

    def apart(self, gpus: float) -> bool:
        """Whether a filter that declares this many GPUs has its own actors: if it needs a GPU, or the recipe sets its
        pool. The other filters share actors and decoded images."""
        return gpus > 0 or self.pool != Pool()


class EditorSpec(PartSpec):
    """An editor in a recipe: its options, and how many seeds each job gets."""

    editor: str | None = None
    """The part, if the entry has another name: a second model of one part, or `package.module`."""
    seeds: int = Field(1, ge=1)
    """Candidates per job, each with its own seed."""
    when: Literal["always", "failed"] = "always"
    """"failed": only for jobs whose candidates from earlier editors were all measured and rejected."""
    price: float | None = Field(None, gt=0)
    """Cost of a candidate, in a unit shared by all editors, for `edit.share: measured`; null for all: equal cost."""


R = TypeVar("R", bound=BaseModel)


def load(model: type[R], path: Path, overrides: Sequence[str] = ()) -> R:
    """The recipe in a YAML file, after `a.b.c=value` overrides (values are YAML). ValueError for anything unknown."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"cannot read the recipe {path}: {error.strerror}") from None
    return parse(model, text, overrides, name=str(path))


def by_name(model: type[R], path: str, overrides: Sequence[str] = (), folder: str = "") -> R:
    """The recipe in a file, or, if there is no such file, a shipped one by its name in `configs/FOLDER`."""
    configs = resources.files("crispedit.configs") / folder
    shipped = configs / f"{Path(path).stem}.yaml"
    if not Path(path).is_file() and shipped.is_file():
        return parse(model, shipped.read_text(encoding="utf-8"), overrides, name=path)
    if not Path(path).exists():
        names = sorted(file.name.removesuffix(".yaml") for file in configs.iterdir() if file.name.endswith(".yaml"))
        raise ValueError(f"there is no recipe file {path}; the shipped ones are {', '.join(names)}")
    return load(model, Path(path), overrides)


def parse(model: type[R], text: str, overrides: Sequence[str] = (), *, name: str = "recipe") -> R:
    """Like `load`, from the text of a recipe."""
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"{name} is not YAML: {error}") from None
    if not isinstance(data, dict):
        raise ValueError(f"{name} must be a mapping of keys, not {type(data).__name__}")
    for override in overrides:
        _apply(data, override)
    try:
        return model(**data)
    except ValidationError as error:
        lines = [f"  {_explain(model, data, dict(problem))}" for problem in error.errors()]
        raise ValueError("\n".join([f"{name} is not a valid recipe:", *lines])) from None


def _apply(data: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise ValueError(f"an override is written key=value, such as source.path=photos; got {override!r}")
    *parents, last = key.split(".")
    node = data
    for parent in parents:
        child = node.get(parent)
        if child is None:
            child = node[parent] = {}
        if not isinstance(child, dict):
            raise ValueError(f"{override!r}: {parent!r} is {child!r}, not a section")
        node = child
    try:
        node[last] = yaml.safe_load(value) if value else None
    except yaml.YAMLError as error:
        raise ValueError(f"{override!r}: the value is not YAML: {error}") from None


def _explain(model: type[BaseModel], data: Mapping[str, Any], problem: Mapping[str, Any]) -> str:
    location = problem["loc"]
    section = data.get(location[0]) if location else None
    kind = section.get("kind") if isinstance(section, Mapping) else None  # pydantic says source.folder.path
    key = ".".join(str(step) for place, step in enumerate(location) if place != 1 or step != kind)
    if problem["type"] != "extra_forbidden":
        space = "; write a space after the colon" if problem["input"] is None and ":" in key else ""
        return f"{key}: {problem['msg']} (got {problem['input']!r}){space}"
    models = [model]
    for step in location[:-1]:
        fields = [m.model_fields[step] for m in models if step in m.model_fields]
        inner = [inside for field in fields for inside in models_in(field.annotation)]
        # A step that is no field is the key of a mapping's entry, or the kind of one of several models.
        models = inner if fields else [m for m in models if _kind(m) == step] or models
    choices = f"; choose from {', '.join(sorted(models[0].model_fields))}" if models else ""
    return f"{key}: there is no such key{choices}"


def models_in(annotation: object) -> list[type[BaseModel]]:
    """Every model inside an annotation such as `dict[str, FilterSpec]` or `A | B`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [m for inner in getattr(annotation, "__args__", ()) for m in models_in(inner)]


def _kind(model: type[BaseModel]) -> object:
    return model.model_fields["kind"].default if "kind" in model.model_fields else None


def problems(error: ValidationError) -> list[str]:
    """What is wrong with each field, as "field: problem"."""
    return [f"{'.'.join(map(str, e['loc'])) or 'it'}: {e['msg']}" for e in error.errors()]
