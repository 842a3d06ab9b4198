"""select: which photographs and which candidates are kept, and why the others are not. Policy only: tables in,
verdicts out, no GPU and no Ray, so that a moved bound costs seconds."""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from crispedit.outcome import KEPT, REJECTED
from crispedit.pipelines import tables
from crispedit.pipelines.run import Run
from crispedit.pipelines.verdicts import Coded, Photographs, candidates_sql, dictionary, quoted
from crispedit.pipelines.waves import Wave, Waves
from crispedit.record import content_key
from crispedit.repair import SIZES_DIFFER, fits_sql
from crispedit.shards import journal

SELECTION = "selection.parquet"
SOURCES = "sources.parquet"

TOGETHER = 200_000
"""Photographs whose candidates are looked at together."""
CHUNK = 1 << 20
"""Keys in one array; no array holds more than 2 GB of text."""


def select(run: Run) -> pa.Table:
    """Decide on every photograph and candidate and write `select/`; returns the candidates' verdicts."""
    folder = run.folder("select")
    sources = source_verdicts(run)
    with ThreadPoolExecutor(1) as beside:
        written = beside.submit(_write, folder / SOURCES, sources.drop_columns(["wave"]))
        pairs = pair_verdicts(run, tables.connect(run), sources)
        written.result()
    _write(folder / SELECTION, pairs)
    return pairs


def source_verdicts(run: Run, *, store: bool = True) -> pa.Table:
    """(uri, key, outcome, reason, wave) of every input file, wave after wave, in uri order. `store=False` writes
    nothing into the run."""
    return Photographs(run, Waves(run), store=store).all().drop_columns(["phash"])


def digest_of(selection: pa.Table) -> str:
    """A word for which candidates are kept: a packed set says of which selection it is."""
    kept = selection.filter(pc.equal(selection.column("outcome"), KEPT)).column("key").sort()
    return content_key(*kept.to_pylist())


def pair_verdicts(run: Run, db: duckdb.DuckDBPyConnection, sources: pa.Table) -> pa.Table:
    """(key, category, outcome, reason) of every candidate, in key order.

    After the cascade, one of a job's passing candidates is kept: by the judge (the others are `not_chosen`) or as the
    best by its scores (`not_best`), see `SelectSpec`. Of pairs that repeat each other the first by key is kept
    (`duplicate`), and of a category at most its quota, by key (`quota`).
    """
    recipe = run.recipe
    found, preferred = _looked_at(run, sources)
    # The competition is over numbers, in the order of the keys.
    order, keys = _in_order(found.column("key"))
    placed = pa.array(order)
    category = dictionary(found.column("category")).take(placed).dictionary_decode()
    verdict = Coded(found.column("verdict").take(placed), "not_best", "not_chosen", "duplicate", "quota")
    job, worth, preference = (found.column(n).to_numpy()[order] for n in ("job", "worth", "preference"))
    chosen = np.flatnonzero(pc.is_in(keys, value_set=preferred).to_numpy())
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


def _looked_at(run: Run, sources: pa.Table) -> tuple[pa.Table, pa.Array]:
    """(what the competition needs of every candidate, the keys of those that the judge prefers to the others of their
    job that pass). Some waves at a time: joins of millions of rows would not fit in memory."""
    groups, elsewhere = _groups(run), _elsewhere(sources)
    passes = [_of_waves(run, waves, sources, elsewhere) for waves in groups]
    jobs = np.concatenate([np.unique(found.column("job_hash").drop_null().to_numpy()) for found, _ in passes])
    if len(passes) > 1 and len(np.unique(jobs)) < len(jobs):
        # A photograph that several waves have has candidates in several, made under other bounds.
        passes = [_of_waves(run, list(Waves(run)), sources, elsewhere)]
    numbered, first = [], 0
    for found, _ in passes:
        job = found.column("job").to_numpy()
        numbered.append(
            found.drop_columns(["job", "job_hash"]).append_column(
                "job", pa.array(np.where(job < 0, -1, job + first))
            )
        )
        first += job.max(initial=-1) + 1
    return pa.concat_tables(numbered), pa.concat_arrays([preferred for _, preferred in passes])


