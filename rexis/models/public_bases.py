"""Weights that anybody can download, recognised by a few landmarks of each: what catches a public base that is called private.

A landmark is one matrix of a known model, kept in three forms. Its digest recognises the very same weights. Some of its entries, at fixed
places, recognise weights that were fine-tuned, quantised or cast since: their correlation is 1/√(1 + ε²) after independent drift of ε
standard deviations, and that of two unrelated matrices is 0 ± 1/√512. Its singular values recognise a copy whose rows or columns were
permuted or rotated, such as a keyed one, after small drift. Names of tensors are not used, so that renaming hides nothing.

What is not listed in `public_bases.json` is not found; `landmarks_of` makes the entry of another model.
"""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rexis.errors import PrivacyError

VERSION = 1
# Of each shape: first, middle and last block.
PER_SHAPE = 3
ENTRIES = 512
# 8 standard deviations of what unrelated matrices show; drift of 2.6 times the weights' own size is still found.
CORRELATION = 0.35
SINGULAR_VALUES = 32
# Relative distance of spectra: drift of 0.1 stays below, two blocks of one trained model lie above 0.026 (MiniLM). One agreement may be
# chance, half of all landmarks are none.
SPECTRUM_TOLERANCE = 0.01
SPECTRUM_SHARE = 0.5
# Singular values of larger matrices, the embedding tables, take longer than they tell.
MAX_SPECTRUM_SIZE = 1 << 22
MIN_WIDTH = 32


@dataclass(frozen=True, eq=False)
class Landmark:
    """One matrix of a known model.

    Attributes:
        shape: [rows, columns].
        digest: SHA-256 of its f32 entries in C order, little-endian.
        entries: f64 [ENTRIES], at equal distances in C order.
        spectrum: f64 [SINGULAR_VALUES], singular values at equal distances from the largest to the smallest; empty for large matrices.
    """

    shape: tuple[int, ...]
    digest: bytes
    entries: NDArray[np.float64]
    spectrum: NDArray[np.float64]


@dataclass(frozen=True)
class PublicBase:
    """A model that anybody can download: its name, and landmarks spread over its shapes and depth."""

    name: str
    landmarks: tuple[Landmark, ...]


@dataclass(frozen=True)
class BaseMatch:
    """A known model that a state comes from.

    Attributes:
        name: of the model.
        by: the strongest form of evidence: the same weights, entries that go along with its own, or its singular values.
        share: of its landmarks that were found again by any form.
    """

    name: str
    by: Literal["digest", "entries", "spectrum"]
    share: float

    def __str__(self) -> str:
        found = {
            "digest": "has matrices of",
            "entries": "has matrices that go along with those of",
            "spectrum": "has the singular values of",
        }[self.by]
        return f"the model {found} {self.name} ({self.share:.0%} of its landmarks)"


@cache
def public_bases() -> tuple[PublicBase, ...]:
    """The models known to this version of Rexis."""
    document = json.loads(files("rexis.models").joinpath("public_bases.json").read_text(encoding="utf-8"))
    return tuple(PublicBase(entry["name"], tuple(map(_parse, entry["landmarks"]))) for entry in document["bases"])


@cache
def listed_shapes() -> frozenset[tuple[int, ...]]:
    """Shapes of all landmarks: of a large model, only tensors of these shapes need be read to find it."""
    return frozenset(landmark.shape for base in public_bases() for landmark in base.landmarks)


def base_match(state: Mapping[str, Tensor], references: Iterable[PublicBase] | None = None) -> BaseMatch | None:
    """The known model that a plain or keyed state comes from, or None if none was recognised.

    Args:
        state: name → tensor, of any float dtype.
        references: models to compare with; None for those known to this version.
    """
    matches = [match for base in (public_bases() if references is None else references) if (match := _match(state, base))]
    return max(matches, key=lambda match: (("spectrum", "entries", "digest").index(match.by), match.share), default=None)


def refuse_public_base(state: Mapping[str, Tensor], references: Iterable[PublicBase] | None = None) -> None:
    """Return if a model that its owner calls private comes from no known public base.

    Raises:
        PrivacyError: it does; the message names the base and the way out.
    """
    match = base_match(state, references)
    if match is not None:
        raise PrivacyError(
            f"knowledge='private': {match}, which anybody can download, and the key is recovered from such weights, drift or not; "
            "say knowledge='public' with accept_known_base_risk=True, and the job is labelled 'obfuscation only'"
        )


