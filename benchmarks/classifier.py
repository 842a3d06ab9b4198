"""How well the classifier reads instructions: accuracy, calibration and confusions, on text that it was not trained on.

    python -m benchmarks.classifier [--pairs ../shared/pairs] [--instructions FILE.jsonl] [--json FILE]

`instructions` are JSON lines with instruction and category, such as those of a public benchmark; `pairs` a folder with
a `pairs.jsonl` whose `instruction_origin` says who wrote the instruction. The labelled test split of this repository,
made text of held-out templates are always there.
"""

import argparse
import json
import time
from collections import Counter
from pathlib import Path

import numpy as np

from crispedit.classifier import UNKNOWN, classify
from crispedit.pipelines.shipped import train_classifier

LABELLED = Path(__file__).parent.parent / "tests/data/instructions.csv"
BINS = 10


def measure(rows):
    """Accuracy, expected calibration error (ten bins of equal width) and confusions of (instruction, category) rows."""
    start = time.perf_counter()
    answers = [classify(instruction) for instruction, _ in rows]
    seconds = time.perf_counter() - start
    right = np.array([answer.category == category for answer, (_, category) in zip(answers, rows, strict=True)])
    sure = np.array([answer.score for answer in answers])
    place = np.minimum((sure * BINS).astype(int), BINS - 1)
    error = sum(abs(right[place == b].mean() - sure[place == b].mean()) * (place == b).mean() for b in set(place))
    confused = Counter(
        (category, answer.category)
        for answer, (_, category) in zip(answers, rows, strict=True)
        if answer.category != category
    )
    return {
        "instructions": len(rows),
        "accuracy": float(right.mean()),
        "calibration_error": float(error),
        "unknown": float(np.mean([answer.category == UNKNOWN for answer in answers])),
        "milliseconds": seconds / len(rows) * 1000,
        "confusions": {f"{a} as {b}": count for (a, b), count in confused.most_common(5)},
    }


def sets(pairs=None, instructions=None):
    """The sets of (instruction, category) by name."""
    _, made, _ = train_classifier.write(seed=0)
    found = {
        "labelled": [(text.instruction, text.categories[0]) for text in train_classifier.labelled(LABELLED, "test")],
        "held_out_templates": [(t.instruction, t.categories[0] if t.categories else UNKNOWN) for t in made],
    }
    found["held_out"] = found["labelled"] + found["held_out_templates"]
    if instructions is not None:
        files = sorted(instructions.glob("*.jsonl")) if instructions.is_dir() else [instructions]
        found["imgedit"] = [(row["instruction"], row["category"]) for file in files for row in _lines(file)]
    if pairs is not None:
        rows = [row for row in _lines(Path(pairs) / "pairs.jsonl") if row["instruction_origin"] == "repo"]
        found["repository"] = [(row["instruction"], row["category"]) for row in rows]
    return found


def measured(pairs=None, instructions=None):
    """The fractions that a table shows: the accuracy on each set, and the calibration error over other people's."""
    found = sets(pairs, instructions)
    told = {name: measure(rows)["accuracy"] for name, rows in found.items()}
    others = [row for name in ("imgedit", "repository", "labelled") for row in found.get(name, [])]
    return told | {"calibration_error": measure(others)["calibration_error"]}


def _lines(path):
    return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=Path, help="folder with pairs.jsonl")
    parser.add_argument(
        "--instructions", type=Path, help="JSON lines with instruction and category, or a folder of them"
    )
    parser.add_argument("--json", type=Path, help="write the report")
    args = parser.parse_args()
    report = {name: measure(rows) for name, rows in sets(args.pairs, args.instructions).items()}
    print(f"{'':<20}{'texts':>7}{'right':>8}{'ECE':>8}{'unknown':>9}{'ms':>7}  most confused")
    for name, told in report.items():
        confused = ", ".join(f"{pair} {count}" for pair, count in told["confusions"].items())
        print(
            f"{name:<20}{told['instructions']:>7}{told['accuracy']:>8.1%}{told['calibration_error']:>8.3f}"
            f"{told['unknown']:>9.1%}{told['milliseconds']:>7.2f}  {confused}"
        )
    if args.json:
        args.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
