"""The key of one model in one mode, how it is made, and its file."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self, get_args

from torch import nn

from rexis.ee import derivation, key_files
from rexis.ee.families import canonical_spec, family
from rexis.ee.site_keys import SiteKey, draw_all
from rexis.ee.sites import Mode, Site, SiteKind, Suite
from rexis.encoding import from_hex, to_hex
from rexis.errors import EncodingError, KeyFileError, MalformedMessageError, PrivacyError
from rexis.models.builders import describe
from rexis.models.knowledge import Knowledge, protection
from rexis.models.modules.batch_norm import without_batch_norm
from rexis.models.spec import ModelSpec

Labels = Literal["permuted", "split"]

MAX_EPOCH = 1 << 32
MAX_CONDITION = 10.0


@dataclass(frozen=True)
class Key:
    """What turns a model, its inputs and its outputs into their keyed form and back.

    A key serves one model and one job: two keyed copies of the same weights are linkable, and d + 1 pairs of a plain row and its
    keyed form give the input key away (`rexis.attacks.known_pairs`).

    Attributes:
        seed: 32 secret bytes; everything else is derived from it.
        spec: the architecture of the keyed model.
        mode: "infer", or "train" (no shifts, so that SGD on keyed weights is SGD on plain weights).
        suite: "dense" takes the largest admitted group at each site, "permutation" permutations without shifts everywhere,
            "inputs" the largest admitted group at the feature rows and nothing else: the provider holds a plaintext model
            (`rexis.ee.plain_model` says what that reveals).
        knowledge: who holds the plaintext model.
        epoch: counts re-keyings of one job.
        condition: bound of the condition number of dense keys for inference; 1 for orthogonal ones.
        labels: in mode "train", whether the provider computes the loss over permuted classes, or the owner returns its gradient.
    """

    seed: bytes = field(repr=False)
    spec: ModelSpec
    mode: Mode
    suite: Suite
    knowledge: Knowledge
    epoch: int = 0
    condition: float = 1.0
    labels: Labels = "permuted"

    def __post_init__(self) -> None:
        if len(self.seed) != derivation.SEED_SIZE:
            raise ValueError(f"expected a seed of {derivation.SEED_SIZE} bytes, got {len(self.seed)}")
        chosen = {"mode": Mode, "suite": Suite, "knowledge": Knowledge, "labels": Labels}
        for name, choices in chosen.items():
            value = getattr(self, name)
            if value not in get_args(choices):
                raise ValueError(f"{name}: expected one of {', '.join(get_args(choices))}, got {value!r:.40}")
        if type(self.epoch) is not int or not 0 <= self.epoch < MAX_EPOCH:
            raise ValueError(f"expected an epoch of 0 to {MAX_EPOCH - 1}, got {self.epoch!r:.40}")
        if not 1 <= self.condition <= MAX_CONDITION or (self.condition > 1 and self.mode == "train"):
            raise ValueError(f"condition: expected 1 to {MAX_CONDITION:g} for inference, 1 for training, got {self.condition!r:.40}")
        if self.labels == "split" and self.mode != "train":
            raise ValueError("labels='split' is a way of training, got mode 'infer'")

    @property
    def id(self) -> str:
        """A public name of the key: 0x and 32 hexadecimal digits, which say nothing about the seed."""
        return to_hex(derivation.subkey(self.seed, f"job/{self.epoch}/id")[:16])

    @property
    def protection(self) -> str:
        """What may be said of a job under this key: "keyed transformation", or "obfuscation only" if others hold the plain weights."""
        return protection(self.knowledge)

    @cached_property
    def site_keys(self) -> Mapping[str, SiteKey]:
        """The expanded key: site name → T and δ, in the order of the sites."""
        sites = [self._as_trained(site) for site in family(self.spec).sites(self.spec.config)]
        drawn = draw_all(self.seed, f"job/{self.epoch}/", sites, mode=self.mode, suite=self.suite, condition=self.condition)
        return MappingProxyType(drawn)

    @property
    def monomial(self) -> bool:
        """Whether every site has a signed permutation, with which elementwise optimisers such as Adam commute."""
        return all(site.transform.monomial for site in self.site_keys.values())

    def check_suite(self) -> None:
        """Return if every site admits the suite in this mode.

        Raises:
            UnsupportedLayerError: one does not; the message gives its rule and the reason.
        """
        for site in family(self.spec).sites(self.spec.config):
            self._as_trained(site).admit_suite(self.suite, self.mode)

    def save(self, path: Path | str, passphrase: str) -> None:
        """Write the key, sealed under a passphrase, to a new file of under 1 KB that only its owner can read.

        Raises:
            FileExistsError: a key is never overwritten.
        """
        key_files.write(Path(path), self._document(), passphrase)

    @classmethod
    def load(cls, path: Path | str, passphrase: str) -> Self:
        """Read a key file.

        Raises:
            KeyFileError: a wrong passphrase, or bytes that `save` did not write.
        """
        return cls._parse(key_files.read(Path(path), passphrase))

    @classmethod
    def _parse(cls, document: Any) -> Self:
        names = {"version", "seed", "spec", "mode", "suite", "knowledge", "epoch"}
        if isinstance(document, dict) and document.get("version") == 2:
            names |= {"condition", "labels"}
        if not isinstance(document, dict) or set(document) != names or document["version"] not in (1, 2):
            raise KeyFileError(f"expected a key of version 1 or 2 with {', '.join(sorted(names))}")
        try:
            return cls(
                seed=from_hex(document["seed"], derivation.SEED_SIZE),
                spec=ModelSpec.parse(document["spec"]),
                mode=document["mode"],
                suite=document["suite"],
                knowledge=document["knowledge"],
                epoch=document["epoch"],
                condition=float(document.get("condition", 1)),
                labels=document.get("labels", "permuted"),
            )
        except (EncodingError, MalformedMessageError, ValueError) as error:
            raise KeyFileError(f"the key file holds no valid key: {error}") from error

    def _document(self) -> dict[str, Any]:
        return {
            "version": 2,
            "seed": to_hex(self.seed),
            "spec": self.spec.document(),
            "mode": self.mode,
            "suite": self.suite,
            "knowledge": self.knowledge,
            "epoch": self.epoch,
            "condition": repr(self.condition),
            "labels": self.labels,
        }

    def _as_trained(self, site: Site) -> Site:
        return replace(site, kind=SiteKind.RETURNED) if self.labels == "split" and site.kind is SiteKind.OUTPUT else site


def keygen(
    model: nn.Module | ModelSpec,
    *,
    mode: Mode = "infer",
    suite: Suite = "dense",
    knowledge: Knowledge,
    accept_known_base_risk: bool = False,
    seed: bytes | None = None,
    condition: float = 1.0,
    labels: Labels = "permuted",
) -> Key:
    """Make a key for a model.

    Args:
        model: a torch module of a supported family, or its spec.
        knowledge: who holds the plaintext model: only its owner ("private"), the members of a federation and its aggregator ("members"),
            or anyone ("public"). There is no default, because the protection hangs on it.
        accept_known_base_risk: needed with "public": whoever has the base weights recovers the key from the keyed ones in seconds.
        seed: 32 bytes; None (the right choice outside of tests) takes them from the operating system.
        condition: above 1, dense keys for inference are drawn from all invertible matrices whose condition number it bounds; the float
            error grows with it (keep it under 3 in bf16, 10 in f32).
        labels: "split" if the owner computes the loss in training.

    Raises:
        PrivacyError: a public model without `accept_known_base_risk`.
        UnsupportedLayerError: the model has no equivariant transform.
    """
    if knowledge == "public" and not accept_known_base_risk:
        raise PrivacyError(
            "knowledge='public': the key is recovered from public weights in seconds, so this is no protection; "
            "keep the base private, or pass accept_known_base_risk=True and have the job labelled 'obfuscation only'"
        )
    if isinstance(model, nn.Module):
        model = describe(without_batch_norm(model) if mode == "infer" else model)
    spec = canonical_spec(model)
    seed = secrets.token_bytes(derivation.SEED_SIZE) if seed is None else seed
    key = Key(seed, spec, mode, suite, knowledge, condition=condition, labels=labels)
    key.check_suite()
    return key
