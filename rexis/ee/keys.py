"""The key of one model in one mode, and its file.

The document in the file has every field of the key; what it derives and writes all the same, it compares when it reads:

    check         sub("job/<epoch>/check"), first 16 bytes: a seed that is not the one, or is derived from otherwise, does not pass for it
    architecture  digest of the spec: config and shapes of the keyed model
    vocabulary    whether token ids are permuted, special ones included

What was added later, the scheme of inputs and the scales of shifts, is written where it is not the default: files from before are read,
and their keys stay what they were. Version 1 had neither these nor condition, labels and records, and drew Haar matrices at every width;
such files are still read, and written again as they were.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, Self, get_args

from rexis.ee import derivation, key_files
from rexis.ee.families import family
from rexis.ee.records import SUFFIX, RecordCounter
from rexis.ee.schemes import Ckks, Keyed, Scheme
from rexis.ee.schemes import parse as parse_scheme
from rexis.ee.shift_scales import ShiftScales
from rexis.ee.site_keys import SiteKey, draw_all
from rexis.ee.sites import Mode, Site, SiteKind, Suite
from rexis.encoding import from_hex, to_hex
from rexis.errors import EncodingError, KeyFileError, MalformedMessageError
from rexis.models.knowledge import Knowledge, protection
from rexis.models.spec import ModelSpec

Labels = Literal["permuted", "split"]

MAX_EPOCH = 1 << 32
MAX_CONDITION = 10.0
MAX_RECORDS = 1 << 48
VERSION: Final = 2
_DERIVED = ("check", "architecture", "vocabulary")
_OPTIONAL = ("scheme", "shifts")
# Fields of a key file, by the version that brought them.
_FIELDS = {1: ("seed", "spec", "mode", "suite", "knowledge", "epoch"), 2: ("condition", "labels", "records")}


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
        records: rows (or token ids) that may be keyed under it in all; None for no budget.
        version: of the derivation and the file.
        scheme: what is done to the owner's inputs before they are keyed (`rexis.ee.schemes`).
        shifts: how large the shifts are that layers add, by what stands there in the plain model.
    """

    seed: bytes = field(repr=False)
    spec: ModelSpec
    mode: Mode
    suite: Suite
    knowledge: Knowledge
    epoch: int = 0
    condition: float = 1.0
    labels: Labels = "permuted"
    records: int | None = None
    version: Literal[1, 2] = VERSION
    scheme: Scheme = field(default_factory=Keyed)
    shifts: ShiftScales = field(default_factory=ShiftScales)

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
        if self.records is not None and (type(self.records) is not int or not 0 < self.records <= MAX_RECORDS):
            raise ValueError(f"records: expected a budget of 1 to {MAX_RECORDS}, or none, got {self.records!r:.40}")
        later = (self.condition, self.labels, self.records, self.scheme, self.shifts)
        if self.version == 1 and later != (1.0, "permuted", None, Keyed(), ShiftScales()):
            raise ValueError("a key of version 1 has no condition, labels, records, scheme and shifts")
        if isinstance(self.scheme, Ckks) and (self.mode != "infer" or self.records is not None):
            raise ValueError(f"scheme='ckks' is for inference and has no budget of records, got mode {self.mode!r}, records {self.records}")

    @property
    def id(self) -> str:
        """A public name of the key: 0x and 32 hexadecimal digits, which say nothing about the seed."""
        return to_hex(derivation.subkey(self.seed, f"job/{self.epoch}/id")[:16])

    @property
    def protection(self) -> str:
        """What may be said of a job under this key: "keyed transformation", or "obfuscation only" if others hold the plain weights; and
        "homomorphic encryption" under CKKS, where the weights do not matter."""
        return "homomorphic encryption" if isinstance(self.scheme, Ckks) else protection(self.knowledge)

    @property
    def sites(self) -> tuple[Site, ...]:
        """Where it acts, in the order of the model; the outputs as `labels` has them trained."""
        found = family(self.spec).sites(self.spec.config)
        if self.labels != "split":
            return tuple(found)
        return tuple(replace(site, kind=SiteKind.RETURNED) if site.kind is SiteKind.OUTPUT else site for site in found)

    @cached_property
    def site_keys(self) -> Mapping[str, SiteKey]:
        """The expanded key: site name → T and δ, in the order of the sites."""
        drawn = draw_all(
            *(self.seed, f"job/{self.epoch}/", self.sites),
            mode=self.mode,
            suite=self.suite,
            condition=self.condition,
            deviation=self.shifts.deviation,
            fast=self.version > 1,
        )
        return MappingProxyType(drawn)

    @property
    def bare(self) -> "Key":
        """This key for inputs that the scheme has prepared already: noisy rows, embeddings.

        Raises:
            ValueError: scheme "ckks", where nothing is keyed.
        """
        if isinstance(self.scheme, Ckks):
            raise ValueError("a key of scheme 'ckks' keys nothing: rows are encrypted, weights are plain")
        return replace(self, scheme=Keyed())

    @property
    def monomial(self) -> bool:
        """Whether every site has a signed permutation, with which elementwise optimisers such as Adam commute."""
        return all(site.transform.monomial for site in self.site_keys.values())

    def check_suite(self) -> None:
        """Return if every site admits the suite in this mode.

        Raises:
            UnsupportedLayerError: one does not; the message gives its rule and the reason.
        """
        for site in self.sites:
            site.admit_suite(self.suite, self.mode)

    def save(self, path: Path | str, passphrase: str) -> None:
        """Write the key, sealed under a passphrase, to a new file of under 1 KB that only its owner can read.

        A key with a budget gets a file beside it that counts its records: `path` with ".records" behind it.

        Raises:
            FileExistsError: a key and a count are never overwritten.
            ValueError: a key of scheme "ckks", whose secret key lasts as long as the process.
        """
        if isinstance(self.scheme, Ckks):
            raise ValueError("a key of scheme 'ckks' is not saved: TenSEAL's secret key follows from no seed and fits in no key file")
        if Path(path).exists():
            raise FileExistsError(f"{path} exists; a key is never overwritten")
        if self.records is not None:
            # First, because a key without its count is of no use, and a count without its key does no harm.
            self.counter(path).create()
        try:
            key_files.write(Path(path), self._document(), passphrase)
        except BaseException:
            if self.records is not None:
                self.counter(path).path.unlink()
            raise

    def counter(self, path: Path | str, *, rank: float | None = None) -> RecordCounter:
        """What counts the records of this key.

        Args:
            path: of the key file.
            rank: effective rank of the owner's data (`rexis.ee.effective_rank`); None for their width.

        Raises:
            ValueError: a key without a budget.
        """
        if self.records is None:
            raise ValueError(f"key {self.id} has no budget of records; give keygen one")
        entrance = family(self.spec).ends(self.spec.config)
        width = next(site.dimension for site in self.sites if site.name == (entrance.rows or entrance.ids))
        secret = derivation.subkey(self.seed, f"job/{self.epoch}/records")
        return RecordCounter(Path(f"{path}{SUFFIX}"), self.id, secret, self.records, width if rank is None else rank)

    @property
    def uncounted(self) -> "Key":
        """The same key without its budget, for what is keyed and does not leave the owner: a privacy report, a rehearsal."""
        return replace(self, records=None)

    @classmethod
    def load(cls, path: Path | str, passphrase: str) -> Self:
        """Read a key file.

        Raises:
            KeyFileError: a wrong passphrase, or bytes that `save` did not write.
        """
        return cls._parse(key_files.read(Path(path), passphrase))

    @classmethod
    def _parse(cls, document: Any) -> Self:
        version = document.get("version") if isinstance(document, dict) else None
        if type(version) is not int or version not in _FIELDS:
            raise KeyFileError(f"expected a key of version {' or '.join(map(str, _FIELDS))}, got {version!r:.40}")
        names = {"version", *(name for number in range(1, version + 1) for name in _FIELDS[number])}
        names |= {*_DERIVED} if version > 1 else set()
        # Scheme "keyed" and shifts of full size are not written.
        names |= {*_OPTIONAL} & set(document) if version > 1 else set()
        if set(document) != names:
            raise KeyFileError(f"expected a key of version {version} with {', '.join(sorted(names))}, got {', '.join(sorted(document))}")
        try:
            chosen: dict[str, Any] = {name: document[name] for name in names.difference(_DERIVED)}
            chosen |= {"seed": from_hex(document["seed"], derivation.SEED_SIZE), "spec": ModelSpec.parse(document["spec"])}
            if version > 1:
                chosen["condition"] = float(document["condition"])
            if "scheme" in chosen:
                chosen["scheme"] = parse_scheme(chosen["scheme"])
            if "shifts" in chosen:
                chosen["shifts"] = ShiftScales.parse(chosen["shifts"])
            key = cls(**chosen)
        except (EncodingError, MalformedMessageError, TypeError, ValueError) as error:
            raise KeyFileError(f"the key file holds no valid key: {error}") from error
        for name, expected in key._document().items():
            if name in (*_DERIVED, "condition") and document[name] != expected:
                raise KeyFileError(f"{name}: the key file has {document[name]!r:.80}, its other fields give {expected!r}")
        return key

    def _document(self) -> dict[str, Any]:
        optional: dict[str, Any] = {} if isinstance(self.scheme, Keyed) else {"scheme": self.scheme.document()}
        optional |= {} if self.shifts == ShiftScales() else {"shifts": self.shifts.document()}
        document: dict[str, Any] = {
            "version": self.version,
            "seed": to_hex(self.seed),
            "spec": self.spec.document(),
            "mode": self.mode,
            "suite": self.suite,
            "knowledge": self.knowledge,
            "epoch": self.epoch,
        }
        if self.version == 1:
            return document
        return document | {
            "condition": repr(self.condition),
            "labels": self.labels,
            "records": self.records,
            "check": to_hex(derivation.subkey(self.seed, f"job/{self.epoch}/check")[:16]),
            "architecture": to_hex(self.spec.digest()),
            "vocabulary": family(self.spec).ends(self.spec.config).ids is not None,
            **optional,
        }
