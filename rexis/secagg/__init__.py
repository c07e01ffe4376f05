"""Secure aggregation (Bonawitz et al., CCS 2017, active-adversary variant) as pure state machines: no input or output, no clock, no torch.

The aggregator learns the sum of at least `min_survivors` updates and nothing about a single one. `Participant` is an institution's side,
`Coordinator` the aggregator's; both speak in the signed envelopes of `rexis.protocol.secagg_messages`, stage by stage:

    keys       participant.announce_keys()          coordinator.receive(…) of each, coordinator.close_keys()      U1
    shares     participant.share(keys)              …                       coordinator.close_shares()            U2
    masked     participant.open_shares(shares), .mask(vector), .announce_masked(upload)     close_masked()        U3
    survivors  participant.consent(masked)          …                       coordinator.close_survivors()
    unmask     participant.unmask(consents)         …                       coordinator.unmask(masked_sums)

An attempt of a federation whose protection is `none` or `ee` has no masks, and of these stages only masked, with a plain vector: its two
sides are `plain_participant.PlainParticipant` and `plain_coordinator.PlainCoordinator`. Neither kind takes the terms of the other.

Whoever holds a state machine stores its `state()` before anything it made is sent, and goes on from `restore(…)` after a crash.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rexis.secagg.coordinator import Coordinator
    from rexis.secagg.participant import Participant

__all__ = ["Coordinator", "Participant"]


# On demand: services read thresholds and Shamir's field from this package without loading numpy.
def __getattr__(name: str) -> Any:
    if name == "Coordinator":
        from rexis.secagg.coordinator import Coordinator

        return Coordinator
    if name == "Participant":
        from rexis.secagg.participant import Participant

        return Participant
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
