"""Agents whose chain node is away, and an aggregator that only says so: when signatures stand in for the chain, and what they open."""

import json
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rexis.agent.federation.founding import FederationPlan
from rexis.agent.federation.registry import Registry
from rexis.agent.federation.site_policy import SitePolicy
from rexis.chain.connection import Chain, open_web3
from rexis.chain.deployments import load
from rexis.chain.silence import ChainSilence
from rexis.errors import UnavailableError
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.plan_parts import GroupPlan
from rexis.protocol.secagg_messages import Stage
from rexis.secagg import Coordinator
from rexis.secagg.consents import may_stand_in
from tests.services.chain_process import Outage, Proxy
from tests.services.federation_stand_in import CHAIN_ID, Hospital, StandIn, config_of, play
from tests.services.federations_on_chain import wait_until

# A node has to fail for a tenth of it before it counts as away.
STAGE_S = 20
AWAY_S = STAGE_S / 10


class Node(Proxy):
    """A hospital's own node, which can be away."""

    def leave(self) -> None:
        self.before = Outage()

    def come_back(self) -> None:
        self.before = {}

    def stall(self, seconds: int) -> None:
        """It answers, and its latest block is so old whenever it is asked, however slow this machine is."""
        self.rewrites["eth_getBlockByNumber"] = lambda _parameters, block: block | {"timestamp": hex(int(time.time()) - seconds)}


@pytest.fixture
def nodes(rpc_url: str, hospitals: list[Hospital]) -> Iterator[list[Node]]:
    """A node of its own for each hospital."""
    made = [Node(rpc_url) for _ in hospitals]
    for hospital, node in zip(hospitals, made, strict=True):
        hospital.chain = Chain.connect(node.url, load(CHAIN_ID))
        hospital.restart()
    yield made
    for node in made:
        node.close()


def opened(stand_in: StandIn, hospitals: list[Hospital], **changes: Any) -> bytes:
    """A federation whose first attempt has everybody's masked vector, at an aggregator that says that the chain is away."""
    config = config_of(hospitals, "training", **{"stage_s": STAGE_S, **changes})
    federation = stand_in.found(FederationPlan(FederationConfig.parse(config), seed=0))
    for hospital in hospitals:
        hospital.join(federation)
    stand_in.says_away = True
    stand_in.open_round(federation)
    for _ in ("keys", "shares", "masked"):
        for hospital in hospitals:
            hospital.poll()
        stand_in.close(federation)
    return federation


def look(hospitals: Sequence[Hospital]) -> None:
    """As in the agent's loop: what does not answer is asked again."""
    for hospital in hospitals:
        with suppress(UnavailableError):
            hospital.poll()


def sent(stand_in: StandIn, stage: str) -> set[str]:
    return {caller for caller, what, _ in stand_in.received if what == stage}


def die_sending(victim: Hospital, ending: str, node_url: str, rpc_url: str, note: Path) -> None:
    """In a child process: an agent that is killed at the moment when its message would leave."""
    torch.set_num_threads(1)
    victim.line.stand_in.chain = Chain.connect(rpc_url, load(CHAIN_ID))
    # Its node is away, and was compared with the record before.
    victim.chain = Chain(open_web3(node_url), load(CHAIN_ID))
    victim.start()

    def die(method: str, path: str, content: bytes | None) -> None:
        if method == "PUT" and path.endswith(ending):
            note.write_bytes(content or b"")
            os.kill(os.getpid(), signal.SIGKILL)

    victim.line.before = die
    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        look([victim])
    os._exit(0)


def until_sent(stand_in: StandIn, hospitals: Sequence[Hospital], stage: str) -> None:
    """Let these look until all of them have sent."""
    mine = {hospital.signer.address for hospital in hospitals}
    wait_until(lambda: look(hospitals) or mine <= sent(stand_in, stage), 30)


def plain_sum(stand_in: StandIn, hospitals: Sequence[Hospital], federation: bytes) -> Any:
    """What the journals' vectors add up to, modulo 2^32."""
    kept = stand_in.kept[federation]
    assert kept.attempt is not None
    vectors = [hospital.records.vector(kept.config, kept.attempt.manifest) for hospital in hospitals]
    return np.sum(np.array(vectors), axis=0, dtype=np.uint32)


