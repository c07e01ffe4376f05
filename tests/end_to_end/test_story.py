"""The whole story on small settings, while every process of it is killed once, and what it refuses."""

import json
import os
import re
import signal
import threading
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from examples.heart.__main__ import print_summary
from examples.heart.hospitals import COUNTS
from examples.heart.report import Report
from examples.heart.story import REPORT, Setting, Story
from rexis.errors import ConfigurationError
from services.local import record
from services.local.platform import Platform
from services.local.process import State
from services.local.sweep import members

# In the order of the story: each while something depends on it. The guard has its own test: it only ends what others left.
KILLED = [
    "marketplace",
    "marketplace-background",
    "chain",
    "redis",
    "aggregator",
    "aggregator-background",
    "verifier",
    "verifier-background",
    "trainer",
    "trainer-background",
    "trainer-worker",
]
BETWEEN_KILLS_S = 1.0
STORY_TIMEOUT_S = 420.0


class Assassin:
    """Kills each process of a running story once, the next when the platform has recovered from the last.

    Agents are started again at once, as a hospital's service manager would; the platform's supervisor does so by itself.
    """

    def __init__(self, story: Story) -> None:
        self.killed: list[str] = []
        self._story = story
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Assassin":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        for name in KILLED:
            platform = self._recovered()
            if platform is None:
                return
            os.kill(platform.supervisor.pids()[name], signal.SIGKILL)
            self.killed.append(name)
            while platform.supervisor.status[name].restarts == 0 and not self._stop.wait(0.05):
                continue
        for hospital in self._story.hospitals:
            if self._recovered(agents=True) is None:
                return
            hospital.kill_agent()
            hospital.start_agent()
            self.killed.append(f"agent of {hospital.name}")

    def _recovered(self, *, agents: bool = False) -> Platform | None:
        """The platform, once all of it is ready (and the agents run) and a moment has passed; None when the story is over."""
        while not self._stop.wait(BETWEEN_KILLS_S):
            platform = self._story.platform
            ready = platform is not None and all(
                status.state in (State.READY, State.DONE) for status in platform.supervisor.status.values()
            )
            if ready and (self._story.agents_run or not agents):
                return platform
        return None


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[Report, str, list[str], Path]:
    folder = tmp_path_factory.mktemp("story") / "demo"
    output = StringIO()
    story = Story(Setting(folder=folder, rounds=3, stage_s=12, drop_in=2, require_worth=False), Console(file=output, width=140))
    with Assassin(story) as assassin:
        report = story.tell()
    return report, output.getvalue(), assassin.killed, folder


@pytest.mark.timeout(STORY_TIMEOUT_S)
def test_the_story_ends_although_every_process_was_killed(told: tuple[Report, str, list[str], Path]) -> None:
    report, _, killed, folder = told
    assert killed == [*KILLED, *(f"agent of {hospital}" for hospital in COUNTS)]
    assert not members(f"{folder.resolve()}#")
    for training in report.trainings:
        finished = [entry for entry in training["rounds"] if entry["state"] == "finished"]
        assert [entry["round"] for entry in finished] == [1, 2, 3]
    assert report.statistics["count"] == 486


def test_a_round_that_lost_a_hospital_has_three_survivors_on_chain(told: tuple[Report, str, list[str], Path]) -> None:
    report = told[0]
    assert report.dropped == {"hospital": "Switzerland", "round": 2, "survivors": 3}
    assert any("round 2 has 3 survivors" in check for check in report.checks)


def test_what_must_be_refused_was_refused_with_its_rule(told: tuple[Report, str, list[str], Path]) -> None:
    report = told[0]
    decisions = [(row["purpose"], row["decision"]) for row in report.access]
    assert decisions == [*[("HMB", "granted")] * 4, ("POA", "refused"), ("HMB, commercial", "refused")]
    assert "does not cover POA" in report.access[4]["reason"]
    assert "NCU" in report.access[5]["reason"]
    assert all(row["transaction"] for row in report.access[:4])
    assert [stopped["state"] for stopped in report.query["stopped"]] == ["held"]
    cells = [cell for answer in report.query["answers"] for row in answer["rows"] for cell in row["cells"]]
    assert None in cells
    assert all(cell is None or cell % 5 == 0 for cell in cells)


def test_the_encrypted_answers_are_right_and_the_receipts_say_what_they_show(told: tuple[Report, str, list[str], Path]) -> None:
    report = told[0]
    assert report.inference["relative_error"] <= 1e-5
    assert report.inference["label"] == "obfuscation only"
    intact, changed = report.verification
    verdicts = {claim["verdict"] for claim in intact["claims"]}
    assert (intact["verdict"], verdicts) == ("PASS", {"PASS", "NOT CHECKED"})
    assert changed["verdict"] == "FAIL"
    assert any(claim["verdict"] == "FAIL" and claim["name"] for claim in changed["claims"])


def test_it_prints_what_the_readme_shows(told: tuple[Report, str, list[str], Path]) -> None:
    report, output, _, _ = told
    summary = StringIO()
    print_summary(Console(file=summary, width=140), report)
    example = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8").split("```text\n")[1].split("```")[0]
    # Each line up to its first figure: those differ from run to run; and only a story of ten rounds is asked what it is worth.
    labels = [re.split(r"[0-9]", line)[0].rstrip() for line in example.splitlines() if line and "federated AUC" not in line]
    assert len(labels) > 10
    for label in labels:
        assert label in output + summary.getvalue(), label


def test_nothing_secret_is_on_the_screen_or_in_the_report(told: tuple[Report, str, list[str], Path]) -> None:
    report, output, _, folder = told
    page = (folder / REPORT).read_text(encoding="utf-8")
    inside = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert inside is not None
    assert json.loads(inside[1])["inference"] == report.inference
    for hospital in COUNTS:
        table = (folder / f"hospital-{hospital.lower().replace(' ', '-')}" / "heart.csv").read_text().splitlines()
        assert not any(row in page or row in output for row in table[1:])


def test_a_second_demo_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with record.FolderLock(tmp_path), pytest.raises(ConfigurationError, match="another demo runs"):
        Story(Setting(folder=tmp_path), Console(file=StringIO())).tell()
