"""The group key's documents and ciphertexts: whoever is meant opens them, and nobody's change goes through."""

from dataclasses import replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from rexis.chain.signer import LocalSigner
from rexis.encoding import canonical_json, checksum_address, to_hex
from rexis.errors import DigestMismatchError, InvalidShareError, MalformedMessageError, RexisError, SignatureError, UnexpectedMessageError
from rexis.protocol.federation_config import MAX_MEMBERS, FederationConfig, Member
from rexis.protocol.group_keys import (
    MAX_DEALING_BYTES,
    GroupKeyDealing,
    GroupKeyRecipient,
    GroupKeyShare,
    check_recipients,
    recipients_of,
)
from rexis.secagg import group_dealing
from rexis.secagg.group_dealing import deal_group_key, open_group_key
from rexis.secagg.key_agreement import exchange, public_key
from tests.services.federations_on_chain import config_of

CHAIN, REGISTRY = 31337, checksum_address("0x" + 20 * "a1")
SIGNERS = sorted((LocalSigner(bytes([n]) * 32) for n in range(1, 6)), key=lambda signer: signer.address.lower())
# The founder is no member.
FOUNDER, *MEMBERS = SIGNERS
CONFIG = config_of(MEMBERS, FOUNDER, "group keys")
ID = CONFIG.id(CHAIN, REGISTRY)
PRIVATE = {signer.address: X25519PrivateKey.from_private_bytes(bytes([9]) * 31 + bytes([n])) for n, signer in enumerate(SIGNERS)}
PUBLIC = {address: public_key(private) for address, private in PRIVATE.items()}
KEY = bytes(range(32))


def recipient(signer: LocalSigner, key: bytes, federation: bytes = ID) -> GroupKeyRecipient:
    made = GroupKeyRecipient(federation, signer.address, key)
    return made.signed(signer.sign_typed_data(made.typed_data(CHAIN, REGISTRY)))


def signed(dealing: GroupKeyDealing, by: LocalSigner = MEMBERS[1]) -> GroupKeyDealing:
    return dealing.signed(by.sign_typed_data(dealing.typed_data(CHAIN, REGISTRY)))


def dealt(**changes: Any) -> GroupKeyDealing:
    dealer = MEMBERS[1].address
    return signed(replace(deal_group_key(ID, dealer, PRIVATE[dealer], PUBLIC, KEY), **changes))


def test_everybody_who_is_meant_opens_the_same_key_from_the_documents_as_they_travel() -> None:
    documents = [GroupKeyRecipient.parse(recipient(signer, PUBLIC[signer.address]).document()) for signer in SIGNERS]
    assert check_recipients(documents, ID, CHAIN, REGISTRY) == PUBLIC
    dealing = GroupKeyDealing.parse(dealt().document())
    dealing.verify(CONFIG, CHAIN, REGISTRY)
    assert recipients_of(CONFIG) == tuple(signer.address for signer in SIGNERS)
    for signer in SIGNERS:
        assert open_group_key(dealing, signer.address, PRIVATE[signer.address]) == KEY
    # Of one key two dealings tell nothing in common: salts and nonces are fresh.
    assert KEY.hex() not in str(dealing.document())
    assert dealing.commitment != dealt().commitment
    most = replace(dealing, shares=dealing.shares[:1] * (MAX_MEMBERS + 1))
    assert len(canonical_json(most.document())) <= MAX_DEALING_BYTES


def test_nobody_opens_anothers_share_and_no_changed_one() -> None:
    dealing, (first, second, *rest) = dealt(), dealt().shares
    with pytest.raises(UnexpectedMessageError, match="another public key"):
        open_group_key(dealing, first.recipient, PRIVATE[second.recipient])
    swapped = replace(dealing, shares=(replace(first, sealed=second.sealed), second, *rest))
    broken = replace(dealing, shares=(replace(first, sealed=first.sealed[:-1] + bytes([first.sealed[-1] ^ 1])), second, *rest))
    # One with another commitment, another dealing, or of another federation: every part is authenticated with the key.
    elsewhere = replace(dealing, federation=bytes(32))
    committed = replace(dealing, commitment=bytes(32))
    for each in (swapped, broken, elsewhere, committed):
        with pytest.raises(InvalidShareError, match=dealing.dealer):
            open_group_key(each, first.recipient, PRIVATE[first.recipient])


