"""The story: from four hospitals' tables to receipts on chain, told once on a platform of its own.

Everything is done by the parties with their public means (the command `rexis`, the SDK, one agent a hospital); this module only says in
which order, and checks what came of it. A step that fails ends the story with one message.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import stamina.instrumentation
import torch
from rich.console import Console

from examples.heart import access, checks
from examples.heart.encrypted import Asked, ask_encrypted, check_receipts, fetch_bundle
from examples.heart.experimenter import feature_spec
from examples.heart.hospitals import COUNTS
from examples.heart.ledger import read_ledger, summarise
from examples.heart.parties import Hospital, Party, in_parallel
from examples.heart.report import Report
from examples.heart.steps import Steps
from examples.heart.training import FEDERATED, LOGISTIC, Plan, Trained, train
from examples.heart.views import LIMITS, VIEWS
from rexis.chain.connection import Chain
from rexis.chain.deployments import load
from rexis.client.aggregator import AggregatorClient
from rexis.errors import ConfigurationError
from services.local import record
from services.local.anvil import CHAIN_ID
from services.local.platform import Platform
from services.local.progress import StartProgress
from services.local.settings import LocalSettings
from services.local.sweep import MARK

DROPPING = "Switzerland"
REPORT = "report.html"


@dataclass(frozen=True)
class Setting:
    """How large the story is.

    Attributes:
        folder: of the platform and the parties; wiped first.
        rounds: of each training federation.
        stage_s: seconds of each stage of a round; a round that loses a hospital waits for three of them.
        drop_in: round of the logistic regression in which a hospital drops out; None: nobody does.
        require_worth: stop unless the federated model is good enough; only sensible with enough rounds.
        federations_timeout_s: longest time for the two trainings together.
    """

    folder: Path = Path(".rexis") / "demo"
    rounds: int = 10
    stage_s: int = 10
    drop_in: int | None = 5
    require_worth: bool = True
    federations_timeout_s: float = 300.0


class Story:
    """One telling. `platform` and `hospitals` are there once `tell` has started them; `agents_run` while the hospitals' agents do."""

    def __init__(self, setting: Setting, console: Console) -> None:
        self.setting = setting
        self.steps = Steps(console)
        self.platform: Platform | None = None
        self.agents_run = False
        self.hospitals: list[Hospital] = []
        self.checks: list[str] = []

    def tell(self) -> Report:
        """Tell it and write the report.

        Raises:
            RexisError: something was refused, failed, or is not as it should be.
        """
        folder = self.setting.folder
        if record.holder(folder.resolve()) is not None:
            raise ConfigurationError(f"another demo runs on {folder}; wait for it, or end it with Ctrl-C")
        shutil.rmtree(folder, ignore_errors=True)
        # Thirty processes share this machine: more threads would only wait for each other.
        torch.set_num_threads(1)
        # A service that is away for a moment is waited for; each attempt would be logged into the demo's output.
        stamina.instrumentation.set_on_retry_hooks([])
        began = time.monotonic()
        with self._platform() as platform, self._parties(platform):
            chain = Chain.connect(platform.urls["chain"], load(CHAIN_ID))
            self._register(chain)
            rows = self._grant()
            query = self._query()
            trained = self._train(chain)
            with self.steps.step("encrypted network, encrypted patients"):
                asked = ask_encrypted(self.hospitals[0], trained)
            with self.steps.step("receipts into a root on chain, checked offline"):
                fetch_bundle(self.hospitals[0], asked)
                events = read_ledger(chain)
                verification = check_receipts(self.hospitals[0], asked, events)
            with self.steps.step("search everything that the platform keeps"):
                self._search(trained, asked)
            report = Report(
                finished_at=f"{datetime.now(UTC):%d %B %Y, %H:%M} UTC",
                seconds=time.monotonic() - began,
                cores=os.cpu_count() or 1,
                hospitals=tuple(COUNTS),
                scores=tuple(trained.scores),
                federated=f"{FEDERATED}{LOGISTIC}",
                test_rows=trained.test_rows,
                features=len(feature_spec().names),
                trainings=trained.trainings,
                statistics=trained.statistics,
                dropped=trained.dropped,
                access=[{**row, "transaction": access.transaction_of(row, events)} for row in rows],
                query=query,
                inference=asked.document(),
                verification=verification,
                chain=summarise(chain, events),
                views=VIEWS,
                checks=self.checks,
                limits=LIMITS,
                timings=dict(self.steps.seconds),
            )
            report.write(folder / REPORT)
        return report

    @contextmanager
    def _platform(self) -> Iterator[Platform]:
        began = time.monotonic()
        with StartProgress(self.steps.console) as progress:
            platform = Platform.start(LocalSettings(data_dir=self.setting.folder), on_change=progress.on_change)
        with platform:
            self.steps.finish("platform: chain, queue, four services, workers", time.monotonic() - began)
            self.platform = platform
            yield platform

    @contextmanager
    def _parties(self, platform: Platform) -> Iterator[None]:
        # A mark of the platform's: should this process be killed, the guard ends the agents too.
        marks = {MARK: platform.mark}
        self.hospitals = [Hospital(name, self.setting.folder, platform.urls, marks) for name in COUNTS]
        self._group = Party("research-group", "research-group", self.setting.folder, platform.urls, marks)
        try:
            with self.steps.step("four hospitals and a research group sign in, each with its own key"):
                in_parallel([party.sign_in for party in (*self.hospitals, self._group)])
            yield
        finally:
            self.agents_run = False
            for hospital in self.hospitals:
                hospital.stop_agent()

    def _register(self, chain: Chain) -> None:
        with self.steps.step("each hospital profiles and registers its table"):
            entries = in_parallel([hospital.register for hospital in self.hospitals])
        for entry in entries:
            finding = checks.compare_with_chain(chain, entry)
        self._found(f"four tables: {finding}")

    def _grant(self) -> list[dict[str, Any]]:
        with self.steps.step("access: asked with a purpose, granted on chain, refused by a rule"):
            rows = access.grant_access(self._group, self.hospitals)
        for row in rows:
            if row["decision"] == "refused":
                self.steps.note(f"{row['purpose']}: {row['reason']}")
        return rows

    def _query(self) -> dict[str, Any]:
        assert self.platform is not None
        with self.steps.step("agents start; a query runs where the data are"):
            for hospital in self.hospitals:
                hospital.write_site(self.platform.urls)
                hospital.start_agent()
            self.agents_run = True
            query = access.ask_queries(self._group, self.hospitals)
        for stopped in query["stopped"]:
            self.steps.note(f"{stopped['state']}: {stopped['text']}")
        return query

    def _train(self, chain: Chain) -> Trained:
        setting = self.setting
        plan = Plan(setting.rounds, setting.stage_s, setting.drop_in, setting.federations_timeout_s)
        with self._group.session("aggregator") as connection:
            dropping = next(hospital for hospital in self.hospitals if hospital.name == DROPPING)
            trained = train(self.steps, self._group, self.hospitals, AggregatorClient(connection), chain, plan, dropping=dropping)
        for finding in trained.findings:
            self._found(finding)
        if setting.require_worth:
            self._found(checks.require_worth(trained.scores, f"{FEDERATED}{LOGISTIC}", COUNTS))
        return trained

    def _search(self, trained: Trained, asked: Asked) -> None:
        parties = [*self.hospitals, self._group]
        others = {
            "exact counts behind the query's answers": access.exact_tables(self.hospitals),
            "unmasked updates of round 1": trained.vectors,
            **asked.secrets,
        }
        found = checks.search_platform(self.setting.folder, self.hospitals, [party.folder for party in parties], others)
        self.checks += found
        self.steps.note(f"none found of: {', '.join(others)}; rows, salts and passphrases of four hospitals")

    def _found(self, finding: str) -> None:
        self.checks.append(finding)
        self.steps.note(finding)
