"""A federation of four sites and three aggregators, of whom two sign."""

from contracts.gas.meter import HOUR, Meter
from rexis.chain.signer import LocalSigner
from rexis.encoding import sha256
from rexis.protocol.federation_rounds import RoundResult, Survivors, accumulate, approvals, federation_id, update_commitment
from rexis.protocol.secagg_messages import secagg_context, survivors_hash

REGISTRY = "FederationRegistry"
CONFIG, MODEL, MASKED = sha256(b"config"), sha256(b"model 0"), sha256(b"masked vectors")


def ascending(meter: Meter, role: str, count: int) -> list[LocalSigner]:
    """Accounts in the order that lists on chain have."""
    return sorted((meter.account(f"{role} {n}") for n in range(count)), key=lambda signer: signer.address.lower())


def weigh(meter: Meter) -> None:
    """One whole round, and one that is abandoned."""
    founder, sites, aggregators = meter.account("founder"), ascending(meter, "site", 4), ascending(meter, "aggregator", 3)
    chain_id, registry = meter.chain.deployment.chain_id, meter.address(REGISTRY)
    federation, addresses = federation_id(chain_id, registry, founder.address, CONFIG), [site.address for site in sites]
    founding = {
        "configHash": CONFIG,
        "model": MODEL,
        "minSurvivors": 3,
        "quorum": 2,
        "participants": addresses,
        "aggregators": [aggregator.address for aggregator in aggregators],
    }
    meter.relayed("found a federation", founder, REGISTRY, "create", founding)

    manifest = sha256(b"manifest")
    ctx = secagg_context(chain_id, registry, federation, 1, 1, manifest)
    times = (meter.now + HOUR, meter.now + 2 * HOUR)
    meter.relayed("open a round", aggregators[0], REGISTRY, "openRound", federation, 1, 1, manifest, *times)
    commitments = {address: update_commitment(ctx, address, sha256(address.encode()), b"\x05" * 16) for address in addresses}
    for site in sites:
        name = "commit an update, first" if site is sites[0] else "commit an update"
        meter.relayed(name, site, REGISTRY, "commitUpdate", federation, ctx, commitments[site.address])

    fixed = survivors_hash(ctx, addresses)
    survivors = {"federation": federation, "round": 1, "attempt": 1, "maskedRecord": MASKED, "survivors": addresses}
    typed = Survivors(federation, 1, 1, fixed, MASKED).typed_data(chain_id, registry)
    signatures = approvals({signer.address: signer.sign_typed_data(typed) for signer in aggregators[:2]})
    meter.sent("fix four survivors, two signatures", REGISTRY, "fixSurvivors", survivors, signatures)

    result = RoundResult(
        federation=federation,
        round_number=1,
        attempt=1,
        survivors_hash=fixed,
        accumulator=accumulate(ctx, commitments),
        updates=len(sites),
        base_model=MODEL,
        aggregate=sha256(b"aggregate"),
        model=sha256(b"model 1"),
        metrics=sha256(b"metrics"),
        epsilon_micro=2_500_000,
    )
    typed = result.typed_data(chain_id, registry)
    signatures = approvals({signer.address: signer.sign_typed_data(typed) for signer in aggregators[:2]})
    meter.sent("finalise a round, two signatures", REGISTRY, "finalise", result.fields(), signatures)

    times = (meter.now + HOUR, meter.now + 2 * HOUR)
    meter.relayed(None, aggregators[0], REGISTRY, "openRound", federation, 2, 1, manifest, *times)
    meter.wait(3 * HOUR)
    meter.relayed("abandon a round", sites[0], REGISTRY, "abandon", federation, 2, 1)
    meter.relayed("close a federation", founder, REGISTRY, "close", federation)
