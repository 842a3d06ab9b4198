"""select: which photographs and which candidates are kept, and why the others are not. Policy only: tables in,
verdicts out, no GPU and no Ray, so that a moved bound costs seconds."""

from __future__ import annotations

import binascii
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from threading import Lock

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from crispedit.cascade import ERROR, KEPT, REJECTED
from crispedit.filters.duplicate import near_duplicates
from crispedit.pipelines import tables
from crispedit.pipelines.run import Run
from crispedit.record import content_key
from crispedit.shards import journal

SELECTION = "selection.parquet"
SOURCES = "sources.parquet"

CHUNK = 1 << 20
"""Keys in one array; no array holds more than 2 GB of text."""


def select(run: Run) -> pa.Table:
    """Decide on every photograph and candidate and write `select/`; returns the candidates' verdicts."""
    folder = run.folder("select")
    with ThreadPoolExecutor(1) as beside:  # one core looks for near-duplicates, the others count keys
        written = beside.submit(lambda: _write(folder / SOURCES, source_verdicts(run)))
        pairs = pair_verdicts(run, tables.connect(run))
        written.result()
    _write(folder / SELECTION, pairs)
    return pairs


def digest_of(selection: pa.Table) -> str:
    """A word for which candidates are kept: a packed set says of which selection it is."""
    kept = selection.filter(pc.equal(selection.column("outcome"), KEPT)).column("key").sort()
    return content_key(*kept.to_pylist())


def kept_sources(run: Run, columns: Sequence[str]) -> pa.Table:
    """Columns of the photographs that pass, in key order: what annotate and edit work on."""
    db = tables.connect(run)
    db.register("verdicts", source_verdicts(run))
    listed = ", ".join(f'c."{column}"' for column in columns)
    return db.sql(
        f"SELECT {listed} FROM curate c JOIN verdicts v USING (uri) WHERE v.outcome = '{KEPT}' ORDER BY c.key"
    ).to_arrow_table()


def full_categories(run: Run) -> set[str]:
    """The categories with as many passing pairs as their quota."""
    quotas = {name: spec.quota for name, spec in run.recipe.categories.items() if spec.quota is not None}
    if not quotas:
        return set()
    verdicts = pair_verdicts(run, tables.connect(run))
    kept = Counter(verdicts.filter(pc.equal(verdicts.column("outcome"), KEPT)).column("category").to_pylist())
    return {name for name, quota in quotas.items() if kept[name] >= quota}


def source_verdicts(run: Run) -> pa.Table:
    """(uri, key, outcome, reason) of every input file, in uri order.

    Of several files with the same bytes, or with nearly the same picture, the first by uri is kept.
    """
    with _JUDGING:
        return _source_verdicts(run, tuple(journal.parts(run.folder("curate"))))


_JUDGING = Lock()
"""Who asks while the photographs are being judged waits for the answer, and does not judge them too."""


@lru_cache(maxsize=1)
def _source_verdicts(run: Run, parts: tuple[Path, ...]) -> pa.Table:
    """The verdicts that these parts lead to: every step of a wave asks for them, and a part never changes."""
    db, cascade = tables.photographs(run), run.recipe.source_cascade
    hashed = 'r."duplicate.phash"' if "duplicate" in cascade.filters else "NULL::BIGINT"
    verdicts = db.sql(f"""
        SELECT r.uri, r.key, {hashed} AS phash, CASE
            WHEN r.error IS NOT NULL THEN '{ERROR} ' || 'unreadable'
            WHEN r.refusal IS NOT NULL THEN '{REJECTED} ' || r.refusal
            ELSE {cascade.verdict_sql("r")} END AS verdict
        FROM curate r ORDER BY r.uri
    """).to_arrow_table()
    verdict = _Verdicts(_coded(verdicts.column("verdict")), "duplicate", "near_duplicate")
    if not run.recipe.imports_pairs:  # there, several edits of one photograph are pairs in their own right
        alive = verdict.passing()
        # An unreadable file has no key.
        keys = _coded(verdicts.column("key")).indices.fill_null(-1).to_numpy()
        again = np.ones(len(alive), np.bool_)
        again[np.unique(keys[alive], return_index=True)[1]] = False
        verdict.reject(alive[again], "duplicate")
        if "duplicate" in cascade.filters:
            hashes = verdicts.column("phash")
            alive = verdict.passing()
            # A blank image resembles anything: it has no hash.
            alive = alive[hashes.is_valid().to_numpy()[alive]]
            kept = near_duplicates(hashes.take(pa.array(alive)).to_numpy(), run.recipe.curate.duplicate_bits)
            verdict.reject(alive[kept >= 0], "near_duplicate")
    return pa.table({name: verdicts.column(name) for name in ("uri", "key")} | verdict.columns())


def _coded(texts: pa.ChunkedArray) -> pa.DictionaryArray:
    """The texts as numbers of a dictionary."""
    return texts.dictionary_encode().unify_dictionaries().combine_chunks()