def test_signatures_open_the_sum_while_the_chain_is_away_and_the_chain_then_records_it(
    stand_in: StandIn, hospitals: list[Hospital], nodes: list[Node]
) -> None:
    federation = opened(stand_in, hospitals)
    for node in nodes:
        node.leave()
    look(hospitals)
    # One question that was not answered is no outage.
    assert not sent(stand_in, "survivors")
    until_sent(stand_in, hospitals, "survivors")
    stand_in.close(federation)
    until_sent(stand_in, hospitals, "unmask")
    expected = plain_sum(stand_in, hospitals, federation)
    assert Registry(stand_in.chain).federation(federation).round == 1
    for node in nodes:
        node.come_back()
    stand_in.record(federation)
    stand_in.close(federation)
    np.testing.assert_array_equal(stand_in.kept[federation].sums[0], expected)
    stand_in.says_away = False
    stand_in.open_round(federation)
    play(stand_in, federation, hospitals)
    assert Registry(stand_in.chain).federation(federation).round == 3


def test_a_site_whose_node_answers_signs_nothing_whatever_the_aggregator_says(
    stand_in: StandIn, hospitals: list[Hospital], nodes: list[Node]
) -> None:
    """Two sites are cut off and sign; the other two wait, so that the aggregator has fewer than t, and the chain decides for all four."""
    federation = opened(stand_in, hospitals)
    cut, others = hospitals[:2], hospitals[2:]
    for node in nodes[:2]:
        node.leave()
    until_sent(stand_in, cut, "survivors")
    look(hospitals)
    assert sent(stand_in, "survivors") == {hospital.signer.address for hospital in cut}
    assert all(hospital.records.unended()[0].stage == "open" for hospital in others)
    attempt = stand_in.kept[federation].attempt
    assert attempt is not None
    # It goes on as though enough had signed: two signatures are not three, and those who did not sign answer to the chain only.
    attempt.stage = "unmask"
    stand_in.lies["work"] = lambda answer: {"items": [item | {"due": True} for item in answer["items"]]}
    signed = [json.loads(content) for _, stage, content in stand_in.received if stage == "survivors"]
    stand_in.shown["survivors"] = {"messages": signed}
    look(hospitals)
    assert not sent(stand_in, "unmask")
    stand_in.lies.clear()
    stand_in.shown.clear()
    for node in nodes[:2]:
        node.come_back()
    expected = plain_sum(stand_in, hospitals, federation)
    stand_in.record(federation)
    look(hospitals)
    assert sent(stand_in, "unmask") == {hospital.signer.address for hospital in hospitals}
    stand_in.close(federation)
    np.testing.assert_array_equal(stand_in.kept[federation].sums[0], expected)


def test_what_was_signed_is_not_replaced_by_another_set_that_the_chain_has(
    stand_in: StandIn, hospitals: list[Hospital], nodes: list[Node]
) -> None:
    federation = opened(stand_in, hospitals)
    kept = stand_in.kept[federation]
    assert kept.attempt is not None
    victim, node = hospitals[0], nodes[0]
    node.leave()
    until_sent(stand_in, [victim], "survivors")
    node.come_back()
    # The aggregator fixes a set without the last hospital, which it can: signing it bound nobody on chain.
    whole = kept.attempt.coordinator
    kept.attempt.coordinator = smaller = Coordinator(whole.terms)
    for stage, close in ((Stage.KEYS, smaller.close_keys), (Stage.SHARES, smaller.close_shares), (Stage.MASKED, smaller.close_masked)):
        for message in whole.messages(stage):
            if stage is not Stage.MASKED or message.sender != hospitals[3].signer.address:
                smaller.receive(message)
        close()
    stand_in.record(federation)
    kept.attempt.stage = "unmask"
    look(hospitals)
    assert sent(stand_in, "unmask") == {hospital.signer.address for hospital in hospitals[1:]}
    assert "one set for each attempt" in victim.journal.entries(limit=1)[0].detail["reason"]


