"""What `rexis agent run` shows of long work: bars for people, lines that are not too many for programs."""

import io
import json
import time

import pytest
import torch
from rich.console import Console
from torch import nn

from rexis.agent.duty import Event
from rexis.cli import agent_screen
from rexis.cli.agent_screen import LOG_EVERY_S, JsonLog, Terminal
from rexis.training.local import LocalSteps, train_local
from rexis.training.patient_level import train_patients
from rexis.training.private_steps import PrivateSteps


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_log_has_a_line_for_each_event_and_for_steps_one_now_and_then_and_the_last(capsys: pytest.CaptureFixture[str]) -> None:
    now = 100.0
    log = JsonLog(clock=lambda: now)
    log.report(Event("sent keys", "federation 0x11", {"round": 1}))
    for done in range(1, 41):
        log.on_step("training in round 1", done, 40)
        now += LOG_EVERY_S / 10
    said = lines(capsys)
    assert (said[0]["what"], said[0]["detail"]) == ("sent keys", {"round": 1})
    steps = [entry["detail"] for entry in said[1:]]
    assert [entry["what"] for entry in said[1:]] == ["progress"] * len(steps)
    assert steps[-1] == {"done": 40, "total": 40}
    assert [step["done"] for step in steps if isinstance(step, dict)] == [11, 21, 31, 40]


def test_quick_work_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    log = JsonLog(clock=lambda: 7.0)
    for name in ("training in round 1", "uploading the vector of round 1"):
        for done in (1, 2, 3):
            log.on_step(name, done, 3)
    assert [(entry["subject"], entry["detail"]) for entry in lines(capsys)] == [
        ("training in round 1", {"done": 3, "total": 3}),
        ("uploading the vector of round 1", {"done": 3, "total": 3}),
    ]


def test_a_terminal_shows_a_bar_while_something_is_done_and_events_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    drawn = Console(file=screen, force_terminal=True, width=100, highlight=False)
    monkeypatch.setattr(agent_screen, "console", lambda *, stderr: drawn)
    terminal = Terminal()
    with terminal.at_work():
        terminal.on_step("training in round 2", 3, 8)
        # A thread of the library's draws, ten times a second.
        deadline = time.monotonic() + 30
        while "3/8" not in screen.getvalue() and time.monotonic() < deadline:
            time.sleep(0.05)
        terminal.report(Event("sent keys", "federation 0x22", {"round": 2}))
        terminal.on_step("training in round 2", 8, 8)
    shown = screen.getvalue()
    assert "training in round 2" in shown
    assert "3/8" in shown
    assert "sent keys" in shown
    assert "8/8" not in shown


@pytest.mark.parametrize("private", [False, True])
def test_each_local_step_is_told(private: bool) -> None:
    told: list[tuple[int, int]] = []
    features, labels, model = torch.zeros(6, 2), torch.tensor([0, 1] * 3), nn.Sequential(nn.Linear(2, 1))
    if private:
        steps = PrivateSteps(3, 1.0, 1.0, 0.5)
        train_patients(
            model,
            features,
            labels,
            torch.arange(6),
            steps,
            learning_rate=0.1,
            divisor=3,
            on_step=lambda done, total: told.append((done, total)),
        )
    else:
        train_local(model, features, labels, LocalSteps(3, 0.1), seed=0, on_step=lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]