def _groups(run: Run) -> list[list[Wave]]:
    """The waves of a run, in order, with about `TOGETHER` photographs a group; at least one group."""
    groups: list[list[Wave]] = [[]]
    for wave in Waves(run):
        if sum(one.photographs for one in groups[-1]) >= TOGETHER:
            groups.append([])
        groups[-1].append(wave)
    return groups


def _elsewhere(sources: pa.Table) -> pa.Table:
    """The kept files whose photograph some other wave has too, where it is a duplicate."""
    kept = pc.equal(sources.column("outcome"), KEPT)
    others = sources.filter(pc.invert(kept)).column("key").drop_null().unique()
    found = sources.filter(kept)
    return found.filter(pc.is_in(found.column("key"), value_set=others))


def _of_waves(
    run: Run, waves: Sequence[Wave], sources: pa.Table, elsewhere: pa.Table
) -> tuple[pa.Table, pa.Array]:
    ranks = " ".join(f"WHEN {quoted(name)} THEN {rank}" for rank, name in enumerate(run.recipe.editors))
    numbers = [wave.number for wave in waves]
    own = sources.slice(*_rows_of(sources, numbers[0], numbers[-1])) if numbers else sources
    with tables.connect(run, [wave.name for wave in waves]) as db:
        first_pass(run, db, pa.concat_tables([own, elsewhere]))
        found = db.sql(f"""
            SELECT key, category, verdict, coalesce(job, -1) AS job,
                CASE WHEN job_key IS NOT NULL THEN hash(job_key) END AS job_hash,
                (CASE editor {ranks} ELSE {len(run.recipe.editors)} END::BIGINT << 33)
                    + coalesce(seed, 1::BIGINT << 31) AS preference, worth, text, phash, edited_phash
            FROM verdicts
        """).to_arrow_table()
        preferred = pa.array([], pa.string())
        if run.recipe.judge is not None:
            contests(db)
            chosen = db.sql("SELECT chosen FROM contests WHERE chosen IS NOT NULL").to_arrow_table()
            preferred = chosen.column("chosen").combine_chunks()
    for name in ("category", "verdict"):
        at = found.schema.get_field_index(name)
        found = found.set_column(at, name, found.column(name).dictionary_encode())
    return found, preferred


def _rows_of(sources: pa.Table, first: int, last: int) -> tuple[int, int]:
    """(start, number) of the rows of some waves."""
    start, end = np.searchsorted(sources.column("wave").to_numpy(), [first, last + 1])
    return int(start), int(end - start)


def first_pass(run: Run, db: duckdb.DuckDBPyConnection, sources: pa.Table) -> None:
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
    db.register("sources", sources)
    hashes = ", ".join(
        f's."duplicate.{name}" AS {name}' if "duplicate" in cascade.filters else f"NULL::BIGINT AS {name}"
        for name in ("phash", "edited_phash")
    )
    # A pair of two sizes is packed at the source's, if its aspect allows that. A composed source is of the edit's size.
    fits = fits_sql(("p.width", "p.height"), ("e.width", "e.height"))
    db.execute(f"""
        CREATE OR REPLACE TEMP VIEW verdicts AS
        WITH alive AS (SELECT DISTINCT key FROM sources WHERE outcome = '{KEPT}')
        SELECT e.key, e.job_key, e.source_key, e.category, e.editor, e.seed, j.rowid AS job, j.text, {hashes},
            e.source.xxh3_64 AS composed,
            coalesce({worth or "0::DOUBLE"}, '-Infinity'::DOUBLE) AS worth, {candidates_sql(run.recipe)} AS found,
            CASE WHEN found = '{KEPT}' AND e.source IS NULL AND NOT ({fits}) THEN '{REJECTED} {SIZES_DIFFER}'
                ELSE found END AS verdict
        FROM edit e LEFT JOIN score s ON s.key = e.key LEFT JOIN jobs j ON j.job_key = e.job_key
            LEFT JOIN alive a ON a.key = e.source_key
            LEFT JOIN (
                SELECT key, any_value(width) AS width, any_value(height) AS height FROM curate
                WHERE image IS NOT NULL GROUP BY key
            ) p ON p.key = e.source_key
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
        SELECT p.*, c.key AS compared, c.chosen, c.error, c.transient
        FROM passing p LEFT JOIN compare c USING (job_key, candidates)
    """)


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