@pytest.mark.parametrize("case", ["no quorum", "rule of the site"])
def test_a_site_that_is_cut_off_signs_only_what_it_may(case: str, stand_in: StandIn, hospitals: list[Hospital], nodes: list[Node]) -> None:
    victim = hospitals[0]
    if case == "rule of the site":
        victim.policy = SitePolicy(chain_away_stages=0)
        victim.restart()
    opened(stand_in, hospitals)
    if case == "no quorum":
        stand_in.lies["approvals"] = lambda _: {"items": []}
    nodes[0].leave()
    nodes[1].leave()
    until_sent(stand_in, hospitals[1:2] if case != "no quorum" else [], "survivors")
    ends = time.monotonic() + 2 * AWAY_S
    wait_until(lambda: look([victim]) or time.monotonic() > ends, 30)
    assert victim.signer.address not in sent(stand_in, "survivors")
    if case == "no quorum":
        assert "signatures of 1 aggregators" in victim.journal.entries(limit=1)[0].detail["reason"]


def test_a_node_that_answers_with_an_old_block_is_away(stand_in: StandIn, hospitals: list[Hospital], nodes: list[Node]) -> None:
    opened(stand_in, hospitals, stage_s=3600)
    for node, stages in zip(nodes, (2, 4, 0, 0), strict=True):
        node.stall(stages * 3600)
    look(hospitals)
    assert sent(stand_in, "survivors") == {hospitals[1].signer.address}


def test_silence_is_told_from_a_question_that_was_lost(rpc_url: str) -> None:
    node = Node(rpc_url)
    silence = ChainSilence(lambda: Chain.connect(node.url, load(CHAIN_ID)))
    assert silence.reason(1, 3) is None
    silence.look()
    assert silence.reason(10**6, 3) is None
    node.leave()
    silence.look()
    assert silence.reason(STAGE_S, 3) is None
    wait_until(lambda: silence.reason(STAGE_S, 3) is not None, 30)
    assert silence.reason(STAGE_S, 0) is None
    node.come_back()
    silence.look()
    assert silence.reason(10**6, 3) is None
    node.close()


@pytest.mark.parametrize("stage", ["survivors", "unmask"])
def test_an_agent_killed_between_persisting_and_sending_sends_the_same_bytes_without_the_chain(
    stage: str, stand_in: StandIn, hospitals: list[Hospital], nodes: list[Node], rpc_url: str, tmp_path: Path
) -> None:
    federation = opened(stand_in, hospitals)
    for node in nodes:
        node.leave()
    if stage == "unmask":
        until_sent(stand_in, hospitals, "survivors")
        stand_in.close(federation)
    victim, note = hospitals[0], tmp_path / "killed-with"
    victim.stop()
    if (pid := os.fork()) == 0:
        die_sending(victim, stage, nodes[0].url, rpc_url, note)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    victim.start()
    assert victim.records.unended()[0].stage == ("answered" if stage == "unmask" else "open")
    until_sent(stand_in, hospitals, stage)
    assert note.read_bytes() in {content for caller, what, content in stand_in.received if (caller, what) == (victim.signer.address, stage)}
    if stage == "survivors":
        stand_in.close(federation)
        until_sent(stand_in, hospitals, "unmask")
    stand_in.record(federation)
    stand_in.close(federation)
    assert len(stand_in.kept[federation].sums) == 1


@pytest.mark.parametrize(
    ("changes", "may"),
    [
        ({}, True),
        ({"group_pad": True}, False),
        ({"protection": "secagg+dp"}, True),
        ({"degree": 4}, True),
        ({"degree": 2}, False),
        ({"protection": "none"}, False),
        ({"protection": "ee"}, False),
        ({"groups": GroupPlan(3, "median")}, False),
    ],
)
def test_signatures_stand_in_only_where_one_threshold_guards_everybody(
    changes: dict[str, Any], may: bool, hospitals: list[Hospital]
) -> None:
    assert may_stand_in(replace(FederationConfig.parse(config_of(hospitals, "training")), **changes)) is may
