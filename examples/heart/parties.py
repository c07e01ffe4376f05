"""The parties of the story: each has its own folder, key and passphrase. The hospitals work with the command `rexis`, the research group
with the command and the SDK.

Nothing of a folder is given to the platform; what a party tells it goes through the services' REST interfaces.
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from examples.heart.hospitals import write_hospital
from examples.heart.split import read_split
from rexis.agent.journal import Journal
from rexis.agent.table import SALT_BYTES, read_table
from rexis.chain.signer import LOCAL_CHAIN_ID, LocalSigner
from rexis.client.connection import Connection
from rexis.client.sign_in import SignInSession
from rexis.encoding import canonical_json, from_hex
from rexis.errors import RexisError, UnavailableError

POLICY = Path(__file__).with_name("policy.yaml")
CITATION = "Janosi, Steinbrunn, Pfisterer, Detrano: Heart Disease. UCI Machine Learning Repository, 1988. doi:10.24432/C52P4X"
LICENSE = "https://creativecommons.org/licenses/by/4.0/"
INSTITUTIONS = {
    "Cleveland": "Cleveland Clinic Foundation",
    "Hungary": "Hungarian Institute of Cardiology, Budapest",
    "Switzerland": "University Hospitals of Zurich and Basel",
    "VA Long Beach": "V.A. Medical Center, Long Beach",
}
COMMAND = Path(sysconfig.get_path("scripts")) / "rexis"
COMMAND_TIMEOUT_S = 240.0
# As a person would who reads that a service does not answer.
ATTEMPTS, PAUSE_S = 6, 4.0
CALL_ATTEMPTS = 20
AWAY = "(HTTP 503)"
SITE = """\
poll_interval_s = 0.4

[services]
marketplace = "{marketplace}"
aggregator = "{aggregator}"
chain = ["{chain}"]

[[datasets]]
table = "{table}"
policy = "{policy}"
training_rows = "training.json"

[queries]
sensitive = ["num"]

[federations]
minimum_examples = 10
purposes = ["HMB"]
"""
STOP_TIMEOUT_S = 10.0


class CommandRefusedError(RexisError):
    """A `rexis` command ended with exit code 1: its failure as the command told it.

    Attributes:
        kind: name of the error.
        message: for people.
    """

    def __init__(self, command: str, kind: str, message: str) -> None:
        super().__init__(f"`rexis {command}`: {message}")
        self.kind, self.message = kind, message


class ServiceAwayError(CommandRefusedError, UnavailableError):
    """A `rexis` command found that something does not answer."""


class Party:
    """Someone with an identity of its own.

    Args:
        name: for people; the folder's name follows from it.
        role: `hospital` or `research-group`, the beginning of the folder's name.
        root: folder in which all parties have theirs.
        urls: of the services.
        marks: further environment variables of every process of this party.
    """

    def __init__(self, name: str, role: str, root: Path, urls: Mapping[str, str], marks: Mapping[str, str]) -> None:
        self.name = name
        slug = name.lower().replace(" ", "-")
        # Absolute: the commands run in this folder.
        self.folder = root.resolve() / (slug if slug == role else f"{role}-{slug}")
        self.folder.mkdir(parents=True, mode=0o700)
        self.passphrase = secrets.token_urlsafe(24)
        self.address = ""
        self._urls = urls
        inherited = {variable: value for variable, value in os.environ.items() if not variable.startswith("REXIS_")}
        self.environment = {
            **inherited,
            **{f"REXIS_{service.upper()}_URL": url for service, url in urls.items()},
            "REXIS_HOME": str(self.folder / "home"),
            "REXIS_PASSPHRASE": self.passphrase,
            # Two cores are shared by everybody: more threads in one process would only wait for each other.
            "OMP_NUM_THREADS": "1",
            **marks,
        }

    def rexis(self, *arguments: str | Path | int) -> Any:
        """Run one command as this party and return the JSON that it prints; again, if a service was away for a moment.

        Raises:
            CommandRefusedError: it failed; the message is the command's own, unless it broke or did not end in time.
        """
        words = [str(argument) for argument in arguments]
        return _patiently(lambda: self._run(words))

    def _run(self, words: Sequence[str]) -> Any:
        name = " ".join(words[:2])
        try:
            done = subprocess.run(
                [str(COMMAND), *words, "--json"],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=COMMAND_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise CommandRefusedError(name, "Timeout", f"of {self.name} did not end within {COMMAND_TIMEOUT_S:.0f} s") from error
        try:
            answer = json.loads(done.stdout)
        except ValueError:
            said = " ".join((done.stderr or done.stdout).split()) or "it printed nothing"
            raise CommandRefusedError(name, "Defect", f"of {self.name} broke: {said[-300:]}") from None
        if done.returncode != 0 and isinstance(answer, dict) and "error" in answer:
            told = answer["error"]
            away = told["kind"] == UnavailableError.__name__ or AWAY in told["message"]
            raise (ServiceAwayError if away else CommandRefusedError)(name, told["kind"], told["message"])
        return answer

    def write(self, name: str, content: str) -> Path:
        """Write a file of this party's own."""
        path = self.folder / name
        path.write_text(content, encoding="utf-8")
        return path

    def sign_in(self) -> None:
        """Make a key and sign in with it."""
        self.address = self.rexis("login", "--create")["address"]

    @cached_property
    def signer(self) -> LocalSigner:
        """This party's key, opened."""
        return LocalSigner.from_keystore(self.folder / "home" / "keys" / f"{self.address}.json", self.passphrase)

    @contextmanager
    def session(self, service: str) -> Iterator[Connection]:
        """The SDK's connection to a service, signed in as this party; it waits for a service that is away for a moment."""
        with Connection(self._urls[service], service=f"the {service}", attempts=CALL_ATTEMPTS) as connection:
            token = SignInSession(connection, self.signer, LOCAL_CHAIN_ID).token
            connection.authorise = lambda renew: _patiently(lambda: token(renew))
            yield connection

    @property
    def journal(self) -> Path:
        """The journal of this party's agent."""
        return self.folder / "home" / "agents" / self.address / "journal.sqlite"


