"""Stronger schemes behind the calls of `rexis.ee`, one module each; a key carries its scheme.

| scheme | what goes to the provider | what it rests on |
|---|---|---|
| keyed | T x + δ, keyed weights | nobody with the plain weights, known pairs or a reference cohort (tests/attacks) |
| noise | T (x + N(0, σ²)) + δ | μ = r/σ between two rows, whatever the provider knows; costs accuracy |
| client_encoder | keyed embeddings, keyed head | ids and base stay with the owner; as "keyed" for the embeddings, as "noise" with σ |
| ckks | ciphertexts, plain weights | ring learning with errors; linear models and small MLPs, seconds to a row |
| masked | (`specs/masked.md`, not built yet) | a pseudo-random generator and two providers that do not collude |
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from torch import nn

from rexis.ee.schemes.ckks import Ckks
from rexis.ee.schemes.client_encoder import ClientEncoder, digest
from rexis.ee.schemes.noise import Noise
from rexis.ee.schemes.scheme import Inputs, Keyed, Scheme
from rexis.encoding import from_hex
from rexis.models.spec import ModelSpec

__all__ = ["Ckks", "ClientEncoder", "Inputs", "Keyed", "Noise", "Scheme", "SchemeName", "choose", "parse"]

SchemeName = Literal["keyed", "noise", "client_encoder", "ckks", "masked"]


def choose(
    name: SchemeName, spec: ModelSpec, *, sigma: float | None, encoder: nn.Module | None, polynomial: Sequence[float] | None
) -> Scheme:
    """A scheme from its name and parameters.

    Args:
        spec: of the keyed model; of the head, with an encoder before it.

    Raises:
        ConfigurationError: "ckks" without TenSEAL.
        UnsupportedLayerError: "ckks" for a model that it does not carry.
        ValueError: an unknown scheme, "masked", a parameter of another scheme, or one that is missing.
    """
    if name == "masked":
        raise ValueError(
            "scheme='masked' (two providers that do not collude, one-time masks: specs/masked.md) comes in an issue of its own and is not "
            "built yet; for a public base take scheme='client_encoder' with sigma, for a small model scheme='ckks'"
        )
    if name not in get_args(SchemeName):
        raise ValueError(f"scheme: expected one of {', '.join(get_args(SchemeName))}, got {name!r:.40}")
    takes = {"noise": {"sigma"}, "client_encoder": {"sigma", "encoder"}, "ckks": {"polynomial"}}.get(name, set())
    given = {key for key, value in (("sigma", sigma), ("encoder", encoder), ("polynomial", polynomial)) if value is not None}
    if not given <= takes:
        raise ValueError(f"scheme={name!r} does not take {', '.join(sorted(given - takes))}")
    if name == "noise":
        if sigma is None:
            raise ValueError("scheme='noise' needs sigma, the standard deviation of the noise: `rexis ee check` says how much")
        return Noise(sigma)
    if name == "client_encoder":
        if encoder is None:
            raise ValueError("scheme='client_encoder' needs encoder, the public module that runs at the owner")
        return ClientEncoder(digest(encoder), sigma)
    return Ckks.for_spec(spec, polynomial) if name == "ckks" else Keyed()


def parse(document: Any) -> Scheme:
    """The scheme that `Scheme.document` wrote.

    Raises:
        ValueError: no such document.
    """
    if not isinstance(document, Mapping):
        raise ValueError(f"expected a scheme, got {document!r:.40}")
    if document.get("name") == "noise" and set(document) == {"name", "sigma"}:
        return Noise(float(document["sigma"]))
    if document.get("name") == "client_encoder" and set(document) == {"name", "encoder", "sigma"}:
        sigma = document["sigma"]
        return ClientEncoder(from_hex(document["encoder"], 32), None if sigma is None else float(sigma))
    if document != {"name": "keyed"}:
        raise ValueError(f"expected a scheme among keyed, noise and client_encoder, got {document!r:.80}")
    return Keyed()
