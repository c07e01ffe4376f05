"""Whole rounds: the sum is exact for every drop-out that is allowed, all else is refused, and a crash at any point changes nothing."""

import hashlib
import hmac
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from rexis.encoding import abi_encode, from_hex, keccak256, sha256
from rexis.errors import BelowThresholdError, DigestMismatchError, MalformedMessageError, SignatureError, UnexpectedMessageError
from rexis.protocol.secagg_messages import Envelope, Stage
from rexis.secagg import Coordinator, Participant
from rexis.secagg.coordinator import Phase as CoordinatorPhase
from rexis.secagg.group_pad import remove_group_pad
from rexis.secagg.masks import apply_mask
from rexis.secagg.participant_state import Phase
from rexis.secagg.terms import RoundTerms
from rexis.secagg.thresholds import Thresholds
from tests.unit.secagg_rounds import (
    ROSTER,
    Signer,
    Simulation,
    forged,
    make_terms,
    noted_signatures,
    plain_sum,
    signer_of,
    update_of,
)

T = TypeVar("T")

GROUP_KEY = keccak256(b"group key")


@pytest.fixture(scope="module", autouse=True)
def _noted_signatures() -> Iterator[None]:
    with noted_signatures():
        yield


def dropouts(terms_n: int, most: int) -> Iterator[frozenset[int]]:
    """Every set that stays when at least one and at most `most` of n drop out."""
    everybody = frozenset(range(1, terms_n + 1))
    for number in range(1, most + 1):
        for gone in combinations(sorted(everybody), number):
            yield everybody - frozenset(gone)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("killed", [False, True])
def test_a_round_gives_the_exact_sum(bits: int, killed: bool) -> None:
    simulation = Simulation(make_terms(4, ring_bits=bits), killed=killed)
    assert np.array_equal(simulation.run(), plain_sum(simulation.terms, simulation.everybody))
    assert simulation.coordinator.phase is CoordinatorPhase.FINISHED
    assert {participant.phase for participant in simulation.participants.values()} == {Phase.UNMASK}


@pytest.mark.parametrize("n", [3, 4, 5, 6])
def test_every_dropout_at_every_stage(n: int) -> None:
    terms = make_terms(n)
    full = Simulation(terms)
    allowed = list(dropouts(n, terms.thresholds.dropouts))

    def ends(simulation: Simulation, survivors: frozenset[int]) -> None:
        if len(survivors) % 2:
            simulation.survivors()
            total = simulation.unmask()
        else:
            total = simulation.unmask(fixed=simulation.fix_on_chain())
        assert np.array_equal(total, plain_sum(terms, survivors))

    for participant in full.participants.values():
        participant.announce_keys()
    for stay in allowed:
        at_keys = full.fork()
        at_keys.keys(stay)
        at_keys.shares(stay)
        at_keys.masked()
        ends(at_keys, stay)
    keys = full.keys()
    for participant in full.participants.values():
        participant.share(keys)
    for stay in allowed:
        at_shares = full.fork()
        at_shares.shares(stay)
        at_shares.masked()
        ends(at_shares, stay)
    full.shares()
    full.open()
    for i in full.everybody:
        full.upload(i)
    # From here on their pairwise masks are in the others' vectors.
    for stay in allowed:
        at_masked = full.fork()
        at_masked.masked(stay)
        ends(at_masked, stay)
    full.masked()
    for participant in full.participants.values():
        participant.consent(full.messages[Stage.MASKED])
    for stay in allowed:
        at_survivors = full.fork()
        at_survivors.survivors(stay)
        assert np.array_equal(at_survivors.unmask(stay), plain_sum(terms, full.everybody))
    full.survivors()
    for i in full.everybody:
        full.participants[i].unmask(full.messages[Stage.SURVIVORS])
    for stay in [*allowed, frozenset(full.everybody)]:
        at_unmask = full.fork()
        assert np.array_equal(at_unmask.unmask(stay), plain_sum(terms, full.everybody))


def test_who_did_not_finish_its_upload_may_consent_and_answer() -> None:
    simulation = Simulation(make_terms(4))
    simulation.keys()
    simulation.shares()
    simulation.masked({1, 2, 3})
    simulation.survivors({1, 2, 4})
    assert np.array_equal(simulation.unmask({1, 2, 4}), plain_sum(simulation.terms, {1, 2, 3}))
    with pytest.raises(UnexpectedMessageError):
        simulation.participants[4].mask(update_of(simulation.terms, 4))