def landmarks_of(state: Mapping[str, Tensor]) -> tuple[Landmark, ...]:
    """Up to `PER_SHAPE` matrices of every shape, spread over the tensors of a state in their order."""
    matrices: dict[tuple[int, ...], list[Tensor]] = {}
    for tensor in state.values():
        if _is_landmark(tensor):
            matrices.setdefault(tuple(tensor.shape), []).append(tensor)
    chosen = [alike[place] for alike in matrices.values() for place in sorted(set(np.linspace(0, len(alike) - 1, PER_SHAPE).astype(int)))]
    return tuple(Landmark(tuple(matrix.shape), _digest(matrix), _entries(matrix), _spectrum(matrix)) for matrix in chosen)


def document(bases: Iterable[PublicBase]) -> dict[str, Any]:
    """What `public_bases.json` holds."""
    return {
        "version": VERSION,
        "bases": [{"name": base.name, "landmarks": [_document(landmark) for landmark in base.landmarks]} for base in bases],
    }


def _match(state: Mapping[str, Tensor], base: PublicBase) -> BaseMatch | None:
    shapes = {landmark.shape for landmark in base.landmarks}
    candidates: dict[tuple[int, ...], list[Tensor]] = {}
    for tensor in state.values():
        if tuple(tensor.shape) in shapes and _is_landmark(tensor):
            candidates.setdefault(tuple(tensor.shape), []).append(tensor)
    entries = {shape: np.stack([_entries(tensor) for tensor in tensors]) for shape, tensors in candidates.items()}
    correlated = [
        landmark for landmark in base.landmarks if landmark.shape in entries and _correlates(landmark.entries, entries[landmark.shape])
    ]
    if correlated:
        same = any(_digest(tensor) == landmark.digest for landmark in correlated for tensor in candidates[landmark.shape])
        return BaseMatch(base.name, "digest" if same else "entries", len(correlated) / len(base.landmarks))
    # Half of the landmarks must be there at all before singular values are worth computing.
    measured = [landmark for landmark in base.landmarks if landmark.spectrum.size]
    if sum(landmark.shape in candidates for landmark in measured) < SPECTRUM_SHARE * len(measured) or not measured:
        return None
    spectra = {
        shape: np.stack([_spectrum(tensor) for tensor in tensors])
        for shape, tensors in candidates.items()
        if any(landmark.shape == shape for landmark in measured)
    }
    found = sum(landmark.shape in spectra and _same_spectrum(landmark.spectrum, spectra[landmark.shape]) for landmark in measured)
    return BaseMatch(base.name, "spectrum", found / len(measured)) if found >= SPECTRUM_SHARE * len(measured) else None


def _is_landmark(tensor: Tensor) -> bool:
    return tensor.ndim == 2 and tensor.is_floating_point() and min(tensor.shape) >= MIN_WIDTH


def _digest(tensor: Tensor) -> bytes:
    return hashlib.sha256(tensor.detach().cpu().float().contiguous().numpy().astype("<f4", copy=False).tobytes()).digest()


def _entries(tensor: Tensor) -> NDArray[np.float64]:
    places = torch.arange(ENTRIES) * (tensor.numel() - 1) // (ENTRIES - 1)
    return np.asarray(tensor.detach().cpu().flatten()[places].double().numpy(), dtype=np.float64)


def _spectrum(tensor: Tensor) -> NDArray[np.float64]:
    if tensor.numel() > MAX_SPECTRUM_SIZE:
        return np.empty(0)
    values = torch.linalg.svdvals(tensor.detach().cpu().double()).numpy()
    return np.asarray(values[np.linspace(0, len(values) - 1, SINGULAR_VALUES).astype(int)], dtype=np.float64)


def _correlates(known: NDArray[np.float64], seen: NDArray[np.float64]) -> bool:
    centred, others = known - known.mean(), seen - seen.mean(axis=1, keepdims=True)
    scale = np.linalg.norm(centred) * np.linalg.norm(others, axis=1)
    return bool((others @ centred > CORRELATION * np.maximum(scale, np.finfo(float).tiny)).any())


def _same_spectrum(known: NDArray[np.float64], seen: NDArray[np.float64]) -> bool:
    return bool((np.linalg.norm(seen - known, axis=1) <= SPECTRUM_TOLERANCE * np.linalg.norm(known)).any())


def _document(landmark: Landmark) -> dict[str, Any]:
    return {
        "shape": list(landmark.shape),
        "digest": landmark.digest.hex(),
        "entries": base64.b64encode(landmark.entries.astype("<f2").tobytes()).decode(),
        "spectrum": base64.b64encode(landmark.spectrum.astype("<f4").tobytes()).decode(),
    }


def _parse(entry: Mapping[str, Any]) -> Landmark:
    return Landmark(
        tuple(entry["shape"]),
        bytes.fromhex(entry["digest"]),
        np.frombuffer(base64.b64decode(entry["entries"]), "<f2").astype(np.float64),
        np.frombuffer(base64.b64decode(entry["spectrum"]), "<f4").astype(np.float64),
    )
