"""The dataset card of a set that was made of other sets: an export or a merge.

Its front matter, licence and counts are the new set's own; the cards of the sets it came from follow whole, so that
nothing that was said of the photographs, editors and licences is lost.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from crispedit.shards import layout, storage

CARD = "README.md"
SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
PROVENANCE = ("dataset", "licence", "uri", "source_key", "editor", "inverse_of", "inverse_by")
"""What a pair's JSON says of where it comes from; columns of an export. `inverse_of` is the key of the pair that an
inverse pair was made from, `inverse_by` who wrote its instruction: "rule" or a model."""


@dataclass
class Contents:
    """What a set holds, counted pair by pair."""

    categories: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    datasets: Counter[str] = field(default_factory=Counter)

    def add(self, category: str, meta: Mapping[str, Any]) -> None:
        self.categories[category] += 1
        self.licences[str(meta.get("licence") or "unknown")] += 1
        self.datasets[str(meta.get("dataset") or "unknown")] += 1


@dataclass(frozen=True)
class SourceCard:
    """A set's name and its card."""

    name: str
    front: Mapping[str, Any]
    body: str


def size_category(pairs: int) -> str:
    """Hugging Face's word for the size of a set."""
    return next((name for limit, name in SIZES if pairs < limit), "1M<n<10M")


def sources_of(paths: Iterable[str]) -> list[SourceCard]:
    """The cards of these sets and tars, each folder's once; a folder without one is left out."""
    cards: dict[str, SourceCard] = {}
    for path in (path for pattern in paths for path in storage.expand(pattern)):
        folder, name = storage.split(path)
        folder = folder if name.endswith(".tar") or name == layout.MANIFEST else path
        if folder in cards or not storage.exists(storage.join(folder, CARD)):
            continue
        text = storage.read_bytes(storage.join(folder, CARD)).decode("utf-8", "replace")
        cards[folder] = SourceCard(storage.split(folder.rstrip("/"))[1] or folder, *_parted(text))
    return list(cards.values())


def text(made: str, contents: Contents, sources: list[SourceCard], files: str) -> str:
    """The card. `made` says how the set was made; `files` is the pattern of its data files."""
    pairs = contents.categories.total()
    front = common([source.front for source in sources])
    licences = [name for name in contents.licences if name != "unknown"]
    if len(licences) == 1 and contents.licences["unknown"] == 0:
        front["license"] = licences[0]
    elif licences:
        front.pop("license", None)
    front |= {
        "task_categories": ["image-to-image"],
        "tags": sorted({"image-editing", "crispedit", *(tag for s in sources for tag in _tags(s))}),
        "size_categories": [size_category(pairs)],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": files}]}],
    }
    rows = "".join(f"| {name} | {count} |\n" for name, count in sorted(contents.categories.items()))
    cards = "".join(f"\n---\n\n## Card of {source.name}\n\n{_lowered(source.body)}\n" for source in sources)
    return f"""---
{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---
# Image-editing pairs

{pairs} pairs, {made}.

| category | pairs |
|---|---|
{rows}| **total** | **{pairs}** |

- photographs from: {_counted(contents.datasets)}
- licence of the photographs: {_counted(contents.licences)}
{cards}"""


def common(statements: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all of several sets say, such as their language or tokenizers: it is true of a set made of them too."""
    first = statements[0] if statements else {}
    return {name: value for name, value in first.items() if all(other.get(name) == value for other in statements)}


def _parted(text: str) -> tuple[dict[str, Any], str]:
    """The front matter and the body."""
    if not text.startswith("---\n"):
        return {}, text.strip()
    head, _, rest = text.removeprefix("---\n").partition("\n---\n")
    try:
        front = yaml.safe_load(head)
    except yaml.YAMLError:
        front = None
    return (front if isinstance(front, dict) else {}), rest.strip()


def _tags(source: SourceCard) -> list[str]:
    tags = source.front.get("tags")
    return [str(tag) for tag in tags] if isinstance(tags, list) else []


def _lowered(body: str) -> str:
    """Its headings two levels down, below the new card's."""
    fenced = False
    lines = []
    for line in body.splitlines():
        fenced ^= line.startswith("```")
        lines.append(f"##{line}" if line.startswith("#") and not fenced else line)
    return "\n".join(lines)


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{name} ({count})" for name, count in sorted(counts.items())) or "unknown"
