"""Several aggregators: what each recomputes and signs, what the leader can not get past them, and how a round ends without a quorum."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from rexis.chain.connection import Chain
from rexis.chain.deployments import load
from rexis.chain.signer import LocalSigner
from rexis.client.approvals import check_approvals
from rexis.client.connection import Answer
from rexis.encoding import canonical_json, to_hex
from rexis.errors import EquivocationError, ServiceError
from rexis.protocol.approvals import Approval, Kind
from rexis.protocol.equivocation import Equivocation
from rexis.protocol.federation_rounds import Survivors
from rexis.protocol.secagg_messages import Stage as SecaggStage
from rexis.secagg import Coordinator
from services.aggregator import attempts
from services.aggregator.models import Attempt
from services.aggregator.models import Federation as FederationRow
from services.aggregator.registry_calls import Registry
from services.foundation.database import transaction
from services.foundation.settings import LOCAL_CHAIN_ID
from tests.services.aggregators_on_chain import Operator, Stage, dying, operators, stage_of
from tests.services.chain_process import rpc
from tests.services.federations_on_chain import TRAINING, gathered, masked_uploads
from tests.services.marketplace_on_chain import running_chain

# At which commit of its life an operator dies, before it or after it; 1 before lets nothing through, so another number follows it.
LIVES = [(3, "after"), (1, "before"), (7, "before"), (1, "after"), (5, "after"), (2, "before"), (9, "after"), (4, "before")]
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("witnesses")
    with running_chain(folder) as rpc_url, operators(folder, rpc_url) as made:
        chain = Chain.connect(rpc_url, load(LOCAL_CHAIN_ID))
        with gathered(made[0].settings, chain, folder) as gathering:
            yield Stage(gathering, made, rpc_url)


@pytest.fixture(autouse=True)
def everybody_lives_and_tells_the_truth(stage: Stage) -> Iterator[None]:
    yield
    for operator in stage.operators:
        operator.alive, operator.shown.lie = True, lambda _path, _answer: None
        operator.start()


def content_of(approval: Approval) -> bytes:
    return canonical_json(approval.document())


def without(member: str, *shown: Approval) -> Callable[[str, Answer], Answer | None]:
    """A leader that hides a member's masked vector, and shows other approvals if any are given."""

    def lie(path: str, answer: Answer) -> Answer | None:
        if path.endswith("/messages/masked"):
            kept = [message for message in answer.body["messages"] if message["sender"] != member]
            return dataclasses.replace(answer, body={"messages": kept})
        if path.endswith("/approvals") and shown:
            return dataclasses.replace(answer, body={"items": [approval.document() for approval in shown]})
        return None

    return lie


def other_keys(path: str, answer: Answer) -> Answer | None:
    """A leader that announces keys of its own for the first member."""
    if not path.endswith("/messages/keys"):
        return None
    first, *others = answer.body["messages"]
    changed = {**first, "payload": {**first["payload"], "mask": "0x" + 64 * "7"}}
    return dataclasses.replace(answer, body={"messages": [changed, *others]})


def survivors_without(leader: Operator, federation: bytes, member: str) -> Survivors:
    """What the leader's messages say about round 1, attempt 1, if one member's are left out of the stage masked."""
    with transaction(leader.engine, read_only=True) as session:
        row = session.get_one(FederationRow, to_hex(federation))
        attempt = session.get_one(Attempt, (row.id, 1, 1))
        coordinator = Coordinator(attempts.terms_of(Registry.of(load(LOCAL_CHAIN_ID)), row, attempt))
        for name, close in (
            (SecaggStage.KEYS, coordinator.close_keys),
            (SecaggStage.SHARES, coordinator.close_shares),
            (SecaggStage.MASKED, coordinator.close_masked),
        ):
            for message in attempts.messages_of(session, attempt, name):
                if name is not SecaggStage.MASKED or message.sender != member:
                    coordinator.receive(message)
            close()
    fixed = coordinator.survivors.fixed
    return Survivors(federation, 1, 1, fixed.survivors, fixed.masked)


def status_of(call: Callable[[], object]) -> int:
    try:
        call()
    except ServiceError as error:
        return error.status
    return 200


def test_a_round_goes_on_while_one_witness_is_dead_and_every_model_is_the_same(stage: Stage) -> None:
    leader, witness, dead = stage.operators
    dead.alive = False
    federation = stage.found("one dead", 2, training={**TRAINING, "rounds": 2})
    ended = stage.play(federation)
    assert (ended.state, ended.reason) == ("finished", "")
    both = {leader.signer.address, witness.signer.address}
    assert stage.signers(federation, "SurvivorsFixed") == stage.signers(federation, "RoundFinalised") == [both, both]
    stage.work()
    seen = witness.view(stage.gathering.founder_signer)
    assert (seen.federation(federation).state, seen.federation(federation).model) == ("finished", ended.model)
    assert seen.model(federation) == stage.gathering.founder.model(federation)
    assert not masked_uploads(witness.settings), "a witness keeps neither vectors nor masked sums of a round that is over"
    config = ended.config
    for number in (1, 2):
        shown = leader.approvals(stage.gathering.members[0]).approvals(federation, number, 1)
        check_approvals(shown, config, LOCAL_CHAIN_ID, stage.registry)
        assert {(approval.kind, approval.signer) for approval in shown} == {(kind, signer) for kind in Kind for signer in both}


