"""Servers that a part starts itself: watched, started again, and gone with whoever started them."""

import os
import pickle
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from crispedit import managed
from crispedit.chat import ChatAnswer, ChatError, ChatRequest, Reply, make
from crispedit.outcome import is_transient

SERVER = Path(__file__).with_name("managed_server.py")
CHAT = {"backend": "openai", "model": "tiny", "timeout_s": 20, "start_s": 30}


class Animal(Reply):
    name: str


def command(folder):
    return f"{sys.executable} -IS {SERVER} {{port}} {folder}"


def pids(folder):
    """Of all servers that were started, in the order of their start."""
    files = sorted(folder.glob("pid-*"), key=lambda file: file.stat().st_mtime_ns)
    return [int(file.name.removeprefix("pid-")) for file in files]


def runs(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pid, within_s=60):
    deadline = time.monotonic() + within_s
    while runs(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    return not runs(pid)


@pytest.fixture
def chat(tmp_path):
    made = make({**CHAT, "serve": command(tmp_path)})
    yield made
    managed.stop_all()


def ask(chat, *prompts):
    return chat.ask([ChatRequest(prompt, Animal) for prompt in prompts])


def test_it_is_started_asked_and_stopped(chat, tmp_path):
    chat.load()
    assert all(isinstance(answer, ChatAnswer) for answer in ask(chat, *"abcdef"))
    [pid] = pids(tmp_path)
    assert runs(pid)
    managed.stop_all()
    assert not runs(pid)
    assert isinstance(ask(chat, "again")[0], ChatAnswer)  # and started again when it is needed
    assert len(pids(tmp_path)) == 2


def test_killed_while_it_answers_it_is_started_again_and_no_request_is_lost(chat, tmp_path):
    chat.load()

    over = threading.Event()

    def kill_twice():
        """Each of two servers, once it has answered; sooner, it would not have come up."""
        killed = set()
        while len(killed) < 2 and not over.wait(0.01):
            for file in set(tmp_path.glob("answered-*")) - killed:
                os.kill(int(file.name.removeprefix("answered-")), signal.SIGKILL)
                killed.add(file)

    killer = threading.Thread(target=kill_twice)
    killer.start()
    answers = ask(chat, *map(str, range(200)))
    over.set()
    killer.join()
    assert all(isinstance(answer, ChatAnswer) for answer in answers)
    assert len(pids(tmp_path)) == 3


def test_one_that_hangs_is_started_again(tmp_path):
    """Stopped by a signal, it does not answer GET /health either; stuck in its only request, it does."""
    chat = make({**CHAT, "serve": command(tmp_path), "timeout_s": 4, "concurrency": 1})
    chat.load()
    (tmp_path / "hangs").touch()
    assert isinstance(ask(chat, "which?")[0], ChatAnswer)
    assert len(pids(tmp_path)) == 2
    os.kill(pids(tmp_path)[1], signal.SIGSTOP)
    assert isinstance(ask(chat, "which?")[0], ChatAnswer)
    assert len(pids(tmp_path)) == 3
    assert gone(pids(tmp_path)[1])
    managed.stop_all()


def test_a_request_that_kills_every_server_is_a_transient_error_and_takes_no_other_with_it(tmp_path):
    chat = make({**CHAT, "serve": command(tmp_path), "retries": 2, "concurrency": 1})
    chat.load()
    good, bad, also_good = ask(chat, "a cat", "this kills you", "a cat")
    assert isinstance(good, ChatAnswer)
    assert isinstance(also_good, ChatAnswer)
    assert isinstance(bad, ChatError)
    assert is_transient(bad)
    managed.stop_all()


def test_one_that_does_not_come_up_stops_the_run_before_it_begins_and_says_why(tmp_path):
    (tmp_path / "broken").touch()
    with pytest.raises(ValueError, match=r"ended with status 3(?s:.*)CUDA out of memory, as it were"):
        make({**CHAT, "serve": command(tmp_path)}).load()
    with pytest.raises(ValueError, match=r"no-such-program(?s:.*)No such file"):
        make({**CHAT, "serve": "no-such-program {port}"}).load()
    silent = f'{sys.executable} -c "import time; print(1234, flush=True); time.sleep(99)" {{port}}'
    with pytest.raises(ValueError, match=r"does not answer after 5 s(?s:.*)1234"):
        make({**CHAT, "serve": silent, "start_s": 5}).load()


def test_a_port_that_was_taken_meanwhile_is_exchanged_for_another(tmp_path):
    """The server's own message says so; it is started once more, on another port."""
    first = (
        "import pathlib, os, sys; once = pathlib.Path(sys.argv[2]) / 'once'; taken = not once.exists(); once.touch(); "
        "taken and sys.exit('OSError: [Errno 98] Address already in use'); os.execv(sys.executable, sys.argv[3:])"
    )
    python, *rest = command(tmp_path).split()
    chat = make({**CHAT, "serve": shlex.join([python, "-c", first, "{port}", str(tmp_path), python, *rest])})
    chat.load()
    assert isinstance(ask(chat, "which?")[0], ChatAnswer)
    managed.stop_all()
    (tmp_path / "once").unlink()
    always = f"{python} -c \"import sys; sys.exit('Address already in use')\" {{port}}"
    with pytest.raises(ValueError, match=r"ended with status 1(?s:.*)Address already in use"):
        make({**CHAT, "serve": always}).load()


def test_one_that_does_not_come_up_again_is_a_transient_error(chat, tmp_path):
    chat.load()
    (tmp_path / "broken").touch()
    os.kill(pids(tmp_path)[0], signal.SIGKILL)
    answers = ask(chat, *map(str, range(20)))
    assert all(isinstance(answer, ChatError) and is_transient(answer) for answer in answers)
    assert "CUDA out of memory" in str(answers[0])


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's signal to orphans is Linux's")
@pytest.mark.parametrize("killed", ["worker", "guard"])
def test_no_server_is_left_when_its_worker_or_guard_is_killed(tmp_path, killed):
    program = (
        "import sys, time\nfrom crispedit.managed import ManagedServer\n"
        "server = ManagedServer(sys.argv[1], 30)\nserver.url()\n"
        "print(server.process.pid, flush=True)\ntime.sleep(600)"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", program, command(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=SERVER.parents[1]
    )
    guard = int(worker.stdout.readline())
    [pid] = pids(tmp_path)
    assert runs(pid)
    os.kill(worker.pid if killed == "worker" else guard, signal.SIGKILL)
    assert gone(pid)
    assert gone(guard)
    worker.kill()
    worker.wait()
    worker.stdout.close()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel gives orphans to the guard on Linux only")
@pytest.mark.parametrize("killed", [False, True])
def test_what_a_server_has_started_ends_with_it(tmp_path, killed):
    """Both hold the pipe of its log: one that has left its group, or one whose guard was killed."""
    leaves = "" if killed else "os.setsid(); "
    helper = f"import os, time; {leaves}print('helps', os.getpid(), flush=True); time.sleep(600)"
    starts = (
        f"import os, subprocess, sys; subprocess.Popen([sys.executable, '-c', \"{helper}\"]); "
        f"os.execv(sys.executable, ['python', *sys.argv[1:]])"
    )
    python, *rest = command(tmp_path).split()
    server = managed.ManagedServer(shlex.join([python, "-c", starts, *rest]), 30)
    server.url()
    while not server.log:
        time.sleep(0.01)
    helps = int(server.log.split()[1])
    assert runs(helps)
    if killed:
        os.kill(server.process.pid, signal.SIGKILL)
    server.stop()
    assert not server.reader.is_alive()
    assert gone(helps)


def test_where_and_how_it_is_started_is_not_what_it_answers(tmp_path):
    def identity(serve, **options):
        return make({**CHAT, "serve": serve, **options}).identity()

    plain = identity("vllm serve /models/a/Qwen --port {port}")
    assert identity("/opt/bin/vllm serve /elsewhere/Qwen --port {port}", start_s=9, retries=1) == plain
    assert identity("vllm serve /models/a/Qwen --port {port} --quantization fp8") != plain
    for name in ("one", "two"):
        (tmp_path / name / "tiny").mkdir(parents=True)
        (tmp_path / name / "tiny" / "config.json").write_text("{}")
    folders = [tmp_path / name / "tiny" for name in ("one", "two")]
    same = [identity(f"serve {folder} {{port}}", model=str(folder)) for folder in folders]
    assert same[0] == same[1]
    with pytest.raises(ValueError, match="where the port goes"):
        make({**CHAT, "serve": "vllm serve Qwen"})


def test_it_pickles_without_its_server(chat, tmp_path):
    chat.load()
    other = pickle.loads(pickle.dumps(chat))
    assert isinstance(ask(other, "which?")[0], ChatAnswer)
    assert len(pids(tmp_path)) == 2