def test_the_group_pad_hides_the_sum_from_the_aggregator_alone() -> None:
    terms = make_terms(4, length=4000)
    simulation = Simulation(terms, group_key=GROUP_KEY)
    total, expected = simulation.run(), plain_sum(terms, simulation.everybody)
    # Four copies of one pad would show every entry modulo 4.
    assert 0.2 < np.mean(total % 4 == expected % 4) < 0.3
    remove_group_pad(total, GROUP_KEY, terms.ctx, simulation.everybody)
    assert np.array_equal(total, expected)


def test_the_same_vector_under_another_group_key_is_not_let_out() -> None:
    simulation = Simulation(make_terms(3), group_key=GROUP_KEY)
    simulation.keys()
    simulation.shares()
    simulation.open()
    simulation.upload(1)
    stored = simulation.participants[1].state()
    for group_key in (None, keccak256(b"another")):
        participant = Participant.restore(simulation.terms, Signer(1), stored, group_key=group_key)
        vector = update_of(simulation.terms, 1)
        with pytest.raises(DigestMismatchError, match="masked vector"):
            participant.mask(vector)
        assert not vector.any()
        assert participant.state() == stored


def test_a_sparse_graph_gives_the_exact_sum() -> None:
    terms = make_terms(16, degree=8)
    simulation = Simulation(terms, graph_seed=keccak256(b"block"))
    simulation.keys(set(simulation.everybody) - {16})
    messages = simulation.shares(set(simulation.everybody) - {16})
    # The ring is of all sixteen: whose neighbour stayed away has one less.
    assert sorted(len(message.payload["ciphertexts"]) for message in messages) == [7] * 8 + [8] * 7
    simulation.masked(set(simulation.everybody) - {3, 16})
    simulation.survivors()
    survivors = set(simulation.everybody) - {3, 16}
    assert np.array_equal(simulation.unmask(survivors - {7}), plain_sum(terms, survivors))


