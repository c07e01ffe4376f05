"""Batches of receipts and models as a node tells them, against what somebody claims of them (wire formats, section 3)."""

from typing import Any

from hexbytes import HexBytes
from web3.exceptions import BlockNotFound, ContractLogicError, TransactionNotFound

from rexis.chain.connection import NODE_FAILURES, Chain, open_web3
from rexis.chain.contract_accounts import check_wallet_signature
from rexis.chain.events import decode_event
from rexis.encoding import checksum_address, to_hex
from rexis.errors import SignatureError, UnavailableError, VerificationError
from rexis.protocol.receipt_bundle import ReceiptBundle
from rexis.protocol.receipt_signature import receipt_message

INFERENCES, MODELS = "InferenceRegistry", "ModelRegistry"
ABSENT, AUTHORISED = 0, 1
# Statuses of a batch.
CHALLENGED, REJECTED = 2, 4
REASONS = ("no reason", "model withdrawn", "data withdrawn", "key compromise", "audit failed", "superseded", "tooling bug")


def chain_id_of(rpc_url: str) -> int:
    """Which chain a node says it is on; nothing is checked.

    Raises:
        UnavailableError: the node does not answer.
    """
    try:
        return open_web3(rpc_url).eth.chain_id
    except NODE_FAILURES as error:
        raise _no_answer(error) from error


def verify_committed(chain: Chain, bundle: ReceiptBundle) -> None:
    """Check that the registry of this chain holds the bundle's batch, and took it in the transaction and block that the bundle names.

    Raises:
        VerificationError: another chain or registry, no such batch, another content, or another transaction or block.
        UnavailableError: the node does not answer.
    """
    deployment, batch = chain.deployment, bundle.batch
    trusted = deployment.contracts[INFERENCES].address
    if (batch.chain_id, batch.registry) != (deployment.chain_id, trusted):
        raise VerificationError(
            f"expected the registry {trusted} on chain {deployment.chain_id}, got {batch.registry} on chain {batch.chain_id}"
        )
    try:
        _compare("batch", _batch(chain, batch.id), _claimed(bundle))
        _verify_transaction(chain, bundle)
    except NODE_FAILURES as error:
        raise _no_answer(error) from error


def is_contested(chain: Chain, batch: bytes) -> bool:
    """Whether somebody challenged an answer in this batch (id, 32 bytes), and it is not decided yet.

    Raises:
        UnavailableError: the node does not answer.
    """
    return _status(chain, batch) == CHALLENGED


def verify_unrejected(chain: Chain, batch: bytes) -> None:
    """Check that no challenge of an answer in this batch (id, 32 bytes) was upheld.

    Raises:
        VerificationError: one was, by the arbiter or because the operator did not answer it in time.
        UnavailableError: the node does not answer.
    """
    if _status(chain, batch) == REJECTED:
        raise VerificationError(f"batch {to_hex(batch)} was rejected: a challenge of one of its answers was upheld")


def verify_signed(chain: Chain, bundle: ReceiptBundle) -> None:
    """Check that the issuer signed the receipt: by a key, or as a contract account of this chain, for which alone the chain is asked.

    Raises:
        SignatureError: another key signed, or something else, and the issuer is no contract here that accepts it.
        UnavailableError: the node does not answer.
    """
    try:
        bundle.verify_signature()
    except SignatureError as refused:
        receipt, chain_id = bundle.receipt, bundle.batch.chain_id
        # The same address may be another's contract elsewhere.
        if chain_id != chain.deployment.chain_id:
            raise SignatureError(f"{refused}; the node is on chain {chain.deployment.chain_id}, not on {chain_id}") from refused
        try:
            check_wallet_signature(chain.web3, receipt.issuer, receipt_message(receipt, chain_id).hash(), receipt.signature, refused)
        except NODE_FAILURES as error:
            raise _no_answer(error) from error


def verify_vouched(chain: Chain, owner: str, model: bytes) -> None:
    """Check that the owner authorised the model on chain, and did not take it back.

    Args:
        owner: checksum address.
        model: record, 32 bytes.

    Raises:
        VerificationError: he did not, or he did.
        UnavailableError: the node does not answer.
    """
    try:
        status, reason, _, revoked_at, _ = chain.contract(MODELS).functions.statusOf(owner, model).call()
    except NODE_FAILURES as error:
        raise _no_answer(error) from error
    if status == ABSENT:
        raise VerificationError(f"{owner} never authorised model {to_hex(model)}")
    if status != AUTHORISED:
        why = REASONS[reason] if reason < len(REASONS) else f"reason {reason}"
        raise VerificationError(f"{owner} took model {to_hex(model)} back at Unix time {revoked_at}: {why}")


def _batch(chain: Chain, identifier: bytes) -> dict[str, Any]:
    try:
        operator, _, count, _, _, owner, _, model, record = chain.contract(INFERENCES).functions.get(identifier).call()
    except ContractLogicError as error:
        raise VerificationError(f"the registry holds no batch {to_hex(identifier)}") from error
    return {"operator": operator, "owner": owner, "model": to_hex(model), "record": to_hex(record), "count": count}


def _status(chain: Chain, batch: bytes) -> int:
    try:
        status: int = chain.contract(INFERENCES).functions.statusOf(batch).call()
    except NODE_FAILURES as error:
        raise _no_answer(error) from error
    return status


def _claimed(bundle: ReceiptBundle) -> dict[str, Any]:
    batch = bundle.batch
    claimed = {"operator": batch.operator, "owner": batch.owner, "model": to_hex(batch.model)}
    return {**claimed, "record": to_hex(bundle.record), "count": bundle.count}


def _verify_transaction(chain: Chain, bundle: ReceiptBundle) -> None:
    named = bundle.committed
    try:
        mined = chain.web3.eth.get_transaction_receipt(HexBytes(named.transaction))
        block = chain.web3.eth.get_block(named.block_number)
    except TransactionNotFound as error:
        raise VerificationError(f"the chain has no transaction {to_hex(named.transaction)}") from error
    except BlockNotFound as error:
        raise VerificationError(f"the chain has no block {named.block_number}") from error
    found = {"block": mined["blockNumber"], "block hash": to_hex(mined["blockHash"])}
    _compare("transaction", found, {"block": named.block_number, "block hash": to_hex(named.block_hash)})
    _compare("block", {"hash": to_hex(block["hash"])}, {"hash": to_hex(named.block_hash)})
    registry = bundle.batch.registry
    events = [
        decode_event(INFERENCES, [bytes(topic) for topic in entry["topics"]], bytes(entry["data"]))
        for entry in mined["logs"]
        if checksum_address(entry["address"]) == registry
    ]
    if bundle.batch.id not in [event[1].get("batch") for event in events if event is not None and event[0] == "BatchCommitted"]:
        raise VerificationError(f"transaction {to_hex(named.transaction)} did not commit batch {to_hex(bundle.batch.id)}")


def _compare(what: str, found: dict[str, Any], claimed: dict[str, Any]) -> None:
    for name, value in claimed.items():
        if found[name] != value:
            raise VerificationError(f"{what}: the chain holds {name} {found[name]}, the bundle says {value}")


def _no_answer(error: Exception) -> UnavailableError:
    # The address may carry a credential, so the message leaves it out.
    return UnavailableError(f"the chain does not answer ({type(error).__name__}); is the node's URL right?")
