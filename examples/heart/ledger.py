"""What stands on chain, read from the node itself and not from any service: every event of every contract, with its transaction and gas."""

from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from rexis.chain.connection import Chain
from rexis.chain.events import decode_event
from rexis.encoding import to_hex

# What deploying the contracts left; it says nothing about the story.
WITHOUT_INTEREST = frozenset({"EIP712DomainChanged", "OwnershipTransferred", "TargetChanged"})
ROUND = "RoundFinalised"


@dataclass(frozen=True)
class LedgerEvent:
    """One event: where it is, which contract wrote it, and the gas of its whole transaction."""

    block: int
    contract: str
    event: str
    gas: int
    transaction: str
    arguments: dict[str, Any]


def read_ledger(chain: Chain) -> list[LedgerEvent]:
    """All events of the deployment's contracts, oldest first."""
    names = {contract.address: name for name, contract in chain.deployment.contracts.items()}
    gas: dict[bytes, int] = {}
    events = []
    asked: Any = {"address": list(names), "fromBlock": chain.deployment.start_block}
    for log in chain.web3.eth.get_logs(asked):
        decoded = decode_event(names[log["address"]], [bytes(topic) for topic in log["topics"]], bytes(log["data"]))
        if decoded is None or decoded[0] in WITHOUT_INTEREST:
            continue
        transaction = bytes(log["transactionHash"])
        if transaction not in gas:
            gas[transaction] = int(chain.web3.eth.get_transaction_receipt(log["transactionHash"])["gasUsed"])
        events.append(LedgerEvent(log["blockNumber"], names[log["address"]], decoded[0], gas[transaction], to_hex(transaction), decoded[1]))
    return events


def summarise(chain: Chain, events: list[LedgerEvent]) -> dict[str, Any]:
    """The part `chain` of the report: totals, one row a kind of event, and the whole log without arguments."""
    kinds: dict[tuple[str, str], list[LedgerEvent]] = {}
    for event in events:
        kinds.setdefault((event.contract, event.event), []).append(event)
    rows = [
        {
            "contract": contract,
            "event": name,
            "count": len(found),
            "gas": round(median(event.gas for event in found)),
            "first_block": found[0].block,
            "last_block": found[-1].block,
            "transaction": found[-1].transaction,
        }
        for (contract, name), found in sorted(kinds.items(), key=lambda item: item[1][0].block)
    ]
    log = [asdict(event) for event in events]
    for entry in log:
        del entry["arguments"]
    return {
        "id": chain.deployment.chain_id,
        "blocks": int(chain.web3.eth.block_number),
        "rounds": sum(event.event == ROUND for event in events),
        "transactions": len({event.transaction for event in events}),
        "gas": sum({event.transaction: event.gas for event in events}.values()),
        "contracts": {name: contract.address for name, contract in chain.deployment.contracts.items()},
        "events": rows,
        "log": log,
    }
