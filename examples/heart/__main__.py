"""`python -m examples.heart`: the hospital in Cleveland registers its heart-disease table on a platform of its own, in `.rexis/demo`.

Uses what an institution has: `rexis.agent` on its premises and `rexis.client` to the marketplace. The chain is read directly, so that the
catalogue does not have to be believed.
"""

import os
import secrets
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hexbytes import HexBytes
from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from examples.heart.hospitals import write_hospital
from rexis.agent.dataset import LocalDataset, open_dataset, read_policy
from rexis.agent.journal import Journal
from rexis.agent.metadata import Description
from rexis.agent.registration import Target, prepare
from rexis.agent.submission import settle, submit
from rexis.agent.table import SALT_BYTES
from rexis.chain.connection import Chain
from rexis.chain.deployments import load
from rexis.chain.signer import LocalSigner
from rexis.cli import report
from rexis.client.connection import Connection
from rexis.client.marketplace import CatalogueEntry, MarketplaceClient
from rexis.client.sign_in import SignInSession
from rexis.encoding import canonical_json, to_hex
from rexis.errors import ConfigurationError, RexisError, VerificationError
from services.local import record
from services.local.platform import Platform
from services.local.progress import StartProgress
from services.local.settings import LocalSettings

DATA_DIR = Path(".rexis") / "demo"
HOSPITAL = "Cleveland"
POLICY = Path(__file__).with_name("policy.yaml")
SETTLE_TIMEOUT_S = 120.0


class Timings:
    """How long each step took, in seconds."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, float]] = []

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time one step."""
        began = time.monotonic()
        yield
        self.steps.append((name, time.monotonic() - began))


