"""The supervisor and its safety net, against small real processes."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from rexis.errors import ConfigurationError, UnavailableError
from services.local import chain_state, keys, ports, record
from services.local.process import ProcessSpec, State
from services.local.supervisor import Supervisor
from services.local.sweep import MARK, members, sweep

SLEEP = "import time; time.sleep(600)"
ROOT = Path(__file__).resolve().parents[2]


def until(condition: Callable[[], bool], what: str, within_s: float = 20.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(0.02)


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.fixture
def mark(tmp_path: Path) -> Iterator[str]:
    chosen = f"{tmp_path}#test"
    yield chosen
    sweep(chosen, 0.5)


def python(name: str, code: str, mark: str, **further: object) -> ProcessSpec:
    environment = {**os.environ, MARK: mark, "PYTHONUNBUFFERED": "1"}
    return ProcessSpec(name, (sys.executable, "-c", code), environment, **further)


@contextlib.contextmanager
def supervised(folder: Path, *specs: ProcessSpec, start_timeout_s: float = 10.0) -> Iterator[Supervisor]:
    supervisor = Supervisor(specs, logs=folder / "logs", cwd=folder, start_timeout_s=start_timeout_s, stop_timeout_s=2.0)
    supervisor.start()
    try:
        yield supervisor
    finally:
        supervisor.stop()


def test_processes_start_after_what_they_need_and_stop_before_it(tmp_path: Path, mark: str) -> None:
    journal = tmp_path / "journal"
    note = (
        "import signal, sys, time\n"
        f"def note(what):\n    open({str(journal)!r}, 'a').write(what + '\\n')\n"
        "signal.signal(signal.SIGTERM, lambda *_: (note('end ' + {0!r}), sys.exit(0)))\n"
        "note('begin ' + {0!r})\n"
        "time.sleep(600)"
    )

    def announced(name: str) -> Callable[[], None]:
        def probe() -> None:
            if not journal.exists() or f"begin {name}" not in journal.read_text():
                raise UnavailableError("not yet")

        return probe

    specs = [
        python("second", note.replace("{0!r}", "'second'"), mark, needs=("first", "once"), probe=announced("second")),
        python("once", f"open({str(journal)!r}, 'a').write('once\\n')", mark, needs=("first",), once=True),
        python("first", note.replace("{0!r}", "'first'"), mark, probe=announced("first")),
    ]
    with supervised(tmp_path, *specs) as supervisor:
        assert supervisor.wait_ready()
        pids = dict(supervisor.pids())
        assert set(pids) == {"first", "second"}
        assert supervisor.status["once"].state is State.DONE
    assert journal.read_text().split("\n")[:5] == ["begin first", "once", "begin second", "end second", "end first"]
    assert not any(alive(pid) for pid in pids.values())
    assert members(mark) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_ends_is_started_again(tmp_path: Path, mark: str, number: signal.Signals) -> None:
    with supervised(tmp_path, python("worker", SLEEP, mark)) as supervisor:
        assert supervisor.wait_ready()
        first = supervisor.pids()["worker"]
        os.kill(first, number)
        until(lambda: supervisor.pids().get("worker", first) != first, "a new process")
        assert supervisor.status["worker"].restarts == 1
        assert supervisor.failure is None


def test_a_one_time_step_is_repeated_after_what_it_needs_was_started_again(tmp_path: Path, mark: str) -> None:
    runs = tmp_path / "runs"
    step = python("step", f"open({str(runs)!r}, 'a').write('x')", mark, needs=("server",), once=True)
    with supervised(tmp_path, python("server", SLEEP, mark), step) as supervisor:
        assert supervisor.wait_ready()
        assert runs.read_text() == "x"
        os.kill(supervisor.pids()["server"], signal.SIGKILL)
        until(lambda: runs.read_text() == "xx", "the second run")


def test_what_a_killed_process_leaves_behind_is_ended_before_it_is_started_again(tmp_path: Path, mark: str) -> None:
    pool = f"import subprocess, sys, time; print(subprocess.Popen([sys.executable, '-c', {SLEEP!r}]).pid); time.sleep(600)"
    with supervised(tmp_path, python("worker", pool, mark)) as supervisor:
        assert supervisor.wait_ready()
        log = tmp_path / "logs" / "worker.log"
        until(lambda: log.read_text().count("\n") == 1, "the grandchild")
        grandchild = int(log.read_text())
        os.kill(supervisor.pids()["worker"], signal.SIGKILL)
        until(lambda: log.read_text().count("\n") == 2, "the second grandchild")
        assert not alive(grandchild)


def test_a_process_that_keeps_failing_is_given_up_with_its_last_words(tmp_path: Path, mark: str) -> None:
    with (
        supervised(tmp_path, python("broken", "raise SystemExit('the disk is on fire')", mark)) as supervisor,
        pytest.raises(UnavailableError, match=r"(?s)broken was started 5 times.*exit code 1.*the disk is on fire"),
    ):
        supervisor.wait_failure(lambda: False)


def test_a_process_that_never_gets_ready_is_killed_and_named(tmp_path: Path, mark: str) -> None:
    def probe() -> None:
        raise UnavailableError("the answer was 503")

    spec = python("slow", "print('still loading'); " + SLEEP, mark, probe=probe)
    with supervised(tmp_path, spec, start_timeout_s=0.3) as supervisor:
        until(lambda: supervisor.status["slow"].restarts > 0, "a restart")
        with pytest.raises(UnavailableError, match=r"(?s)not ready within 0 s: the answer was 503.*still loading"):
            supervisor.wait_ready()


def test_a_process_that_is_stopped_or_ends_before_it_is_ready_is_never_called_ready(tmp_path: Path, mark: str) -> None:
    def probe() -> None:
        raise UnavailableError("not yet")

    with supervised(tmp_path, python("slow", SLEEP, mark, probe=probe), python("short", "", mark, probe=probe)) as supervisor:
        until(lambda: supervisor.status["short"].restarts > 0, "its end is seen")
        until(lambda: "slow" in supervisor.pids(), "it runs")
    assert supervisor.status["slow"].runs == supervisor.status["short"].runs == 0


def test_a_program_that_does_not_exist_is_an_error_at_once(tmp_path: Path, mark: str) -> None:
    spec = ProcessSpec("missing", (str(tmp_path / "no-such-program"),), {MARK: mark})
    with supervised(tmp_path, spec) as supervisor, pytest.raises(ConfigurationError, match="missing can not be started"):
        supervisor.wait_ready()


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path, mark: str) -> None:
    deaf = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf'); {SLEEP}"
    with supervised(tmp_path, python("deaf", deaf, mark)) as supervisor:
        assert supervisor.wait_ready()
        until(lambda: "deaf" in (tmp_path / "logs" / "deaf.log").read_text(), "the handler")
        pid = supervisor.pids()["deaf"]
    assert not alive(pid)


def test_the_guard_ends_everything_when_the_supervisor_is_killed(tmp_path: Path, mark: str) -> None:
    # The supervisor in a process of its own; its child has a child in another session, which no process group would reach.
    deaf = f"import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEP}"
    child = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {deaf!r}], start_new_session=True); time.sleep(600)"
    program = f"""
