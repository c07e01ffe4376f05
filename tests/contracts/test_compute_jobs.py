"""Compute-to-data jobs, over relayed calls: institutions without ether pay, run, dispute and are paid (chain.md, sections 8 and 10)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from web3.logs import DISCARD

from rexis.chain.calls import encode_call
from rexis.chain.connection import Chain
from rexis.chain.permits import no_permit, sign_permit
from rexis.chain.signer import LocalSigner, development_signer
from rexis.encoding import sha256
from rexis.errors import ContractRevertedError
from rexis.policy.duo import Permission

ABSENT, REQUESTED, ACCEPTED, COMMITTED, DISPUTED, RELEASED, RESOLVED, REFUNDED = range(8)
CANCELLED, DECLINED, ABANDONED, NOT_ACCEPTED, NOT_COMMITTED, NOT_RESOLVED = range(6)
HMB = Permission.HMB.number
ALGORITHM = sha256(b"image, entry point, schema of parameters")
RESULT, LOGS, METER, REASON = (sha256(part) for part in (b"result", b"logs", b"meter", b"reason"))
PRICE, ROYALTY_BPS = 40_000_000, 250
DAY = 24 * 3600
JOBS = "ComputeJobs"

Act = Callable[..., Any]


@dataclass
class Parties:
    """Nobody among them has ether."""

    owner: LocalSigner
    consumer: LocalSigner
    provider: LocalSigner
    arbiter: LocalSigner


@pytest.fixture
def parties(chain: Chain, act: Act, transact: Act) -> Parties:
    """A data set with a royalty, access to it for a consumer with money, trust in a provider and an algorithm."""
    owner, consumer, provider, arbiter = (LocalSigner.generate() for _ in range(4))
    hashes = {"contentRoot": b"\x01" * 32, "policyHash": b"\x02" * 32, "metadataHash": b"\x03" * 32}
    act(owner, "register", {**hashes, "uri": "", "parents": [], "royaltyBps": ROYALTY_BPS})
    grant = {"dataset": 1, "consumer": consumer.address, "purpose": HMB, "policyVersion": 1, "grantEpoch": 0}
    until = chain.web3.eth.get_block("latest")["timestamp"] + 365 * DAY
    act(owner, "grant", {**grant, "until": until, "conditionsHash": b"\x05" * 32}, contract="AccessManager")
    act(owner, "trustAlgorithm", 1, ALGORITHM, 0, contract=JOBS)
    act(owner, "trustProvider", 1, provider.address, 0, contract=JOBS)
    money = chain.deployment.contracts["LocalCredit"].address
    transact(money, encode_call("LocalCredit", "mint", consumer.address, 10 * PRICE))
    return Parties(owner, consumer, provider, arbiter)


@pytest.fixture
def terms(chain: Chain, parties: Parties) -> Callable[..., dict[str, Any]]:
    def build(**changes: Any) -> dict[str, Any]:
        given = {
            "dataset": 1,
            "purpose": HMB,
            "provider": parties.provider.address,
            "arbiter": parties.arbiter.address,
            "algorithm": ALGORITHM,
            "document": sha256(b"salted document"),
            "token": chain.deployment.contracts["LocalCredit"].address,
            "price": PRICE,
            "acceptUntil": chain.web3.eth.get_block("latest")["timestamp"] + DAY,
            "runSeconds": 2 * DAY,
            "reviewSeconds": 3 * DAY,
        }
        return given | changes

    return build


@pytest.fixture
def job(act: Act) -> Act:
    return lambda who, function, *arguments: act(who, function, *arguments, contract=JOBS)


@pytest.fixture
def events(chain: Chain) -> Callable[..., list[dict[str, Any]]]:
    """What a receipt says under one name."""
    contract = chain.contract(JOBS)

    def read(name: str, receipt: Any) -> list[dict[str, Any]]:
        return [dict(found["args"]) for found in contract.events[name]().process_receipt(receipt, errors=DISCARD)]

    return read


@pytest.fixture
def request_job(chain: Chain, job: Act, parties: Parties, terms: Act, events: Act) -> Callable[..., bytes]:
    """The consumer pays by a permit, inside of the relayed call. Returns the job's id."""

    def send(**changes: Any) -> bytes:
        given = terms(**changes)
        deadline = chain.web3.eth.get_block("latest")["timestamp"] + 600
        spender = chain.deployment.contracts[JOBS].address
        permit = sign_permit(chain.web3, parties.consumer, given["token"], spender, given["price"], deadline)
        (requested,) = events("JobRequested", job(parties.consumer, "request", given, permit))
        return bytes(requested["job"])

    return send


