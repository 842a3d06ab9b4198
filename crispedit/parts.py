"""Parts: filters, editors and annotators. A part is one class in one file; its file name is its name in a recipe,
its fields are its options, and nothing registers it anywhere.

A part must pickle, answer once per input and in order, and give an input the same answer alone, in any batch, in any
order and on any machine; randomness comes from the keys (`crispedit.record.seed_of`). `tests/test_contracts.py`
holds every part in these folders to that. An exception about one input is that row's error, never its neighbours'.
"""

import functools
import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any, ClassVar, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from crispedit.bounds import Bound, at_least, at_most
from crispedit.recipe import problems
from crispedit.record import Edit, Image, Job, Refusal, Sample, Score

__all__ = [
    "Annotator",
    "Bound",
    "Edit",
    "Editor",
    "Filter",
    "Image",
    "Job",
    "ModelPart",
    "Part",
    "Refusal",
    "Sample",
    "Score",
    "at_least",
    "at_most",
    "find",
    "loading",
    "make",
    "name_of",
    "names",
    "needs",
]
"""What the file of a part imports, and what finds and makes parts."""


class Part(BaseModel):
    """A replaceable piece of a step. Fields are options; raise `version` when the same options compute something
    else."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    version: ClassVar[int] = 1
    gpus: ClassVar[float] = 0.0
    """GPUs an actor of this part asks for unless the recipe says otherwise."""
    incidental: ClassVar[frozenset[str]] = frozenset()
    """Options that decide where, how fast and at what cost the output is made, not what it is."""

    @classmethod
    def undefined(cls) -> str | None:
        """What the class must define and does not, or defines wrongly; None if it is complete."""
        return None

    def lacks(self) -> str | None:
        """What this part needs and cannot find (a package, weights), and how to get it; None if all is there. Called
        when a recipe is checked, so that a run does not measure only nulls."""
        return None

    def load(self) -> None:
        """Load weights. Called once in the process that does the work, never when a recipe is read.

        A library's error about broken weights becomes a ValueError that names the part and its options.
        """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "load" in cls.__dict__:
            cls.load = _named(cls.load)  # type: ignore[assignment, method-assign]

    def identity(self) -> dict[str, Any]:
        """What determines this part's output, JSON-ready: name, version, options. It is part of the fingerprint."""
        options = self.model_dump(mode="json", exclude=set(self.incidental))
        return {"name": name_of(type(self)), "version": self.version, "options": options}


def _named(load: Callable[[Any], None]) -> Callable[[Any], None]:
    """A part's `load`, whose errors name the part."""

    @functools.wraps(load)
    def named(self: Part) -> None:
        texts = {name: value for name, value in self.model_dump(mode="json").items() if isinstance(value, str)}
        with loading(", ".join([name_of(type(self)), *(f"{name} {value}" for name, value in texts.items())])):
            load(self)

    return named


@contextmanager
def loading(what: str) -> Iterator[None]:
    """Turn a library's error about weights into a ValueError that names them. Missing packages and exhausted memory are
    not the weights' fault and pass unchanged."""
    try:
        yield
    except (ImportError, MemoryError):
        raise
    except Exception as error:
        # Subclasses of ValueError come from parsing, and name no file; torch has its own error of memory.
        if type(error) is ValueError or type(error).__name__ == "OutOfMemoryError":
            raise
        raise ValueError(f"{what}: does not load: {type(error).__name__}: {error}") from error


class ModelPart(Part):
    """A part that runs a model or a server: what `load` makes is private, and stays in its process."""

    def __getstate__(self) -> dict[Any, Any]:
        """Without the weights: the process that unpickles this part loads its own."""
        initial = {name: attribute.get_default() for name, attribute in self.__private_attributes__.items()}
        return super().__getstate__() | {"__pydantic_private__": initial or None}


class Filter(Part):
    """Measures photographs or pairs into named score columns; never decides (see `crispedit.bounds`)."""

    scope: ClassVar[frozenset[Literal["source", "pair"]]] = frozenset({"pair"})
    """Where it can be used: on photographs in `curate`, on pairs in `score`, or both."""
    scores: ClassVar[Mapping[str, type[float] | type[int]]]
    """The columns it writes, without the filter's own name, and their type."""
    bounds: ClassVar[Mapping[str, Bound]] = {}
    """Default bounds, by score; recipes and category files may override each."""
    notes: ClassVar[tuple[str, ...]] = ()
    """Text columns that it may write beside its scores, such as a judge's words; they decide nothing."""
    extra: ClassVar[str | None] = None
    """The extra of crispedit that brings the packages it needs; None: it needs no other package."""
    cost: ClassVar[float]
    """Milliseconds per pair of 1024x1024 on one core (or one GPU); the cascade runs cheapest first."""

    @classmethod
    def undefined(cls) -> str | None:
        if not hasattr(cls, "scores"):
            return "'scores', such as scores = {\"levels\": float}"
        if not hasattr(cls, "cost"):
            return "'cost', the milliseconds for a pair of 1024x1024, such as cost = 1.0"
        if cls.measure is Filter.measure and cls.measure_one is Filter.measure_one:
            return "measure_one(sample) or measure(samples)"
        without = sorted(cls.bounds.keys() - cls.scores.keys())
        return f"scores for its bounds on {', '.join(without)}" if without else None

    def price(self) -> float:
        """`cost` with these options; it orders the cascade."""
        return self.cost

    def measure(self, samples: Sequence[Sample]) -> Sequence[Mapping[str, Score | str] | Exception]:
        """One dict per sample, in order, with a value for every name in `scores`; None is "cannot be known".

        An exception in a sample's place is that sample's error.
        """
        return [self.measure_one(sample) for sample in samples]

    def measure_one(self, sample: Sample) -> Mapping[str, Score | str]:
        """The dict of one sample. A filter defines this, or `measure` if it works on batches."""
        raise NotImplementedError


