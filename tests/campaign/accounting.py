"""What came of every promise, counted from the blocks of the chain and not from tables of ours; and whether those tables agree with it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, select

from rexis.chain.connection import Chain
from rexis.chain.events import decode_event
from rexis.encoding import checksum_address, to_hex
from services.foundation.chain_comparison import compare, projected_rows
from services.foundation.chain_index import ChainIndex, Projection
from services.foundation.database import migrate, open_engine, transaction
from services.foundation.outbox.transactions import ChainIntent, ChainTransaction
from tests.campaign.chain_views import differences
from tests.campaign.operations import Mark, Promise

SPAN = 2_000


@dataclass
class Account:
    """The result; everything but the counts of what landed must be empty.

    Attributes:
        landed: promises that are on the chain exactly once, by kind.
        refused: promises that failed for a reason that the chain confirms, by kind.
        lost, duplicated: promises that are on the chain never, or more than once.
        unsettled: promises that are neither final nor failed.
        untrue: promises called final or failed against what the chain shows.
        unexplained: what is on the chain without having been promised.
        nonces: gaps, and transactions that the outbox knows otherwise than the chain.
        projections: rows that differ from the events, from a fresh index, or from the contracts' views.
    """

    landed: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    unsettled: list[str] = field(default_factory=list)
    untrue: list[str] = field(default_factory=list)
    unexplained: list[str] = field(default_factory=list)
    nonces: list[str] = field(default_factory=list)
    projections: list[str] = field(default_factory=list)

    @property
    def faults(self) -> dict[str, list[str]]:
        """Everything that should be empty, and is not."""
        names = ("lost", "duplicated", "unsettled", "untrue", "unexplained", "nonces", "projections")
        return {name: getattr(self, name) for name in names if getattr(self, name)}


@dataclass(frozen=True)
class OnChain:
    """Events of the chain: marks of operations, and requests that the Forwarder executed (sender:nonce)."""

    marks: Counter[Mark]
    requests: Counter[str]


def read(chain: Chain, gate: str) -> OnChain:
    """Read all blocks."""
    found = OnChain(Counter(), Counter())
    for name, given in _events(chain, gate):
        match name:
            case "Gate":
                found.marks["Gate", given["data"].hex()] += 1
            case "RequestExecuted":
                found.requests[f"{checksum_address(given['from'])}:{given['nonce']}"] += 1
            case "DatasetRegistered":
                found.marks[name, to_hex(given["contentRoot"])] += 1
            case "CommitteeSet":
                found.marks[name, str(given["dataset"]), str(given["version"])] += 1
            case "AccessGranted":
                found.marks[name, to_hex(given["conditionsHash"])] += 1
            case "AccessRevoked":
                found.marks[name, str(given["dataset"]), checksum_address(given["consumer"])] += 1
    return found


def _events(chain: Chain, gate: str) -> Iterator[tuple[str, dict[str, Any]]]:
    names = {chain.contract(name).address: name for name in ("DatasetRegistry", "AccessManager", "Forwarder")}
    eth = chain.web3.eth
    addresses = [*names, chain.web3.to_checksum_address(gate)]
    for first in range(0, eth.block_number + 1, SPAN):
        for log in eth.get_logs({"fromBlock": first, "toBlock": first + SPAN - 1, "address": addresses}):
            contract = names.get(log["address"])
            if contract is None:
                yield "Gate", {"data": bytes(log["data"])}
            elif (decoded := decode_event(contract, [bytes(topic) for topic in log["topics"]], bytes(log["data"]))) is not None:
                yield decoded


def settle_accounts(account: Account, engine: Engine, promises: Sequence[Promise], found: OnChain) -> None:
    """Compare every promise with the chain, and everything on the chain with the promises."""
    with transaction(engine, read_only=True) as session:
        intents = {intent.key.removeprefix("relay:"): intent for intent in session.scalars(select(ChainIntent))}
    winners: Counter[Mark] = Counter()
    for promise in promises:
        intent = intents.get(promise.key)
        times = found.marks[promise.mark] if promise.kind == "gate" else found.requests[promise.key]
        label = f"{promise.kind} {promise.key} {promise.mark}: {intent.state if intent else 'no row'}, {times} times on the chain"
        if times > 1 or found.marks[promise.mark] > 1:
            account.duplicated.append(label)
        elif intent is None or (intent.state == "final" and times == 0):
            account.lost.append(label)
        elif intent.state == "final":
            account.landed[promise.kind] += 1
            winners[promise.mark] += 1
        elif intent.state != "failed":
            account.unsettled.append(label)
        elif times == 0 and promise.kind == "twin" and _error(intent) == "ContentAlreadyRegistered" and found.marks[promise.mark] == 1:
            account.refused[promise.kind] += 1
        else:
            account.untrue.append(f"{label}; {intent.error}")
    for mark in {promise.mark for promise in promises}:
        if found.marks[mark] != winners[mark]:
            account.untrue.append(f"{mark}: {winners[mark]} promises claim what is {found.marks[mark]} times on the chain")
    promised = {promise.mark for promise in promises}
    account.unexplained += [str(mark) for mark in found.marks if mark not in promised]
    keys = {promise.key for promise in promises}
    account.unexplained += [f"request {request}" for request in found.requests if request not in keys]


def check_nonces(account: Account, chain: Chain, engine: Engine, relayer: str) -> int:
    """Every nonce of the relayer is used once, by the transaction that the outbox calls final. Returns how many there are."""
    eth = chain.web3.eth
    on_chain: dict[int, tuple[str, str]] = {}
    for number in range(eth.block_number + 1):
        for sent in eth.get_block(number, full_transactions=True)["transactions"]:
            if sent["from"] == relayer:
                on_chain[sent["nonce"]] = (to_hex(sent["hash"]), to_hex(sent["blockHash"]))
    if sorted(on_chain) != list(range(len(on_chain))):
        account.nonces.append(f"expected nonces 0 to {len(on_chain) - 1}, got {sorted(on_chain)}")
    with transaction(engine, read_only=True) as session:
        rows = session.scalars(select(ChainTransaction).where(ChainTransaction.block_number.is_not(None))).all()
    known = {row.nonce: (row.hash, row.block_hash) for row in rows if row.final_at is not None}
    if len(rows) != len(known) or known != on_chain:
        wrong = sorted(nonce for nonce in on_chain.keys() | known.keys() if on_chain.get(nonce) != known.get(nonce))
        account.nonces.append(f"the outbox has {len(rows)} mined transactions, the chain {len(on_chain)}; nonces that differ: {wrong}")
    return len(on_chain)


def check_projections(account: Account, chain: Chain, engine: Engine, service: str, projections: Sequence[Projection], folder: Path) -> int:
    """Projected rows against stored events, against an index that starts from nothing, and against the contracts. Returns their number."""
    index = ChainIndex(engine, chain, projections, chain.deployment.start_block)
    for table in compare(index):
        account.projections += [f"{table.table}: missing {row}" for row in table.missing]
        account.projections += [f"{table.table}: unexpected {row}" for row in table.unexpected]
    fresh_engine = open_engine(f"sqlite:///{folder / f'fresh-{service}.sqlite'}")
    migrate(fresh_engine, f"services.{service}")
    fresh_index = ChainIndex(fresh_engine, chain, projections, chain.deployment.start_block)
    fresh_index.run_once()
    with transaction(engine, read_only=True) as session:
        got = projected_rows(session, index)
    with transaction(fresh_engine, read_only=True) as session:
        expected = projected_rows(session, fresh_index)
    fresh_engine.dispose()
    for name, rows in expected.items():
        if sorted(rows, key=repr) != sorted(got[name], key=repr):
            account.projections.append(f"{name}: a fresh index has {len(rows)} rows, and others than the {len(got[name])} that are stored")
    account.projections += [
        f"{what}: the contract says {wanted}, the table {stored}" for what, wanted, stored in differences(engine, chain, service)
    ]
    return sum(len(rows) for rows in expected.values())


def _error(intent: ChainIntent) -> str:
    return "" if intent.error is None else str(intent.error["error"])
