"""The ring: worker processes that decode batches into shared memory, from which the training process takes them.

Handing 6 MB of pixels a pair through a pipe costs more than half as much as decoding them. Here a worker decodes into a
slot of memory that both processes map, and only a few hundred bytes pass through a socket. What is delivered are numpy
views of the slot; the slot is used again when the last of them is garbage, so no view ever changes under its holder. A
consumer that holds more slots than its share gets private copies instead, so it cannot block the ring.

Where there are two cores for each worker, it decodes two requests at once, on two threads: the decoder
releases the interpreter.

A worker is a fresh interpreter (no fork of a process with threads or a GPU, and the caller's main module is not run
again), and ends when the training process closes its socket or dies. The memory has no name: nothing is left behind.
"""

from __future__ import annotations

import json
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, Pipe, wait
from queue import SimpleQueue
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from crispedit import machine
from crispedit.shards.fetch import DecodeRequest, Fetched, Fetcher, ShardFile
from crispedit.shards.remote import Cache

SLOT_MULTIPLE = 2 * 2**20
"""Slots are whole huge pages of the usual size."""

MALLOC = {"MALLOC_MMAP_THRESHOLD_": str(64 * 2**20), "MALLOC_TRIM_THRESHOLD_": str(128 * 2**20)}
"""glibc would give the memory of every member back to the kernel and fault it in again: a tenth of a worker's time."""

_Waiting = dict[int, tuple[int, DecodeRequest]]


class Decoder(NamedTuple):
    process: subprocess.Popen[bytes]
    connection: Connection[Any, Any]