@pytest.fixture
def owed(chain: Chain, parties: Parties) -> Callable[[], dict[str, int]]:
    """What the escrow holds, and whom it owes how much of it."""
    token, jobs = chain.contract("LocalCredit"), chain.contract(JOBS)

    def read() -> dict[str, int]:
        credits = {name: jobs.functions.creditOf(token.address, party.address).call() for name, party in vars(parties).items()}
        found = {"held": token.functions.balanceOf(jobs.address).call(), **credits}
        return {name: amount for name, amount in found.items() if amount}

    return read


@pytest.fixture
def status(chain: Chain) -> Callable[[bytes], int]:
    return lambda identifier: int(chain.contract(JOBS).functions.statusOf(identifier).call())


@pytest.fixture
def pass_deadline(chain: Chain, warp: Act) -> Callable[[bytes], None]:
    """To the first second after the deadline of a job's present state."""
    get = chain.contract(JOBS).get_function_by_name("get")
    deadline = [entry["name"] for entry in get.abi["outputs"][0]["components"]].index("deadline")
    return lambda identifier: warp(get(identifier).call()[deadline] + 1)


def refused(act: Callable[[], Any]) -> tuple[str, dict[str, Any]]:
    with pytest.raises(ContractRevertedError) as caught:
        act()
    return caught.value.error, caught.value.arguments


def as_hex(data: bytes) -> str:
    return "0x" + data.hex()


def test_a_consumer_without_ether_pays_and_everybody_fetches_his_part(
    chain: Chain, job: Act, parties: Parties, terms: Act, request_job: Act, events: Act, owed: Act, status: Act
) -> None:
    given, jobs = terms(), chain.contract(JOBS)
    identifier = jobs.functions.jobId(parties.consumer.address, given).call()
    assert request_job(**given) == identifier
    assert owed() == {"held": PRICE}
    assert chain.web3.eth.get_balance(parties.consumer.address) == 0

    (accepted,) = events("JobAccepted", receipt := job(parties.provider, "accept", identifier))
    taken_on = chain.web3.eth.get_block(receipt["blockNumber"])["timestamp"]
    assert accepted == {"job": identifier, "provider": parties.provider.address, "deadline": taken_on + 2 * DAY}
    (committed,) = events("ResultCommitted", receipt := job(parties.provider, "commitResult", identifier, RESULT, LOGS, METER))
    deadline = chain.web3.eth.get_block(receipt["blockNumber"])["timestamp"] + 3 * DAY
    assert committed == {"job": identifier, "result": RESULT, "logs": LOGS, "meter": METER, "deadline": deadline}
    (released,) = events("JobReleased", job(parties.consumer, "release", identifier))
    royalty = PRICE * ROYALTY_BPS // 10_000
    assert released == {
        "job": identifier,
        "byTimeout": False,
        "paid": PRICE - royalty,
        "royaltyReceiver": parties.owner.address,
        "royalty": royalty,
    }
    assert status(identifier) == RELEASED
    assert owed() == {"held": PRICE, "provider": PRICE - royalty, "owner": royalty}

    token = chain.contract("LocalCredit")
    for party, part in ((parties.owner, royalty), (parties.provider, PRICE - royalty)):
        job(party, "withdraw", token.address, party.address)
        assert token.functions.balanceOf(party.address).call() == part
        nothing = ("NothingToWithdraw", {"token": token.address, "account": party.address})
        assert refused(lambda party=party: job(party, "withdraw", token.address, party.address)) == nothing
    assert owed() == {}


