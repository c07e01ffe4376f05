"""Malicious institutions: wrong shares, bad keys, other vectors than announced. They are refused or named, and learn nothing."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from rexis.encoding import from_hex, to_hex
from rexis.errors import (
    BelowThresholdError,
    DigestMismatchError,
    EquivocationError,
    InvalidShareError,
    MalformedMessageError,
    SignatureError,
    UnexpectedMessageError,
)
from rexis.protocol.secagg_messages import Envelope, Stage
from rexis.secagg import shamir
from tests.unit.secagg_rounds import (
    ROSTER,
    Simulation,
    chunked,
    forged,
    make_terms,
    noted_signatures,
    plain_sum,
    randomised_signature,
    resigned,
)

# u-coordinates of the points of order 1, 2, 4 and 8 (RFC 7748 section 6.1, and https://cr.yp.to/ecdh.html#validate), little-endian.
SMALL_ORDER = [
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    (2**255 - 20).to_bytes(32, "little"),
]
NOT_CANONICAL = [number.to_bytes(32, "little") for number in (2**255 - 19, 2**255 - 10, 2**255 + 9, 2**256 - 1)]


@pytest.fixture(scope="module", autouse=True)
def _noted_signatures() -> Iterator[None]:
    with noted_signatures():
        yield


def answered(n: int, dropped: frozenset[int] = frozenset(), **changes: Any) -> tuple[Simulation, dict[int, Envelope]]:
    """A round up to the answers, which are not delivered yet."""
    simulation = Simulation(make_terms(n, **changes))
    simulation.keys()
    simulation.shares()
    simulation.masked(set(simulation.everybody) - dropped)
    simulation.survivors(simulation.everybody)
    consents = simulation.messages[Stage.SURVIVORS]
    return simulation, {i: simulation.participants[i].unmask(consents) for i in simulation.everybody}


def position_of(address: str) -> int:
    return ROSTER.index(address) + 1


def wrong(answer: Envelope, position: int, *, of: int | None = None) -> Envelope:
    """The answer with wrong shares, of everybody or of one."""

    spoilt = to_hex((12345).to_bytes(shamir.SHARE_SIZE, "big"))

    def spoil(entries: list[dict[str, str]]) -> list[dict[str, str]]:
        return [entry | {"share": spoilt} if of in (None, position_of(entry["of"])) else entry for entry in entries]

    return resigned(answer, position, self=spoil(answer.payload["self"]), pairwise=spoil(answer.payload["pairwise"]))


@pytest.mark.parametrize("liar", [1, 3, 5])
def test_a_site_with_wrong_shares_is_outvoted_and_named(liar: int) -> None:
    dropped = frozenset({2})
    simulation, answers = answered(5, dropped)
    for i, answer in answers.items():
        simulation.coordinator.receive(wrong(answer, i) if i == liar else answer)
    assert np.array_equal(simulation.opened(), plain_sum(simulation.terms, {1, 3, 4, 5}))
    assert simulation.coordinator.wrong_shares == tuple((ROSTER[liar - 1], ROSTER[i - 1]) for i in (1, 2, 3, 4, 5))


def test_one_wrong_share_among_right_ones_is_found() -> None:
    simulation, answers = answered(5)
    for i, answer in answers.items():
        simulation.coordinator.receive(wrong(answer, i, of=4) if i == 2 else answer)
    assert np.array_equal(simulation.opened(), plain_sum(simulation.terms, simulation.everybody))
    assert simulation.coordinator.wrong_shares == ((ROSTER[1], ROSTER[3]),)


def test_shares_outside_the_field_are_wrong_shares() -> None:
    simulation, answers = answered(5)
    outside = to_hex(b"\xff" * shamir.SHARE_SIZE)
    spoilt = resigned(answers[1], 1, self=[{"of": entry["of"], "share": outside} for entry in answers[1].payload["self"]])
    for i, answer in answers.items():
        simulation.coordinator.receive(spoilt if i == 1 else answer)
    assert np.array_equal(simulation.opened(), plain_sum(simulation.terms, simulation.everybody))
    assert {holder for holder, _ in simulation.coordinator.wrong_shares} == {ROSTER[0]}


def test_more_wrong_shares_than_spare_answers_end_the_attempt() -> None:
    simulation, answers = answered(5)
    for i, answer in answers.items():
        simulation.coordinator.receive(wrong(answer, i) if i in (1, 2) else answer)
    (masked_sum,) = simulation.coordinator.masked_sums()
    for address, data in simulation.uploads.items():
        masked_sum.add(address, [data])
    with pytest.raises(InvalidShareError, match="no 4 of 5 shares") as caught:
        simulation.coordinator.unmask([masked_sum])
    assert caught.value.dealer == ROSTER[0]
    # Nothing is half opened.
    assert simulation.coordinator.phase == "unmask"
    total = np.zeros(5, "<u4")
    for data in simulation.uploads.values():
        total += np.frombuffer(data, "<u4")
    assert np.array_equal(masked_sum.take(), total)


@pytest.mark.parametrize("survives", [False, True])
def test_a_dealer_who_commits_to_another_secret_is_named(survives: bool) -> None:
    simulation = Simulation(make_terms(4))
    keys = simulation.keys()
    shares = {i: simulation.participants[i].share(keys) for i in simulation.everybody}
    shares[3] = resigned(shares[3], 3, commitment=to_hex(bytes(32)))
    for message in shares.values():
        simulation.coordinator.receive(message)
    simulation.messages[Stage.SHARES] = list(simulation.coordinator.close_shares())
    # Its machine is its own: it remembers what it sent.
    simulation.participants[3]._state.sent[Stage.SHARES] = shares[3]
    survivors = {1, 2, 3, 4} if survives else {1, 2, 4}
    simulation.masked(survivors)
    simulation.survivors()
    if survives:
        with pytest.raises(InvalidShareError, match="committed to") as caught:
            simulation.unmask()
        assert caught.value.dealer == ROSTER[2]
    else:
        # Of a dropped site the mask key is rebuilt, which its public key checks.
        assert np.array_equal(simulation.unmask(), plain_sum(simulation.terms, survivors))


def test_a_damaged_ciphertext_accuses_its_dealer() -> None:
    simulation = Simulation(make_terms(4))
    simulation.keys()
    shares = simulation.shares()
    entries = [dict(entry) for entry in shares[2].payload["ciphertexts"]]
    for entry in entries:
        if entry["to"] == ROSTER[0]:
            sealed = bytearray(from_hex(entry["ciphertext"]))
            sealed[20] ^= 1
            entry["ciphertext"] = to_hex(bytes(sealed))
    damaged = resigned(shares[2], 3, ciphertexts=entries)
    before = simulation.participants[1].state()
    with pytest.raises(InvalidShareError, match="does not open") as caught:
        simulation.participants[1].open_shares([*shares[:2], damaged, shares[3]])
    assert caught.value.dealer == ROSTER[2]
    assert simulation.participants[1].state() == before
    # The others' are fine: what was dealt to them is not touched.
    simulation.participants[2].open_shares([*shares[:2], damaged, shares[3]])


def test_shares_for_others_than_the_neighbours_are_refused() -> None:
    simulation = Simulation(make_terms(4))
    keys = simulation.keys()
    share = simulation.participants[2].share(keys)
    entries = share.payload["ciphertexts"]
    stranger = sorted([*entries, {"to": ROSTER[9], "ciphertext": entries[0]["ciphertext"]}], key=lambda entry: str(entry["to"]).lower())
    himself = sorted([*entries, {"to": ROSTER[1], "ciphertext": entries[0]["ciphertext"]}], key=lambda entry: str(entry["to"]).lower())
    others = [simulation.participants[i].share(keys) for i in (1, 3, 4)]
    for ciphertexts in (entries[:2], [], stranger, himself):
        bad = resigned(share, 2, ciphertexts=ciphertexts)
        with pytest.raises(MalformedMessageError, match="for each of its 3 neighbours"):
            simulation.coordinator.receive(bad)
        with pytest.raises(MalformedMessageError, match="for each of its 3 neighbours"):
            simulation.participants[1].open_shares([bad, *others])


@pytest.mark.parametrize("key", [*SMALL_ORDER, *NOT_CANONICAL], ids=lambda key: key[:4].hex())
@pytest.mark.parametrize("field", ["mask", "encryption"])
def test_keys_that_agree_on_a_known_secret_are_refused(key: bytes, field: str) -> None:
    simulation = Simulation(make_terms(3))
    messages = [simulation.participants[i].announce_keys() for i in simulation.everybody]
    bad = resigned(messages[2], 3, **{field: to_hex(key)})
    with pytest.raises(MalformedMessageError, match="public key"):
        simulation.coordinator.receive(bad)
    with pytest.raises(MalformedMessageError, match="public key"):
        simulation.participants[1].share([*messages[:2], bad])


def test_copied_and_misplaced_keys_are_refused() -> None:
    simulation = Simulation(make_terms(3))
    messages = [simulation.participants[i].announce_keys() for i in simulation.everybody]
    simulation.coordinator.receive(messages[0])
    for payload in (
        {"mask": messages[0].payload["mask"]},
        {"encryption": messages[0].payload["encryption"]},
        {"mask": messages[0].payload["encryption"]},
        {"position": 2},
    ):
        bad = resigned(messages[2], 3, **payload)
        with pytest.raises(MalformedMessageError, match=r"expected fresh keys|has position 3"):
            simulation.coordinator.receive(bad)
        with pytest.raises(MalformedMessageError, match=r"one key twice|has position 3"):
            simulation.participants[1].share([*messages[:2], bad])
    for_both = resigned(messages[2], 3, mask=messages[2].payload["encryption"])
    with pytest.raises(MalformedMessageError, match="for both uses"):
        simulation.participants[1].share([*messages[:2], for_both])
    with pytest.raises(MalformedMessageError, match="for both uses"):
        simulation.coordinator.receive(for_both)


def test_one_message_for_each_stage() -> None:
    """A site cannot take back what it sent, whatever it signs afterwards."""
    simulation, answers = answered(4)
    coordinator = simulation.coordinator
    for answer in answers.values():
        coordinator.receive(answer)
    before = coordinator.state()
    changed = {
        Stage.KEYS: {"mask": to_hex(b"\x09" + bytes(31))},
        Stage.SHARES: {"commitment": to_hex(bytes(32))},
        Stage.MASKED: {"digest": to_hex(bytes(32))},
        Stage.SURVIVORS: {"masked": to_hex(bytes(32))},
        Stage.UNMASK: {"survivors": to_hex(bytes(32))},
    }
    for message in simulation.participants[2].sent:
        with pytest.raises(EquivocationError, match="the first one counts"):
            coordinator.receive(resigned(message, 2, **changed[message.stage]))
        coordinator.receive(message)
    assert coordinator.state() == before


def test_signing_the_same_twice_is_no_second_message() -> None:
    """Keys in a vault may sign with random nonces: the same contents come with another signature, and the first one stays."""
    simulation = Simulation(make_terms(3))
    message = simulation.participants[1].announce_keys()
    simulation.coordinator.receive(message)
    before = simulation.coordinator.state()
    again = replace(message, signature=randomised_signature(message, 1))
    assert again.signature != message.signature
    simulation.coordinator.receive(again)
    assert simulation.coordinator.state() == before
    # Which is not to say that it is not checked.
    with pytest.raises(SignatureError):
        simulation.coordinator.receive(forged(message))
    keys = [again, *(simulation.participants[i].announce_keys() for i in (2, 3))]
    assert simulation.participants[1].share([message, *keys]).stage is Stage.SHARES


@pytest.mark.parametrize("payload", [{"length": 6}, {"length": 4}, {"bits": 64}])
def test_vectors_of_another_shape_are_refused(payload: dict[str, int]) -> None:
    simulation = Simulation(make_terms(3))
    simulation.keys()
    simulation.shares()
    simulation.open()
    masked = [simulation.upload(i) for i in simulation.everybody]
    bad = resigned(masked[2], 3, **payload)
    with pytest.raises(MalformedMessageError, match="expected 5 entries of 32 bits"):
        simulation.coordinator.receive(bad)
    with pytest.raises(MalformedMessageError, match="expected 5 entries of 32 bits"):
        simulation.participants[1].consent([*masked[:2], bad])


def test_only_due_answers_are_taken() -> None:
    """Shares of fewer, more or other participants, or for another survivor set."""
    simulation, answers = answered(4, frozenset({4}))
    answer = answers[1]
    own, pairwise = answer.payload["self"], answer.payload["pairwise"]
    assert (len(own), len(pairwise)) == (3, 1)
    for payload in (
        {"self": own[:2]},
        {"pairwise": []},
        {"self": own[:2], "pairwise": sorted([own[2], *pairwise], key=lambda entry: str(entry["of"]).lower())},
        {"self": pairwise, "pairwise": own},
        {"survivors": to_hex(bytes(32))},
    ):
        with pytest.raises(UnexpectedMessageError):
            simulation.coordinator.receive(resigned(answer, 1, **payload))
    simulation.coordinator.receive(answer)


def test_consents_to_another_set_are_refused() -> None:
    simulation = Simulation(make_terms(4))
    simulation.keys()
    simulation.shares()
    masked = simulation.masked()
    consent = simulation.participants[4].consent(masked[:3])
    with pytest.raises(EquivocationError, match="views of this round differ"):
        simulation.coordinator.receive(consent)
    assert len(simulation.coordinator.awaited) == 4


@pytest.mark.parametrize("damage", ["changed", "short", "long", "ragged", "empty"])
def test_an_upload_that_is_not_what_was_signed_spoils_nothing_that_counts(damage: str) -> None:
    """The sum is void, and made again from the stored uploads; nothing of a broken one can be taken."""
    simulation = Simulation(make_terms(4))
    simulation.keys()
    simulation.shares()
    simulation.masked()
    simulation.survivors()
    for participant in simulation.participants.values():
        simulation.coordinator.receive(participant.unmask(simulation.messages[Stage.SURVIVORS]))
    right = simulation.uploads[ROSTER[1]]
    wrong_bytes = {
        "changed": right[:-1] + bytes([right[-1] ^ 1]),
        "short": right[:-4],
        "long": right + bytes(4),
        "ragged": right[:-1],
        "empty": b"",
    }[damage]
    (masked_sum,) = simulation.coordinator.masked_sums()
    masked_sum.add(ROSTER[0], [simulation.uploads[ROSTER[0]]])
    with pytest.raises((DigestMismatchError, MalformedMessageError)):
        masked_sum.add(ROSTER[1], chunked(wrong_bytes, 3))
    for act in (lambda: masked_sum.add(ROSTER[2], [simulation.uploads[ROSTER[2]]]), lambda: simulation.coordinator.unmask([masked_sum])):
        with pytest.raises(UnexpectedMessageError, match="void"):
            act()
    assert np.array_equal(simulation.opened(), plain_sum(simulation.terms, simulation.everybody))


def test_a_reader_that_dies_in_the_middle_leaves_no_trace() -> None:
    simulation = Simulation(make_terms(3))
    simulation.keys()
    simulation.shares()
    simulation.masked()

    def dying() -> Iterator[bytes]:
        yield simulation.uploads[ROSTER[1]][:8]
        raise OSError("connection reset")

    (masked_sum,) = simulation.coordinator.masked_sums()
    with pytest.raises(OSError, match="connection reset"):
        masked_sum.add(ROSTER[1], dying())
    with pytest.raises(UnexpectedMessageError, match="void"):
        masked_sum.add(ROSTER[0], [simulation.uploads[ROSTER[0]]])


def test_only_survivors_and_each_once_are_summed() -> None:
    simulation = Simulation(make_terms(4))
    simulation.keys()
    simulation.shares()
    simulation.open()
    simulation.upload(4)
    simulation.masked({1, 2, 3})
    (masked_sum,) = simulation.coordinator.masked_sums()
    with pytest.raises(UnexpectedMessageError, match="not a survivor"):
        masked_sum.add(ROSTER[3], [simulation.uploads[ROSTER[3]]])
    for _ in range(2):
        masked_sum.add(ROSTER[0], [simulation.uploads[ROSTER[0]]])
    assert masked_sum.missing == (ROSTER[1], ROSTER[2])
    with pytest.raises(UnexpectedMessageError, match="not in the sum yet"):
        masked_sum.take()
    for i in (2, 3):
        masked_sum.add(ROSTER[i - 1], [simulation.uploads[ROSTER[i - 1]]])
    simulation.survivors()
    assert np.array_equal(simulation.unmask(), plain_sum(simulation.terms, {1, 2, 3}))
    assert np.array_equal(simulation.coordinator.unmask([masked_sum])[0], plain_sum(simulation.terms, {1, 2, 3}))
    with pytest.raises(UnexpectedMessageError, match="void"):
        masked_sum.take()


def test_too_few_answers_reveal_nothing_and_may_be_completed() -> None:
    simulation, answers = answered(4)
    coordinator = simulation.coordinator
    for i in (1, 2):
        coordinator.receive(answers[i])
    with pytest.raises(BelowThresholdError):
        simulation.opened()
    coordinator.receive(answers[4])
    assert np.array_equal(simulation.opened(), plain_sum(simulation.terms, simulation.everybody))
