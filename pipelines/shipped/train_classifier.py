"""Train the classifier of edit instructions that ships with CrispEdit.

    python -m crispedit.pipelines.shipped.train_classifier OUT [--labelled tests/data/instructions.csv]

The text is made from `classifier.yaml` beside this file, and from the labelled instructions' train split. A template is
a line of that file with its choices made and its blanks open, such as "move {known} {way}"; every tenth is held out to
measure. The temperature is fitted on whole lines, and labelled instructions, that a first model was not trained on.
Minutes on one core; needs scikit-learn. Same library versions: the same weights.
"""

import argparse
import csv
import json
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.sparse import csr_matrix
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from crispedit import classifier
from crispedit import torchvision_ops as torchvision_ops  # before torchvision
from crispedit.classifier import BUCKETS, LABELS, UNKNOWN

# isort: split
from torchvision.models import ResNet18_Weights

Floats = NDArray[Any]
A_LINE = 150  # instructions made from one line of the file
COMPOUNDS = 6000
HELD_OUT = 10  # every tenth template is held out, and every tenth labelled instruction in turn
LEAST_SEEN = 3  # a word counts as English if this many instructions have it
PEOPLES = 8.0  # the weight of an instruction written and labelled by a person, relative to a generated one


@dataclass(frozen=True)
class Text:
    """One instruction with the edits that it asks for, in order."""

    instruction: str
    categories: tuple[str, ...]
    line: int | None = None  # which line of the file it was made from


class Grammar:
    """Expands templates: `(a|b|)` chooses, `{name}` is filled in."""

    def __init__(self, words: Mapping[str, str | Sequence[str]], random: Random) -> None:
        self.random = random
        self.words = {name: w.split(", ") if isinstance(w, str) else list(w) for name, w in words.items()}
        self.words["imagenet"] = [name.lower() for name in ResNet18_Weights.IMAGENET1K_V1.meta["categories"]]
        for name, choices in self.words.items():
            for choice in choices:
                if choice.count("(") != choice.count(")") or choice.count("{") != choice.count("}"):
                    raise ValueError(f"words.{name}: the brackets of {choice!r} do not match")

    def choose(self, line: str) -> str:
        """The line with its choices made."""
        while "(" in line:
            line = re.sub(r"\(([^()]*)\)", lambda m: self.random.choice(m[1].split("|")), line)
        return line

    def fill(self, template: str) -> str:
        """The template with its blanks filled in."""
        while "{" in template:
            template = self.choose(re.sub(r"\{(\w+)\}", lambda m: self.random.choice(self.words[m[1]]), template))
        template = re.sub(r"\\([?.*\[\]])", r"\1", template)
        return re.sub(r"\s+([,.?])", r"\1", re.sub(r"\s+", " ", template)).strip()


def templates() -> dict[str, Any]:
    file = resources.files("crispedit.pipelines.shipped") / "classifier.yaml"
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def write(seed: int) -> tuple[list[Text], list[Text], int]:
    """The training text, the held-out text, which is made from other templates, and the number of templates."""
    file = templates()
    grammar = Grammar(file["words"], Random(seed))
    training, held_out, seen = list[Text](), list[Text](), set[str]()
    for category in LABELS:
        for number, line in enumerate(file["templates"][category]):
            for _ in range(A_LINE * (3 if category == UNKNOWN else 1)):
                template = grammar.choose(line)
                seen.add(template)
                categories = () if category == UNKNOWN else (category,)
                text = _finish(grammar.fill(template), grammar, bool(categories))
                chosen = held_out if zlib.crc32(template.encode()) % HELD_OUT == 0 else training
                chosen.append(Text(text, categories, number))
    return training, held_out, len(seen)


def compounds(single: Sequence[Text], seed: int) -> list[Text]:
    """Two instructions in one, most of them short ones."""
    joins, random = templates()["templates"]["compound"], Random(seed)
    plain = [text for text in single if text.categories]
    plain += [text for text in plain if len(text.instruction.split()) <= 6] * 2
    made = []
    for _ in range(COMPOUNDS):
        first, second = random.sample(plain, 2)
        join = random.choice(joins)
        said = second.instruction if join.startswith(".") else second.instruction[:1].lower() + second.instruction[1:]
        both = tuple(dict.fromkeys(first.categories + second.categories))
        made.append(Text(first.instruction.rstrip(". ") + join + said, both))
    return made


def _finish(text: str, grammar: Grammar, order: bool) -> str:
    """Politeness, capitals, a full stop, and in one instruction of eight a slip of the keyboard."""
    random = grammar.random
    if order and random.random() < 0.15:
        text = grammar.fill("{please}") + " " + text
    if random.random() < 0.6:
        text = text[:1].upper() + text[1:]
    elif random.random() < 0.05:
        text = text.upper()
    if random.random() < 0.4 and text[-1:].isalnum():
        text += random.choice([".", ".", ".", "!", " please", ", please.", ", thanks"])
    if order and random.random() < 0.12:
        after = grammar.fill("{after}")
        text = text.rstrip(".!") + ". " + after[:1].upper() + after[1:] + random.choice([".", ""])
    return slip(text, random) if random.random() < 0.12 else text