def test_the_events_of_a_request_carry_all_its_terms(chain: Chain, job: Act, parties: Parties, terms: Act, events: Act) -> None:
    given = terms(price=0, token="0x" + 40 * "0")
    receipt = job(parties.consumer, "request", given, no_permit())
    identifier = chain.contract(JOBS).functions.jobId(parties.consumer.address, given).call()
    (requested,), (funded,) = events("JobRequested", receipt), events("JobFunded", receipt)
    assert {"consumer": parties.consumer.address, **requested, **funded} == {
        "job": identifier,
        **given,
        "consumer": parties.consumer.address,
    }


def test_an_arbiter_divides_what_is_disputed(job: Act, parties: Parties, request_job: Act, events: Act, owed: Act, status: Act) -> None:
    identifier = request_job()
    job(parties.provider, "accept", identifier)
    job(parties.provider, "commitResult", identifier, RESULT, LOGS, METER)
    (disputed,) = events("JobDisputed", job(parties.consumer, "dispute", identifier, REASON))
    assert (disputed["job"], disputed["reason"]) == (identifier, REASON)
    stranger = {"job": as_hex(identifier), "expected": parties.arbiter.address, "caller": parties.provider.address}
    assert refused(lambda: job(parties.provider, "resolve", identifier, 10_000)) == ("NotTheirJob", stranger)
    assert refused(lambda: job(parties.arbiter, "resolve", identifier, 10_001)) == ("ShareTooHigh", {"shareBps": 10_001, "limit": 10_000})

    (resolved,) = events("JobResolved", job(parties.arbiter, "resolve", identifier, 3_000))
    share = PRICE * 3 // 10
    royalty = share * ROYALTY_BPS // 10_000
    assert resolved == {
        "job": identifier,
        "providerShareBps": 3_000,
        "refunded": PRICE - share,
        "paid": share - royalty,
        "royaltyReceiver": parties.owner.address,
        "royalty": royalty,
    }
    assert status(identifier) == RESOLVED
    assert owed() == {"held": PRICE, "consumer": PRICE - share, "provider": share - royalty, "owner": royalty}


@pytest.mark.parametrize(
    ("steps", "reason"),
    [
        ([], NOT_ACCEPTED),
        (["accept"], NOT_COMMITTED),
        (["accept", "commit"], None),
        (["accept", "commit", "dispute"], NOT_RESOLVED),
    ],
)
def test_time_ends_every_state_while_everything_is_paused(
    steps: list[str],
    reason: int | None,
    chain: Chain,
    job: Act,
    parties: Parties,
    request_job: Act,
    events: Act,
    owed: Act,
    transact: Act,
    pass_deadline: Act,
) -> None:
    """The refund needs no party: a relayer ends the job, and the consumer withdraws, all while the operator has paused."""
    jobs = chain.deployment.contracts[JOBS].address
    identifier = request_job()
    acts = {
        "accept": lambda: job(parties.provider, "accept", identifier),
        "commit": lambda: job(parties.provider, "commitResult", identifier, RESULT, LOGS, METER),
        "dispute": lambda: job(parties.consumer, "dispute", identifier, REASON),
    }
    for step in steps:
        acts[step]()
    transact(jobs, encode_call(JOBS, "pause"), sender=development_signer(0))
    assert refused(lambda: request_job(document=sha256(b"another")))[0] == "EnforcedPause"
    end = encode_call(JOBS, "timeout", identifier)
    assert refused(lambda: transact(jobs, end))[0] == "TooEarly"

    pass_deadline(identifier)
    receipt = transact(jobs, end)
    if reason is None:
        (released,) = events("JobReleased", receipt)
        assert (released["byTimeout"], released["paid"] + released["royalty"]) == (True, PRICE)
        return
    assert events("JobRefunded", receipt) == [{"job": identifier, "reason": reason, "refunded": PRICE}]
    assert owed() == {"held": PRICE, "consumer": PRICE}
    job(parties.consumer, "withdraw", chain.deployment.contracts["LocalCredit"].address, parties.consumer.address)
    assert owed() == {}