def test_what_the_sites_did_not_sign_is_refused_and_the_leader_named(stage: Stage) -> None:
    """Keys, a vector, and survivors without one of them; once the leader gives out the right ones, all three have signed a statistic."""
    witness = stage.operators[2]

    def flipped(path: str, answer: Answer) -> Answer | None:
        if "/vectors/" not in path:
            return None
        raw = bytes([answer.raw[0] ^ 1]) + answer.raw[1:]
        return Answer(answer.status, answer.headers, answer.body, raw)

    witness.shown.lie = other_keys
    federation = stage.found("lies", 3, training=None)
    stage.play_until(lambda: "expected a signature by" in stage.reason(witness, federation))
    witness.shown.lie = flipped
    witness.start()
    stage.play_until(lambda: "masked vector of" in stage.reason(witness, federation))
    told = stage.reason(witness, federation)
    assert f"led by {stage.leader.signer.address}" in told
    assert "expected digest" in told
    asked = [path for path in witness.shown.asked if "/vectors/" in path and to_hex(federation) in path]
    check_who_gets_vectors_and_may_approve(stage, federation, asked[0])
    witness.shown.lie = without(stage.gathering.members[3].address)
    witness.start()
    stage.play_until(lambda: "signed the survivors" in stage.reason(witness, federation))
    told = stage.reason(witness, federation)
    assert f"{stage.leader.signer.address} signed the survivors" in told
    assert "shows messages that give" in told
    witness.shown.lie = lambda _path, _answer: None
    ended = stage.play(federation)
    assert (ended.state, ended.equivocators) == ("finished", ())
    everybody = {operator.signer.address for operator in stage.operators}
    assert stage.signers(federation, "SurvivorsFixed") == stage.signers(federation, "RoundFinalised") == [everybody]


def check_who_gets_vectors_and_may_approve(stage: Stage, federation: bytes, path: str) -> None:
    """While the leader waits for the third signature."""
    leader, second, third = stage.operators
    member, stranger = stage.gathering.members[0], stage.gathering.stranger.connection
    statement = next(
        approval.statement
        for approval in leader.approvals(member).approvals(federation, 1, 1)
        if isinstance(approval.statement, Survivors) and approval.signer == leader.signer.address
    )
    assert isinstance(statement, Survivors)
    target = f"/v1/federations/{to_hex(federation)}/rounds/1/attempts/1/approvals/survivors"

    def put(viewer: LocalSigner, approval: Approval, place: str = target) -> int:
        return status_of(lambda: leader.connection(viewer).request("PUT", place, content=content_of(approval), headers=JSON))

    own = stage.approval(third, statement)
    assert status_of(lambda: stranger.request("GET", path)) == 404
    for nobody in (member, stage.gathering.founder_signer):
        assert status_of(lambda nobody=nobody: leader.connection(nobody).request("GET", path)) == 403
        assert put(nobody, own) == 403
    assert status_of(lambda: leader.connection(second.signer).request("GET", path)) == 200
    assert status_of(lambda: leader.connection(second.signer).request("GET", path.replace("/parts/1", "/parts/2"))) == 404
    somebody = stage.gathering.founder_signer.address
    elsewhere = path.replace(path.rpartition("/vectors/")[2].partition("/")[0], somebody)
    assert status_of(lambda: leader.connection(second.signer).request("GET", elsewhere)) == 404
    assert put(second.signer, own) == 401, "another aggregator's"
    assert put(third.signer, Approval(statement, third.signer.address, own.signature[:64] + bytes([55 - own.signature[64]]))) == 401
    assert put(third.signer, own, target.replace("/survivors", "/result")) == 401
    later = Survivors(statement.federation, 9, 1, statement.survivors_hash, statement.masked_record)
    assert put(third.signer, stage.approval(third, later), target.replace("/rounds/1/", "/rounds/9/")) == 409, "no such round on chain"
    assert status_of(lambda: stranger.request("GET", target.removesuffix("/survivors"))) == 404
    assert status_of(lambda: stranger.request("GET", f"/v1/federations/{to_hex(federation)}/equivocations")) == 404


