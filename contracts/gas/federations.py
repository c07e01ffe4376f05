"""A federation of four sites and three aggregators, of whom two sign."""

from collections.abc import Sequence
from dataclasses import dataclass

from contracts.gas.meter import HOUR, Meter
from rexis.chain.signer import LocalSigner, Signer
from rexis.encoding import sha256
from rexis.protocol.federation_rounds import RoundResult, Survivors, accumulate, approvals, federation_id, update_commitment
from rexis.protocol.secagg_messages import secagg_context, survivors_hash

REGISTRY = "FederationRegistry"
CONFIG, MODEL, MASKED, MANIFEST = (sha256(text) for text in (b"config", b"model 0", b"masked vectors", b"manifest"))


def accounts(meter: Meter, role: str, count: int) -> list[LocalSigner]:
    """So many accounts of this role."""
    return ascending([meter.account(f"{role} {n}") for n in range(count)])


def ascending(signers: Sequence[LocalSigner]) -> list[LocalSigner]:
    """In the order that lists on chain have."""
    return sorted(signers, key=lambda signer: signer.address.lower())


@dataclass(frozen=True)
class Consortium:
    """Who takes part, and what they do.

    Attributes:
        sites, aggregators: ascending by address; the first two aggregators sign.
    """

    meter: Meter
    founder: Signer
    sites: Sequence[LocalSigner]
    aggregators: Sequence[LocalSigner]

    @property
    def place(self) -> tuple[int, str]:
        """Chain id and contract."""
        return self.meter.chain.deployment.chain_id, self.meter.address(REGISTRY)

    @property
    def id(self) -> bytes:
        """Of the federation, 32 bytes."""
        return federation_id(*self.place, self.founder.address, CONFIG)

    def found(self) -> None:
        """Four sites agree on a model."""
        founding = {
            "configHash": CONFIG,
            "model": MODEL,
            "minSurvivors": 3,
            "quorum": 2,
            "participants": [site.address for site in self.sites],
            "aggregators": [aggregator.address for aggregator in self.aggregators],
        }
        self.meter.relayed("found a federation", self.founder, REGISTRY, "create", founding)

    def open(self, number: int) -> None:
        """Begin a round."""
        times = (self.meter.now + HOUR, self.meter.now + 2 * HOUR)
        self.meter.relayed("open a round", self.aggregators[0], REGISTRY, "openRound", self.id, number, 1, MANIFEST, *times)

    def train(self) -> None:
        """The first round, with everybody's update; who has ether sends his own."""
        self.open(1)
        ctx = secagg_context(*self.place, self.id, 1, 1, MANIFEST)
        addresses = [site.address for site in self.sites]
        commitments = {address: update_commitment(ctx, address, sha256(address.encode()), b"\x05" * 16) for address in addresses}
        relaying = [site for site in self.sites if site.address != self.meter.payer.address]
        for site in relaying:
            name = "commit an update, first" if site is relaying[0] else "commit an update"
            self.meter.relayed(name, site, REGISTRY, "commitUpdate", self.id, ctx, commitments[site.address])
        if len(relaying) < len(self.sites):
            self.meter.sent("commit an update", REGISTRY, "commitUpdate", self.id, ctx, commitments[self.meter.payer.address])

        fixed = Survivors(self.id, 1, 1, survivors_hash(ctx, addresses), MASKED)
        survivors = {"federation": self.id, "round": 1, "attempt": 1, "maskedRecord": MASKED, "survivors": addresses}
        self.meter.sent("fix four survivors, two signatures", REGISTRY, "fixSurvivors", survivors, self._signed(fixed))
        result = RoundResult(
            federation=self.id,
            round_number=1,
            attempt=1,
            survivors_hash=fixed.survivors_hash,
            accumulator=accumulate(ctx, commitments),
            updates=len(self.sites),
            base_model=MODEL,
            aggregate=sha256(b"aggregate"),
            model=sha256(b"model 1"),
            metrics=sha256(b"metrics"),
            epsilon_micro=2_500_000,
        )
        self.meter.sent("finalise a round, two signatures", REGISTRY, "finalise", result.fields(), self._signed(result))

    def _signed(self, message: Survivors | RoundResult) -> list[dict[str, str | bytes]]:
        typed = message.typed_data(*self.place)
        return approvals({signer.address: signer.sign_typed_data(typed) for signer in self.aggregators[:2]})


def weigh(meter: Meter) -> None:
    """One whole round, and one that is abandoned."""
    sites = ascending([*accounts(meter, "site", 3), meter.payer])
    one = Consortium(meter, meter.account("founder"), sites, accounts(meter, "aggregator", 3))
    one.found()
    one.train()
    with meter.unweighed():
        one.open(2)
    meter.wait(3 * HOUR)
    meter.relayed("abandon a round", one.aggregators[1], REGISTRY, "abandon", one.id, 2, 1)
    meter.relayed("close a federation", one.founder, REGISTRY, "close", one.id)