def slip(text: str, random: Random) -> str:
    """One or two letters swapped, lost, doubled or hit beside."""
    for _ in range(random.choice([1, 1, 2])):
        if len(text) < 6:
            break
        i = random.randrange(1, len(text) - 1)
        near = random.choice("etaoinshrdlu")
        swapped, doubled = text[i + 1] + text[i] + text[i + 2 :], text[i] + text[i:]
        text = text[:i] + random.choice([swapped, text[i + 1 :], doubled, near + text[i + 1 :]])
    return text


def labelled(file: Path, split: str) -> list[Text]:
    """A split of the labelled instructions."""
    with file.open(newline="", encoding="utf-8") as lines:
        return [Text(row["instruction"], (row["category"],)) for row in csv.DictReader(lines) if row["split"] == split]


def matrix(texts: Sequence[Text]) -> csr_matrix:
    """[N, BUCKETS] the features of texts."""
    rows = [classifier.features(classifier.tokens(text.instruction)) for text in texts]
    ends = np.cumsum([0, *(len(columns) for columns, _ in rows)])
    columns, values = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    made = csr_matrix((values, columns, ends), shape=(len(texts), BUCKETS))
    made.sum_duplicates()
    return made


def first_edits(texts: Sequence[Text]) -> NDArray[np.int64]:
    """[N] the label of each text."""
    return np.array([LABELS.index(text.categories[0] if text.categories else UNKNOWN) for text in texts])


def seen(texts: Sequence[Text]) -> NDArray[np.bool_]:
    """[BUCKETS] the words of English texts, but for those that a slip may have made."""
    words = Counter(word for text in texts if text.categories for word in set(classifier.tokens(text.instruction)))
    known = np.zeros(BUCKETS, bool)
    known[[classifier.bucket(f"w {word}") for word, count in words.items() if count >= LEAST_SEEN]] = True
    return known


def temperature(logits: Floats, first: NDArray[np.int64]) -> float:
    """The divisor of the logits that maximises the likelihood of held-out labels (Guo et al. 2017)."""

    def loss(scale: float) -> float:
        return float(-log_softmax(logits / scale, axis=1)[np.arange(len(first)), first].mean())

    return float(minimize_scalar(loss, bounds=(0.3, 5), method="bounded").x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="folder for classifier.npz and measured.json")
    parser.add_argument("--labelled", type=Path, default=Path("tests/data/instructions.csv"))
    parser.add_argument("--strength", type=float, default=15.0, help="inverse of the regularisation")
    args = parser.parse_args()
    single, others, count = write(seed=0)
    people = labelled(args.labelled, "train")
    made = single + compounds(single + people, seed=1)
    scale, unfamiliar = calibrate(single, people, args.strength)
    weights, bias = fit(made, people, args.strength)
    args.out.mkdir(parents=True, exist_ok=True)
    known = np.packbits(seen(made + people))
    arrays: dict[str, Any] = {"weights": weights, "bias": bias, "temperature": np.float32(scale), "seen": known}
    np.savez_compressed(args.out / "classifier.npz", **arrays)
    measured = {
        "templates": count,
        "texts": len(made) + len(people),
        "held_out_templates": {"texts": len(others), "accuracy": _accuracy(predict(weights, bias, others), others)},
        "held_out_lines_and_labelled": unfamiliar,
        "temperature": round(scale, 3),
    }
    (args.out / "measured.json").write_text(json.dumps(measured, indent=1) + "\n")
    print(json.dumps(measured))


def calibrate(single: Sequence[Text], people: Sequence[Text], strength: float) -> tuple[float, dict[str, float]]:
    """The temperature, from a first model's answers to unfamiliar wording: every tenth line of the file as a whole,
    and a fifth of the labelled instructions. And how often it was right."""

    def unfamiliar(text: Text) -> bool:
        if text.line is None:
            return zlib.crc32(text.instruction.encode()) % 5 == 0
        return text.line % HELD_OUT == HELD_OUT - 1 and text.categories != ()

    kept = [text for text in single if not unfamiliar(text)]
    heard = [text for text in people if not unfamiliar(text)]
    others = Random(2).sample([text for text in single if unfamiliar(text)], len(people) // 5)
    others += [text for text in people if unfamiliar(text)]
    texts = kept[::2] + compounds(kept + heard, seed=3)[::2]  # half is enough for one number
    logits = predict(*fit(texts, heard, strength), others)
    scale = temperature(logits, first_edits(others))
    return scale, {"texts": len(others), "accuracy": _accuracy(logits, others)}


def fit(made: Sequence[Text], people: Sequence[Text], strength: float) -> tuple[Floats, Floats]:
    """[BUCKETS, 8] weights and [8] bias, trained on both."""
    texts, importance = [*made, *people], np.array([1.0] * len(made) + [PEOPLES] * len(people))
    model = LogisticRegression(C=strength, max_iter=80, tol=1e-3).fit(matrix(texts), first_edits(texts), importance)
    return model.coef_.T.astype(np.float16), model.intercept_.astype(np.float32)


def predict(weights: Floats, bias: Floats, texts: Sequence[Text]) -> Floats:
    """[N, 8] logits."""
    return matrix(texts) @ weights.astype(np.float64) + bias


def _accuracy(logits: Floats, texts: Sequence[Text]) -> float:
    return round(float((logits.argmax(1) == first_edits(texts)).mean()), 4)


if __name__ == "__main__":
    main()