def test_a_leader_that_signs_two_sets_is_found_out_by_those_it_showed_them_and_its_lie_gets_no_quorum(stage: Stage) -> None:
    leader, second, third = stage.operators
    federation, member = stage.found("two sets", 2, training={**TRAINING, "rounds": 2}), stage.gathering.members[0]
    second.alive = third.alive = False
    stage.play_until(lambda: stage_of(leader, federation) == "fixing" and bool(leader.approvals(member).approvals(federation, 1, 1)))
    left_out = stage.gathering.members[3].address
    forged = stage.approval(leader, survivors_without(leader, federation, left_out))
    third.shown.lie, third.alive = without(left_out, forged), True
    stage.play_until(lambda: len(leader.approvals(member).approvals(federation, 1, 1)) == 2)
    assert not stage.signers(federation, "SurvivorsFixed"), "neither set has a quorum"
    second.alive = True
    stage.play_until(lambda: bool(third.view(member).federation(federation).equivocators))
    (evidence,) = third.approvals(member).equivocations(federation)
    evidence.verify(LOCAL_CHAIN_ID, stage.registry)
    assert (evidence.signer, evidence.kind) == (leader.signer.address, Kind.SURVIVORS)
    # A member who asks two of them finds the same, and tells the one that has not compared yet.
    shown = [approval for operator in (second, third) for approval in operator.approvals(member).approvals(federation, 1, 1)]
    with pytest.raises(EquivocationError, match=leader.signer.address):
        check_approvals(tuple(shown), second.view(member).federation(federation).config, LOCAL_CHAIN_ID, stage.registry)
    for _ in range(2):
        second.approvals(member).report(evidence)
    assert second.view(member).federation(federation).equivocators == (leader.signer.address,)

    def has_signed() -> bool:
        return second.signer.address in {approval.signer for approval in leader.approvals(member).approvals(federation, 1, 1)}

    # What it signed before anybody could know stands, and is the set that the sites sent; the lie gets no quorum, and the other refuses.
    stage.play_until(lambda: has_signed() or "signed two different survivors" in stage.reason(second, federation))
    assert stage.signers(federation, "SurvivorsFixed") in ([], [{leader.signer.address, second.signer.address}])
    forgery = Equivocation(evidence.first, Approval(evidence.second.statement, leader.signer.address, bytes(64) + b"\x1b"))
    assert status_of(lambda: leader.approvals(member).report(forgery)) == 401
    assert status_of(lambda: stage.gathering.stranger.connection.get(f"/v1/federations/{to_hex(federation)}/equivocations")) == 404


def test_a_round_survives_the_death_of_leader_and_witness_around_every_commit(stage: Stage) -> None:
    mortals = stage.operators[:2]
    stage.operators[2].alive = False
    federation = stage.found("killed", 2)
    with ExitStack() as stack:
        for operator in mortals:
            stack.enter_context(dying(operator, LIVES))
        ended = stage.play(federation)
        assert (ended.state, ended.reason) == ("finished", "")
        assert all(operator.deaths >= 6 for operator in mortals), [operator.deaths for operator in mortals]
    both = {operator.signer.address for operator in mortals}
    assert stage.signers(federation, "SurvivorsFixed") == stage.signers(federation, "RoundFinalised") == [both]
    stage.work()
    assert mortals[1].view(stage.gathering.founder_signer).model(federation) == stage.gathering.founder.model(federation)
    assert not masked_uploads(mortals[1].settings)


def test_without_a_quorum_a_round_ends_with_a_reason_wherever_it_is(stage: Stage) -> None:
    """Both witnesses are dead: from the beginning, and once the survivors are fixed. The last test of this chain: it moves its clock."""
    leader, *witnesses = stage.operators
    fixed = stage.found("fixed", 2)
    stage.play_until(lambda: stage_of(leader, fixed) in ("unmask", "finalising"))
    for witness in witnesses:
        witness.alive = False
    stage.play_until(lambda: stage_of(leader, fixed) == "finalising")
    open_one = stage.found("open", 2)
    stage.play_until(lambda: stage_of(leader, open_one) == "fixing")
    rpc(stage.rpc_url, "evm_increaseTime", 3600)
    rpc(stage.rpc_url, "evm_mine")
    for federation in (fixed, open_one):
        leader.let_time_pass(to_hex(federation))
    for federation, kind in ((fixed, "result"), (open_one, "survivors")):
        assert stage.play(federation).state == "failed"
        record = stage.rounds(federation)[0]
        assert record.state == "aborted"
        assert f"1 of 3 aggregators signed the {kind} in time, 2 have to" in record.reason
        assert all(f"{witness.signer.address} did not" in record.reason for witness in witnesses)
        assert record.transactions["abandoned"] is not None
    assert "round 1: 1 of 3 aggregators signed the result" in stage.gathering.founder.federation(fixed).reason
