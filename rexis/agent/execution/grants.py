"""Whether a use is granted, asked of the institution's own chain node and weighed against its own copy of the policy.

The marketplace says who asks and what was declared; it is believed in neither. The grant stands on chain with the digest of the declared
conditions, and the conditions name the policy that they were weighed against.
"""

from datetime import UTC, date, datetime

from web3.exceptions import ContractLogicError

from rexis.chain.connection import NODE_FAILURES, Chain
from rexis.errors import PolicyError, UnavailableError
from rexis.policy.conditions import Conditions
from rexis.policy.duo import DataUsePolicy, Permission, Purpose, evaluate


class GrantReader:
    """Reads AccessManager.

    Args:
        chain: a connection that was compared with the deployment record of this side.
    """

    def __init__(self, chain: Chain) -> None:
        self._manager = chain.contract("AccessManager")

    def conditions_hash(self, dataset: int, consumer: str, purpose: Permission) -> bytes:
        """Digest of the conditions of the active grant, 32 bytes.

        Raises:
            PolicyError: there is no active grant.
            UnavailableError: the node does not answer.
        """
        functions = self._manager.functions
        try:
            active = functions.hasAccess(dataset, consumer, purpose.number).call()
            # The last member of the struct Grant.
            conditions_hash = bytes(functions.grantOf(dataset, consumer, purpose.number).call()[-1])
        except ContractLogicError:
            active, conditions_hash = False, b""
        except NODE_FAILURES as error:
            raise UnavailableError(f"this site's chain node does not answer ({type(error).__name__})") from error
        if not active:
            raise PolicyError(f"rule grant on chain: AccessManager shows no active grant of data set {dataset} for {purpose}")
        return conditions_hash


def admit(
    policy: DataUsePolicy,
    declared: Conditions | None,
    granted: bytes,
    *,
    dataset: int,
    consumer: str,
    purpose: Permission,
    today: date | None = None,
) -> None:
    """Check one use against the policy of this side.

    Args:
        policy: the data set's.
        declared: the conditions that the marketplace shows; None if it has none.
        granted: digest of the conditions on chain, 32 bytes.
        dataset, consumer, purpose: what is about to be done.
        today: UTC; None asks the clock.

    Raises:
        PolicyError: the conditions are not those of the grant, the policy changed since, the declared use is over, or the policy does
            not allow the purpose; the message names the rule.
    """
    day = today or datetime.now(UTC).date()
    if declared is None:
        # Nothing was declared, and silence promises nothing: only a policy without conditions is met.
        evaluate(policy, Purpose(use=purpose, until=day, user=consumer))
        return
    if declared.digest() != granted or (declared.dataset, declared.consumer, declared.purpose.use) != (dataset, consumer, purpose):
        raise PolicyError("rule conditions of the grant: the declared conditions are not those whose digest stands on chain")
    if declared.policy_hash != policy.digest():
        raise PolicyError("rule policy in force: the grant was given under another policy than the one at this site")
    if day > declared.purpose.until:
        raise PolicyError(f"rule term: the declared use ended on {declared.purpose.until.isoformat()}")
    evaluate(policy, declared.purpose)