class _Verdicts:
    """The verdict of every row of a table as a number: words are few, rows are many."""

    def __init__(self, verdicts: pa.DictionaryArray, *reasons: str) -> None:
        """From "outcome" or "outcome reason" of each row; `reasons` are those of later rejects."""
        words = verdicts.dictionary.to_pylist()
        self._words = list(dict.fromkeys([KEPT, *words, *(f"{REJECTED} {reason}" for reason in reasons)]))
        renumbered = np.array([self._words.index(word) for word in words], np.int32)
        self._codes = renumbered[verdicts.indices.to_numpy()]

    def passing(self) -> NDArray[np.int64]:
        """The rows that no one has rejected so far."""
        return np.flatnonzero(self._codes == 0)

    def reject(self, rows: NDArray[np.int64], reason: str) -> None:
        self._codes[rows] = self._words.index(f"{REJECTED} {reason}")

    def columns(self) -> dict[str, pa.Array]:
        """`outcome` and `reason` of every row; a row that is kept has no reason."""
        codes = pa.array(self._codes)
        words = [word.partition(" ") for word in self._words]
        return {
            "outcome": pa.array([outcome for outcome, _, _ in words], pa.string()).take(codes),
            "reason": pa.array([reason or None for _, _, reason in words], pa.string()).take(codes),
        }


def pair_verdicts(run: Run, db: duckdb.DuckDBPyConnection) -> pa.Table:
    """(key, category, outcome, reason) of every candidate, in key order.

    After the cascade: of a job's passing candidates one is kept, by the judge's choice (the others are `not_chosen`) or
    by its scores (`not_best`), as `Select` says; of pairs that repeat each other the first by key (`duplicate`), and of
    a category at most its quota, by key (`quota`).
    """
    first_pass(run, db)
    recipe = run.recipe
    ranks = " ".join(f"WHEN {tables.quoted(name)} THEN {rank}" for rank, name in enumerate(recipe.editors))
    found = db.sql(f"""
        SELECT key, category, verdict, coalesce(job, -1) AS job,
            (CASE editor {ranks} ELSE {len(recipe.editors)} END::BIGINT << 33) + coalesce(seed, 1::BIGINT << 31)
                AS preference, worth, text, phash, edited_phash
        FROM verdicts
    """).to_arrow_table()
    # The competition is over numbers, in the order of the keys.
    order, keys = _in_order(found.column("key"))
    placed = pa.array(order)
    category = _coded(found.column("category")).take(placed).dictionary_decode()
    verdict = _Verdicts(
        _coded(found.column("verdict")).take(placed), "not_best", "not_chosen", "duplicate", "quota"
    )
    job, worth, preference = (found.column(n).to_numpy()[order] for n in ("job", "worth", "preference"))
    chosen = _chosen(run, db, keys)
    worth[chosen] = np.inf
    rows = verdict.passing()
    by_job = rows[np.lexsort((preference[rows], -worth[rows], job[rows]))]
    others = by_job[1:][np.diff(job[by_job]) == 0]
    verdict.reject(others, "not_best")
    verdict.reject(others[np.isin(job[others], job[chosen])], "not_chosen")
    if "duplicate" in recipe.pair_cascade.filters:
        rows = verdict.passing()
        hashed = found.select(["text", "phash", "edited_phash"]).take(pa.array(order[rows]))
        verdict.reject(rows[_repeats(db, hashed, recipe.select.duplicate_bits)], "duplicate")
    for name, spec in recipe.categories.items():
        if spec.quota is not None:
            rows = verdict.passing()
            here = pc.equal(category.take(pa.array(rows)), name).to_numpy(zero_copy_only=False)
            verdict.reject(rows[here][spec.quota :], "quota")
    return pa.table({"key": keys, "category": category} | verdict.columns())


def first_pass(run: Run, db: duckdb.DuckDBPyConnection) -> None:
    """Create the view `verdicts`: every candidate with what its own row and its scores say, before any competition.

    `job` numbers the jobs, `text` stands for the instruction whatever its case, and `worth` is by what the best of a
    job's candidates is chosen.
    """
    cascade = run.recipe.pair_cascade
    worth = " + ".join(
        f'{weight!r}::DOUBLE * s."{score}"' for score, weight in run.recipe.select.best.items()
    )
    db.execute("""
        CREATE OR REPLACE TEMP TABLE jobs AS SELECT job_key, hash(lower(any_value(instruction))) AS text
        FROM annotate WHERE job_key IS NOT NULL GROUP BY job_key
    """)
    db.register("sources", source_verdicts(run))  # last, since another thread may still be at them
    hashes = ", ".join(
        f's."duplicate.{name}" AS {name}' if "duplicate" in cascade.filters else f"NULL::BIGINT AS {name}"
        for name in ("phash", "edited_phash")
    )
    known = " OR ".join(f"e.category = {tables.quoted(name)}" for name in run.recipe.categories)
    db.execute(f"""
        CREATE OR REPLACE TEMP VIEW verdicts AS
        WITH alive AS (SELECT DISTINCT key FROM sources WHERE outcome = '{KEPT}')
        SELECT e.key, e.job_key, e.source_key, e.category, e.editor, e.seed, j.rowid AS job, j.text, {hashes},
            e.source.xxh3_64 AS composed,
            coalesce({worth or "0::DOUBLE"}, '-Infinity'::DOUBLE) AS worth, CASE
            WHEN e.error IS NOT NULL THEN '{ERROR} edit'
            WHEN e.refusal IS NOT NULL THEN '{REJECTED} ' || e.refusal
            WHEN a.key IS NULL THEN '{REJECTED} source'
            WHEN j.job_key IS NULL THEN '{REJECTED} no_job'
            WHEN ({known}) IS NOT TRUE THEN '{REJECTED} category'
            ELSE {cascade.verdict_sql("s", "e.category")} END AS verdict
        FROM edit e LEFT JOIN score s ON s.key = e.key LEFT JOIN jobs j ON j.job_key = e.job_key
            LEFT JOIN alive a ON a.key = e.source_key
    """)


