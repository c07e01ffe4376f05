"""Scheme "client_encoder": a public encoder runs at the owner, and only its embeddings go out, keyed; the head on them is keyed too.

    key = ee.keygen(head, scheme="client_encoder", encoder=encoder, knowledge="private")      # + sigma=… for noise on the embeddings
    rows = ee.encrypt_inputs({"input_ids": ids, "attention_mask": mask}, key, encoder=encoder)

No id, no attention mask and no weight of the encoder reaches the provider, so that neither a permuted vocabulary nor the public base is
there to attack, and the key rests on the head, which is private from the start. What stays true of every key: distances between the
embeddings are visible, and d + 1 known pairs give it away; whoever then has the public encoder matches the embeddings of texts that he
guesses. Noise on the embeddings bounds that (`noise`), in the unit of the embeddings.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rexis.ee.schemes.noise import add_noise, check_sigma
from rexis.ee.schemes.scheme import Inputs, Scheme
from rexis.encoding import canonical_json, domain_tag, sha256, to_hex
from rexis.errors import KeyFileError


@dataclass(frozen=True)
class ClientEncoder(Scheme):
    """Inputs become embeddings at the owner, then rows of the keyed head.

    Attributes:
        encoder_digest: of the encoder's class, tensors and their names: another encoder gives other embeddings in silence.
        sigma: of noise on the embeddings; None for none.
    """

    encoder_digest: bytes
    sigma: float | None = None
    name: ClassVar[str] = "client_encoder"

    def __post_init__(self) -> None:
        if len(self.encoder_digest) != 32:
            raise ValueError(f"expected a digest of 32 bytes, got {len(self.encoder_digest)}")
        if self.sigma is not None:
            check_sigma(self.sigma)

    def prepare(self, x: Inputs, *, encoder: nn.Module | None, generator: torch.Generator | None) -> Tensor:
        if encoder is None:
            raise ValueError("a key of scheme 'client_encoder' needs the encoder that it was made with: encrypt_inputs(x, key, encoder=…)")
        found = digest(encoder)
        if found != self.encoder_digest:
            raise KeyFileError(f"the key is for the encoder {to_hex(self.encoder_digest)}, got {to_hex(found)}")
        embedded = embeddings(encoder, x)
        return embedded if self.sigma is None else add_noise(embedded, self.sigma, generator)

    def document(self) -> dict[str, Any]:
        sigma = None if self.sigma is None else repr(self.sigma)
        return {"name": self.name, "encoder": to_hex(self.encoder_digest), "sigma": sigma}


@torch.no_grad()
def embeddings(encoder: nn.Module, x: Inputs) -> Tensor:
    """What the encoder makes of x, without dropout: floats [n, d].

    Token embeddings of a HuggingFace encoder (`last_hidden_state` [n, s, d]) are averaged over the attention mask, as sentence encoders
    are trained to be read (Reimers and Gurevych, Sentence-BERT, EMNLP 2019).

    Raises:
        ValueError: an encoder that returns neither.
    """
    modes = [(module, module.training) for module in encoder.modules()]
    encoder.eval()
    try:
        output = encoder(**x) if isinstance(x, Mapping) else encoder(x)
    finally:
        for module, training in modes:
            module.training = training
    hidden = getattr(output, "last_hidden_state", None)
    if isinstance(hidden, Tensor):
        mask = x.get("attention_mask") if isinstance(x, Mapping) else None
        weights = torch.ones(hidden.shape[:2]) if mask is None else mask
        weights = weights.to(hidden).unsqueeze(-1)
        return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
    if not isinstance(output, Tensor) or not output.is_floating_point() or output.ndim != 2:
        got = f"shape {list(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(f"expected an encoder that returns embeddings [n, d] or a last_hidden_state, got {got}")
    return output


def digest(encoder: nn.Module) -> bytes:
    """SHA-256 over `"rexis/ee-encoder/1\\0"`, the class, and name, dtype, shape and SHA-256 of every tensor, 32 bytes."""
    tensors = [
        {"name": name, "dtype": str(value.dtype), "shape": list(value.shape), "sha256": to_hex(_bytes_digest(value))}
        for name, value in encoder.state_dict().items()
    ]
    return sha256(domain_tag("ee-encoder", 1) + b"\0" + canonical_json({"class": type(encoder).__name__, "tensors": tensors}))


def _bytes_digest(value: Tensor) -> bytes:
    flat = value.detach().cpu().contiguous().reshape(-1)
    return sha256(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
