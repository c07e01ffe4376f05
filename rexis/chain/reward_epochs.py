"""Rewards of rounds as the RewardDistributor has them, read from a node of this side."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Self

from rexis.chain.connection import NODE_FAILURES, Chain
from rexis.encoding import checksum_address, to_hex
from rexis.errors import UnavailableError, UnexpectedMessageError

DISTRIBUTOR = "RewardDistributor"


class Status(IntEnum):
    """As in the RewardDistributor."""

    ABSENT = 0
    FUNDED = 1
    PUBLISHED = 2
    CHALLENGED = 3
    CONFIRMED = 4
    CLOSED = 5


@dataclass(frozen=True)
class RewardEpoch:
    """A reward of some rounds.

    Attributes:
        id: 32 bytes.
        number: publications so far.
        record, leaves, total: record of the tree of shares that stands (32 bytes), how many there are and their sum.
        federation: whose rounds, 32 bytes.
        first_round, last_round: which.
        amount: all that can be paid out, in the token's smallest unit.
        publisher: checksum address of who says how much each gets.
    """

    id: bytes
    status: Status
    number: int
    record: bytes
    leaves: int
    total: int
    federation: bytes
    first_round: int
    last_round: int
    amount: int
    publisher: str

    @classmethod
    def read(cls, chain: Chain, epoch: bytes) -> Self:
        """An epoch by its id (32 bytes).

        Raises:
            UnexpectedMessageError: there is none.
            UnavailableError: the node does not answer.
        """
        function = chain.contract(DISTRIBUTOR).functions.get(epoch)
        try:
            values = function.call()
        except NODE_FAILURES as error:
            raise UnavailableError(f"the chain does not answer ({type(error).__name__})") from error
        (output,) = function.abi["outputs"]
        found = _named(output, values)
        terms = found["terms"]
        if found["status"] == Status.ABSENT:
            raise UnexpectedMessageError(f"the chain has no reward {to_hex(epoch)}")
        return cls(
            id=epoch,
            status=Status(found["status"]),
            number=found["number"],
            record=bytes(found["record"]),
            leaves=found["nLeaves"],
            total=found["total"],
            federation=bytes(terms["federation"]),
            first_round=terms["firstRound"],
            last_round=terms["lastRound"],
            amount=terms["amount"],
            publisher=checksum_address(terms["publisher"]),
        )


def _named(component: Any, values: Any) -> dict[str, Any]:
    members = zip(component["components"], values, strict=True)
    return {member["name"]: _named(member, value) if "components" in member else value for member, value in members}
