"""What the demo checks for itself, beside what the parties check: the chain read directly, and everything that the platform keeps searched.

Each check raises; what it returns is the sentence that the summary shows.
"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from hexbytes import HexBytes

from examples.heart.experimenter import Score
from examples.heart.parties import Hospital
from rexis.chain.connection import Chain
from rexis.encoding import from_hex, to_hex
from rexis.errors import VerificationError

LEAST_AUC = 0.87
PREFIX_BYTES = 8


def compare_with_chain(chain: Chain, entry: Mapping[str, Any]) -> str:
    """Read a token from the contract and compare it with the catalogue entry, field by field.

    Raises:
        VerificationError: the catalogue tells something else than the chain.
    """
    registry = chain.contract("DatasetRegistry")
    token = entry["token_id"]
    content_root, policy_hash, metadata_hash, *_ = registry.functions.get(token).call()
    receipt: Any = chain.web3.eth.get_transaction_receipt(HexBytes(entry["transaction_hash"]))
    pairs: list[tuple[str, object, object]] = [
        ("owner", entry["owner"], registry.functions.ownerOf(token).call()),
        ("content root", entry["content_root"], to_hex(content_root)),
        ("policy hash", entry["policy_hash"], to_hex(policy_hash)),
        ("metadata hash", entry["metadata_hash"], to_hex(metadata_hash)),
        ("documents", entry["uri"], registry.functions.tokenURI(token).call()),
        ("block", entry["block_number"], receipt["blockNumber"]),
        ("succeeded", 1, receipt["status"]),
    ]
    differing = [f"{name}: catalogue {told}, chain {found}" for name, told, found in pairs if told != found]
    if differing:
        raise VerificationError("the catalogue differs from the chain: " + "; ".join(differing))
    return f"catalogue = chain, read from the contract itself: {', '.join(name for name, _, _ in pairs)}"


def require_survivors(chain: Chain, federation: str, round_number: int, expected: int) -> str:
    """Read from the chain's own event how many updates the sum of a round holds.

    Raises:
        VerificationError: another number, or no such event.
    """
    events = (
        chain.contract("FederationRegistry")
        .events.SurvivorsFixed()
        .get_logs(from_block=0, argument_filters={"federation": from_hex(federation, 32), "round": round_number})
    )
    found = [len(event["args"]["survivors"]) for event in events]
    if found != [expected]:
        raise VerificationError(f"round {round_number}: expected one set of {expected} survivors on chain, got {found}")
    return f"on chain, round {round_number} has {expected} survivors"


def require_worth(scores: Iterable[Score], federated: str, hospitals: Iterable[str]) -> str:
    """Check that federation was worth it: the AUC is high enough and above every hospital's own.

    Raises:
        VerificationError: it was not.
    """
    by_name = {score.name: score for score in scores}
    reached = by_name[federated].auc
    best = max((by_name[hospital] for hospital in hospitals), key=lambda score: score.auc)
    if reached < LEAST_AUC or reached <= best.auc:
        raise VerificationError(
            f"{federated}: expected an AUC of at least {LEAST_AUC} and above {best.name} alone ({best.auc:.4f}), got {reached:.4f}"
        )
    return f"federated AUC {reached:.3f} is above every single hospital ({best.name} alone: {best.auc:.3f})"


def search_platform(root: Path, hospitals: Iterable[Hospital], folders: Iterable[Path], others: Mapping[str, Iterable[bytes]]) -> list[str]:
    """Search every file of the platform (databases, objects, chain state, queue, logs) for what must not have left a party.

    Args:
        root: the platform's folder.
        hospitals: whose rows, salts and passphrases are looked for.
        folders: of the parties, which are not the platform's.
        others: further secrets by what they are called.

    Raises:
        VerificationError: something was found, or the search does not find what the platform does have.
    """
    hospitals, folders = list(hospitals), list(folders)
    wanted = {f"rows, salts and passphrase of {hospital.name}": hospital.secrets() for hospital in hospitals}
    wanted |= {name: list(values) for name, values in others.items()}
    files = [path for path in root.resolve().rglob("*") if path.is_file() and not any(path.is_relative_to(folder) for folder in folders)]
    controls = {to_hex(hospital.content_root).encode() for hospital in hospitals}
    needles = {secret: name for name, secrets in wanted.items() for secret in secrets}
    searched = 0
    for path in files:
        content = path.read_bytes()
        searched += len(content)
        controls -= find_any(content, controls)
        for secret in find_any(content, needles):
            raise VerificationError(f"{path} holds something that must stay with its party: {needles[secret]}")
    if controls:
        raise VerificationError("the search does not even find the content roots, which the marketplace has: it proves nothing")
    where = f"in any of the {len(files)} files ({searched / 1e6:.1f} MB) of databases, objects, chain, queue and logs"
    return [f"none of {len(secrets)} byte strings is {where}: {name}" for name, secrets in wanted.items()]


def find_any(content: bytes, wanted: Collection[bytes]) -> set[bytes]:
    """Which of many byte strings, of at least eight bytes each, are in `content`.

    Looks at the eight bytes from every position at once; searching for each string by itself takes minutes.
    """
    by_prefix: dict[int, list[bytes]] = {}
    for each in wanted:
        if len(each) < PREFIX_BYTES:
            raise ValueError(f"expected at least {PREFIX_BYTES} bytes to look for, got {len(each)}")
        by_prefix.setdefault(int.from_bytes(each[:PREFIX_BYTES], "little"), []).append(each)
    prefixes = np.fromiter(by_prefix, dtype="<u8", count=len(by_prefix))
    found: set[bytes] = set()
    for offset in range(min(PREFIX_BYTES, max(0, len(content) - PREFIX_BYTES + 1))):
        windows = np.frombuffer(content, dtype="<u8", count=(len(content) - offset) // PREFIX_BYTES, offset=offset)
        for index in np.flatnonzero(np.isin(windows, prefixes)):
            place = offset + int(index) * PREFIX_BYTES
            found.update(each for each in by_prefix[int(windows[index])] if content.startswith(each, place))
    return found
