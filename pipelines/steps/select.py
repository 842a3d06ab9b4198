"""select: decides which photographs and candidates are kept, and why the others are not. It only reads tables and needs
neither a GPU nor Ray, so a moved bound costs seconds."""

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
from crispedit.pipelines.building.verdicts import Coded, Photographs, candidates_sql, dictionary
from crispedit.pipelines.building.waves import Wave, Waves
from crispedit.pipelines.run import Run
from crispedit.record import content_key
from crispedit.repair import SIZES_DIFFER, fits_sql
from crispedit.shards import journal
from crispedit.shards.journal import quoted

SELECTION = "selection.parquet"
SOURCES = "sources.parquet"

TOGETHER = 200_000
"""Photographs whose candidates are processed together."""
CHUNK = 1 << 20
"""Keys in one array; no array holds more than 2 GB of text."""


def select(run: Run) -> pa.Table:
    """Decide on every photograph and candidate and write `select/`; returns the candidates' verdicts."""
    folder = run.folder("select")
    sources = source_verdicts(run)
    with ThreadPoolExecutor(1) as beside:
        written = beside.submit(_write, folder / SOURCES, sources.drop_columns(["wave"]))
        pairs = pair_verdicts(run, sources)
        written.result()
    _write(folder / SELECTION, pairs)
    return pairs


def source_verdicts(run: Run, *, store: bool = True) -> pa.Table:
    """(uri, key, outcome, reason, wave) of every input file, wave after wave, in uri order. `store=False` writes
    nothing into the run."""
    return Photographs(run, Waves(run), store=store).all().drop_columns(["phash"])


def digest_of(selection: pa.Table) -> str:
    """A digest of the kept candidates, by which a packed set names its selection."""
    kept = selection.filter(pc.equal(selection.column("outcome"), KEPT)).column("key").sort()
    return content_key(*kept.to_pylist())


def pair_verdicts(run: Run, sources: pa.Table) -> pa.Table:
    """(key, category, outcome, reason) of every candidate, in key order.

    After the cascade, one of a job's passing candidates is kept: by the judge (the others are `not_chosen`) or as the
    best by its scores (`not_best`), see `SelectSpec`. Of pairs that repeat each other the first by key is kept
    (`duplicate`), and of a category at most its quota, by key (`quota`).
    """
    recipe = run.recipe
    candidates = _candidates(run, sources)
    # From here on, rows are numbers in key order.
    order, keys = in_key_order(candidates.column("key"))
    placed = pa.array(order)
    category = dictionary(candidates.column("category")).take(placed).dictionary_decode()
    verdict = Coded(candidates.column("verdict").take(placed), "not_best", "not_chosen", "duplicate", "quota")
    names = ("job", "worth", "preference", "chosen")
    job, worth, preference, chosen = (candidates.column(name).to_numpy()[order] for name in names)
    worth[chosen] = np.inf
    rows = verdict.passing()
    by_job = rows[np.lexsort((preference[rows], -worth[rows], job[rows]))]
    others = by_job[1:][np.diff(job[by_job]) == 0]
    verdict.reject(others, "not_best")
    verdict.reject(others[np.isin(job[others], job[chosen])], "not_chosen")
    if "duplicate" in recipe.pair_cascade.filters:
        rows = verdict.passing()
        hashed = candidates.select(["text", "phash", "edited_phash"]).take(pa.array(order[rows]))
        with tables.database(run) as db:
            verdict.reject(rows[near_repeats(db, hashed, recipe.select.duplicate_bits)], "duplicate")
    for name, spec in recipe.categories.items():
        if spec.quota is not None:
            rows = verdict.passing()
            here = pc.equal(category.take(pa.array(rows)), name).to_numpy(zero_copy_only=False)
            verdict.reject(rows[here][spec.quota :], "quota")
    return pa.table({"key": keys, "category": category} | verdict.columns())