def test_a_dealer_that_gives_one_recipient_another_key_than_it_committed_to_is_named() -> None:
    dealer, victim = MEMBERS[1].address, SIGNERS[0].address
    honest = deal_group_key(ID, dealer, PRIVATE[dealer], PUBLIC, KEY)
    # Who has the pair's key can make such a ciphertext; it is the dealer.
    key = group_dealing._pair_key(ID, exchange(PRIVATE[dealer], PUBLIC[victim]), dealer, victim, PUBLIC[dealer], PUBLIC[victim])
    associated = group_dealing._associated(ID, dealer, victim, honest.commitment)
    sealed = bytes(12) + group_dealing.AESGCM(key).encrypt(bytes(12), bytes(64), associated)
    shares = tuple(replace(share, sealed=sealed) if share.recipient == victim else share for share in honest.shares)
    with pytest.raises(DigestMismatchError, match=dealer):
        open_group_key(replace(honest, shares=shares), victim, PRIVATE[victim])


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        (lambda dealing: replace(dealing, commitment=bytes(32)), SignatureError),
        (lambda dealing: replace(dealing, shares=dealing.shares[::-1]), UnexpectedMessageError),
        (lambda dealing: signed(replace(dealing, shares=dealing.shares[1:])), UnexpectedMessageError),
        (lambda dealing: signed(replace(dealing, shares=dealing.shares[:1] + dealing.shares)), UnexpectedMessageError),
        (lambda dealing: signed(replace(dealing, federation=bytes(32))), UnexpectedMessageError),
        (lambda dealing: signed(dealing, MEMBERS[0]), SignatureError),
        (lambda dealing: signed(replace(dealing, dealer=FOUNDER.address), FOUNDER), UnexpectedMessageError),
        (lambda dealing: replace(dealing, signature=bytes(65)), SignatureError),
    ],
)
def test_a_dealing_to_others_or_by_others_is_refused(changed: Any, error: type[RexisError]) -> None:
    with pytest.raises(error):
        changed(dealt()).verify(CONFIG, CHAIN, REGISTRY)


def test_keys_that_were_not_signed_by_their_owners_are_refused() -> None:
    first, key = SIGNERS[0], PUBLIC[SIGNERS[0].address]
    good = recipient(first, key)
    for bad, error in (
        ([replace(good, public_key=PUBLIC[SIGNERS[1].address])], SignatureError),
        ([replace(good, recipient=SIGNERS[1].address)], SignatureError),
        ([recipient(first, key, bytes(32))], UnexpectedMessageError),
        ([good, recipient(first, PUBLIC[SIGNERS[1].address])], UnexpectedMessageError),
    ):
        with pytest.raises(error):
            check_recipients(bad, ID, CHAIN, REGISTRY)
    with pytest.raises(SignatureError):
        check_recipients([good], ID, CHAIN + 1, REGISTRY)
    with pytest.raises(MalformedMessageError, match="large order"):
        deal_group_key(ID, first.address, PRIVATE[first.address], {**PUBLIC, SIGNERS[1].address: bytes(32)}, KEY)


@pytest.mark.parametrize("name", ["version", "federation", "dealer", "commitment", "shares", "signature"])
@pytest.mark.parametrize("value", [None, True, 2, "0x", "é", [], {}, [{}], to_hex(bytes(93)), {"recipient": 1}])
def test_a_hostile_dealing_is_malformed_and_nothing_else(name: str, value: Any) -> None:
    document = dealt().document()
    for bad in ({**document, name: value}, {key: each for key, each in document.items() if key != name}, {**document, "more": value}):
        with pytest.raises(MalformedMessageError):
            GroupKeyDealing.parse(bad)
    share = document["shares"][0]
    for field in share:
        with pytest.raises(MalformedMessageError):
            GroupKeyShare.parse({**share, field: value})
    with pytest.raises(MalformedMessageError):
        GroupKeyRecipient.parse({**recipient(SIGNERS[0], KEY).document(), "public_key": value})


def test_a_founder_who_is_a_member_gets_one_share() -> None:
    config: FederationConfig = replace(CONFIG, founder=MEMBERS[0].address)
    assert recipients_of(config) == config.roster
    assert Member(MEMBERS[0].address, 1) in config.members
