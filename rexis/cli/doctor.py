"""`rexis doctor`: what an institution's machine needs, each failing line with what to do."""

import os
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import typer
from rich.table import Table
from rich.text import Text

from rexis.cli.home import SERVICES, Profile, home, read_profile, service_url
from rexis.cli.identity import check_chain, connect, trusted_deployment
from rexis.cli.output import FAILED, console, print_json
from rexis.client.connection import Answer, Timeouts, printable
from rexis.client.marketplace import MarketplaceClient
from rexis.errors import ConfigurationError, RexisError, ServiceError

OLDEST_PYTHON = (3, 11)
PACKAGES = ("cryptography", "eth_abi", "eth_account", "httpx", "numpy", "yaml", "rfc8785", "rich", "safetensors", "stamina", "web3")
# Services admit a minute of difference; half of it leaves room for drift.
LARGEST_SKEW_S = 30.0
QUICK = Timeouts(connect_s=2.0, read_s=5.0, write_s=5.0, answer_s=10.0, attempts_s=5.0)

Level = Literal["ok", "warning", "failed"]


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, how it is, and what to do if it is not well."""

    name: str
    level: Level
    found: str
    advice: str = ""


def doctor(marketplace: str | None, *, as_json: bool) -> None:
    """Print all checks; exit code 1 if one failed."""
    checks = list(_checks(marketplace))
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        marks: dict[Level, tuple[str, str]] = {"ok": ("ok", "green"), "warning": ("warning", "yellow"), "failed": ("failed", "bold red")}
        table = Table(box=None, show_header=False, pad_edge=False)
        for check in checks:
            found = Text(check.found)
            if check.advice:
                found.append(f"\n→ {check.advice}", style="bold")
            table.add_row(Text(*marks[check.level]), check.name, found)
        console().print(table)
    if any(check.level == "failed" for check in checks):
        raise typer.Exit(FAILED)


def _checks(marketplace: str | None) -> Iterator[Check]:
    yield _python()
    yield _packages()
    yield _home()
    profile, identity = _identity()
    yield identity
    for service in SERVICES:
        yield from _service(service, marketplace if service == "marketplace" else None, profile)
    yield _own_node(profile)


def _python() -> Check:
    found = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < OLDEST_PYTHON:
        return Check("python", "failed", found, "install Python 3.11 or newer")
    return Check("python", "ok", found)


def _packages() -> Check:
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        return Check("packages", "failed", f"missing: {', '.join(missing)}", "install rexis again: `pip install rexis` or `make setup`")
    try:
        found = f"rexis {version('rexis')}"
    except PackageNotFoundError:
        found = "rexis from its source folder"
    return Check("packages", "ok", found)


def _home() -> Check:
    folder = home()
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        return Check("REXIS_HOME", "failed", f"{folder} can not be written", "make it writable, or set REXIS_HOME to a folder of yours")
    exposed = [path for path in _private_files(folder) if path.stat().st_mode & 0o077]
    if exposed:
        return Check("REXIS_HOME", "failed", f"others may read {exposed[0]}", f"chmod -R go-rwx {folder}")
    return Check("REXIS_HOME", "ok", str(folder) if folder.exists() else f"{folder} (not made yet)")


def _private_files(folder: Path) -> Iterator[Path]:
    return (path for pattern in ("keys/*.json", "agents/*/journal.sqlite*") for path in folder.glob(pattern))


def _identity() -> tuple[Profile | None, Check]:
    try:
        profile = read_profile()
    except ConfigurationError as error:
        return None, Check("identity", "failed", str(error), "run `rexis login`")
    if profile is None:
        return None, Check("identity", "warning", "nobody is logged in", "run `rexis login`")
    if not Path(profile.keystore).is_file():
        return profile, Check(
            "identity", "failed", f"the key file {profile.keystore} is gone", "restore it, or run `rexis login --keystore FILE`"
        )
    by = f" by the delegated key {profile.agent}" if profile.agent is not None else ""
    return profile, Check("identity", "ok", f"{profile.address} for chain {profile.chain_id}{by}")


def _service(service: str, given: str | None, profile: Profile | None) -> Iterator[Check]:
    try:
        url = service_url(service, given, profile)
        with connect(service, url, timeouts=QUICK, attempts=1) as connection:
            answer = connection.request("GET", "/readyz")
            yield Check(service, "ok", f"ready at {url}")
            if service == "marketplace":
                yield _clock(answer)
                yield _chain(MarketplaceClient(connection), profile)
    except ServiceError as error:
        reasons = printable(str(error.problem.get("failures") or error))
        yield Check(
            service, "failed", f"not ready: {reasons}", "wait a moment; if it stays so, ask the operator, or see `make doctor` here"
        )
    except ConfigurationError as error:
        yield Check(service, "failed", str(error), f"set REXIS_{service.upper()}_URL")
    except RexisError as error:
        yield Check(service, "failed", str(error), "start the platform with `make up`, or give the right URL")


def _clock(answer: Answer) -> Check:
    try:
        there = parsedate_to_datetime(answer.headers.get("date", ""))
        skew = (datetime.now(UTC) - there).total_seconds()
    except (ValueError, TypeError):
        return Check("clock", "warning", "the marketplace does not tell the time")
    if abs(skew) > LARGEST_SKEW_S:
        advice = "set this machine's clock (NTP): sign-in and signed calls are bound to the time"
        return Check("clock", "failed", f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the marketplace", advice)
    return Check("clock", "ok", f"within {LARGEST_SKEW_S:.0f} s of the marketplace")


def _chain(marketplace: MarketplaceClient, profile: Profile | None) -> Check:
    try:
        told = marketplace.chain()
        chain_id = profile.chain_id if profile is not None else told.chain_id
        check_chain(told, trusted_deployment(chain_id))
    except RexisError as error:
        return Check("chain", "failed", str(error), "ask the operator for the deployment record, and set REXIS_DEPLOYMENT_FILE")
    return Check("chain", "ok", f"chain {chain_id}, contracts as in the deployment record")


def _own_node(profile: Profile | None) -> Check:
    from rexis.chain.connection import Chain

    if profile is None:
        return Check("chain node", "warning", "nobody is logged in, so no chain is chosen", "run `rexis login`")
    try:
        Chain.connect(service_url("chain", None, profile), trusted_deployment(profile.chain_id), timeout_s=QUICK.read_s)
    except RexisError as error:
        advice = "name a node that you trust: `rexis login --chain URL`, or REXIS_CHAIN_URL; an agent believes nobody else about the chain"
        return Check("chain node", "failed", printable(str(error)), advice)
    return Check("chain node", "ok", f"on chain {profile.chain_id}, contracts with the code of the deployment record")
