"""Agreement on a group key: by the aggregator's own tables and API, and by agents whose aggregator stops, dies or lies."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from sqlalchemy import func, select

from rexis.agent.federation.founding import FederationPlan
from rexis.agent.federation.group_keys import PATIENCE_S, GroupKeys, group_key
from rexis.agent.federation.registry import Registry
from rexis.agent.journal import Journal
from rexis.chain.signer import LocalSigner
from rexis.encoding import to_hex
from rexis.errors import RexisError, UnexpectedMessageError
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.group_keys import GroupKeyDealing, GroupKeyRecipient
from rexis.secagg.group_dealing import deal_group_key
from rexis.secagg.key_agreement import public_key
from services.aggregator.models import FederationAggregator, GroupKeyDealingRow
from services.foundation.database import migrate, open_engine, transaction
from services.foundation.objects import open_store
from tests.services.aggregator_rows import StandingFederation
from tests.services.federation_stand_in import CHAIN_ID, FOUNDER, PASSPHRASE, Hospital, Line, StandIn, config_of
from tests.services.service_applications import authorised, client_of, settings_for

OWNER, PEER, STRANGER = (LocalSigner.generate() for _ in range(3))


@dataclass
class Desk:
    """The aggregator's API before a standing federation, which PEER aggregates for as well."""

    federation: StandingFederation
    settings: Any
    client: Any
    engine: Any

    def call(self, method: str, path: str, by: LocalSigner, document: Any = None) -> int:
        url, headers = f"/v1/federations/{self.federation.id}/group-key{path}", authorised(self.settings, by)
        status: int = self.client.request(method, url, json=document, headers=headers).status_code
        return status

    def publish(self, recipient: GroupKeyRecipient, by: LocalSigner) -> int:
        return self.call("PUT", "/recipient", by, recipient.document())

    def deal(self, dealing: GroupKeyDealing, by: LocalSigner) -> int:
        return self.call("PUT", "/dealing", by, dealing.document())


@pytest.fixture
def desk(tmp_path: Path, sqlite_template: Path) -> Iterator[Desk]:
    settings = settings_for("aggregator", f"sqlite:///{tmp_path / 'desk.sqlite'}", object_store_url=f"file://{tmp_path / 'objects'}")
    engine, federation = open_engine(settings.database_url), StandingFederation(OWNER)
    migrate(engine, "services.aggregator")
    with transaction(engine) as session:
        federation.add(session, open_store(settings.object_store_url))
        session.add(FederationAggregator(federation_id=federation.id, address=PEER.address))
    with client_of(settings) as client:
        yield Desk(federation, settings, client, engine)
    engine.dispose()


def test_members_and_founder_alone_reach_the_documents(desk: Desk) -> None:
    federation = desk.federation
    other = next(member for member in federation.members if member is not OWNER)
    own, dealing = federation.recipients[OWNER.address], federation.dealing(OWNER)
    # Everybody else: to an aggregator of the federation it is closed, to strangers (auditors among them) it does not exist.
    for who, status in ((PEER, 403), (STRANGER, 404)):
        assert desk.call("GET", "", who) == status
        assert desk.publish(own, who) == desk.publish(federation.recipient(who, own.public_key), who) == status
        assert desk.deal(dealing, who) == status
    # A member acts for itself.
    assert desk.publish(own, other) == 401
    assert desk.deal(dealing, OWNER) == 409, "the owner has published no key yet"
    assert desk.publish(own, OWNER) == desk.publish(own, OWNER) == 204
    assert desk.publish(federation.recipient(OWNER, public_key(X25519PrivateKey.generate())), OWNER) == 409
    assert desk.deal(dealing, other) == 401


