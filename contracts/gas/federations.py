"""A federation of four sites and three aggregators, of whom two sign."""

from collections.abc import Sequence
from dataclasses import dataclass

from contracts.gas.meter import HOUR, Meter
from rexis.chain.signer import LocalSigner, Signer
from rexis.encoding import sha256, to_hex
from rexis.protocol.federation_rounds import RoundResult, Survivors, accumulate, approvals, federation_id, update_commitment
from rexis.protocol.secagg_messages import Envelope, Stage, secagg_context, survivors_hash

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

    def fix_late(self) -> None:
        """The second round's survivors, after its deadline: three sites signed them while the chain could not be reached."""
        ctx, addresses = secagg_context(*self.place, self.id, 2, 1, MANIFEST), [site.address for site in self.sites]
        with self.meter.unweighed():
            self.open(2)
            for site in self.sites:
                commitment = update_commitment(ctx, site.address, sha256(site.address.encode()), b"\x06" * 16)
                if site.address == self.meter.payer.address:
                    self.meter.sent("commit an update", REGISTRY, "commitUpdate", self.id, ctx, commitment)
                else:
                    self.meter.relayed("commit an update", site, REGISTRY, "commitUpdate", self.id, ctx, commitment)
        self.meter.wait(3 * HOUR)
        payload = {"survivors": addresses, "masked": to_hex(MASKED)}
        consents = {}
        for site in self.sites[:3]:
            unsigned = Envelope(Stage.SURVIVORS, ctx, site.address, payload)
            consents[site.address] = site.sign_typed_data(unsigned.typed_data(*self.place))
        survivors = {"federation": self.id, "round": 2, "attempt": 1, "maskedRecord": MASKED, "survivors": addresses}
        signed = self._signed(Survivors(self.id, 2, 1, survivors_hash(ctx, addresses), MASKED))
        name = "fix four survivors late, two signatures and three consents"
        self.meter.sent(name, REGISTRY, "fixConsented", survivors, signed, approvals(consents))

    def _signed(self, message: Survivors | RoundResult) -> list[dict[str, str | bytes]]:
        typed = message.typed_data(*self.place)
        return approvals({signer.address: signer.sign_typed_data(typed) for signer in self.aggregators[:2]})


def weigh(meter: Meter) -> None:
    """One whole round, one that is abandoned, and one whose survivors come late."""
    sites = ascending([*accounts(meter, "site", 3), meter.payer])
    one = Consortium(meter, meter.account("founder"), sites, accounts(meter, "aggregator", 3))
    one.found()
    one.train()
    with meter.unweighed():
        one.open(2)
    meter.wait(3 * HOUR)
    meter.relayed("abandon a round", one.aggregators[1], REGISTRY, "abandon", one.id, 2, 1)
    meter.relayed("close a federation", one.founder, REGISTRY, "close", one.id)
    other = Consortium(meter, meter.account("another founder"), sites, one.aggregators)
    with meter.unweighed():
        other.found()
        other.train()
    other.fix_late()
