"""Data sets, their committees and grants."""

from typing import Any

from contracts.gas.meter import HOUR, Meter
from rexis.encoding import sha256

# What a catalogue entry of an institution's marketplace needs: 108 bytes.
URI = "https://marketplace.rexis.example/v1/datasets/" + 62 * "7"
HMB = 6


def registration(content: str, parents: tuple[int, ...] = (), royalty_bps: int = 0) -> dict[str, Any]:
    """Arguments of `DatasetRegistry.register`."""
    return {
        "contentRoot": sha256(content.encode()),
        "policyHash": sha256(b"policy"),
        "metadataHash": sha256(b"metadata"),
        "uri": URI,
        "parents": list(parents),
        "royaltyBps": royalty_bps,
    }


def terms(meter: Meter, dataset: int, consumer: str, epoch: int, *, policy_version: int = 1) -> dict[str, Any]:
    """Arguments of `AccessManager.grant`."""
    return {
        "dataset": dataset,
        "consumer": consumer,
        "purpose": HMB,
        "until": meter.now + 24 * HOUR,
        "policyVersion": policy_version,
        "grantEpoch": epoch,
        "conditionsHash": sha256(b"conditions"),
    }


def weigh(meter: Meter) -> None:
    """Register, describe, share, sell."""
    hospital, buyer, group = meter.account("hospital"), meter.account("buyer"), meter.account("research group")
    members = sorted((meter.account(f"member {n}").address for n in range(3)), key=str.lower)
    registry, manager = "DatasetRegistry", "AccessManager"

    meter.relayed("register, first", hospital, registry, "register", registration("first"))
    meter.relayed("register", hospital, registry, "register", registration("second"))
    meter.sent("register, first", registry, "register", registration("first"))
    meter.sent("register", registry, "register", registration("second"))
    meter.relayed("register from two parents, with royalty", hospital, registry, "register", registration("third", (1, 2), 250))
    meter.relayed("set policy", hospital, registry, "setPolicy", 2, sha256(b"new policy"), URI, 1)
    meter.relayed("set metadata", hospital, registry, "setMetadata", 2, sha256(b"new metadata"), URI, 1)
    meter.relayed("set state", hospital, registry, "setState", 2, 1)

    meter.relayed("appoint three members", hospital, manager, "setCommittee", 1, members, 0)
    meter.relayed("grant", hospital, manager, "grant", terms(meter, 1, group.address, 0))
    meter.sent(None, manager, "setCommittee", 3, members, 0)
    meter.sent("grant", manager, "grant", terms(meter, 3, group.address, 0))
    meter.relayed("confirm a grant", hospital, manager, "grant", terms(meter, 1, group.address, 1))
    meter.relayed("revoke", hospital, manager, "revoke", 1, group.address, HMB)
    meter.relayed("transfer a data set", hospital, registry, "transferFrom", hospital.address, buyer.address, 1)