class Annotator(Part):
    """Turns photographs into edit jobs."""

    categories: ClassVar[tuple[str, ...] | None] = None
    """The categories that it can plan; None: any with a category file. A recipe with another one is refused."""

    @classmethod
    def undefined(cls) -> str | None:
        return "annotate(samples, requests)" if cls.annotate is Annotator.annotate else None

    def annotate(
        self, samples: Sequence[Sample], requests: Sequence[Sequence[str]]
    ) -> Sequence[Sequence[Job | Refusal | Exception]]:
        """For each photograph and each category requested of it, a job, or a refusal with its reason, in order; an
        exception in a job's place is that request's error.

        A category may be requested several times of one photograph; the jobs must then differ.
        """
        raise NotImplementedError


class Editor(ModelPart):
    """Carries out jobs."""

    @classmethod
    def undefined(cls) -> str | None:
        return "edit(sources, jobs, seeds)" if cls.edit is Editor.edit else None

    def check(self) -> None:
        """ValueError for options that are wrong whatever the weights; called when a recipe is checked."""

    def edit(
        self, sources: Sequence[Image], jobs: Sequence[Job], seeds: Sequence[int]
    ) -> Sequence[Edit | Refusal | Exception]:
        """One edit per job, in order. Seeds are 63-bit, derived from the candidate keys.

        An exception in an edit's place is that job's error.
        """
        raise NotImplementedError


P = TypeVar("P", bound=Part)


def name_of(part: type[Part]) -> str:
    """The name of a part in a recipe: its file's name."""
    return part.__module__.rpartition(".")[2]


def names(package: ModuleType) -> list[str]:
    """The names of the parts in a package's folder, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def find(package: ModuleType, name: str, kind: type[P]) -> type[P]:
    """The one `kind` class that the file `name` of the package defines, or any importable module `package.module`.

    ValueError lists the choices, or says why the module cannot be imported or what its class lacks.
    """
    part, outside = kind.__name__.lower(), "." in name
    if not outside and name not in names(package):
        raise ValueError(
            f"there is no {part} {name!r}; choose from {', '.join(names(package))}, "
            "or name a module of your own as package.module"
        )
    try:
        module = importlib.import_module(name if outside else f"{package.__name__}.{name}")
    except Exception as error:
        if not outside:
            raise
        if isinstance(error, ImportError):
            raise ValueError(
                f"{part} {name!r} cannot be imported: {error}; is its folder on PYTHONPATH, on every node?"
            ) from None
        raise ValueError(f"{part} {name!r} cannot be imported: {type(error).__name__}: {error}") from error
    classes = [
        value
        for value in vars(module).values()
        if inspect.isclass(value) and issubclass(value, kind) and value.__module__ == module.__name__
    ]
    if len(classes) != 1:
        raise ValueError(f"{module.__name__} must define exactly one {kind.__name__}; it defines {len(classes)}")
    if lacking := classes[0].undefined():
        raise ValueError(f"{part} {name!r}: the class {classes[0].__name__} must define {lacking}")
    return classes[0]


def needs(*modules: str, extra: str) -> str | None:
    """A message for `lacks`: which modules are not installed, and the extra that brings them."""
    absent = [module for module in modules if importlib.util.find_spec(module) is None]
    return f"{' and '.join(absent)} not installed: pip install 'crispedit[{extra}]'" if absent else None


def make(package: ModuleType, name: str, kind: type[P], options: Mapping[str, Any]) -> P:
    """The part with these options. ValueError names a wrong option and lists the right ones."""
    cls = find(package, name, kind)
    try:
        return cls(**options)
    except ValidationError as error:
        wrong, fields = "; ".join(problems(error)), ", ".join(sorted(cls.model_fields)) or "none"
        raise ValueError(f"{kind.__name__.lower()} {name!r}: {wrong} (its options: {fields})") from None