def test_vectors_longer_than_a_block_and_than_an_upload_part() -> None:
    terms = make_terms(3, length=(8 * 1024 * 1024) // 4 + 3)
    simulation = Simulation(terms)
    for stage in (simulation.keys, simulation.shares):
        stage()
    simulation.open()
    expected = np.zeros(terms.length, dtype=terms.dtype)
    generator = np.random.default_rng(1)
    for i in simulation.everybody:
        vector = generator.integers(0, 2**32, size=terms.length, dtype=np.uint32)
        expected += vector
        manifest = simulation.participants[i].mask(vector)
        assert len(manifest.parts) == 2
        assert manifest.parts == (sha256(vector.tobytes()[: 8 * 1024 * 1024]), sha256(vector.tobytes()[8 * 1024 * 1024 :]))
        simulation.uploads[ROSTER[i - 1]] = vector.tobytes()
        simulation.coordinator.receive(simulation.participants[i].announce_masked(f"upload-{i}"))
    simulation.messages[Stage.MASKED] = list(simulation.coordinator.close_masked())
    simulation.survivors()
    for participant in simulation.participants.values():
        simulation.coordinator.receive(participant.unmask(simulation.messages[Stage.SURVIVORS]))
    (masked_sum,) = simulation.coordinator.masked_sums()
    for address, data in simulation.uploads.items():
        # As a network reader would deliver it.
        masked_sum.add(address, [data[:1_000_001], data[1_000_001:1_000_002], data[1_000_002:]])
    assert np.array_equal(simulation.coordinator.unmask([masked_sum])[0], expected)


# What every participant may do after what; the complement is refused and changes nothing.
PARTICIPANT_STEPS: dict[str, Callable[[Participant, Simulation], object]] = {
    "announce_keys": lambda participant, played: participant.announce_keys(),
    "share": lambda participant, played: participant.share(played.messages[Stage.KEYS]),
    "open_shares": lambda participant, played: participant.open_shares(played.messages[Stage.SHARES]),
    "mask": lambda participant, played: participant.mask(update_of(played.terms, 1)),
    "announce_masked": lambda participant, played: participant.announce_masked("upload-1"),
    "consent": lambda participant, played: participant.consent(played.messages[Stage.MASKED]),
    "unmask": lambda participant, played: participant.unmask(played.messages[Stage.SURVIVORS]),
    "unmask_fixed": lambda participant, played: participant.unmask_fixed(played.messages[Stage.MASKED], played.coordinator.survivors.fixed),
    "drop_out": lambda participant, played: participant.drop_out(),
}
PARTICIPANT_TRANSITIONS = {
    Phase.JOINED: {"announce_keys": Phase.KEYS},
    Phase.KEYS: {"announce_keys": Phase.KEYS, "share": Phase.SHARES},
    Phase.SHARES: {"share": Phase.SHARES, "open_shares": Phase.OPENED},
    Phase.OPENED: {"open_shares": Phase.OPENED, "mask": Phase.MASKED, "consent": Phase.SURVIVORS, "unmask_fixed": Phase.UNMASK},
    Phase.MASKED: {
        "mask": Phase.MASKED,
        "announce_masked": Phase.MASKED,
        "consent": Phase.SURVIVORS,
        "unmask_fixed": Phase.UNMASK,
    },
    Phase.SURVIVORS: {"consent": Phase.SURVIVORS, "unmask": Phase.UNMASK, "unmask_fixed": Phase.UNMASK},
    Phase.UNMASK: {"unmask": Phase.UNMASK, "unmask_fixed": Phase.UNMASK},
    Phase.DROPPED: {},
}


@pytest.fixture(scope="module")
def played() -> tuple[Simulation, dict[Phase, bytes]]:
    """A finished round, in which the first institution did not upload, and that institution's state after each step."""
    simulation = Simulation(make_terms(4))
    first = simulation.participants[1]
    states = {Phase.JOINED: first.state()}
    simulation.keys()
    states[Phase.KEYS] = first.state()
    simulation.shares()
    states[Phase.SHARES] = first.state()
    simulation.open()
    states[Phase.OPENED] = first.state()
    first.mask(update_of(simulation.terms, 1))
    states[Phase.MASKED] = first.state()
    simulation.masked({2, 3, 4})
    simulation.survivors({1, 2, 3, 4})
    states[Phase.SURVIVORS] = first.state()
    simulation.unmask({1, 2, 3, 4})
    states[Phase.UNMASK] = first.state()
    first.drop_out()
    states[Phase.DROPPED] = first.state()
    return simulation, states


@pytest.mark.parametrize("step", PARTICIPANT_STEPS)
@pytest.mark.parametrize("phase", Phase)
def test_transitions_of_a_participant(played: tuple[Simulation, dict[Phase, bytes]], phase: Phase, step: str) -> None:
    simulation, states = played
    participant = Participant.restore(simulation.terms, Signer(1), states[phase])
    assert participant.phase is phase
    act = PARTICIPANT_STEPS[step]
    if step == "drop_out":
        act(participant, simulation)
        assert participant.phase is Phase.DROPPED
        # What was answered stays known.
        assert participant.record().outcome.value == ("answered" if phase in (Phase.UNMASK, Phase.DROPPED) else "dropped")
    elif step in PARTICIPANT_TRANSITIONS[phase]:
        once = act(participant, simulation)
        assert participant.phase is PARTICIPANT_TRANSITIONS[phase][step]
        stored = participant.state()
        again = Participant.restore(simulation.terms, Signer(1), stored)
        assert act(again, simulation) == once
        assert again.state() == stored
    else:
        with pytest.raises(UnexpectedMessageError, match="expected a participant in"):
            act(participant, simulation)
        assert participant.state() == states[phase]


def test_an_answered_or_abandoned_attempt_holds_no_secrets(played: tuple[Simulation, dict[Phase, bytes]]) -> None:
    _, states = played
    for phase in (Phase.UNMASK, Phase.DROPPED):
        for empty in (b'"pairs":null', b'"selfSeed":null', b'"inbox":[]'):
            assert empty in states[phase]
            assert empty not in states[Phase.SURVIVORS]


def test_late_early_and_repeated_messages_at_the_aggregator() -> None:
    """The fourth institution's message of one stage is held back: accepted while its stage is open, refused before and after."""
    twin = Simulation(make_terms(4))
    twin.run()
    sent = {stage: [twin.participants[i].sent[number] for i in twin.everybody] for number, stage in enumerate(Stage)}

    def refused(coordinator: Coordinator, message: Envelope) -> None:
        before = coordinator.state()
        with pytest.raises(UnexpectedMessageError, match="is not open"):
            coordinator.receive(message)
        assert coordinator.state() == before

    for held in Stage:
        *others, message = sent[held]
        coordinator = Coordinator(twin.terms)
        for stage in list(Stage)[: list(Stage).index(held)]:
            refused(coordinator, message)
            for envelope in sent[stage]:
                coordinator.receive(envelope)
            getattr(coordinator, f"close_{stage}")()
        for envelope in others:
            coordinator.receive(envelope)
        assert coordinator.awaited == (ROSTER[3],)
        in_time = Coordinator.restore(twin.terms, coordinator.state())
        in_time.receive(message)
        stored = in_time.state()
        in_time.receive(message)
        assert in_time.state() == stored != coordinator.state()
        assert in_time.awaited == ()
        if held is Stage.UNMASK:
            coordinator.abort("deadline of unmask")
        else:
            getattr(coordinator, f"close_{held}")()
        refused(coordinator, message)


CLOSINGS = ("close_keys", "close_shares", "close_masked", "close_survivors", "unmask", "abort")


def test_transitions_of_the_aggregator() -> None:
    simulation = Simulation(make_terms(3))
    states: dict[CoordinatorPhase, bytes] = {}
    for phase, stage in (
        (CoordinatorPhase.KEYS, simulation.keys),
        (CoordinatorPhase.SHARES, simulation.shares),
        (CoordinatorPhase.MASKED, simulation.masked),
        (CoordinatorPhase.SURVIVORS, simulation.survivors),
        (CoordinatorPhase.UNMASK, simulation.unmask),
    ):
        stage()
        # Everything of the stage is there, and the stage is still open.
        value = simulation.coordinator.state()
        open_again = Coordinator(simulation.terms)
        for name in CLOSINGS[: len(states)]:
            for message in simulation.coordinator.messages(Stage(name.removeprefix("close_"))):
                open_again.receive(message)
            getattr(open_again, name)()
        for participant in simulation.participants.values():
            for message in participant.sent:
                if message.stage.value == phase.value:
                    open_again.receive(message)
        states[phase] = open_again.state()
        assert value != states[phase]
    states[CoordinatorPhase.FINISHED] = simulation.coordinator.state()
    aborted = Coordinator(simulation.terms)
    aborted.abort("deadline of keys")
    states[CoordinatorPhase.ABORTED] = aborted.state()
    valid = dict(zip(CoordinatorPhase, CLOSINGS[:5], strict=False)) | {CoordinatorPhase.FINISHED: "unmask", CoordinatorPhase.ABORTED: None}
    for phase, state in states.items():
        for name in CLOSINGS:
            coordinator = Coordinator.restore(simulation.terms, state)
            assert coordinator.phase is phase
            arguments: dict[str, Any] = {"reason": "operator"} if name == "abort" else {}
            if name == "unmask":
                arguments = {"masked_sums": simulation.coordinator.masked_sums()}
                for address, data in simulation.uploads.items():
                    arguments["masked_sums"][0].add(address, [data])
            if name == valid[phase] or (name == "abort" and phase not in (CoordinatorPhase.FINISHED, CoordinatorPhase.ABORTED)):
                getattr(coordinator, name)(**arguments)
                assert coordinator.phase is not phase or phase is CoordinatorPhase.FINISHED
            else:
                with pytest.raises(UnexpectedMessageError, match="expected an attempt in"):
                    getattr(coordinator, name)(**arguments)
                assert coordinator.state() == state
    assert Coordinator.restore(simulation.terms, states[CoordinatorPhase.ABORTED]).reason == "deadline of keys"


def test_below_the_threshold_every_stage_is_refused_by_both_sides() -> None:
    simulation = Simulation(make_terms(4))
    assert simulation.terms.thresholds == Thresholds(4, 1, 3, 3)

    def refused(act: Callable[[], object]) -> None:
        with pytest.raises(BelowThresholdError) as caught:
            act()
        assert (caught.value.required, caught.value.got) == (3, 2)

    fork = simulation.fork()
    refused(lambda: fork.keys({1, 2}))
    simulation.keys()
    refused(lambda: simulation.participants[1].share(simulation.messages[Stage.KEYS][:2]))
    fork = simulation.fork()
    refused(lambda: fork.shares({3, 4}))
    simulation.shares()
    refused(lambda: simulation.participants[1].open_shares(simulation.messages[Stage.SHARES][:2]))
    fork = simulation.fork()
    refused(lambda: fork.masked({1, 4}))
    simulation.masked()
    refused(lambda: simulation.participants[1].consent(simulation.messages[Stage.MASKED][:2]))
    fork = simulation.fork()
    refused(lambda: fork.survivors({2, 3}))
    simulation.survivors()
    refused(lambda: simulation.participants[1].unmask(simulation.messages[Stage.SURVIVORS][:2]))
    # Its own consent counts once, shown or not.
    refused(lambda: simulation.participants[1].unmask(simulation.messages[Stage.SURVIVORS][1:2]))
    fork = simulation.fork()
    refused(lambda: fork.unmask({2, 3}))
    # More answers may still come.
    assert np.array_equal(fork.unmask({4}), plain_sum(fork.terms, fork.everybody))


def test_damaged_messages_are_refused_everywhere() -> None:
    simulation = Simulation(make_terms(3))
    other = Simulation(make_terms(3, attempt=2))
    steps: list[tuple[Stage, Callable[[Simulation], object], Callable[[Participant, list[Envelope]], object]]] = [
        (Stage.KEYS, Simulation.keys, lambda participant, messages: participant.share(messages)),
        (Stage.SHARES, Simulation.shares, lambda participant, messages: participant.open_shares(messages)),
        (Stage.MASKED, Simulation.masked, lambda participant, messages: participant.consent(messages)),
        (Stage.SURVIVORS, Simulation.survivors, lambda participant, messages: participant.unmask(messages)),
    ]
    earlier: list[Envelope] = []
    for stage, play, take in steps:
        play(simulation)
        play(other)
        first = simulation.participants[1]
        before, right = first.state(), simulation.messages[stage]
        wrong: list[tuple[list[Envelope], type[Exception], str]] = [
            ([*right[:2], forged(right[2])], SignatureError, "expected a signature by|no key made"),
            ([*right[:2], replace(right[2], signature=b"")], SignatureError, "65 bytes"),
            ([*right[:2], replace(right[2], sender=ROSTER[1])], SignatureError, "expected a signature by"),
            ([*right[:2], replace(right[2], sender=ROSTER[9])], UnexpectedMessageError, "not in the roster"),
            ([*right[:2], other.messages[stage][2]], SignatureError, "for ctx"),
        ]
        if earlier:
            wrong.append(([*right[:2], earlier[2]], UnexpectedMessageError, "of the stage"))
        for messages, error, match in wrong:
            with pytest.raises(error, match=match):
                take(first, messages)
            assert first.state() == before
            target = Coordinator.restore(simulation.terms, simulation.coordinator.state())
            if error is SignatureError or "roster" in match:
                with pytest.raises(error):
                    target.receive(messages[2])
        # Any order, and twice the same, is the same.
        restored = Participant.restore(simulation.terms, Signer(1), before)
        take(restored, [*reversed(right), right[0]])
        earlier = right


def test_noted_signatures_are_what_recovery_gives() -> None:
    simulation = Simulation(make_terms(3))
    simulation.run()
    for participant in simulation.participants.values():
        assert len(participant.sent) == 5
        for message in participant.sent[-2:]:
            assert signer_of(message) == message.sender


class Mortal(Simulation):
    """The second institution is killed in one step before it stored anything, and after every step once it has."""

    def __init__(self, terms: RoundTerms, killed_in: int) -> None:
        super().__init__(terms)
        self.killed_in = killed_in
        self.steps = 0

    def act(self, i: int, step: Callable[[Participant], T]) -> T:
        before = self.participants[i].state()
        result = super().act(i, step)
        if i != 2:
            return result
        if self.steps == self.killed_in:
            self._restore(before)
            result = super().act(i, step)
        self.steps += 1
        stored = self.participants[i].state()
        self._restore(stored)
        # What it sends again is what it would have sent.
        assert super().act(i, step) == result
        assert self.participants[i].state() == stored
        return result

    def _restore(self, state: bytes) -> None:
        self.participants[2] = Participant.restore(self.terms, Signer(2), state)


@pytest.mark.parametrize("killed_in", range(7))
def test_a_killed_participant_does_its_step_again(killed_in: int) -> None:
    simulation = Mortal(make_terms(3), killed_in)
    assert np.array_equal(simulation.run(), plain_sum(simulation.terms, simulation.everybody))
    assert simulation.steps == 7


def test_a_killed_aggregator_goes_on_after_every_message() -> None:
    simulation = Simulation(make_terms(3))

    class Reborn(Coordinator):
        def receive(self, message: Envelope) -> None:
            super().receive(message)
            restored = Coordinator.restore(self.terms, self.state())
            assert restored.state() == self.state()
            self.__dict__.update(restored.__dict__)

    simulation.coordinator = Reborn(simulation.terms)
    expected = plain_sum(simulation.terms, simulation.everybody)
    assert np.array_equal(simulation.run(), expected)
    # Finished, and killed before the result was stored: the uploads and the answers are still there.
    simulation.restart()
    assert simulation.coordinator.phase is CoordinatorPhase.FINISHED
    assert np.array_equal(simulation.opened(), expected)


def test_states_of_others_are_refused() -> None:
    simulation = Simulation(make_terms(3))
    simulation.keys()
    state, coordinator_state = simulation.participants[1].state(), simulation.coordinator.state()
    with pytest.raises(UnexpectedMessageError, match="position"):
        Participant.restore(simulation.terms, Signer(2), state)
    for changes in ({"attempt": 2}, {"round": 4}, {"length": 6}, {"base_model": bytes(32)}):
        for restore in (
            lambda terms: Participant.restore(terms, Signer(1), state),
            lambda terms: Coordinator.restore(terms, coordinator_state),
        ):
            with pytest.raises(UnexpectedMessageError, match="and its terms"):
                restore(make_terms(3, **changes))
    for damaged in (
        b"",
        b"{}",
        b"[]",
        b"null",
        state[:-1],
        state.replace(b'"version":1', b'"version":2'),
        state.replace(b'"keys"', b'"kays"', 1),
    ):
        with pytest.raises(MalformedMessageError):
            Participant.restore(simulation.terms, Signer(1), damaged)
        with pytest.raises(MalformedMessageError):
            Coordinator.restore(simulation.terms, damaged)
    with pytest.raises(UnexpectedMessageError, match="roster"):
        Participant(simulation.terms, Signer(4), earlier=())


def test_one_upload_is_announced() -> None:
    simulation = Simulation(make_terms(3))
    simulation.keys()
    simulation.shares()
    simulation.open()
    message = simulation.upload(1)
    assert simulation.participants[1].announce_masked("upload-1") == message
    with pytest.raises(UnexpectedMessageError, match="cannot become"):
        simulation.participants[1].announce_masked("upload-2")


@pytest.mark.parametrize(
    "vector",
    [np.zeros(4, "<u4"), np.zeros(6, "<u4"), np.zeros(5, "<u8"), np.zeros(5, "<i4"), np.zeros(5, ">u4"), np.zeros((5, 1), "<u4")],
    ids=["short", "long", "wide", "signed", "big-endian", "matrix"],
)
def test_only_vectors_of_the_round_are_masked(played: tuple[Simulation, dict[Phase, bytes]], vector: Any) -> None:
    simulation, states = played
    participant = Participant.restore(simulation.terms, Signer(1), states[Phase.OPENED])
    with pytest.raises(ValueError, match="expected 5 entries"):
        participant.mask(vector)
    assert participant.state() == states[Phase.OPENED]


def test_messages_of_a_stage_are_given_out_once_it_is_closed() -> None:
    simulation = Simulation(make_terms(3))
    for stage in Stage:
        with pytest.raises(UnexpectedMessageError, match="not closed"):
            simulation.coordinator.messages(stage)
    with pytest.raises(UnexpectedMessageError, match="not closed"):
        _ = simulation.coordinator.survivors
    simulation.run()
    assert simulation.coordinator.messages(Stage.MASKED) == tuple(simulation.messages[Stage.MASKED])
    assert simulation.coordinator.awaited == ()
    assert simulation.coordinator.wrong_shares == ()


def test_what_crosses_the_wire_is_the_specified_cryptography() -> None:
    """Keys, shares and masks recomputed by hand from one participant's randomness: X25519, HKDF from HMAC, AES-256-GCM, the masks."""
    terms = make_terms(3)
    simulation = Simulation(terms)
    drawn: list[bytes] = []

    def draw(size: int) -> bytes:
        drawn.append(hashlib.shake_256(b"institution 1, draw %d" % len(drawn)).digest(size))
        return drawn[-1]

    simulation.participants[1] = Participant(terms, Signer(1), earlier=(), random_bytes=draw)
    simulation.keys()
    simulation.shares()
    mask_scalar, encryption_scalar, self_seed = drawn[:3]
    # A threshold of 3: two coefficients each, then one nonce for each neighbour.
    assert [len(value) for value in drawn] == [32, 32, 32, 48, 48, 48, 48, 12, 12]

    def hkdf(secret: bytes, info: bytes) -> bytes:
        extracted = hmac.digest(terms.ctx, secret, "sha256")
        return hmac.digest(extracted, info + b"\x01", "sha256")

    def agreed(scalar: bytes, public: bytes) -> bytes:
        return X25519PrivateKey.from_private_bytes(scalar).exchange(X25519PublicKey.from_public_bytes(public))

    def number(position: int) -> bytes:
        return position.to_bytes(8, "big")

    keys = {message.payload["position"]: message.payload for message in simulation.messages[Stage.KEYS]}
    mine = {name: from_hex(keys[1][name]) for name in ("mask", "encryption")}
    assert mine["mask"] == X25519PrivateKey.from_private_bytes(mask_scalar).public_key().public_bytes_raw()

    shared = simulation.messages[Stage.SHARES][0]
    assert shared.sender == ROSTER[0]
    assert from_hex(shared.payload["commitment"]) == sha256(b"rexis/secagg/self-seed/1\0" + terms.ctx + number(1) + self_seed)
    prime = 2**256 + 297
    polynomials = [
        [int.from_bytes(secret, "big"), *(int.from_bytes(value, "big") % prime for value in drawn[first : first + 2])]
        for secret, first in ((self_seed, 3), (mask_scalar, 5))
    ]
    parameters = keccak256(
        abi_encode(
            ["string", "bytes32", "address[]", "uint64[]"],
            ["rexis/secagg/parameters/1", terms.base_model, list(terms.roster), [1, 3, 3, 5, 32, 0]],
        )
    )
    record = keccak256(
        abi_encode(
            ["string", "bytes32", "bytes32", "bytes32", "uint64[]", "bytes32[]", "bytes32[]"],
            [
                "rexis/secagg/keys-record/1",
                terms.ctx,
                parameters,
                bytes(32),
                [1, 2, 3],
                [from_hex(keys[i]["mask"]) for i in (1, 2, 3)],
                [from_hex(keys[i]["encryption"]) for i in (1, 2, 3)],
            ],
        )
    )
    for entry in shared.payload["ciphertexts"]:
        to, sealed = ROSTER.index(entry["to"]) + 1, from_hex(entry["ciphertext"])
        theirs = from_hex(keys[to]["encryption"])
        info = b"rexis/secagg/share/1\0" + number(1) + number(to) + mine["encryption"] + theirs
        opened = AESGCM(hkdf(agreed(encryption_scalar, theirs), info)).decrypt(
            sealed[:12], sealed[12:], terms.ctx + number(1) + number(to) + record
        )
        points = [sum(c * to**power for power, c in enumerate(polynomial)) % prime for polynomial in polynomials]
        assert opened == points[0].to_bytes(33, "big") + points[1].to_bytes(33, "big")

    simulation.masked()
    masked = update_of(terms, 1)
    apply_mask(masked, self_seed, 1)
    for other in (2, 3):
        theirs = from_hex(keys[other]["mask"])
        info = b"rexis/secagg/mask/1\0" + number(1) + number(other) + mine["mask"] + theirs
        apply_mask(masked, hkdf(agreed(mask_scalar, theirs), info), 1)
    assert simulation.uploads[ROSTER[0]] == masked.tobytes()


def test_the_two_names_load_no_torch() -> None:
    script = "import sys; from rexis.secagg import Coordinator, Participant; print(*sorted({'torch', 'scipy', 'web3'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", script], cwd=Path(__file__).parents[2], capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