class Ring:
    """`workers` processes of one or two threads over slots of `slot_bytes`: a slot for each thread and one more for
    each worker for what is read ahead, as many and two more for what the consumer holds. Memory: at most
    (6 * workers + 2) * slot_bytes, touched as it is used."""

    def __init__(self, shards: Sequence[ShardFile], cache: Cache, workers: int, slot_bytes: int) -> None:
        self.slot_bytes = -(-slot_bytes // SLOT_MULTIPLE) * SLOT_MULTIPLE
        threads = 2 if 2 * workers <= machine.cores() else 1
        self._in_flight = (threads + 1) * workers
        slots = 2 * self._in_flight + 2
        handle = _anonymous_file(slots * self.slot_bytes)
        self._memory = _mapped(handle, slots * self.slot_bytes)
        self._free = deque(range(slots))
        self._running = False
        self.workers = [_start_worker(handle) for _ in range(workers)]
        os.close(handle)
        for worker in self.workers:
            worker.connection.send((tuple(shards), cache, slots * self.slot_bytes, threads))
        self.close = weakref.finalize(self, _stop_workers, self.workers)
        """Ends the workers. Delivered arrays stay valid."""

    def run(
        self, requests: Iterable[DecodeRequest]
    ) -> Iterator[tuple[DecodeRequest, list[Fetched], NDArray[np.uint8]]]:
        """Each request in order, the results of its samples, and flat memory as `Fetcher.batch` fills it.

        RuntimeError, which names the keys in question, if a worker dies.
        """
        if self._running:
            raise RuntimeError("this reader is already being iterated; one iteration at a time uses its workers")
        self._running = True
        numbered = enumerate(requests)
        waiting: _Waiting = {}  # number -> (slot, request), in order of request
        done: dict[int, list[Fetched]] = {}
        load = [0] * len(self.workers)
        try:
            while True:
                while len(waiting) < self._in_flight and self._free and (item := next(numbered, None)) is not None:
                    number, request = item
                    slot = self._free.pop()  # the one freed last, which the caches still know
                    waiting[number] = slot, request
                    worker = load.index(min(load))
                    load[worker] += 1
                    try:
                        self.workers[worker].connection.send((number, slot * self.slot_bytes, request))
                    except OSError as error:
                        raise self._death(worker, waiting) from error
                if not waiting:
                    return
                first = next(iter(waiting))
                while first not in done:
                    for worker, number, results in self._receive(waiting):
                        load[worker] -= 1
                        done[number] = results
                slot, request = waiting.pop(first)
                yield request, done.pop(first), self._deliver(slot, request.bytes, len(waiting))
        finally:
            # The consumer left early: let the workers finish, so that their slots can be used again.
            while len(waiting) > len(done) and self.close.alive:
                for _, number, results in self._receive(waiting):
                    done[number] = results
            self._free.extend(slot for slot, _ in waiting.values())
            self._running = False

    def _deliver(self, slot: int, size: int, waiting: int) -> NDArray[np.uint8]:
        """A view of a slot that frees it when it dies, or a copy if the consumer holds its share of the slots."""
        memory = np.frombuffer(self._memory, np.uint8, size, slot * self.slot_bytes)
        if len(self._free) + waiting < self._in_flight:
            memory = memory.copy()
            self._free.append(slot)
        else:
            weakref.finalize(memory, self._free.append, slot).atexit = False
        return memory

    def _receive(self, waiting: _Waiting) -> list[tuple[int, int, list[Fetched]]]:
        """(worker, number, results) of every worker that has an answer; waits for the first."""
        connections = [worker.connection for worker in self.workers]
        answers = []
        for ready in wait(connections):
            worker = connections.index(ready)  # type: ignore[arg-type]
            try:
                number, results = connections[worker].recv()
            except (EOFError, OSError) as error:
                raise self._death(worker, waiting) from error
            if isinstance(results, BaseException):
                raise results
            answers.append((worker, number, results))
        return answers

    def _death(self, worker: int, waiting: _Waiting) -> RuntimeError:
        """End the ring; returns the error to raise."""
        status = self.workers[worker].process.wait()
        self.close()
        keys = [at.key for _, request in waiting.values() for at in request.samples]
        shown = ", ".join(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")
        return RuntimeError(f"a reading worker died (exit status {status}) while these were being read: {shown}")


def serve(connection_handle: int, memory_handle: int) -> None:
    """A worker's loop: decode each request into the shared memory until the socket closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the training process's to handle
    cv2.setNumThreads(1)
    connection: Connection[Any, Any] = Connection(connection_handle)
    shards, cache, size, threads = connection.recv()
    memory = np.frombuffer(_mapped(memory_handle, size), np.uint8)
    requests: SimpleQueue[tuple[int, int, DecodeRequest] | None] = SimpleQueue()
    answering = threading.Lock()

    def listen() -> None:
        # In a thread, so that asking never waits for decoding and neither side can block the other.
        try:
            while True:
                requests.put(connection.recv())
        except (EOFError, OSError):
            requests.put(None)

    def decode() -> None:
        fetcher = Fetcher(shards, cache)
        while (message := requests.get()) is not None:
            number, start, request = message
            answer: list[Fetched] | BaseException
            try:
                answer = fetcher.batch(request, memory[start : start + request.bytes])
            except Exception as error:  # a defect of ours: raised where the batch was asked for
                answer = error
            try:
                with answering:
                    connection.send((number, answer))
            except OSError:
                return
        requests.put(None)  # for the other thread

    threading.Thread(target=listen, daemon=True).start()
    for _ in range(threads - 1):
        threading.Thread(target=decode, daemon=True).start()
    decode()


def _start_worker(memory_handle: int) -> Decoder:
    ours, theirs = Pipe()
    # The worker must find the same packages as we do, wherever our path was changed.
    program = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from crispedit.shards.ring import serve; "
    program += f"serve({theirs.fileno()}, {memory_handle})"
    process = subprocess.Popen(
        [sys.executable, "-c", program, json.dumps(sys.path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        pass_fds=(theirs.fileno(), memory_handle),
        env={**MALLOC, **os.environ},
    )
    theirs.close()
    return Decoder(process, ours)


def _stop_workers(workers: list[Decoder]) -> None:
    for worker in workers:
        worker.connection.close()
    for worker in workers:
        try:
            worker.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            worker.process.kill()
            worker.process.wait()


def _mapped(handle: int, size: int) -> mmap.mmap:
    """The shared memory, on huge pages where the system grants them: decoding into it is some percent faster."""
    memory = mmap.mmap(handle, size)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


def _anonymous_file(size: int) -> int:
    """A descriptor of shared memory without a name: memfd on Linux, a deleted temporary file elsewhere."""
    if hasattr(os, "memfd_create"):
        handle = os.memfd_create("crispedit-ring")
    else:
        with tempfile.TemporaryFile() as file:
            handle = os.dup(file.fileno())
    os.ftruncate(handle, size)
    return handle