def contests(db: duckdb.DuckDBPyConnection) -> None:
    """Create the view `contests`, after `first_pass`: the jobs of which several candidates pass, these in key order,
    and what came of comparing exactly these (`compared` is null: nothing yet). A job for whose candidates an editor
    composed different sources is none: there is no one picture to compare them with."""
    db.execute(f"""
        CREATE OR REPLACE TEMP VIEW contests AS
        WITH passing AS (
            SELECT job_key, any_value(category) AS category, list(key ORDER BY key) AS candidates
            FROM verdicts WHERE verdict = '{KEPT}' GROUP BY job_key
            HAVING count(*) > 1 AND count(DISTINCT coalesce(composed, 0)) = 1
        )
        SELECT p.*, c.key AS compared, c.chosen, c.error FROM passing p LEFT JOIN compare c USING (job_key, candidates)
    """)


def _chosen(run: Run, db: duckdb.DuckDBPyConnection, keys: pa.ChunkedArray) -> NDArray[np.int64]:
    """The rows of the candidates that the judge prefers to the others of their job that pass."""
    if run.recipe.judge is None:
        return np.array([], np.int64)
    contests(db)
    chosen = db.sql("SELECT chosen FROM contests WHERE chosen IS NOT NULL").to_arrow_table().column("chosen")
    return np.flatnonzero(pc.is_in(keys, value_set=chosen.combine_chunks()).to_numpy())


def _in_order(keys: pa.ChunkedArray) -> tuple[NDArray[np.int64], pa.ChunkedArray]:
    """The rows in the order of their keys, and the keys in that order: 32 hex digits are two numbers, which are sorted
    and moved many times as fast."""
    digits = b"".join(binascii.unhexlify(_characters(chunk)) for chunk in keys.chunks)
    numbers = np.frombuffer(digits, ">u8").reshape(-1, 2)
    high = numbers[:, 0].astype(np.uint64)
    order = np.argsort(high)
    if not (np.diff(high[order]) > 0).all():
        order = np.lexsort((numbers[:, 1], high))
    texts = []
    for start in range(0, len(order), CHUNK):
        characters = pa.py_buffer(binascii.hexlify(numbers.take(order[start : start + CHUNK], axis=0).data))
        offsets = pa.py_buffer(np.arange(0, len(characters) + 1, 32, dtype=np.int32))
        texts.append(pa.StringArray.from_buffers(len(characters) // 32, offsets, characters))
    return order, pa.chunked_array(texts, pa.string())


def _characters(texts: pa.StringArray) -> memoryview:
    """The characters of all texts of an array."""
    _, offsets, characters = texts.buffers()
    ends = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return memoryview(characters)[ends[0] : ends[-1]]


def _repeats(db: duckdb.DuckDBPyConnection, rows: pa.Table, bits: int) -> NDArray[np.int64]:
    """The numbers of the rows that nearly repeat an earlier one: the same instruction, and of both hashes at most
    `bits` differ.

    Hashes that differ in few bits agree in one of a few bands of them, so rows are compared only where they agree in a
    band, not with all that share the instruction. Bands narrower than a byte would not be worth their copies.
    """
    width = 64 // (bits + 1) if bits < 8 else 0
    mask = (1 << width) - 1 if width < 64 else -1
    db.register("passing", rows.append_column("row", pa.array(np.arange(len(rows)))))
    found = db.sql(f"""
        WITH banded AS (
            SELECT row, text, phash, edited_phash, band, (phash >> (band * {width})) & {mask} AS value
            FROM passing CROSS JOIN range({bits + 1 if width else 1}) AS bands(band)
            WHERE phash IS NOT NULL AND edited_phash IS NOT NULL
        )
        SELECT DISTINCT b.row FROM banded a JOIN banded b ON a.text = b.text AND a.band = b.band AND a.value = b.value
            AND a.row < b.row AND bit_count(xor(a.phash, b.phash)) <= {bits}
            AND bit_count(xor(a.edited_phash, b.edited_phash)) <= {bits}
    """).fetchnumpy()["row"]
    db.unregister("passing")
    return np.asarray(found, np.int64)


def _write(path: Path, table: pa.Table) -> None:
    with journal.replaced(path) as out:
        # Keys do not repeat enough for a dictionary, which would only be tried in vain.
        pq.write_table(table, out, compression="zstd", use_dictionary=["category", "outcome", "reason"])
