"""Rounds of a federation, over relayed calls and with the signatures that Python makes (secure-aggregation.md, Corrections 3 and 4)."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from web3 import Web3
from web3.logs import DISCARD

from rexis.chain.calls import encode_call
from rexis.chain.connection import Chain
from rexis.chain.signer import LocalSigner
from rexis.encoding import from_hex, sha256
from rexis.errors import ContractRevertedError
from rexis.protocol.federation_rounds import RoundResult, Survivors, accumulate, approvals, federation_id, update_commitment
from rexis.protocol.secagg_messages import secagg_context, survivors_hash
from rexis.protocol.typed_data import verify_signer

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "federation_rounds.json").read_text())
ABSENT, IDLE, OPEN, FIXED, CLOSED = range(5)
MODEL = sha256(b"model 0")
CONFIG = sha256(b"config")
MASKED = sha256(b"masked vectors")
NEW_MODEL = sha256(b"model 1")

Act = Callable[..., Any]


def ascending(count: int) -> list[LocalSigner]:
    return sorted((LocalSigner.generate() for _ in range(count)), key=lambda signer: signer.address.lower())


def refused(act: Callable[[], Any]) -> tuple[str, dict[str, Any]]:
    with pytest.raises(ContractRevertedError) as caught:
        act()
    return caught.value.error, caught.value.arguments


def as_hex(data: bytes) -> str:
    return "0x" + data.hex()


@dataclass
class Consortium:
    """Four sites of which three must survive, three aggregators of which two must sign, and what they do."""

    chain: Chain
    relay: Act
    relayer: LocalSigner
    transact: Act
    founder: LocalSigner
    sites: list[LocalSigner]
    aggregators: list[LocalSigner]
    attempt: int = 1

    @property
    def chain_id(self) -> int:
        return self.chain.deployment.chain_id

    @property
    def registry(self) -> str:
        return self.chain.deployment.contracts["FederationRegistry"].address

    @property
    def functions(self) -> Any:
        return self.chain.contract("FederationRegistry").functions

    @property
    def federation(self) -> bytes:
        return federation_id(self.chain_id, self.registry, self.founder.address, CONFIG)

    @property
    def manifest(self) -> bytes:
        return sha256(b"manifest of attempt %d" % self.attempt)

    @property
    def ctx(self) -> bytes:
        return secagg_context(self.chain_id, self.registry, self.federation, 1, self.attempt, self.manifest)

    @property
    def now(self) -> int:
        return int(self.chain.web3.eth.get_block("latest")["timestamp"])

    @property
    def state(self) -> dict[str, Any]:
        (output,) = self.chain.contract("FederationRegistry").get_function_by_name("get").abi["outputs"]
        names = [component["name"] for component in output["components"]]
        return dict(zip(names, self.functions.get(self.federation).call(), strict=True))

    def founding(self, **changes: Any) -> dict[str, Any]:
        given = {
            "configHash": CONFIG,
            "model": MODEL,
            "minSurvivors": 3,
            "quorum": 2,
            "participants": [site.address for site in self.sites],
            "aggregators": [aggregator.address for aggregator in self.aggregators],
        }
        return given | changes

    def act(self, who: LocalSigner, function: str, *arguments: Any) -> Any:
        return self.relay(who, function, *arguments, contract="FederationRegistry")

    def open(self) -> Any:
        times = (self.now + 3600, self.now + 7200)
        return self.act(self.aggregators[0], "openRound", self.federation, 1, self.attempt, self.manifest, *times)

    def commitment(self, site: LocalSigner) -> bytes:
        return update_commitment(self.ctx, site.address, sha256(site.address.encode()), b"\x05" * 16)

    def commit(self, *which: int) -> None:
        for n in which:
            self.act(self.sites[n], "commitUpdate", self.federation, self.ctx, self.commitment(self.sites[n]))

    def survivors(self, which: Sequence[int]) -> list[str]:
        return [self.sites[n].address for n in which]

    def fix(self, which: Sequence[int], signers: Sequence[int] = (0, 1)) -> Any:
        """Anybody may send it: the relayer does, without the forwarder."""
        chosen = self.survivors(which)
        typed = Survivors(self.federation, 1, self.attempt, survivors_hash(self.ctx, chosen), MASKED).typed_data(
            self.chain_id, self.registry
        )
        given = {"federation": self.federation, "round": 1, "attempt": self.attempt, "maskedRecord": MASKED, "survivors": chosen}
        signatures = {self.aggregators[n].address: self.aggregators[n].sign_typed_data(typed) for n in signers}
        return self.transact(self.registry, encode_call("FederationRegistry", "fixSurvivors", given, approvals(signatures)))

    def result(self, which: Sequence[int]) -> RoundResult:
        commitments = {self.sites[n].address: self.commitment(self.sites[n]) for n in which}
        return RoundResult(
            federation=self.federation,
            round_number=1,
            attempt=self.attempt,
            survivors_hash=survivors_hash(self.ctx, self.survivors(which)),
            accumulator=accumulate(self.ctx, commitments),
            updates=len(which),
            base_model=MODEL,
            aggregate=sha256(b"aggregate"),
            model=NEW_MODEL,
            metrics=sha256(b"metrics"),
            epsilon_micro=2_500_000,
        )

    def finalise(self, result: RoundResult, signers: Sequence[int] = (0, 1)) -> Any:
        typed = result.typed_data(self.chain_id, self.registry)
        signatures = {self.aggregators[n].address: self.aggregators[n].sign_typed_data(typed) for n in signers}
        return self.transact(self.registry, encode_call("FederationRegistry", "finalise", result.fields(), approvals(signatures)))

    def event(self, name: str, receipt: Any) -> dict[str, Any]:
        (found,) = self.chain.contract("FederationRegistry").events[name]().process_receipt(receipt, errors=DISCARD)
        return dict(found["args"])


@pytest.fixture
def consortium(chain: Chain, act: Act, relayer: LocalSigner, transact: Act, institution: LocalSigner) -> Consortium:
    return Consortium(chain, act, relayer, transact, institution, ascending(4), ascending(3))


@pytest.fixture
def founded(consortium: Consortium) -> Consortium:
    consortium.act(consortium.founder, "create", consortium.founding())
    return consortium


def test_a_round_with_a_drop_out_is_told_by_its_events(consortium: Consortium, warp: Callable[[int], None]) -> None:
    one = consortium
    receipt = one.act(one.founder, "create", one.founding())
    assert one.event("FederationCreated", receipt) == {"federation": one.federation, "founder": one.founder.address, **one.founding()}
    assert one.functions.participantsOf(one.federation).call() == one.survivors(range(4))
    assert [one.functions.positionOf(one.federation, address).call() for address in one.survivors(range(4))] == [1, 2, 3, 4]

    opened = one.event("RoundOpened", one.open())
    assert (opened["ctx"], opened["manifestHash"], opened["baseModel"]) == (one.ctx, one.manifest, MODEL)
    assert (opened["round"], opened["attempt"], opened["openedBy"]) == (1, 1, one.aggregators[0].address)
    for site in one.sites:
        receipt = one.act(site, "commitUpdate", one.federation, one.ctx, one.commitment(site))
        assert one.event("UpdateCommitted", receipt) == {
            "federation": one.federation,
            "round": 1,
            "participant": site.address,
            "attempt": 1,
            "ctx": one.ctx,
            "commitment": one.commitment(site),
        }
    # The third committed, and its masked vector never came.
    still_open = refused(lambda: one.fix((0, 1, 3)))
    assert (still_open[0], still_open[1]["commitUntil"]) == ("CommitmentsStillOpen", opened["commitUntil"])
    warp(opened["commitUntil"] + 1)
    result = one.result((0, 1, 3))
    assert one.event("SurvivorsFixed", one.fix((0, 1, 3))) == {
        "federation": one.federation,
        "round": 1,
        "attempt": 1,
        "ctx": one.ctx,
        "survivorsHash": result.survivors_hash,
        "maskedRecord": MASKED,
        "accumulator": result.accumulator,
        "survivors": one.survivors((0, 1, 3)),
        "signers": [one.aggregators[0].address, one.aggregators[1].address],
    }
    assert one.event("RoundFinalised", one.finalise(result, (0, 2))) == {
        "federation": one.federation,
        "round": 1,
        "attempt": 1,
        "baseModel": MODEL,
        "model": NEW_MODEL,
        "aggregate": result.aggregate,
        "metrics": result.metrics,
        "updates": 3,
        "epsilonMicro": 2_500_000,
        "signers": [one.aggregators[0].address, one.aggregators[2].address],
    }
    state = one.state
    assert (state["status"], state["round"], state["attempt"], state["model"]) == (IDLE, 2, 0, NEW_MODEL)
    closed = one.event("FederationClosed", one.act(one.founder, "close", one.federation))
    assert closed == {"federation": one.federation, "closedBy": one.founder.address, "round": 2, "model": NEW_MODEL}


@pytest.mark.parametrize(
    ("changes", "error", "bounds"),
    [
        ({"minSurvivors": 2}, "MinSurvivorsOutOfBounds", (3, 4)),
        ({"minSurvivors": 5}, "MinSurvivorsOutOfBounds", (3, 4)),
        ({"quorum": 1}, "QuorumOutOfBounds", (2, 3)),
        ({"quorum": 4}, "QuorumOutOfBounds", (2, 3)),
        ({"participants": []}, "ParticipantsOutOfBounds", (3, 128)),
        ({"aggregators": []}, "AggregatorsOutOfBounds", (1, 16)),
    ],
)
def test_unsound_federations_are_refused(changes: dict[str, Any], error: str, bounds: tuple[int, int], consortium: Consortium) -> None:
    name, arguments = refused(lambda: consortium.act(consortium.founder, "create", consortium.founding(**changes)))
    assert (name, arguments["least"], arguments["most"]) == (error, *bounds)


def test_rosters_are_in_order_and_configurations_used_once(founded: Consortium) -> None:
    descending = founded.founding(configHash=NEW_MODEL, participants=founded.survivors((3, 2, 1, 0)))
    assert refused(lambda: founded.act(founded.founder, "create", descending))[0] == "AddressesNotAscending"
    again = ("FederationExists", {"federation": as_hex(founded.federation)})
    assert refused(lambda: founded.act(founded.founder, "create", founded.founding())) == again


def test_a_quorum_of_aggregators_signs(founded: Consortium) -> None:
    founded.open()
    founded.commit(0, 1, 2, 3)
    assert refused(lambda: founded.fix(range(4), (1,))) == ("QuorumNotReached", {"required": 2, "got": 1})
    founded.fix(range(4), (1, 2))
    result = founded.result(range(4))
    assert refused(lambda: founded.finalise(result, ())) == ("QuorumNotReached", {"required": 2, "got": 0})

    typed = result.typed_data(founded.chain_id, founded.registry)
    first, second = founded.aggregators[:2]

    def sent(signatures: list[dict[str, Any]]) -> Any:
        return founded.transact(founded.registry, encode_call("FederationRegistry", "finalise", result.fields(), signatures))

    one = {"signer": first.address, "signature": first.sign_typed_data(typed)}
    twice = ("AddressesNotAscending", {"previous": first.address, "next": first.address})
    assert refused(lambda: sent([one, one])) == twice
    elsewhere = second.sign_typed_data(result.typed_data(founded.chain_id + 1, founded.registry))
    invalid = ("InvalidApproval", {"signer": second.address})
    assert refused(lambda: sent([one, {"signer": second.address, "signature": elsewhere}])) == invalid
    stranger = LocalSigner.generate()
    signatures = approvals({first.address: one["signature"], stranger.address: stranger.sign_typed_data(typed)})
    unknown = ("NotAggregator", {"federation": as_hex(founded.federation), "caller": stranger.address})
    assert refused(lambda: sent(signatures)) == unknown
    assert founded.state["status"] == FIXED


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"round_number": 2}, "RoundMismatch"),
        ({"attempt": 2}, "RoundMismatch"),
        ({"survivors_hash": NEW_MODEL}, "SurvivorsMismatch"),
        ({"accumulator": NEW_MODEL}, "AccumulatorMismatch"),
        ({"updates": 3}, "UpdatesMismatch"),
        ({"base_model": NEW_MODEL}, "BaseModelMismatch"),
        ({"model": bytes(32)}, "MissingHash"),
        ({"aggregate": bytes(32)}, "MissingHash"),
    ],
)
def test_a_result_that_the_chain_does_not_know_is_refused_whoever_signs(changes: dict[str, Any], error: str, founded: Consortium) -> None:
    founded.open()
    founded.commit(0, 1, 2, 3)
    founded.fix(range(4))
    result = replace(founded.result(range(4)), **changes)
    assert refused(lambda: founded.finalise(result, (0, 1, 2)))[0] == error


def test_aggregators_can_neither_drop_nor_invent_updates(founded: Consortium, warp: Callable[[int], None]) -> None:
    founded.open()
    founded.commit(0, 1, 2)
    warp(founded.now + 3601)
    missing = ("NoCommitment", {"participant": founded.sites[3].address})
    assert refused(lambda: founded.fix(range(4), (0, 1, 2))) == missing
    assert refused(lambda: founded.fix((0, 1), (0, 1, 2))) == ("TooFewSurvivors", {"required": 3, "got": 2})
    founded.fix((0, 1, 2))
    dropped = replace(founded.result((0, 1)), survivors_hash=founded.result((0, 1, 2)).survivors_hash, updates=3)
    assert refused(lambda: founded.finalise(dropped, (0, 1, 2)))[0] == "AccumulatorMismatch"


def test_only_participants_commit_once_and_in_time(founded: Consortium, warp: Callable[[int], None]) -> None:
    founded.open()
    stranger = LocalSigner.generate()
    outside = ("NotParticipant", {"federation": as_hex(founded.federation), "caller": stranger.address})
    assert refused(lambda: founded.act(stranger, "commitUpdate", founded.federation, founded.ctx, NEW_MODEL)) == outside
    site = founded.sites[0]
    other = ("ContextMismatch", {"expected": as_hex(founded.ctx), "got": as_hex(MODEL)})
    assert refused(lambda: founded.act(site, "commitUpdate", founded.federation, MODEL, NEW_MODEL)) == other
    founded.commit(0)
    twice = ("AlreadyCommitted", {"participant": site.address, "commitment": as_hex(founded.commitment(site))})
    assert refused(lambda: founded.act(site, "commitUpdate", founded.federation, founded.ctx, NEW_MODEL)) == twice
    warp(founded.now + 3601)
    assert refused(lambda: founded.commit(1))[0] == "CommitmentsClosed"


def test_a_round_below_the_threshold_gets_another_attempt(founded: Consortium, warp: Callable[[int], None]) -> None:
    founded.open()
    founded.commit(0, 1)
    site = founded.sites[0]
    assert refused(lambda: founded.act(site, "abandon", founded.federation, 1, 1))[0] == "DeadlineNotReached"
    warp(founded.now + 3601)
    receipt = founded.act(site, "abandon", founded.federation, 1, 1)
    assert founded.event("RoundAbandoned", receipt) == {
        "federation": founded.federation,
        "round": 1,
        "attempt": 1,
        "abandonedBy": site.address,
        "survivorsWereFixed": False,
    }
    founded.attempt = 2
    founded.open()
    assert (founded.state["status"], founded.state["attempt"], founded.state["committed"]) == (OPEN, 2, 0)
    founded.commit(0, 1, 2, 3)
    founded.fix(range(4))
    founded.finalise(founded.result(range(4)))
    assert founded.state["model"] == NEW_MODEL


def test_survivors_that_arrive_after_the_rounds_time_do_not_end_the_federation(founded: Consortium, warp: Callable[[int], None]) -> None:
    founded.open()
    founded.commit(0, 1, 2, 3)
    warp(founded.now + 7300)
    assert refused(lambda: founded.fix(range(4)))[0] == "SurvivorsTooLate"
    founded.act(founded.sites[0], "abandon", founded.federation, 1, 1)
    assert founded.state["status"] == IDLE


def test_survivors_are_fixed_once_a_round_and_an_abandoned_sum_closes_the_federation(
    founded: Consortium, warp: Callable[[int], None]
) -> None:
    founded.open()
    founded.commit(0, 1, 2, 3)
    founded.fix(range(4))
    warp(founded.now + 3601)
    # Another set would differ from the first by one site, and so would the sums.
    again = ("WrongStatus", {"federation": as_hex(founded.federation), "expected": OPEN, "got": FIXED})
    assert refused(lambda: founded.fix((0, 1, 2), (0, 1, 2))) == again
    warp(founded.now + 3601)
    outsider = LocalSigner.generate()
    assert refused(lambda: founded.act(outsider, "abandon", founded.federation, 1, 1))[0] == "NotMember"
    receipt = founded.act(founded.aggregators[2], "abandon", founded.federation, 1, 1)
    assert founded.event("RoundAbandoned", receipt)["survivorsWereFixed"] is True
    assert founded.event("FederationClosed", receipt)["model"] == MODEL
    founded.attempt = 2
    assert refused(founded.open) == (
        "WrongStatus",
        {"federation": as_hex(founded.federation), "expected": IDLE, "got": CLOSED},
    )


def test_nobody_commits_in_a_sites_name_without_the_forwarder(founded: Consortium) -> None:
    founded.open()
    call = encode_call("FederationRegistry", "commitUpdate", founded.federation, founded.ctx, NEW_MODEL)
    forged = call + bytes.fromhex(founded.sites[0].address[2:])
    denied = ("NotParticipant", {"federation": as_hex(founded.federation), "caller": founded.relayer.address})
    assert refused(lambda: founded.transact(founded.registry, forged)) == denied


def test_the_contract_reproduces_the_vectors(chain: Chain) -> None:
    # The vectors fix a registry's address: its code is put there, and its EIP-712 domain follows.
    place = Web3.to_checksum_address(VECTORS["registry"])
    code = chain.web3.eth.get_code(chain.contract("FederationRegistry").address)
    chain.web3.provider.make_request("anvil_setCode", [place, "0x" + bytes(code).hex()])
    functions = chain.web3.eth.contract(address=place, abi=chain.contract("FederationRegistry").abi).functions
    chain_id, federation, ctx = VECTORS["chainId"], from_hex(VECTORS["federation"], 32), from_hex(VECTORS["ctx"], 32)
    config, manifest = from_hex(VECTORS["configHash"], 32), from_hex(VECTORS["manifestHash"], 32)

    assert functions.federationId(VECTORS["founder"], config).call() == federation
    assert federation_id(chain_id, place, VECTORS["founder"], config) == federation
    assert functions.contextOf(federation, 3, 2, manifest).call() == ctx
    assert secagg_context(chain_id, place, federation, 3, 2, manifest) == ctx
    commitments = {}
    for entry in VECTORS["commitments"]:
        opened = (ctx, entry["participant"], from_hex(entry["digest"], 32), from_hex(entry["salt"], 16))
        assert update_commitment(*opened) == from_hex(entry["commitment"], 32)
        commitments[entry["participant"]] = from_hex(entry["commitment"], 32)
    assert accumulate(ctx, commitments) == from_hex(VECTORS["accumulator"], 32)

    signed, finished = VECTORS["signed"]
    message = {name: value if isinstance(value, int) else from_hex(value, 32) for name, value in signed["message"].items()}
    survivors = Survivors(federation, 3, 2, message["survivorsHash"], message["maskedRecord"])
    assert survivors.fields() == message
    assert survivors_hash(ctx, VECTORS["survivors"]) == survivors.survivors_hash
    result_message = {name: value if isinstance(value, int) else from_hex(value, 32) for name, value in finished["message"].items()}
    renamed = {"round": "round_number", "survivorsHash": "survivors_hash", "baseModel": "base_model", "epsilonMicro": "epsilon_micro"}
    result = RoundResult(**{renamed.get(name, name): value for name, value in result_message.items()})
    assert result.fields() == result_message

    given = (federation, 3, 2, survivors.masked_record, VECTORS["survivors"])
    digests = (
        functions.hashSurvivors(given, survivors.survivors_hash).call(),
        functions.hashResult(tuple(result.fields().values())).call(),
    )
    for entry, record, digest in zip(VECTORS["signed"], (survivors, result), digests, strict=True):
        typed = record.typed_data(chain_id, place)
        assert typed.type_string == entry["eip712"]["type"]
        assert typed.hash() == digest == from_hex(entry["eip712"]["digest"], 32)
        for signer, signature in entry["signatures"].items():
            verify_signer(typed, from_hex(signature, 65), signer)


WORD = st.binary(min_size=32, max_size=32)
NUMBER = st.integers(0, 2**64 - 1)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.tuples(*[WORD] * 7), numbers=st.tuples(NUMBER, NUMBER, NUMBER), updates=st.integers(0, 2**32 - 1))
def test_python_and_solidity_hash_alike(chain: Chain, words: tuple[bytes, ...], numbers: tuple[int, ...], updates: int) -> None:
    registry = chain.contract("FederationRegistry")
    federation, survivors, accumulator, base, aggregate, model, metrics = words
    result = RoundResult(federation, numbers[0], numbers[1], survivors, accumulator, updates, base, aggregate, model, metrics, numbers[2])
    expected = registry.functions.hashResult(tuple(result.fields().values())).call()
    assert result.typed_data(chain.deployment.chain_id, registry.address).hash() == expected
    fixed = Survivors(federation, numbers[0], numbers[1], survivors, model)
    given = (federation, numbers[0], numbers[1], model, [])
    expected = registry.functions.hashSurvivors(given, survivors).call()
    assert fixed.typed_data(chain.deployment.chain_id, registry.address).hash() == expected


def test_values_out_of_range_are_not_signed() -> None:
    """eth_account would pad or truncate them: two records would share a signature."""
    good = RoundResult(MODEL, 1, 1, MODEL, MODEL, 3, MODEL, MODEL, MODEL)
    for changes in ({"model": MODEL[:31]}, {"metrics": b""}, {"round_number": -1}, {"attempt": 2**64}, {"updates": 2**32}):
        with pytest.raises(ValueError, match=next(iter(changes)).removesuffix("_number")):
            replace(good, **changes)
    with pytest.raises(ValueError, match="maskedRecord"):
        Survivors(MODEL, 1, 1, MODEL, MODEL + b"\x00")


def test_gas_stays_bounded(founded: Consortium) -> None:
    assert founded.open()["gasUsed"] < 190_000
    founded.commit(0, 1, 2)
    site = founded.sites[3]
    last = founded.act(site, "commitUpdate", founded.federation, founded.ctx, founded.commitment(site))
    assert last["gasUsed"] < 110_000
    assert founded.fix(range(4))["gasUsed"] < 140_000
    assert founded.finalise(founded.result(range(4)))["gasUsed"] < 80_000