def test_the_first_complete_dealing_counts_and_no_other(desk: Desk) -> None:
    federation = desk.federation
    other = next(member for member in federation.members if member is not OWNER)
    assert desk.publish(federation.recipients[OWNER.address], OWNER) == 204
    assert desk.publish(federation.recipient(OWNER, bytes(32)), OWNER) == 422
    dealing = federation.dealing(OWNER)
    members = [member.address for member in federation.members]
    for bad, status in (
        (federation.dealing(OWNER, among={OWNER.address}), 409),
        (replace(dealing, commitment=bytes(32)), 401),
        (replace(dealing, federation=bytes(32)), 409),
    ):
        assert desk.deal(bad, OWNER) == status, bad
    keys = {who: public_key(X25519PrivateKey.generate()) for who in members}
    private = X25519PrivateKey.generate()
    unpublished = deal_group_key(dealing.federation, OWNER.address, private, {**keys, OWNER.address: public_key(private)}, bytes(32))
    typed = unpublished.typed_data(federation.registry.chain_id, federation.registry.address)
    assert desk.deal(unpublished.signed(OWNER.sign_typed_data(typed)), OWNER) == 409
    assert desk.deal(dealing, OWNER) == desk.deal(dealing, OWNER) == 204
    assert desk.deal(federation.dealing(other), other) == desk.deal(federation.dealing(OWNER), OWNER) == 409
    with transaction(desk.engine, read_only=True) as session:
        assert session.scalar(select(func.count()).select_from(GroupKeyDealingRow)) == 1
        kept = session.get_one(GroupKeyDealingRow, federation.id)
    assert (kept.dealer, kept.document) == (OWNER.address, dealing.document())


class Agreement:
    """Four hospitals and a founder who is none of them, before the stand-in, with a clock of their own."""

    def __init__(self, stand_in: StandIn, hospitals: list[Hospital], folder: Path) -> None:
        self.stand_in, self.hospitals, self.now = stand_in, hospitals, 0.0
        plain = FederationConfig.parse(config_of(hospitals, "training"))
        self.config = replace(plain, group_pad=True)
        self.federation = stand_in.found(FederationPlan(self.config, seed=3))
        self.journal = Journal.open(folder / "founder.sqlite", PASSPHRASE, work_factor=2)
        self.line = Line(stand_in, FOUNDER.address)

    def party(self, who: int | None) -> tuple[GroupKeys, Journal]:
        """Group keys of a hospital, or of the founder, as after a start."""
        registry = Registry(self.stand_in.chain)
        if who is None:
            return GroupKeys(self.journal, FOUNDER, registry, self.line, clock=lambda: self.now), self.journal
        hospital = self.hospitals[who]
        return GroupKeys(hospital.journal, hospital.signer, registry, hospital.line, clock=lambda: self.now), hospital.journal

    def agree(self, *who: int | None) -> list[bytes | None]:
        return [self.party(each)[0].agree(self.federation, self.config) for each in who]

    def keys(self) -> list[bytes | None]:
        return [group_key(self.party(each)[1], self.federation) for each in (0, 1, 2, 3, None)]


@pytest.fixture
def agreement(stand_in: StandIn, hospitals: list[Hospital], tmp_path: Path) -> Iterator[Agreement]:
    made = Agreement(stand_in, hospitals, tmp_path)
    yield made
    made.journal.close()


def test_members_and_founder_come_to_one_key_which_the_aggregator_has_in_no_form(agreement: Agreement) -> None:
    assert agreement.agree(2, 1, 0, None, 3) == [None] * 5
    # All have published now, and the first of the roster deals.
    (key,) = agreement.agree(0)
    assert key is not None
    assert agreement.agree(1, 2, 3, None) == [key] * 4 == agreement.keys()[1:]
    shown = str(agreement.stand_in.group_keys) + str(agreement.stand_in.received)
    assert key.hex() not in shown
    assert key not in (agreement.hospitals[1].journal_file).read_bytes()
    # What could open it again is gone.
    rows = agreement.hospitals[1].journal.rows("SELECT sealed_private, dealing FROM group_key")
    assert [tuple(row) for row in rows] == [(None, None)]


def test_whoever_is_away_is_waited_for_and_another_member_deals_when_the_first_does_not_come_back(agreement: Agreement) -> None:
    assert agreement.agree(0, 1, 2, 3, 3) == [None] * 5, "the founder's key is missing"
    agreement.agree(None, 3, 1)
    agreement.now += PATIENCE_S * 0.9
    assert agreement.agree(3, 1) == [None] * 2
    # Who restarted begins to wait anew; the objects that watched the clock are the agents'.
    parties = {who: agreement.party(who)[0] for who in (1, 3)}
    for each in parties.values():
        assert each.agree(agreement.federation, agreement.config) is None
    agreement.now += PATIENCE_S * 1.1
    assert parties[3].agree(agreement.federation, agreement.config) is None
    key = parties[1].agree(agreement.federation, agreement.config)
    assert key is not None
    assert agreement.agree(0, 2, 3, None) == [key] * 4