def _candidates(run: Run, sources: pa.Table) -> pa.Table:
    """The columns of every candidate that the choice needs. It works on some waves at a time, because joins of millions
    of rows would not fit in memory."""
    # The kept files whose photograph is a duplicate in another wave.
    kept, keys = pc.equal(sources.column("outcome"), KEPT), sources.column("key")
    others = keys.filter(pc.invert(kept)).drop_null().unique()
    elsewhere = sources.filter(pc.and_(kept, pc.is_in(keys, value_set=others)))
    with ThreadPoolExecutor(2) as pool:  # one plans and reads while the other joins
        groups = list(pool.map(lambda waves: _of_waves(run, waves, sources, elsewhere), wave_groups(run)))
    hashes = np.sort(np.concatenate([jobs for _, jobs in groups]))
    if len(groups) > 1 and (hashes[1:] == hashes[:-1]).any():
        # A photograph in several waves may have candidates in each, made under other bounds.
        groups = [_of_waves(run, list(Waves(run)), sources, elsewhere)]
    numbered, first = [], 0
    for candidates, _ in groups:
        job = candidates.column("job").to_numpy()
        numbered.append(candidates.set_column(0, "job", pa.array(np.where(job < 0, -1, job + first))))
        first += job.max(initial=-1) + 1
    return pa.concat_tables(numbered)


def wave_groups(run: Run) -> list[list[Wave]]:
    """The waves of a run in order, grouped to about `TOGETHER` photographs; at least one group."""
    groups: list[list[Wave]] = [[]]
    for wave in Waves(run):
        if sum(one.photographs for one in groups[-1]) >= TOGETHER:
            groups.append([])
        groups[-1].append(wave)
    return groups


def _of_waves(
    run: Run, waves: Sequence[Wave], sources: pa.Table, elsewhere: pa.Table
) -> tuple[pa.Table, NDArray[np.uint64]]:
    """(The candidates of some waves, the hash of each of their jobs.)"""
    ranks = " ".join(f"WHEN {quoted(name)} THEN {rank}" for rank, name in enumerate(run.recipe.editors))
    if waves:
        ends = [waves[0].number, waves[-1].number + 1]
        start, end = np.searchsorted(sources.column("wave").to_numpy(), ends).tolist()
        sources = sources.slice(start, end - start)
    with tables.connect(run, [wave.name for wave in waves]) as db:
        first_pass(run, db, pa.concat_tables([sources, elsewhere]))
        chosen = "false"
        if run.recipe.judge is not None:
            contests(db)
            chosen = "key IN (SELECT chosen FROM contests WHERE chosen IS NOT NULL)"
        candidates = db.sql(f"""
            SELECT coalesce(job, -1) AS job, hash(job_key) AS job_hash, key, category, verdict,
                (CASE editor {ranks} ELSE {len(run.recipe.editors)} END::BIGINT << 33)
                    + coalesce(seed, 1::BIGINT << 31) AS preference, worth, text, phash, edited_phash,
                {chosen} AS chosen
            FROM verdicts
        """).to_arrow_table()
    for name in ("category", "verdict"):
        at = candidates.schema.get_field_index(name)
        candidates = candidates.set_column(at, name, candidates.column(name).dictionary_encode())
    return candidates.drop_columns(["job_hash"]), candidates.column("job_hash").unique().to_numpy()


