"""crispedit view: look at a run, a shard set or an evaluation in a web browser.

    crispedit view runs/mine                                 also while it is being built
    crispedit view runs/mine --against runs/other            which pairs flip
    crispedit view runs/mine --against 'filters.unchanged.bounds.changed_fraction={min: 0.01}'
    crispedit view runs/mine/shards
    crispedit view runs/evaluation                           every editor's answers side by side

Only this machine can open the page, unless `--host` is given; its address then has a token. Only labels and, on
request, the run's selection are written.
"""

import argparse
import os
import secrets
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path

from crispedit.pipelines.calibration.calibrate import LABELS
from crispedit.pipelines.viewing import evaluation, snapshot
from crispedit.pipelines.viewing.guard import Guard, is_loopback
from crispedit.pipelines.viewing.labels import Labels
from crispedit.pipelines.viewing.server import Site, ViewedRun
from crispedit.pipelines.viewing.snapshot import Snapshot
from crispedit.shards import storage

PORT = 7266
"""A port that no common tool uses."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shown", metavar="RUN|SHARDS|EVALUATION", help="a run's, shard set's or evaluation's folder")
    parser.add_argument("--against", metavar="RUN|OVERRIDE", help="another run, or key=value, to compare verdicts with")
    parser.add_argument("--labels", type=Path, metavar="CSV", help="where labels are kept (RUN/labels.csv)")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen at (127.0.0.1: this machine only)")
    parser.add_argument("--port", type=int, default=PORT, help=f"({PORT}); 0: any that is free")
    parser.add_argument("--name", action="append", default=[], help="another name of this machine")


def run(args: argparse.Namespace) -> int:
    """The command: take a snapshot, print its address, and serve until interrupted."""
    import uvicorn

    site, description, then = evaluated(args) if is_evaluation(args.shown) else of_pairs(args)
    listener = listening(args.host, args.port)
    port = listener.getsockname()[1]
    token = None if is_loopback(args.host) else secrets.token_urlsafe(24)
    shown_host = f"[{args.host}]" if ":" in args.host else args.host
    address = f"http://{shown_host}:{port}/" + (f"?token={token}" if token else "")
    print(f"{description}: {address}", flush=True)
    print(f"{then}stop with Ctrl-C", flush=True)
    app = Guard(site.app(), args.host, token, args.name)
    config = uvicorn.Config(
        app, log_level="warning", lifespan="off", server_header=False, ws="none", timeout_keep_alive=75
    )
    with listener:
        uvicorn.Server(config).run(sockets=[listener])
    return 0


def is_evaluation(path: str) -> bool:
    """Whether the folder has results of `crispedit evaluate`."""
    return all((Path(path) / name).is_file() for name in ("results.json", "cases.parquet"))


def evaluated(args: argparse.Namespace) -> tuple[evaluation.EvaluationSite, str, str]:
    """The site of an evaluation, a description, and no further message."""
    if args.against or args.labels:
        raise ValueError(
            "--against and --labels are for runs and shard sets: an evaluation compares its editors itself"
        )
    shown = evaluation.EvaluationResults(Path(args.shown))
    return evaluation.EvaluationSite(shown), f"{shown.count():,} cases", ""


def of_pairs(args: argparse.Namespace) -> tuple[Site, str, str]:
    """The site of a run or shard set, a description, and where labels go."""
    path = Path(args.shown)
    labels = args.labels or (path / LABELS if (path / "recipe.yaml").exists() else Path(LABELS))
    site = Site(ViewedRun(taker(args.shown), Labels(labels.absolute()), against(args.against)))
    seen = site.shown.snapshot
    pairs = seen.one("SELECT count(*) FROM pair")
    return site, f"{pairs:,} pairs, read in {seen.seconds:.1f} s", f"labels go to {labels}; "


def taker(path: str) -> Callable[[], Snapshot]:
    """A function that takes a snapshot of a run or shard set. ValueError if it is neither."""
    root = Path(path)
    if (root / "recipe.yaml").exists():
        return partial(snapshot.of_run, root.absolute())
    if not storage.is_remote(path) and not any(map(os.path.exists, storage.expand(path))):
        raise ValueError(f"{path} does not exist: give a run's, shard set's or evaluation's folder")
    if root.is_dir() and not (root / "manifest.json").exists() and not any(root.glob("*.tar")):
        raise ValueError(
            f"{path} is neither a run (no recipe.yaml) nor a shard set (no manifest.json, no tars), nor an evaluation "
            "(no results.json)"
        )
    return partial(snapshot.of_shards, path)


def against(text: str | None) -> Callable[[], Snapshot] | str | None:
    """What to compare with: a function that takes a snapshot of that run or shard set, or the override."""
    return text if text is None or ("=" in text and not Path(text).exists()) else taker(text)


def listening(host: str, port: int) -> socket.socket:
    """A listening socket. ValueError if the address is taken or not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is given, because asyncio sets TCP_NODELAY (which sends small answers at once) only then.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host.strip("[]"), port))
        listener.listen(128)  # early requests wait for the server
    except OSError as error:
        listener.close()
        raise ValueError(f"cannot listen at {host}, port {port}: {error.strerror}; choose another --port") from None
    return listener