@pytest.mark.parametrize("put", range(6))
def test_killed_between_writing_and_sending_the_same_documents_go_out(agreement: Agreement, put: int) -> None:
    """The `put`-th document of all never leaves at first; everybody starts again and sends what was stored."""
    sent: list[bytes] = []
    counter = itertools.count()

    def dies(method: str, path: str, content: bytes | None) -> None:
        if method == "PUT" and next(counter) == put:
            assert content is not None
            sent.append(content)
            raise ConnectionError("killed")

    for each in (*(hospital.line for hospital in agreement.hospitals), agreement.line):
        each.before = dies
    for who in (0, 1, 2, 3, None, 0, 1, 2, 3, None):
        try:
            agreement.agree(who)
        except ConnectionError:
            continue
    agreement.agree(0, 1, 2, 3, None)
    keys = set(agreement.keys())
    assert len(keys) == 1
    assert None not in keys
    # What was to leave when it died is what is there now, byte for byte.
    stored = agreement.stand_in.group_keys[agreement.federation]
    assert sent[0] in {*stored.recipients.values(), stored.dealing}


def test_an_aggregator_that_shows_others_documents_gets_nothing_opened(agreement: Agreement) -> None:
    agreement.agree(0, 1, 2, 3, None)
    (key,) = agreement.agree(0)
    attacker = X25519PrivateKey.generate()

    def forged(view: Any) -> Any:
        return {**view, "dealing": {**view["dealing"], "commitment": to_hex(bytes(32))}}

    def dealt_by_the_aggregator(view: Any) -> Any:
        from tests.services.federation_stand_in import AGGREGATOR

        keys = {each["recipient"]: bytes.fromhex(each["public_key"][2:]) for each in view["recipients"]}
        made = deal_group_key(
            agreement.federation, AGGREGATOR.address, attacker, {**keys, AGGREGATOR.address: public_key(attacker)}, bytes(32)
        )
        typed = made.typed_data(CHAIN_ID, agreement.stand_in.registry)
        return {**view, "dealing": made.signed(AGGREGATOR.sign_typed_data(typed)).document()}

    for lie in (forged, dealt_by_the_aggregator):
        agreement.stand_in.lies["/group-key"] = lie
        with pytest.raises(RexisError):
            agreement.agree(1)
        assert agreement.keys()[1] is None
    agreement.stand_in.lies.clear()
    assert agreement.agree(1) == [key]
    # Once it has a key, a member asks for none again.
    agreement.stand_in.lies["/group-key"] = dealt_by_the_aggregator
    assert agreement.agree(1) == [key]


def test_an_aggregator_that_puts_its_own_key_in_a_members_place_gets_no_dealing(agreement: Agreement) -> None:
    agreement.agree(0, 1, 2, 3, None)
    mine = to_hex(public_key(X25519PrivateKey.generate()))

    def swapped(view: Any) -> Any:
        first, *others = view["recipients"]
        return {**view, "recipients": [{**first, "public_key": mine}, *others]}

    agreement.stand_in.lies["/group-key"] = swapped
    with pytest.raises(RexisError):
        agreement.agree(0)
    assert agreement.stand_in.group_keys[agreement.federation].dealing is None


def test_who_is_to_have_no_key_publishes_none(agreement: Agreement) -> None:
    plain = replace(agreement.config, group_pad=False)
    with pytest.raises(UnexpectedMessageError, match="no group key"):
        agreement.party(0)[0].publish(agreement.federation, plain)
    outside = replace(agreement.config, founder=agreement.hospitals[0].signer.address)
    with pytest.raises(UnexpectedMessageError, match="no group key"):
        agreement.party(None)[0].publish(agreement.federation, outside)
