"""What members state about a padded sum, by the aggregator's own tables and API: who may, what is counted, and who is named."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from rexis.chain.signer import LocalSigner
from rexis.encoding import to_hex
from rexis.errors import MalformedMessageError
from rexis.protocol.member_results import NO_RESULT, MemberResult
from services.aggregator import attempts, member_results, opened_sums
from services.aggregator.attempts import Phase
from services.aggregator.member_results import Tally
from services.aggregator.models import Attempt, Federation, FederationAggregator, OpenedSum
from services.foundation.database import migrate, open_engine, transaction
from services.foundation.objects import open_store
from tests.services.aggregator_rows import StandingFederation
from tests.services.service_applications import authorised, client_of, settings_for

OWNER, PEER, STRANGER = (LocalSigner.generate() for _ in range(3))


@dataclass
class Desk:
    """The aggregator's API before a standing federation whose attempt 4 waits for results; PEER aggregates for it as well."""

    federation: StandingFederation
    settings: Any
    client: Any
    engine: Any

    def put(self, result: MemberResult, by: LocalSigner, attempt: int = 4) -> int:
        url = f"/v1/federations/{self.federation.id}/rounds/1/attempts/{attempt}/results"
        status: int = self.client.put(url, json=result.document(), headers=authorised(self.settings, by)).status_code
        return status

    def get(self, path: str, by: LocalSigner) -> Any:
        url = f"/v1/federations/{self.federation.id}{path}"
        return self.client.get(url, headers=authorised(self.settings, by))

    def result(self, by: LocalSigner, **changes: Any) -> MemberResult:
        made = replace(self.federation.result, member=by.address, **changes)
        return made.signed(by.sign_typed_data(made.typed_data(self.federation.registry.chain_id, self.federation.registry.address)))

    def tally(self) -> Tally:
        with transaction(self.engine, read_only=True) as session:
            attempt = session.get_one(Attempt, (self.federation.id, 1, 4))
            return member_results.tally(session, session.get_one(Federation, self.federation.id), attempt)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    settings = settings_for("aggregator", f"sqlite:///{tmp_path / 'desk.sqlite'}", object_store_url=f"file://{tmp_path / 'objects'}")
    engine, federation = open_engine(settings.database_url), StandingFederation(OWNER)
    migrate(engine, "services.foundation")
    migrate(engine, "services.aggregator")
    with transaction(engine) as session:
        federation.add(session, open_store(settings.object_store_url))
        session.add(FederationAggregator(federation_id=federation.id, address=PEER.address))
        attempt = session.get_one(Attempt, (federation.id, 1, 4))
        attempt.survivors_hash, attempt.aggregate = (to_hex(digest) for digest in federation.result.said[:2])
    with client_of(settings) as client:
        yield Desk(federation, settings, client, engine)
    engine.dispose()


def test_each_member_states_one_result_for_itself_and_nobody_else_does(desk: Desk) -> None:
    own, other = desk.federation.result, next(member for member in desk.federation.members if member is not OWNER)
    # An aggregator sees what was stated, and states nothing; strangers, auditors among them, see nothing.
    for who, status in ((PEER, 403), (STRANGER, 404)):
        assert desk.put(own, who) == desk.put(desk.result(who), who) == status
    assert desk.get("/rounds/1/attempts/4/results", PEER).json() == {"items": []}
    assert desk.put(own, other) == 401
    assert desk.put(replace(own, model=bytes(32)), OWNER) == 401, "signed for another model"
    assert desk.put(desk.result(OWNER, attempt=3), OWNER) == 401, "about another attempt"
    assert desk.put(desk.result(OWNER, attempt=2), OWNER, attempt=2) == 409, "its sum is not open"
    assert desk.put(own, OWNER) == desk.put(own, OWNER) == 204
    assert desk.put(desk.result(OWNER, model=bytes(32)), OWNER) == 409
    shown = desk.get("/rounds/1/attempts/4/results", other).json()["items"]
    assert shown == [own.document()]
    for name in own.document():
        for value in (None, 1.5, [], "0x", "é"):
            with pytest.raises(MalformedMessageError):
                MemberResult.parse({**own.document(), name: value})


def test_a_threshold_of_one_statement_counts_and_whoever_says_something_else_is_named(desk: Desk) -> None:
    first, second, third, fourth = desk.federation.members
    assert desk.put(desk.result(first), first) == 204
    assert desk.put(desk.result(second, group_key=bytes(32)), second) == 204
    found = desk.tally()
    assert (found.agreed, found.is_hopeless) == (None, False), "the two who are silent may agree with the first"
    assert desk.put(desk.result(third), third) == 204
    assert desk.tally().agreed is None
    assert desk.put(desk.result(fourth), fourth) == 204
    agreed = desk.tally().agreed
    assert agreed is not None
    assert agreed.said == desk.federation.result.said


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        ({"group_key": bytes(32)}, "with the group key 0x0000"),
        ({"aggregate": bytes(32)}, "in the sum 0x0000"),
        ({"model": NO_RESULT, "metrics": NO_RESULT}, "no model that honest sites can have made"),
    ],
)
def test_two_against_two_end_the_attempt_with_everybody_s_word(desk: Desk, odd: dict[str, bytes], words: str) -> None:
    for number, member in enumerate(desk.federation.members):
        assert desk.put(desk.result(member, **(odd if number % 2 else {})), member) == 204
    found = desk.tally()
    assert (found.agreed, found.is_hopeless) == (None, True)
    assert words in found.reason
    assert all(member.address in found.reason for member in desk.federation.members)


@pytest.mark.parametrize("wrong", [{"model": NO_RESULT}, {"aggregate": bytes(32)}, {"survivors_hash": bytes(32)}])
def test_members_who_agree_on_another_sum_or_on_none_finalise_nothing(desk: Desk, wrong: dict[str, bytes]) -> None:
    for member in desk.federation.members[:3]:
        assert desk.put(desk.result(member, **wrong), member) == 204
    assert (desk.tally().agreed, desk.tally().is_hopeless) == (None, True)


def test_an_opened_sum_is_shown_while_it_counts_and_deleted_when_it_does_not(desk: Desk) -> None:
    path, store = "/rounds/1/attempts/4/sum", open_store(desk.settings.object_store_url)
    assert desk.get(path, OWNER).content == desk.get(path, PEER).content == b"sum"
    assert desk.get(path, STRANGER).status_code == 404
    opened_sums.drop_aborted(desk.engine, store)
    assert desk.get(path, OWNER).content == b"sum"
    with transaction(desk.engine) as session:
        attempts.end(session, session.get_one(Attempt, (desk.federation.id, 1, 4)), Phase.ABORTED, "for the test")
    assert desk.get(path, OWNER).status_code == 404
    for _ in range(2):
        opened_sums.drop_aborted(desk.engine, store)
    with transaction(desk.engine, read_only=True) as session:
        assert session.get(OpenedSum, (desk.federation.id, 1, 4)) is None
    with pytest.raises(FileNotFoundError):
        store.get("opened/sum")