class Hospital(Party):
    """An institution with a table and an agent.

    The whole table is registered; models are trained on FLamby's training rows of it, and `patients.csv` has the others.
    """

    def __init__(self, name: str, root: Path, urls: Mapping[str, str], marks: Mapping[str, str]) -> None:
        super().__init__(name, "hospital", root, urls, marks)
        self.table, self.patients = self.folder / "heart.csv", self.folder / "patients.csv"
        self.split = read_split()[name]
        write_hospital(name, self.table)
        write_hospital(name, self.patients, self.split.test)
        self.dataset = 0
        self.content_root = b""
        self._agent: subprocess.Popen[bytes] | None = None

    def register(self) -> dict[str, Any]:
        """Register the table and wait for its token; returns the catalogue entry."""
        entry: dict[str, Any] = self.rexis(
            *("dataset", "register", self.table, "--policy", POLICY, "--yes"),
            *("--title", f"Heart disease, {self.name}", "--creator", INSTITUTIONS[self.name]),
            *("--description", "Clinical attributes of patients examined for coronary heart disease."),
            *("--license", LICENSE, "--citation", CITATION),
        )
        self.dataset, self.content_root = entry["token_id"], from_hex(entry["content_root"], 32)
        return entry

    # The agent: a process that polls, as it would behind a hospital's firewall.

    def write_site(self, services: Mapping[str, str]) -> None:
        """Write `site.toml`, the rules of this institution; `services` are URLs, with that of the chain."""
        self.write("training.json", json.dumps(self.split.train))
        shutil.copy(POLICY, self.folder / POLICY.name)
        self.write("site.toml", SITE.format(**services, table=self.table.name, policy=POLICY.name))

    def start_agent(self) -> None:
        """Start the agent; its output goes to `agent.log`."""
        with (self.folder / "agent.log").open("ab") as log:
            self._agent = subprocess.Popen(
                [str(COMMAND), "agent", "run", str(self.folder / "site.toml"), "--json"],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def kill_agent(self) -> None:
        """SIGKILL: the agent can tell nobody."""
        agent, self._agent = self._agent, None
        if agent is not None:
            agent.kill()
            agent.wait()

    def require_agent(self) -> None:
        """
        Raises:
            UnavailableError: the agent has ended by itself.
        """
        agent = self._agent
        if agent is not None and (code := agent.poll()) is not None:
            lines = (self.folder / "agent.log").read_text(errors="replace").splitlines()
            raise UnavailableError(f"the agent of {self.name} ended with exit code {code}: {' / '.join(lines[-3:]) or 'it wrote nothing'}")

    def stop_agent(self) -> None:
        """Ask the agent to end; kill it if it does not."""
        if self._agent is None:
            return
        self._agent.send_signal(signal.SIGTERM)
        try:
            self._agent.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._agent.kill()
            self._agent.wait()
        self._agent = None

    # What must not be found anywhere but here.

    def secrets(self) -> list[bytes]:
        """Every row as CSV and as it was hashed, every salt, raw and in hexadecimal, and the passphrase."""
        with Journal.open(self.journal, self.passphrase) as journal:
            salts = journal.salts(self.content_root)
        each = [salts[i : i + SALT_BYTES] for i in range(0, len(salts), SALT_BYTES)]
        table = read_table(self.table)
        rows = [",".join(row).encode() for row in table.rows]
        objects = [canonical_json(dict(zip(table.columns, row, strict=True))) for row in table.rows]
        return [*rows, *objects, *each, *(salt.hex().encode() for salt in each), self.passphrase.encode()]


def _patiently(action: Callable[[], Any]) -> Any:
    """Do something, and again if what it depends on is away; the last failure is raised."""
    for _ in range(ATTEMPTS - 1):
        try:
            return action()
        except UnavailableError:
            time.sleep(PAUSE_S)
    return action()


def in_parallel(actions: Sequence[Any]) -> list[Any]:
    """Run functions without arguments at the same time and return what they return; the first exception is raised at the end."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(actions)) as pool:
        return [future.result() for future in [pool.submit(action) for action in actions]]
