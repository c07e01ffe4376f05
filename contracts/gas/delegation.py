"""Keys that an institution delegates to its machines, and what a call costs that one of them signs."""

from datetime import UTC, datetime, timedelta

from contracts.gas.access import registration
from contracts.gas.meter import Meter
from rexis.chain.delegated_signer import DelegatedSigner
from rexis.chain.delegations import SIGN_IN, delegate_arguments, scopes_of

CONTRACT = "KeyDelegation"
# One function, two, and a power off chain.
POWERS = ("registration", "grants", SIGN_IN)


def weigh(meter: Meter) -> None:
    """Delegate, act by own and by delegated key, replace, revoke."""
    institution, agent = meter.account("delegating institution"), meter.account("agent")

    def delegation(version: int) -> tuple[object, ...]:
        until = datetime.fromtimestamp(meter.now, UTC) + timedelta(days=30)
        return delegate_arguments(agent.address, scopes_of(meter.chain.deployment, POWERS), until, version)

    meter.relayed("delegate four scopes, first", institution, CONTRACT, "delegate", *delegation(0))
    meter.relayed("replace four scopes", institution, CONTRACT, "delegate", *delegation(1))
    machine = DelegatedSigner(institution.address, agent)
    register = ("DatasetRegistry", "register")
    meter.relayed(None, institution, *register, registration("of the institution"))
    meter.relayed("register under a delegated key", machine, *register, registration("of the machine"))
    meter.relayed("revoke a key", institution, CONTRACT, "revoke", agent.address)