import os, sys
from pathlib import Path
from services.local.process import ProcessSpec
from services.local.supervisor import Supervisor
environment = {{**os.environ, {MARK!r}: {mark!r}}}
specs = [
    ProcessSpec("guard", (sys.executable, "-m", "services.local.guard", {mark!r}), environment, hold_input=True),
    ProcessSpec("child", (sys.executable, "-c", {child!r}), environment, needs=("guard",)),
]
folder = Path({str(tmp_path)!r})
supervisor = Supervisor(specs, logs=folder / "logs", cwd=Path.cwd(), start_timeout_s=10, stop_timeout_s=2)
supervisor.start()
supervisor.wait_failure(lambda: False)
"""
    environment = {name: value for name, value in os.environ.items() if name != MARK}
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env=environment) as supervisor:
        until(lambda: len(members(mark)) == 3, "guard, child and grandchild")
        supervisor.kill()
    until(lambda: members(mark) == [], "no process is left")


def test_a_second_platform_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with record.FolderLock(tmp_path):
        assert record.holder(tmp_path) == os.getpid()
        with pytest.raises(ConfigurationError, match=rf"\(pid {os.getpid()}\) runs on {tmp_path} already"):
            record.FolderLock(tmp_path)
    assert record.holder(tmp_path) is None


def test_the_record_of_a_platform_that_is_gone_is_not_believed(tmp_path: Path) -> None:
    record.write(tmp_path, {"pid": os.getpid(), "urls": {}})
    assert record.read(tmp_path) is None
    with record.FolderLock(tmp_path):
        assert record.read(tmp_path) == {"pid": os.getpid(), "urls": {}}


def test_ports_are_given_once_on_a_machine_until_they_are_released() -> None:
    first = ports.PortClaims({"a": None, "b": None})
    wanted = first.ports["a"]
    assert wanted != first.ports["b"]
    second = ports.PortClaims({"a": wanted})  # nobody listens there yet, but it is promised
    assert second.ports["a"] != wanted
    first.release()
    third = ports.PortClaims({"a": wanted})
    assert third.ports["a"] == wanted
    second.release()
    third.release()


def test_a_port_on_which_a_program_listens_is_not_given() -> None:
    with socket.create_server((ports.HOST, 0)) as other:
        taken = other.getsockname()[1]
        claims = ports.PortClaims({"a": taken})
        claims.release()
        assert claims.ports["a"] != taken
        assert not ports.is_free(taken)


def test_an_answer_from_another_program_on_the_port_is_no_readiness(tmp_path: Path, mark: str) -> None:
    with socket.create_server((ports.HOST, 0)) as other:
        spec = python("server", SLEEP, mark, probe=lambda: None, port=other.getsockname()[1])
        with (
            supervised(tmp_path, spec, start_timeout_s=0.2) as supervisor,
            pytest.raises(UnavailableError, match="another program listens on port"),
        ):
            supervisor.wait_ready()


def test_secrets_are_made_once_and_closed_to_others(tmp_path: Path) -> None:
    path = keys.ensure_secret(tmp_path / "keys" / "one")
    first = path.read_text()
    assert len(bytes.fromhex(first)) == 32
    assert keys.ensure_secret(path).read_text() == first
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_damaged_chain_state_is_replaced_by_the_newest_whole_copy(tmp_path: Path) -> None:
    state = tmp_path / "chain" / "state.json"
    chain_state.restore(state)
    for content in ('{"block": 1}', '{"block": 2}', '{"block": 3}'):
        state.write_text(content)
        chain_state.rotate(state)
    for half in ('{"block": 4', "", "[]"):
        state.write_text(half)
        chain_state.rotate(state) if half != "[]" else None
        chain_state.restore(state)
        assert state.read_text() == '{"block": 3}'
    (tmp_path / "chain" / "state.1.json").write_text("{")
    state.unlink()
    chain_state.restore(state)
    assert state.read_text() == '{"block": 2}'


def test_a_chain_without_any_whole_state_does_not_start_silently_from_nothing(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    state.write_text('{"block": {"number"')
    with pytest.raises(ConfigurationError, match="are damaged; move"):
        chain_state.restore(state)
    assert state.exists()


def test_of_several_first_blocks_the_chain_keeps_the_one_it_began_with(tmp_path: Path) -> None:
    def block(number: int, timestamp: int) -> dict[str, dict[str, str]]:
        return {"header": {"number": hex(number), "timestamp": hex(timestamp)}}

    state = tmp_path / "state.json"
    state.write_text(json.dumps({"block": {}, "blocks": [block(2, 12), block(0, 30), block(1, 11), block(0, 10), block(0, 20)]}))
    chain_state.restore(state)
    assert json.loads(state.read_text())["blocks"] == [block(0, 10), block(2, 12), block(1, 11)]