def main() -> None:
    """Run the demo; exit code 1 with one message if something fails."""
    console = Console(highlight=False)
    try:
        run(console)
    except RexisError as error:
        console.print(Text.assemble(("The demo stopped: ", "bold red"), str(error)), soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("\nstopped; no process is left")
        sys.exit(130)


def run(console: Console) -> None:
    """The whole story."""
    if record.holder(DATA_DIR.resolve()) is not None:
        raise ConfigurationError(f"another demo runs on {DATA_DIR}; wait for it, or end it with Ctrl-C")
    shutil.rmtree(DATA_DIR, ignore_errors=True)
    timings = Timings()
    console.print(Rule("[bold]Rexis[/]: one hospital registers a table that it never shows", style="dim"))
    with timings.step("platform: chain, queue, four services, workers"), StartProgress(console) as progress:
        platform = Platform.start(LocalSettings(data_dir=DATA_DIR), on_change=progress.on_change)
    with platform:
        hospital = Hospital(DATA_DIR / "hospital-cleveland", platform.urls["marketplace"])
        with timings.step("profile, commit, sign, relay, mine, index"):
            entry = hospital.register(console)
        with timings.step("read the chain directly"):
            compare_with_chain(console, platform.urls["chain"], entry)
        with timings.step("search what the platform stores"):
            search_platform(console, hospital)
    print_views(console)
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, seconds in timings.steps:
        table.add_row(Text(name, style="dim"), f"{seconds:6.1f} s")
    console.print(table)


class Hospital:
    """An institution: its own folder, key, journal and table. Nothing of the folder is given to the platform."""

    def __init__(self, folder: Path, marketplace_url: str) -> None:
        folder.mkdir(parents=True, mode=0o700)
        self.folder, self.url = folder, marketplace_url
        self.passphrase = secrets.token_urlsafe(24)
        self.signer = LocalSigner.generate()
        key_file = os.open(folder / "key.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(key_file, "wb") as file:
            file.write(self.signer.keystore(self.passphrase))
        self.table = folder / "heart.csv"
        write_hospital(HOSPITAL, self.table)
        self.deployment = load(31337)
        self.dataset = self._open()
        self.content_root = b""

    def _open(self) -> LocalDataset:
        description = Description(
            title="Heart disease, Cleveland",
            text="Clinical attributes of patients examined for coronary heart disease at the Cleveland Clinic Foundation.",
            published=datetime.now(UTC).date(),
            creator="Cleveland Clinic Foundation (UCI Heart Disease, 1988)",
            license="https://creativecommons.org/licenses/by/4.0/",
            citation="Janosi, Steinbrunn, Pfisterer, Detrano: Heart Disease. UCI Machine Learning Repository, 1988. doi:10.24432/C52P4X",
        )
        return open_dataset(self.table, read_policy(POLICY), description)

    def register(self, console: Console) -> CatalogueEntry:
        """Sign in, register the table, and wait for its token."""
        report.print_profile(console, self.dataset)
        self.dataset.require_registrable()
        contracts = self.deployment.contracts
        target = Target(self.deployment.chain_id, contracts["Forwarder"].address, contracts["DatasetRegistry"].address)
        with (
            Journal.open(self.folder / "journal.sqlite", self.passphrase) as journal,
            Connection(self.url, service="the marketplace") as connection,
        ):
            connection.authorise = SignInSession(connection, self.signer, target.chain_id).token
            marketplace = MarketplaceClient(connection)
            with console.status("committing to the rows") as status:
                documents = {"metadata": self.dataset.metadata, "policy": self.dataset.policy.document()}
                row = prepare(journal, self.dataset.table, **documents, owner=self.signer.address, target=target)
                status.update("signing in, signing the call, handing it over")
                row = submit(journal, row, marketplace, self.signer)
                entry = settle(
                    journal,
                    row,
                    marketplace,
                    self.signer,
                    timeout_s=SETTLE_TIMEOUT_S,
                    on_state=lambda state: status.update(f"on its way to the chain: {state}"),
                )
            self.content_root = row.content_root
            marketplace.document(entry.metadata_hash)
        report.print_entry(console, entry, title="In the catalogue", chain_id=target.chain_id, registry=target.registry)
        return entry

    def secrets(self) -> list[bytes]:
        """Every row as CSV and as it was hashed, every salt, raw and in hexadecimal, and the passphrase."""
        with Journal.open(self.folder / "journal.sqlite", self.passphrase) as journal:
            salts = journal.salts(self.content_root)
        each = [salts[i : i + SALT_BYTES] for i in range(0, len(salts), SALT_BYTES)]
        table = self.dataset.table
        rows = [",".join(row).encode() for row in table.rows]
        objects = [canonical_json(dict(zip(table.columns, row, strict=True))) for row in table.rows]
        return [*rows, *objects, *each, *(salt.hex().encode() for salt in each), self.passphrase.encode()]


def compare_with_chain(console: Console, rpc_url: str, entry: CatalogueEntry) -> None:
    """Read the token from the contract and compare it with the catalogue entry, field by field.

    Raises:
        VerificationError: the catalogue tells something else than the chain.
    """
    chain = Chain.connect(rpc_url, load(31337))
    registry = chain.contract("DatasetRegistry")
    content_root, policy_hash, metadata_hash, *_ = registry.functions.get(entry.token_id).call()
    receipt: Any = chain.web3.eth.get_transaction_receipt(HexBytes(entry.transaction_hash))
    pairs: list[tuple[str, object, object]] = [
        ("owner", entry.owner, registry.functions.ownerOf(entry.token_id).call()),
        ("content root", to_hex(entry.content_root), to_hex(content_root)),
        ("policy hash", to_hex(entry.policy_hash), to_hex(policy_hash)),
        ("metadata hash", to_hex(entry.metadata_hash), to_hex(metadata_hash)),
        ("documents", entry.uri, registry.functions.tokenURI(entry.token_id).call()),
        ("block", entry.block_number, receipt["blockNumber"]),
        ("succeeded", 1, receipt["status"]),
    ]
    differing = [f"{name}: catalogue {told}, chain {found}" for name, told, found in pairs if told != found]
    if differing:
        raise VerificationError("the catalogue differs from the chain: " + "; ".join(differing))
    checked = ", ".join(name for name, _, _ in pairs)
    console.print(f"[green]✓[/] catalogue = chain, read from the contract itself: {checked}", soft_wrap=True)


def search_platform(console: Console, hospital: Hospital) -> None:
    """Search every file of the platform (databases, objects, chain state, queue, logs) for what must not have left the hospital.

    Raises:
        VerificationError: something was found, or the search does not find what the platform does have.
    """
    wanted = hospital.secrets()
    files = [path for path in DATA_DIR.rglob("*") if path.is_file() and not path.is_relative_to(hospital.folder)]
    searched, control = 0, to_hex(hospital.content_root).encode()
    control_found = False
    for path in files:
        content = path.read_bytes()
        searched += len(content)
        control_found |= control in content
        if any(secret in content for secret in wanted):
            raise VerificationError(f"{path} holds something that must stay in the hospital")
    if not control_found:
        raise VerificationError("the search does not even find the content root, which the marketplace has: it proves nothing")
    rows = hospital.dataset.profile.rows
    console.print(
        f"[green]✓[/] none of the {rows} rows and {rows} salts is in any of the {len(files)} files "
        f"({searched / 1e6:.1f} MB) of databases, chain, queue and logs\n",
        soft_wrap=True,
    )


def print_views(console: Console) -> None:
    """What each party could see."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for header in ("party", "could see", "could not see"):
        table.add_column(header)
    table.add_row("Cleveland", "everything of its own", "")
    table.add_row("marketplace", "fields, types, terms of use, size in one digit, account", "rows, exact counts, salts")
    table.add_row("chain", "three hashes, an address, a URL, the time", "rows, counts, salts, fields")
    table.add_row("trainer, aggregator, verifier", "what the marketplace publishes", "all else")
    console.print(table)
    console.print()


if __name__ == "__main__":
    main()
