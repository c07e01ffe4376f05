"""From scores to a reward: who gets how much of an epoch, the publication of its shares, and what a payee checks before claiming one.

Amounts follow from the statement, the epoch's amount and the config alone, so every payee computes all of them; the publisher adds salts,
and each payee gets its own share with the proof that it was published.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from rexis.chain.deployments import Deployment
from rexis.chain.reward_epochs import DISTRIBUTOR, RewardEpoch, Status
from rexis.chain.signer import Signer
from rexis.client.relayed_calls import SignedCall, sign_call
from rexis.commitments import Share, random_salt
from rexis.contribution.bands import payouts
from rexis.encoding import to_hex
from rexis.errors import DigestMismatchError, UnexpectedMessageError
from rexis.protocol.contributions import ContributionStatement
from rexis.protocol.federation_config import FederationConfig
from rexis.protocol.reward_shares import RewardShare, reward_shares

MAX_URI_BYTES = 512
CLAIMABLE = (Status.PUBLISHED, Status.CHALLENGED, Status.CONFIRMED)


@dataclass(frozen=True)
class Publication:
    """What the publisher commits to: record of the tree of shares (32 bytes), their sum, and the shares of those who get something."""

    record: bytes
    total: int
    shares: tuple[RewardShare, ...]


def amounts(config: FederationConfig, statement: ContributionStatement, epoch: RewardEpoch) -> dict[str, int]:
    """What each member gets of an epoch, in the token's smallest unit; 0 as well.

    Raises:
        UnexpectedMessageError: the epoch is another federation's, or not for all of the rounds that the scores are of.
    """
    if config.scores is None or epoch.federation != statement.federation:
        raise UnexpectedMessageError(
            f"reward {to_hex(epoch.id)}: expected one for federation {to_hex(statement.federation)}, got {to_hex(epoch.federation)}"
        )
    if (epoch.first_round, epoch.last_round) != (1, config.rounds):
        raise UnexpectedMessageError(
            f"reward {to_hex(epoch.id)}: expected one for rounds 1 to {config.rounds}, which the scores are of, got one for rounds "
            f"{epoch.first_round} to {epoch.last_round}"
        )
    return dict(zip(config.roster, payouts(statement.bands, epoch.amount, config.scores.cap), strict=True))


def publication(
    deployment: Deployment, config: FederationConfig, statement: ContributionStatement, epoch: RewardEpoch, salts: Mapping[str, bytes]
) -> Publication:
    """The shares of an epoch.

    Args:
        salts: 16 bytes for each member that had one before; the others get new ones. Without them no share can be claimed: they are to be
            kept before anything is published.

    Raises:
        UnexpectedMessageError: as `amounts`; or nobody gets anything.
    """
    found = {account: amount for account, amount in amounts(config, statement, epoch).items() if amount}
    if not found:
        raise UnexpectedMessageError("nobody gets anything: no band above 0, or an amount below its parts; let the reward go back")
    shares = [Share(account, amount, salts.get(account) or random_salt()) for account, amount in found.items()]
    distributor = deployment.contracts[DISTRIBUTOR].address
    record, made = reward_shares(deployment.chain_id, distributor, epoch.id, epoch.federation, statement.digest, shares)
    return Publication(record, sum(found.values()), made)


def publish_call(signer: Signer, deployment: Deployment, epoch: RewardEpoch, made: Publication, uri: str) -> SignedCall | None:
    """The publisher's signed call; None if exactly this stands on chain already.

    Args:
        uri: where members find out more; names neither patients nor sites.

    Raises:
        UnexpectedMessageError: another publication stands, the epoch is closed, or somebody else is its publisher.
    """
    if epoch.status in CLAIMABLE and epoch.record == made.record:
        return None
    if epoch.status is not Status.FUNDED:
        raise UnexpectedMessageError(
            f"reward {to_hex(epoch.id)}: expected one that waits for its shares, got one that is {epoch.status.name.lower()} with record "
            f"{to_hex(epoch.record)}; without the files of its shares, its salts are lost"
        )
    if epoch.publisher != signer.address:
        raise UnexpectedMessageError(
            f"reward {to_hex(epoch.id)}: expected its publisher {epoch.publisher}, this account is {signer.address}"
        )
    if len(uri.encode()) > MAX_URI_BYTES:
        raise UnexpectedMessageError(f"uri: expected at most {MAX_URI_BYTES} bytes, got {len(uri.encode())}")
    arguments = (epoch.id, epoch.number + 1, made.record, len(made.shares), made.total, uri)
    return sign_call(signer, deployment, DISTRIBUTOR, "publish", *arguments)


def check_share(share: RewardShare, deployment: Deployment, epoch: RewardEpoch) -> None:
    """Check that a share is in the publication that stands.

    Raises:
        UnexpectedMessageError: another chain, contract or epoch, or nothing is published.
        InclusionProofError: it is not in it.
    """
    place = (deployment.chain_id, deployment.contracts[DISTRIBUTOR].address, epoch.id)
    if (share.chain_id, share.distributor, share.epoch) != place:
        raise UnexpectedMessageError(
            f"reward share: expected one of reward {to_hex(epoch.id)} at {place[1]} on chain {place[0]}, got one of "
            f"{to_hex(share.epoch)} at {share.distributor} on chain {share.chain_id}"
        )
    if epoch.status not in CLAIMABLE:
        raise UnexpectedMessageError(f"reward {to_hex(epoch.id)} is {epoch.status.name.lower()}: nothing of it can be claimed")
    share.verify(epoch.record)


def check_amount(share: RewardShare, config: FederationConfig, statement: ContributionStatement, epoch: RewardEpoch) -> None:
    """Check that a share is what follows from the scores.

    Raises:
        UnexpectedMessageError: another amount, or the publication's sum is not that of all members; object to it while that is possible.
        DigestMismatchError: it was made from other scores.
    """
    if share.statement != statement.digest:
        raise DigestMismatchError("scores that the share was made from", statement.digest, share.statement)
    found = amounts(config, statement, epoch)
    for what, expected, got in (
        (f"share of {share.share.account}", found.get(share.share.account, 0), share.share.amount),
        ("sum of the shares", sum(found.values()), epoch.total),
    ):
        if expected != got:
            raise UnexpectedMessageError(f"{what}: expected {expected} by the scores, got {got}: challenge the publication")


def claim_call(signer: Signer, deployment: Deployment, share: RewardShare) -> SignedCall:
    """A signed call that credits the share to its account; anybody may make it."""
    own = share.share
    arguments = (share.epoch, share.index, own.account, own.amount, own.salt, list(share.proof))
    return sign_call(signer, deployment, DISTRIBUTOR, "claim", *arguments)
