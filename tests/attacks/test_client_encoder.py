"""An encoder at the owner: without pairs a provider with the same public encoder names no text, with d + 1 he names all, and noise on the
embeddings bounds what known pairs give."""

import torch
from torch import Tensor, nn

from rexis import ee
from rexis.attacks.known_pairs import recover_key
from rexis.ee.schemes.client_encoder import embeddings
from rexis.models.builders import build
from rexis.models.mlp import LogisticConfig
from rexis.models.spec import ModelSpec

D, VOCABULARY, TEXTS = 24, 200, 300
HEAD = ModelSpec(LogisticConfig(D, 4))


class Encoder(nn.Module):
    """A public sentence encoder in small: the mean of token vectors, squashed."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, D)
        nn.init.normal_(self.table.weight, generator=torch.Generator().manual_seed(0))

    def forward(self, ids: Tensor) -> Tensor:
        return torch.tanh(self.table(ids).mean(dim=1))


ENCODER = Encoder()
# What the owner sends, all of which the provider has among the texts that he guesses: the worst case.
IDS = torch.randint(0, VOCABULARY, (TEXTS, 8), generator=torch.Generator().manual_seed(1))
GUESSES = embeddings(ENCODER, IDS).double()


def sent(sigma: float | None) -> Tensor:
    key = ee.keygen(HEAD, mode="train", knowledge="private", seed=bytes(range(32)), scheme="client_encoder", encoder=ENCODER, sigma=sigma)
    return ee.encrypt_inputs(IDS, key, encoder=ENCODER, generator=torch.Generator().manual_seed(2)).double()


def named(read: Tensor, unseen: slice) -> float:
    """Share of the texts that are nearest to their own embedding among all guesses."""
    nearest = torch.cdist(read, GUESSES).argmin(dim=1)
    return (nearest == torch.arange(TEXTS))[unseen].double().mean().item()


def after_pairs(sigma: float | None, pairs: int) -> float:
    seen = sent(sigma)
    recovered = recover_key(GUESSES[:pairs].numpy(), seen[:pairs].numpy())
    return named(torch.from_numpy(recovered.decrypt(seen.numpy())), slice(pairs, None))


def test_without_pairs_the_public_encoder_names_nothing() -> None:
    assert named(sent(None), slice(None)) < 0.05


def test_d_plus_one_pairs_name_every_text() -> None:
    assert after_pairs(None, D + 1) > 0.99


def test_noise_on_the_embeddings_takes_the_names_away() -> None:
    assert after_pairs(0.1, 150) > 0.9
    assert after_pairs(1.0, 150) < 0.3


def test_what_is_uploaded_has_no_part_of_the_public_encoder() -> None:
    """The attacks on public weights and on the vocabulary have nothing to start from: the upload is the head alone."""
    head = build(HEAD, seed=1)
    key = ee.keygen(head, knowledge="private", scheme="client_encoder", encoder=ENCODER)
    uploaded = ee.encrypt_model(head, key).state_dict()
    assert {name: tuple(value.shape) for name, value in uploaded.items()} == {"0.weight": (4, D), "0.bias": (4,)}
