"""Verdicts: the outcome of a row by its own columns and scores, before candidates are compared.

Photographs are judged once, wave by wave. A wave's verdicts and hashes are stored beside its record; later waves need
them only to find duplicates. Candidates are judged by one rule in two forms: for a row in the driver (`of_candidate`)
and for a table (`candidates_sql`).
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from crispedit.filters.duplicate import near_duplicates, near_known
from crispedit.outcome import ERROR, KEPT, REJECTED, TRANSIENT
from crispedit.pipelines.building.waves import Judged, Waves, name
from crispedit.pipelines.recipe import Recipe
from crispedit.pipelines.records import Candidate, curate_table
from crispedit.pipelines.run import Run
from crispedit.record import canonical_json, content_key
from crispedit.shards import journal
from crispedit.shards.journal import columns, quoted

SOURCES = pa.schema(
    [*columns(pa.string(), "uri", "key", "outcome", "reason"), ("phash", pa.int64()), ("wave", pa.int32())]
)
"""The columns of photographs' verdicts."""


def of_candidate(recipe: Recipe, candidate: Candidate, *, has_job: bool = True) -> tuple[str, str | None]:
    """(outcome, reason) of a candidate whose photograph is kept."""
    if candidate.error is not None:
        return (TRANSIENT if candidate.transient else ERROR), "edit"
    if candidate.refusal is not None:
        return REJECTED, candidate.refusal
    if not has_job:
        return REJECTED, "no_job"
    if candidate.category not in recipe.categories:
        return REJECTED, "category"
    return recipe.pair_cascade.verdict({**candidate.scores, "category": candidate.category})


def candidates_sql(recipe: Recipe) -> str:
    """`of_candidate` as a DuckDB expression, "outcome" or "outcome reason", over the aliases s (score) and e: the edit,
    with `job`, null if it has none, and `alive`, null if its photograph is not kept."""
    known = " OR ".join(f"e.category = {quoted(category)}" for category in recipe.categories)
    return f"""CASE
        WHEN e.error IS NOT NULL AND e.transient THEN '{TRANSIENT} edit'
        WHEN e.error IS NOT NULL THEN '{ERROR} edit'
        WHEN e.refusal IS NOT NULL THEN '{REJECTED} ' || e.refusal
        WHEN e.alive IS NULL THEN '{REJECTED} source'
        WHEN e.job IS NULL THEN '{REJECTED} no_job'
        WHEN ({known}) IS NOT TRUE THEN '{REJECTED} category'
        ELSE {recipe.pair_cascade.verdict_sql("s", "e.category")} END"""


class Coded:
    """The verdicts of a table's rows, coded as numbers to save memory."""

    def __init__(self, verdicts: pa.ChunkedArray, *reasons: str) -> None:
        """From "outcome" or "outcome reason" of each row; `reasons` are those of later rejects."""
        coded = dictionary(verdicts)
        words = coded.dictionary.to_pylist()
        self._words = list(dict.fromkeys([KEPT, *words, *(f"{REJECTED} {reason}" for reason in reasons)]))
        renumbered = np.array([self._words.index(word) for word in words], np.int32)
        self._codes = renumbered[coded.indices.to_numpy()]

    def passing(self) -> NDArray[np.int64]:
        """The rows that are not rejected so far."""
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


def dictionary(texts: pa.ChunkedArray) -> pa.DictionaryArray:
    """The texts as numbers of a dictionary."""
    return texts.dictionary_encode().unify_dictionaries().combine_chunks()