def test_access_that_ends_between_request_and_acceptance_ends_the_job(
    chain: Chain, act: Act, job: Act, parties: Parties, request_job: Act, owed: Act
) -> None:
    identifier = request_job()
    act(parties.owner, "revoke", 1, parties.consumer.address, HMB, contract="AccessManager")
    ended = {"dataset": 1, "consumer": parties.consumer.address, "purpose": HMB}
    assert refused(lambda: job(parties.provider, "accept", identifier)) == ("AccessNotGranted", ended)
    job(parties.consumer, "cancel", identifier)
    assert owed() == {"held": PRICE, "consumer": PRICE}


def test_a_sale_ends_the_sellers_trust_and_not_what_was_accepted(
    act: Act, job: Act, parties: Parties, request_job: Act, status: Act
) -> None:
    accepted, waiting = request_job(), request_job(document=sha256(b"another"))
    job(parties.provider, "accept", accepted)
    buyer = LocalSigner.generate()
    act(parties.owner, "transferFrom", parties.owner.address, buyer.address, 1)
    assert refused(lambda: job(parties.provider, "accept", waiting))[0] == "AccessNotGranted"
    assert refused(lambda: job(parties.owner, "trustAlgorithm", 1, ALGORITHM, 1)) == (
        "NotInChargeOfDataset",
        {"dataset": 1, "caller": parties.owner.address},
    )
    job(parties.provider, "commitResult", accepted, RESULT, LOGS, METER)
    job(parties.consumer, "release", accepted)
    assert status(accepted) == RELEASED


def test_what_was_signed_before_a_change_of_mind_arrives_too_late(
    job: Act, parties: Parties, request_job: Act, call_to: Act, sign: Act, execute: Act, status: Act
) -> None:
    """A relay holds calls back, and sends each of them when it does most harm."""

    def held_back(who: LocalSigner, function: str, *arguments: Any) -> Callable[[], Any]:
        call = call_to(who.address, function, *arguments, contract=JOBS)
        signature = sign(who, call)
        return lambda: execute(call, signature)

    identifier = request_job()
    decline = held_back(parties.provider, "decline", identifier)
    cancel = held_back(parties.consumer, "cancel", identifier)
    trust = held_back(parties.owner, "trustProvider", 1, parties.arbiter.address, 0)
    job(parties.owner, "distrustProvider", 1, parties.arbiter.address)
    assert refused(trust) == ("TrustVersionMismatch", {"expected": 1, "got": 0})

    job(parties.provider, "accept", identifier)
    accepted = {"job": as_hex(identifier), "expected": REQUESTED, "got": ACCEPTED}
    assert refused(decline) == refused(cancel) == ("WrongJobStatus", accepted)
    abandon = held_back(parties.provider, "abandon", identifier)
    job(parties.provider, "commitResult", identifier, RESULT, LOGS, METER)
    assert refused(abandon) == ("WrongJobStatus", {"job": as_hex(identifier), "expected": ACCEPTED, "got": COMMITTED})
    release = held_back(parties.consumer, "release", identifier)
    job(parties.consumer, "dispute", identifier, REASON)
    assert refused(release) == ("WrongJobStatus", {"job": as_hex(identifier), "expected": COMMITTED, "got": DISPUTED})
    assert status(identifier) == DISPUTED


def test_a_permit_that_somebody_else_used_first_still_pays(
    chain: Chain, job: Act, parties: Parties, terms: Act, transact: Act, owed: Act
) -> None:
    given, spender = terms(), chain.deployment.contracts[JOBS].address
    deadline = chain.web3.eth.get_block("latest")["timestamp"] + 600
    permit = sign_permit(chain.web3, parties.consumer, given["token"], spender, PRICE, deadline)
    transact(given["token"], encode_call("LocalCredit", "permit", parties.consumer.address, spender, PRICE, *permit.values()))
    job(parties.consumer, "request", given, permit)
    assert owed() == {"held": PRICE}


def test_nobody_requests_in_a_consumers_name_without_the_forwarder(
    chain: Chain, parties: Parties, terms: Act, transact: Act, relayer: LocalSigner
) -> None:
    call = encode_call(JOBS, "request", terms(), no_permit()) + bytes.fromhex(parties.consumer.address[2:])
    stranger = {"dataset": 1, "consumer": relayer.address, "purpose": HMB}
    assert refused(lambda: transact(chain.deployment.contracts[JOBS].address, call)) == ("AccessNotGranted", stranger)