def first_pass(run: Run, db: duckdb.DuckDBPyConnection, sources: pa.Table) -> None:
    """Create the view `verdicts`: every candidate with the verdict by its own row and scores, before candidates are
    compared.

    `job` is the job's number, `text` a number for the case-folded instruction, and `worth` the weighted sum that
    chooses a job's best candidate.
    """
    cascade = run.recipe.pair_cascade
    worth = " + ".join(f'{weight!r}::DOUBLE * s."{score}"' for score, weight in run.recipe.select.best.items())
    db.execute("""
        CREATE OR REPLACE TEMP TABLE jobs AS SELECT job_key, any_value(hash(lower(instruction))) AS text
        FROM annotate WHERE job_key IS NOT NULL GROUP BY job_key
    """)
    db.register("sources", sources)
    hashes = ", ".join(
        f's."duplicate.{name}" AS {name}' if "duplicate" in cascade.filters else f"NULL::BIGINT AS {name}"
        for name in ("phash", "edited_phash")
    )
    # A pair of two sizes is packed at the source's, if the aspects are equal. A composed source has the edit's size.
    fits = fits_sql(("p.width", "p.height"), ("e.width", "e.height"))
    # The scores are joined last, to what is small: a join of all would hold their many columns.
    db.execute(f"""
        CREATE OR REPLACE TEMP VIEW verdicts AS
        WITH alive AS (SELECT DISTINCT key FROM sources WHERE outcome = '{KEPT}'),
        e AS MATERIALIZED (
            SELECT e.key, e.job_key, e.source_key, e.category, e.editor, e.seed, e.error, e.transient, e.refusal,
                j.rowid AS job, j.text, a.key AS alive, e.source.xxh3_64 AS composed,
                e.source IS NULL AND NOT ({fits}) AS differs
            FROM edit e LEFT JOIN jobs j ON j.job_key = e.job_key LEFT JOIN alive a ON a.key = e.source_key
                LEFT JOIN (
                    SELECT key, any_value(width) AS width, any_value(height) AS height FROM curate
                    WHERE image IS NOT NULL GROUP BY key
                ) p ON p.key = e.source_key
        )
        SELECT e.key, e.job_key, e.source_key, e.category, e.editor, e.seed, e.job, e.text, {hashes}, e.composed,
            coalesce({worth or "0::DOUBLE"}, '-Infinity'::DOUBLE) AS worth, {candidates_sql(run.recipe)} AS found,
            CASE WHEN found = '{KEPT}' AND e.differs THEN '{REJECTED} {SIZES_DIFFER}' ELSE found END AS verdict
        FROM e LEFT JOIN score s ON s.key = e.key
    """)


def contests(db: duckdb.DuckDBPyConnection) -> None:
    """Create the view `contests`, after `first_pass`: the jobs with several passing candidates (in key order), and the
    result of comparing exactly these (`compared` is null if there is none). Jobs whose candidates have different
    composed sources are left out."""
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


def in_key_order(keys: pa.ChunkedArray) -> tuple[NDArray[np.int64], pa.ChunkedArray]:
    """The rows in key order, and the keys in that order. 32 hex digits are sorted as two numbers, which is many times
    faster."""
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


def near_repeats(db: duckdb.DuckDBPyConnection, rows: pa.Table, bits: int) -> NDArray[np.int64]:
    """The numbers of rows that nearly repeat an earlier one: same instruction, and both hashes differ in at most `bits`
    bits.

    Hashes that differ in few bits agree in at least one of a few bands, so only rows that agree in a band are compared.
    Bands narrower than a byte would cost more than they save.
    """
    width = 64 // (bits + 1) if bits < 8 else 0
    mask = (1 << width) - 1 if width < 64 else -1
    db.register("passing", rows.append_column("row", pa.array(np.arange(len(rows)))))
    # A band at a time: together they would hold as many copies of the rows.
    repeats = [
        db.sql(f"""
            WITH banded AS (
                SELECT row, text, phash, edited_phash, (phash >> {band * width}) & {mask} AS value
                FROM passing WHERE phash IS NOT NULL AND edited_phash IS NOT NULL
            )
            SELECT DISTINCT b.row FROM banded a JOIN banded b ON a.text = b.text AND a.value = b.value
                AND a.row < b.row AND bit_count(xor(a.phash, b.phash)) <= {bits}
                AND bit_count(xor(a.edited_phash, b.edited_phash)) <= {bits}
        """).fetchnumpy()["row"]
        for band in range(bits + 1 if width else 1)
    ]
    db.unregister("passing")
    return np.unique(np.concatenate(repeats)).astype(np.int64)


def _write(path: Path, table: pa.Table) -> None:
    with journal.replaced(path) as out:
        # Keys do not repeat, so no dictionary is tried.
        pq.write_table(table, out, compression="zstd", use_dictionary=["category", "outcome", "reason"])