class Photographs:
    """The verdicts on the photographs of a run, wave after wave: (uri, key, phash, outcome, reason), in uri order.

    Of several files with the same bytes, or with nearly the same picture, the one of the earliest wave is kept, and
    within a wave the first by uri. (Several imported edits of one photograph are pairs in their own right.)

    `store`: keep new verdicts in the run. False is for a look at a run that another process may be building.
    """

    def __init__(self, run: Run, waves: Waves, *, store: bool = True) -> None:
        self.run, self.waves, self._store = run, waves, store
        self._unstored: dict[int, pa.Table] = {}
        cascade, recipe = run.recipe.source_cascade, run.recipe
        bounds = {key: bound.model_dump() for key, bound in cascade.default_bounds.items()}
        policy = [bounds, list(cascade.filters), recipe.curate.duplicate_bits, recipe.imports_pairs]
        self._policy = content_key(canonical_json(policy))
        self._digest = ""
        self._done = 0
        """The number of judged waves, which the digest covers."""
        self._keys: list[pa.ChunkedArray] = []
        """The keys that each judged wave keeps; read when a later wave is to be judged."""
        self._hashes: list[NDArray[np.int64]] = []
        """The hashes of these photographs."""

    def of(self, number: int) -> pa.Table:
        """The verdicts on one wave; earlier waves are judged first."""
        self._judge_through(number)
        return self._table(number)

    def renamed(self, number: int) -> None:
        """Note that the wave's `curate` has been compacted; its rows are the same."""
        judged = self.waves[number].judged
        if judged is not None:
            self.waves.change(number, judged=replace(judged, parts=self._names(number)))

    def all(self) -> pa.Table:
        """The verdicts on all waves, in their order, with the number of the `wave`."""
        self._judge_through(len(self.waves) - 1)
        tables = []
        for number in range(len(self.waves)):
            table = self._table(number)
            tables.append(table.append_column("wave", pa.repeat(pa.scalar(number, pa.int32()), len(table))))
        return pa.concat_tables(tables) if tables else SOURCES.empty_table()

    def _table(self, number: int, columns: list[str] | None = None) -> pa.Table:
        if number in self._unstored:
            return self._unstored[number]
        # There are many, and `read_table` takes three times as long for each.
        return pq.ParquetFile(self._path(number)).read(columns)

    def _path(self, number: int) -> Path:
        return self.waves.folder / f"{name(number)}.parquet"

    def _parts(self, number: int) -> list[Path]:
        return journal.parts(self.run.folder("curate") / name(number))

    def _names(self, number: int) -> list[str]:
        return [part.name for part in self._parts(number)]

    def _judge_through(self, last: int) -> None:
        """Judge all waves that are not judged, or were judged on other grounds, at once."""
        while self._done <= last:
            judged = self.waves[self._done].judged
            grounds = self._policy, self._digest, self._names(self._done)
            holds = judged is not None and (judged.policy, judged.before, judged.parts) == grounds
            if judged is None or not holds or not self._path(self._done).exists():
                self._judge(self._done, last)
                return
            self._digest = judged.digest
            self._done += 1

    def _remember(self, verdicts: pa.Table) -> None:
        kept = _kept(verdicts)
        self._keys.append(kept.column("key"))
        self._hashes.append(kept.column("phash").drop_null().to_numpy())

    def _judge(self, first: int, last: int) -> None:
        while len(self._keys) < first:
            self._remember(self._table(len(self._keys), ["key", "phash", "outcome"]))
        verdicts, parts = self._verdicts(first, last)
        ends = np.searchsorted(verdicts.column("wave").to_numpy(), np.arange(first, last + 2))
        for number, start, stop in zip(range(first, last + 1), ends, ends[1:], strict=False):
            table = verdicts.slice(start, stop - start).drop_columns(["wave"])
            kept, before = _kept(table), self._digest
            hashes = kept.column("phash").fill_null(0).to_numpy().tobytes()
            digest = content_key(before, ",".join(kept.column("key").to_pylist()), hashes)
            if self._store:
                with journal.replaced(self._path(number)) as out:
                    pq.write_table(table, out, compression="zstd")
                names = [part.name for part in parts[number]]
                self.waves.change(number, judged=Judged(self._policy, before, names, digest))
            else:
                self._unstored[number] = table
            self._remember(table)
            self._digest = digest
            self._done += 1

    def _verdicts(self, first: int, last: int) -> tuple[pa.Table, dict[int, list[Path]]]:
        cascade, table = self.run.recipe.source_cascade, curate_table(self.run.recipe.source_cascade)
        parts = {number: self._parts(number) for number in range(first, last + 1)}
        phash = 'r."duplicate.phash"' if "duplicate" in cascade.filters else "NULL::BIGINT"
        with journal.database() as db:
            db.execute("SET preserve_insertion_order = false")
            views = {number: journal.view(db, table, files) for number, files in parts.items()}
            bodies = [f"SELECT {number}::INTEGER AS wave, * FROM ({view})" for number, view in views.items()]
            verdicts = db.sql(f"""
                SELECT r.wave, r.uri, r.key, {phash} AS phash, CASE
                    WHEN r.error IS NOT NULL AND r.transient THEN '{TRANSIENT} unreadable'
                    WHEN r.error IS NOT NULL THEN '{ERROR} unreadable'
                    WHEN r.refusal IS NOT NULL THEN '{REJECTED} ' || r.refusal
                    ELSE {cascade.verdict_sql("r")} END AS verdict
                FROM ({" UNION ALL ".join(bodies)}) r ORDER BY r.wave, r.uri
            """).to_arrow_table()
        verdict = Coded(verdicts.column("verdict"), "duplicate", "near_duplicate")
        if not self.run.recipe.imports_pairs:
            self._reject_repeated(verdicts, verdict)
        columns = {column: verdicts.column(column) for column in ("wave", "uri", "key", "phash")}
        return pa.table(columns | verdict.columns()), parts

    def _reject_repeated(self, photographs: pa.Table, verdict: Coded) -> None:
        alive = verdict.passing()
        keys = dictionary(photographs.column("key").take(pa.array(alive)))
        again = np.ones(len(alive), np.bool_)
        again[np.unique(keys.indices.to_numpy(), return_index=True)[1]] = False
        verdict.reject(alive[again | self._known(keys)], "duplicate")
        if "duplicate" not in self.run.recipe.source_cascade.filters:
            return
        hashes = photographs.column("phash")
        alive = verdict.passing()
        # A blank image resembles anything: it has no hash.
        alive = alive[hashes.is_valid().to_numpy()[alive]]
        own = hashes.take(pa.array(alive)).to_numpy()
        bits = self.run.recipe.curate.duplicate_bits
        near = np.zeros(len(own), np.bool_)
        if self._hashes:
            self._hashes = [np.concatenate(self._hashes)]
            near |= near_known(self._hashes[0], own, bits)
        new = np.flatnonzero(~near)
        near[new] = near_duplicates(own[new], bits) >= 0
        verdict.reject(alive[near], "near_duplicate")

    def _known(self, keys: pa.DictionaryArray) -> NDArray[np.bool_]:
        """Which of these keys earlier waves keep."""
        # A few keys are searched among many, so the hash table is built of the few.
        again = [earlier.filter(pc.is_in(earlier, value_set=keys.dictionary)) for earlier in self._keys]
        repeated = pa.chunked_array([chunk for one in again for chunk in one.chunks], pa.string())
        return np.asarray(pc.is_in(keys.dictionary_decode(), value_set=repeated.combine_chunks()))


def _kept(verdicts: pa.Table) -> pa.Table:
    return verdicts.filter(pc.equal(verdicts.column("outcome"), KEPT))
