"""crispedit filters: what each filter measures, its default bounds, and the packages it needs."""

import argparse
import inspect
import json
import re
from typing import Any

from crispedit import filters as filter_folder
from crispedit import parts
from crispedit.bounds import Bound
from crispedit.parts import Filter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("names", nargs="*", metavar="FILTER", help="only these filters, in full; also a module of your own")
    add("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the filters. ValueError for an unknown name."""
    described = [described_filter(name) for name in args.names or parts.names(filter_folder)]
    if args.json:
        print(json.dumps(described, indent=1))
    else:
        print("\n\n".join(text(one, everything=bool(args.names)) for one in described))
    return 0


def described_filter(name: str) -> dict[str, Any]:
    cls = parts.find(filter_folder, name, Filter)
    module = inspect.getmodule(cls)
    return {
        "filter": name,
        "measures": " ".join((inspect.getdoc(module) or "").partition("\n\n")[0].split()),
        "details": inspect.getdoc(cls) or "",
        "of": sorted(cls.scope),
        "scores": {score: cls.bounds[score].model_dump() if score in cls.bounds else None for score in cls.scores},
        "options": {
            option: None if field.is_required() else field.get_default(call_default_factory=True)
            for option, field in cls.model_fields.items()
        },
        "extra": cls.extra,
        "cost_ms": cls.cost,
    }


def text(described: dict[str, Any], everything: bool) -> str:
    of = " and ".join({"source": "photographs", "pair": "pairs"}[scope] for scope in described["of"])
    first_sentence = re.split(r"(?<=[.?!])\s", described["measures"].partition(": ")[2], maxsplit=1)[0]
    lines = [f"{described['filter']} ({of}): {first_sentence}"]
    width = max(map(len, described["scores"]))
    lines += [f"    {score:{width}}  {_bound(bound)}" for score, bound in described["scores"].items()]
    if described["extra"]:
        lines.append(f"    needs: pip install 'crispedit[{described['extra']}]'")
    if everything:
        options = ", ".join(f"{name}: {value}" for name, value in described["options"].items())
        lines += [f"    options: {options or 'none'}", f"    {described['cost_ms']:g} ms a pair", ""]
        lines += [described["measures"], "", described["details"]]
    return "\n".join(lines)


def _bound(bound: dict[str, Any] | None) -> str:
    limits = {} if bound is None else Bound(**bound).model_dump(exclude_none=True)
    return ", ".join(f"{side} {value:g}" for side, value in limits.items()) or "no bound"
