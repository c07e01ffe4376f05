"""The chain's word on federations and grants, read from the institution's own node; the aggregator is asked for none of it."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from web3.types import RPCEndpoint

from rexis.chain.artifacts import artifact
from rexis.chain.calls import decode_arguments, encode_call
from rexis.chain.connection import NODE_FAILURES, Chain
from rexis.chain.events import decode_event
from rexis.encoding import checksum_address, from_hex, keccak256, to_hex
from rexis.errors import EquivocationError, UnavailableError, UnexpectedMessageError
from rexis.secagg.survivors import FixedSurvivors

# Blocks before the one that an attempt was first seen in: a reorganisation may have put its events there since.
REORGANISED_BLOCKS = 64
# Longer than a stage of any federation but the slowest, at a block every 12 s; nodes refuse to search much more.
OPENED_BLOCKS = 7200
# Most blocks of one question for events that may be old.
BLOCKS_AT_ONCE = 10_000
_ROUND_OPENED = keccak256(b"RoundOpened(bytes32,uint64,uint64,address,bytes32,bytes32,bytes32,uint48,uint48)")
_ROUND_FINALISED = keccak256(b"RoundFinalised(bytes32,uint64,uint64,bytes32,bytes32,bytes32,bytes32,uint32,uint64,address[])")
_SURVIVORS_FIXED = keccak256(b"SurvivorsFixed(bytes32,uint64,uint64,bytes32,bytes32,bytes32,bytes32,address[],address[])")
# Every node has its own words around it.
REVERTED = "revert"


class Status(IntEnum):
    """As in the FederationRegistry."""

    ABSENT = 0
    IDLE = 1
    OPEN = 2
    FIXED = 3
    CLOSED = 4


@dataclass(frozen=True)
class RegisteredFederation:
    """A federation as it stands on chain.

    Attributes:
        founder: checksum address.
        status: see the contract.
        min_survivors, quorum: as founded.
        round, attempt: the round that runs, or runs next, from 1; its latest attempt, 0 before the first.
        config_hash, model, manifest_hash, survivors_hash: 32 bytes each. The model is the one that this round starts from.
    """

    founder: str
    status: Status
    min_survivors: int
    quorum: int
    round: int
    attempt: int
    config_hash: bytes
    model: bytes
    manifest_hash: bytes
    survivors_hash: bytes

    @property
    def runs(self) -> bool:
        """Whether its latest attempt is under way."""
        return self.status in (Status.OPEN, Status.FIXED)


@dataclass(frozen=True)
class FinalRound:
    """A round that is final on chain.

    Attributes:
        attempt: the one that gave the result.
        ctx: of that attempt, 32 bytes.
        survivors: checksum addresses of those whose updates are in the sum.
        aggregate, model, metrics: digest of the opened sum, record of the new model, digest of the metrics; 32 bytes each.
        signers: aggregators that signed the result.
    """

    round: int
    attempt: int
    ctx: bytes
    survivors: tuple[str, ...]
    aggregate: bytes
    model: bytes
    metrics: bytes
    signers: tuple[str, ...]


class Registry:
    """Reads FederationRegistry, AccessManager and DatasetRegistry.

    Args:
        chain: a connection that was compared with the deployment record of this side.
    """

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.chain_id = chain.deployment.chain_id
        self.address = chain.deployment.contracts["FederationRegistry"].address
        self._rosters: dict[bytes, tuple[str, ...]] = {}

    def federation(self, federation: bytes) -> RegisteredFederation:
        """How a federation stands now.

        Raises:
            UnavailableError: the node does not answer; so do all of these.
        """
        found = self._call("FederationRegistry", "get", federation)
        return RegisteredFederation(
            founder=checksum_address(found["founder"]),
            status=Status(found["status"]),
            min_survivors=found["minSurvivors"],
            quorum=found["quorum"],
            round=found["round"],
            attempt=found["attempt"],
            config_hash=found["configHash"],
            model=found["model"],
            manifest_hash=found["manifestHash"],
            survivors_hash=found["survivorsHash"],
        )

    def roster(self, federation: bytes) -> tuple[str, ...]:
        """Checksum addresses of the participants in the order of their positions, which holds for the federation's life."""
        if not self._rosters.get(federation):
            self._rosters[federation] = tuple(map(checksum_address, self._call("FederationRegistry", "participantsOf", federation)))
        return self._rosters[federation]

    def is_aggregator(self, federation: bytes, who: str) -> bool:
        """Whether an account aggregates for a federation."""
        return bool(self._call("FederationRegistry", "isAggregator", federation, who))

    def commitment(self, ctx: bytes, participant: str) -> bytes:
        """What a participant committed to in an attempt, 32 bytes; zero before it did."""
        return bytes(self._call("FederationRegistry", "commitmentOf", ctx, participant))

    def has_access(self, dataset: int, consumer: str, purpose: int) -> bool:
        """Whether the use of a data set is granted now."""
        return bool(self._call("AccessManager", "hasAccess", dataset, consumer, purpose))

    def content_root(self, dataset: int) -> bytes:
        """Content root of a registered data set, 32 bytes; zero if there is none."""
        return bytes(self._call("DatasetRegistry", "get", dataset)["contentRoot"])

    def block_number(self) -> int:
        """Number of the latest block."""
        return int(self._ask("eth_blockNumber"), 16)

    def fixed_survivors(self, federation: bytes, seen: RegisteredFederation, *, since: int) -> FixedSurvivors:
        """The survivors that were fixed for the attempt that runs.

        Args:
            federation: id, 32 bytes.
            seen: how it stands, with the survivors fixed.
            since: a block that was the latest when the attempt had not got that far.

        Raises:
            UnavailableError: the node does not have the event yet.
            EquivocationError: the contract's state and its event differ.
        """
        if seen.status is not Status.FIXED:
            raise UnexpectedMessageError(f"expected survivors that are fixed on chain, the federation is {seen.status.name.lower()} there")
        for given, _ in self._events(_SURVIVORS_FIXED, federation, seen.round, since=since - REORGANISED_BLOCKS):
            if given["attempt"] == seen.attempt:
                if given["survivorsHash"] != seen.survivors_hash:
                    raise EquivocationError("the node's event and the contract's state name different survivors: ask another node")
                return FixedSurvivors(seen.survivors_hash, given["maskedRecord"])
        raise UnavailableError("the chain has fixed survivors, and this node does not show the event yet")

    def opening_block(self, federation: bytes, seen: RegisteredFederation, *, since: int) -> bytes:
        """Hash of the block that opened the attempt that runs (32 bytes): it orders the neighbour graph.

        An aggregator has one such block for each attempt, and its hash is not known before the opening is in it.

        Args:
            federation: id, 32 bytes.
            seen: how it stands.
            since: a block that was the latest while the attempt's keys were announced.

        Raises:
            UnavailableError: the node does not have the event.
            EquivocationError: the contract's state and its event differ.
        """
        for given, block in self._events(_ROUND_OPENED, federation, seen.round, since=since - OPENED_BLOCKS):
            if given["attempt"] == seen.attempt:
                if given["manifestHash"] != seen.manifest_hash:
                    raise EquivocationError("the node's event and the contract's state name different manifests: ask another node")
                return block
        raise UnavailableError("the chain has opened this attempt, and this node does not show the event yet")

    def first_opening(self, federation: bytes) -> bytes:
        """Hash of the block that opened the federation's first attempt (32 bytes): it draws groups that are kept.

        Raises:
            UnavailableError: the node does not have the event.
        """
        start, last = self.chain.deployment.start_block, self.block_number()
        while last >= start:
            first = max(start, last - BLOCKS_AT_ONCE + 1)
            for given, block in self._events(_ROUND_OPENED, federation, 1, since=first, until=last):
                if given["attempt"] == 1:
                    return block
            last = first - 1
        raise UnavailableError("the chain has opened rounds of this federation, and this node does not show the first one's event yet")

    def opener(self, federation: bytes, round_number: int, manifest: bytes) -> str | None:
        """Checksum address of who opened the attempt with this manifest (32 bytes); None if the node shows no such attempt."""
        for given, _ in self._events(_ROUND_OPENED, federation, round_number, since=self.block_number() - OPENED_BLOCKS):
            if given["manifestHash"] == manifest:
                return checksum_address(given["openedBy"])
        return None

    def declared_loss(self, federation: bytes, round_number: int) -> int:
        """`epsilonMicro` of a round that is final: the privacy loss so far that its aggregators signed, in millionths of ε.

        Raises:
            UnavailableError: the node does not have the event.
        """
        return int(self._settled_events(_ROUND_FINALISED, federation, [round_number])[round_number]["epsilonMicro"])

    def _events(
        self, topic: bytes, federation: bytes, round_number: int, *, since: int, until: int | None = None
    ) -> Iterator[tuple[Mapping[str, Any], bytes]]:
        """Arguments of the events of a round and hashes of their blocks, newest first."""
        asked = {
            "address": self.address,
            "topics": [to_hex(topic), to_hex(federation), to_hex(round_number.to_bytes(32, "big"))],
            "fromBlock": hex(max(0, since)),
            "toBlock": "latest" if until is None else hex(until),
        }
        for log in reversed(self._ask("eth_getLogs", asked)):
            topics, data = [bytes.fromhex(each[2:]) for each in log["topics"]], bytes.fromhex(log["data"][2:])
            decoded = decode_event("FederationRegistry", topics, data)
            if decoded is not None:
                yield decoded[1], from_hex(log["blockHash"], 32)

    def metrics_digests(self, federation: bytes, rounds: Collection[int]) -> dict[int, bytes]:
        """Digests of the metrics of rounds that are final, 32 bytes by round.

        Raises:
            UnavailableError: the node does not have the events yet.
        """
        return {number: bytes(given["metrics"]) for number, given in self._settled_events(_ROUND_FINALISED, federation, rounds).items()}

    def final_rounds(self, federation: bytes, rounds: Collection[int]) -> dict[int, FinalRound]:
        """What rounds that are final made, by round.

        Raises:
            UnavailableError: the node does not have the events yet.
        """
        finalised = self._settled_events(_ROUND_FINALISED, federation, rounds)
        fixed = self._settled_events(_SURVIVORS_FIXED, federation, rounds)
        return {
            number: FinalRound(
                round=number,
                attempt=given["attempt"],
                ctx=bytes(fixed[number]["ctx"]),
                survivors=tuple(map(checksum_address, fixed[number]["survivors"])),
                aggregate=bytes(given["aggregate"]),
                model=bytes(given["model"]),
                metrics=bytes(given["metrics"]),
                signers=tuple(map(checksum_address, given["signers"])),
            )
            for number, given in finalised.items()
        }

    def first_model(self, federation: bytes) -> bytes:
        """Record of the model that round 1 was opened on (32 bytes), every attempt at it.

        Raises:
            UnavailableError: the node does not have the event yet.
        """
        return bytes(self._settled_events(_ROUND_OPENED, federation, [1])[1]["baseModel"])

    def survivors(self, federation: bytes, round_number: int) -> tuple[str, ...]:
        """Checksum addresses of those whose updates are in the sum of a round that is final; the contract fixes them once a round.

        Raises:
            UnavailableError: the node does not have the event yet.
        """
        given = self._settled_events(_SURVIVORS_FIXED, federation, [round_number])[round_number]
        return tuple(map(checksum_address, given["survivors"]))

    def final_openings(self, federation: bytes, rounds: Collection[int]) -> dict[int, bytes]:
        """Hash of the block that opened the attempt by which each of these rounds became final (32 bytes): it drew its groups.

        Raises:
            UnavailableError: the node does not have the events yet.
        """
        attempts = {number: given["attempt"] for number, given in self._settled_events(_ROUND_FINALISED, federation, rounds).items()}
        found: dict[int, bytes] = {}
        for first, last in self._ranges():
            for given, block in self._logs(_ROUND_OPENED, federation, rounds, first, last):
                if given["attempt"] == attempts[given["round"]]:
                    found[given["round"]] = block
            if len(found) == len(attempts):
                return found
        raise _unseen(found, rounds)

    def final_survivors(self, federation: bytes, rounds: Collection[int]) -> dict[int, tuple[str, ...]]:
        """As `survivors`, of several rounds."""
        settled = self._settled_events(_SURVIVORS_FIXED, federation, rounds)
        return {number: tuple(map(checksum_address, given["survivors"])) for number, given in settled.items()}

    def _settled_events(self, event: bytes, federation: bytes, rounds: Collection[int]) -> dict[int, Mapping[str, Any]]:
        """One event of each of these rounds, looked for from the latest block back."""
        found: dict[int, Mapping[str, Any]] = {}
        for first, last in self._ranges():
            if not (missing := sorted(set(rounds) - set(found))):
                return found
            found |= {given["round"]: given for given, _ in self._logs(event, federation, missing, first, last)}
        if set(rounds) <= set(found):
            return found
        raise _unseen(found, rounds)

    def _ranges(self) -> Iterator[tuple[int, int]]:
        """First and last blocks from the latest block back: nodes answer for bounded ranges only."""
        start, last = self.chain.deployment.start_block, self.block_number()
        while last >= start:
            first = max(start, last - BLOCKS_AT_ONCE + 1)
            yield first, last
            last = first - 1

    def _logs(
        self, event: bytes, federation: bytes, rounds: Collection[int], first: int, last: int
    ) -> Iterator[tuple[Mapping[str, Any], bytes]]:
        """Arguments of the events of these rounds in a range of blocks, and hashes of their blocks, oldest first."""
        asked = {
            "address": self.address,
            "topics": [to_hex(event), to_hex(federation), [to_hex(number.to_bytes(32, "big")) for number in rounds]],
            "fromBlock": hex(first),
            "toBlock": hex(last),
        }
        for log in self._ask("eth_getLogs", asked):
            topics, data = [bytes.fromhex(topic[2:]) for topic in log["topics"]], bytes.fromhex(log["data"][2:])
            decoded = decode_event("FederationRegistry", topics, data)
            if decoded is not None:
                yield decoded[1], from_hex(log["blockHash"], 32)

    def _call(self, contract: str, function: str, *arguments: Any) -> Any:
        entry = next(entry for entry in artifact(contract).abi if entry["type"] == "function" and entry["name"] == function)
        data = to_hex(encode_call(contract, function, *arguments))
        answer = self._ask("eth_call", {"to": self.chain.deployment.contracts[contract].address, "data": data}, "latest")
        (value,) = decode_arguments(entry["outputs"], bytes.fromhex(answer[2:])).values()
        return value

    def _ask(self, method: str, *parameters: Any) -> Any:
        """One request; web3's own calls make two more for each, to ask for the chain id again."""
        try:
            answer = self.chain.web3.provider.make_request(RPCEndpoint(method), list(parameters))
        except NODE_FAILURES as error:
            raise UnavailableError(f"this site's chain node does not answer ({type(error).__name__})") from error
        if "error" in answer or answer.get("result") is None:
            if method == "eth_call" and REVERTED in str(answer.get("error")):
                raise UnexpectedMessageError("the contract refuses to answer: there is no such thing on chain")
            raise UnavailableError(f"this site's chain node does not answer {method}")
        return answer["result"]


def _unseen(found: Collection[int], rounds: Collection[int]) -> UnavailableError:
    missing = min(set(rounds) - set(found))
    return UnavailableError(f"the chain has finished round {missing}, and this node does not show its events yet")
