"""Schemes behind keygen and encrypt_inputs: noise before the key, an encoder at the owner, and what each of them refuses."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rexis import ee
from rexis.dp.accountant import GaussianEvent, epsilon
from rexis.ee.schemes import ClientEncoder, Noise
from rexis.ee.schemes.client_encoder import embeddings
from rexis.ee.schemes.metric_privacy import MetricPrivacy, noise_figures
from rexis.ee.schemes.noise import add_noise
from rexis.errors import KeyFileError
from rexis.models.builders import build
from rexis.models.mlp import LogisticConfig, MLPConfig
from rexis.models.spec import ModelSpec

SPEC = ModelSpec(MLPConfig(8, (16,), 3))
VOCABULARY = 50


def rows(count: int = 40, seed: int = 1) -> Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(7)


@dataclass
class Output:
    last_hidden_state: Tensor


class Encoder(nn.Module):
    """Stands for a HuggingFace encoder: token embeddings under a mask."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        self.table = nn.Embedding(VOCABULARY, 8)
        self.dropout = nn.Dropout(0.5)
        nn.init.normal_(self.table.weight, generator=torch.Generator().manual_seed(seed))

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Output:
        return Output(torch.tanh(self.dropout(self.table(input_ids))))


def texts(count: int = 12) -> Mapping[str, Tensor]:
    ids = torch.randint(0, VOCABULARY, (count, 5), generator=torch.Generator().manual_seed(3))
    return {"input_ids": ids, "attention_mask": (torch.arange(5) < 4).long().expand(count, 5)}


def test_scheme_keyed_is_what_a_key_is_without_one() -> None:
    key = ee.keygen(SPEC, knowledge="private", seed=bytes(32))
    assert key == ee.keygen(SPEC, knowledge="private", seed=bytes(32), scheme="keyed")
    assert "scheme" not in key._document()
    with pytest.raises(ValueError, match="no encoder and no generator"):
        ee.encrypt_inputs(rows(), key, generator=seeded())


@pytest.mark.parametrize("suite", ["dense", "permutation"])
def test_noise_is_added_before_the_key(suite: ee.sites.Suite) -> None:
    key = ee.keygen(SPEC, suite=suite, knowledge="private", seed=bytes(32), scheme="noise", sigma=0.5)
    x = rows()
    noisy = add_noise(x, 0.5, seeded())
    expected = ee.encrypt_inputs(noisy, key.bare)
    torch.testing.assert_close(ee.encrypt_inputs(x, key, generator=seeded()), expected, rtol=0, atol=1e-12)
    model = build(SPEC, seed=1, dtype=torch.float64)
    answer = ee.decrypt_outputs(ee.encrypt_model(model, key)(expected), key)
    torch.testing.assert_close(answer, model(noisy), rtol=0, atol=1e-9)
    # Fresh noise from the operating system at each call, of the stated size.
    drawn = torch.stack([ee.encrypt_inputs(x, key) for _ in range(60)])
    assert not torch.equal(drawn[0], drawn[1])
    assert drawn.std(dim=0).mean().item() == pytest.approx(0.5, rel=0.05)
    assert ee.encrypt_inputs(x.float(), key).dtype == torch.float32


def test_privacy_by_distance() -> None:
    privacy = MetricPrivacy(0.5)
    assert privacy.mu(1.0) == 2.0
    assert privacy.mu(0.25) == 0.5
    assert MetricPrivacy(0.5, releases=4).mu(1.0) == 4.0
    # A standard normal number lies within one standard deviation that often.
    assert privacy.advantage(1.0) == pytest.approx(0.6826895, abs=1e-6)
    assert privacy.advantage(0.0) == privacy.epsilon(0.0, 1e-5) == 0.0
    # Dong, Roth and Su, corollary 2.13: delta(eps) of mu-GDP.
    mu, delta = 0.5, 1e-5
    found = MetricPrivacy(2.0).epsilon(1.0, delta)
    normal = torch.distributions.Normal(0.0, 1.0)
    tail = normal.cdf(torch.tensor(-found / mu + mu / 2)) - math.exp(found) * normal.cdf(torch.tensor(-found / mu - mu / 2))
    assert tail.item() == pytest.approx(delta, rel=0.05)
    assert found == epsilon([GaussianEvent(2.0)], delta)
    for sigma in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="sigma: expected"):
            MetricPrivacy(sigma)


def test_privacy_and_the_owners_score_stand_side_by_side() -> None:
    x = rows(200)
    truth = x @ torch.arange(1.0, 9.0, dtype=torch.float64)

    def score(train: Tensor) -> float:
        weights = torch.linalg.lstsq(train, truth.unsqueeze(1)).solution
        return 1 - ((x @ weights).squeeze() - truth).var().item() / truth.var().item()

    curve = [noise_figures(x, sigma, score, seeded()) for sigma in (0.1, 1.0, 4.0)]
    assert [figures.mu_per_unit for figures in curve] == [10.0, 1.0, 0.25]
    assert all(figures.score_plain == pytest.approx(1.0) for figures in curve)
    assert curve[0].score_noisy > 0.99 > curve[1].score_noisy > curve[2].score_noisy
    assert curve[1].mu_median == curve[1].median_distance == pytest.approx(4, rel=0.1)
    assert curve[0].advantage_median > 0.999
    assert set(curve[0].document()) >= {"sigma", "mu_per_unit", "score_plain", "score_noisy"}


def test_only_embeddings_leave_and_the_head_answers_on_them() -> None:
    encoder, head = Encoder(), build(SPEC, seed=1)
    key = ee.keygen(head, knowledge="private", scheme="client_encoder", encoder=encoder.train())
    sent = ee.encrypt_inputs(texts(), key, encoder=encoder)
    assert encoder.training
    assert encoder.dropout.training
    assert sent.shape == (12, 8)
    assert sent.is_floating_point()
    uploaded = ee.encrypt_model(head, key)
    plain = embeddings(encoder, texts())
    # The average over unmasked tokens, without dropout.
    by_hand = torch.tanh(encoder.table.weight[texts()["input_ids"][:, :4]]).mean(dim=1)
    torch.testing.assert_close(plain, by_hand)
    torch.testing.assert_close(ee.decrypt_outputs(uploaded(sent), key), head(plain), rtol=1e-4, atol=1e-5)
    # Nothing of the encoder is uploaded: no tensor has a vocabulary's length, and none is the encoder's.
    assert all(VOCABULARY not in value.shape for value in uploaded.state_dict().values())


def test_what_leaves_depends_on_ids_through_their_embeddings_alone() -> None:
    """Ids and table permuted together: other ids, the same embeddings, and bit for bit the same rows to the provider."""
    encoder, renamed = Encoder(), Encoder()
    order = torch.randperm(VOCABULARY, generator=seeded())
    with torch.no_grad():
        renamed.table.weight[order] = encoder.table.weight
    ids = texts()["input_ids"]
    seen = []
    for module, given in ((encoder, ids), (renamed, order[ids])):
        key = ee.keygen(SPEC, knowledge="private", seed=bytes(32), scheme="client_encoder", encoder=module)
        seen.append(ee.encrypt_inputs(texts() | {"input_ids": given}, key, encoder=module))
    assert not torch.equal(ids, order[ids])
    assert torch.equal(seen[0], seen[1])


def test_an_encoder_can_be_any_module_and_take_noise() -> None:
    encoder = nn.Sequential(nn.Linear(4, 8), nn.Tanh()).double()
    key = ee.keygen(SPEC, knowledge="private", seed=bytes(32), scheme="client_encoder", encoder=encoder, sigma=0.3)
    x = torch.randn(9, 4, generator=seeded(), dtype=torch.float64)
    noisy = add_noise(embeddings(encoder, x), 0.3, seeded())
    found = ee.encrypt_inputs(x, key, encoder=encoder, generator=seeded())
    torch.testing.assert_close(found, ee.encrypt_inputs(noisy, key.bare), rtol=0, atol=1e-12)


def test_ids_do_not_pass_by_mistake() -> None:
    encoder = Encoder()
    ids = texts()["input_ids"]
    key = ee.keygen(SPEC, knowledge="private", scheme="client_encoder", encoder=encoder)
    with pytest.raises(ValueError, match="needs the encoder"):
        ee.encrypt_inputs(ids, key)
    with pytest.raises(KeyFileError, match="the key is for the encoder"):
        ee.encrypt_inputs(ids, key, encoder=Encoder(seed=1))
    with pytest.raises(ValueError, match="named tensors go with"):
        ee.encrypt_inputs(texts(), ee.keygen(SPEC, knowledge="private"))
    with pytest.raises(ValueError, match="scheme='client_encoder'"):
        ee.encrypt_inputs(ids, ee.keygen(SPEC, knowledge="private", scheme="noise", sigma=1.0))
    table = nn.Embedding(VOCABULARY, 8)
    with pytest.raises(ValueError, match="expected an encoder that returns embeddings"):
        ee.encrypt_inputs(ids, ee.keygen(SPEC, knowledge="private", scheme="client_encoder", encoder=table), encoder=table)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scheme": "masked"}, r"specs/masked\.md"),
        ({"scheme": "fhe"}, "expected one of keyed"),
        ({"scheme": "noise"}, "needs sigma"),
        ({"scheme": "noise", "sigma": 0.0}, "positive"),
        ({"scheme": "client_encoder"}, "needs encoder"),
        ({"sigma": 1.0}, "does not take sigma"),
        ({"scheme": "noise", "sigma": 1.0, "polynomial": (0.0, 0.0, 1.0)}, "does not take polynomial"),
    ],
)
def test_what_a_scheme_is_not_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ee.keygen(SPEC, knowledge="private", **arguments)


def test_the_key_file_keeps_the_scheme(tmp_path: Path) -> None:
    plain = ee.keygen(ModelSpec(LogisticConfig(8, 3)), knowledge="private")
    for scheme in (Noise(0.75), ClientEncoder(bytes(range(32))), ClientEncoder(bytes(32), 0.5)):
        key = replace(plain, scheme=scheme)
        assert ee.Key._parse(key._document()) == key != plain
    key.save(tmp_path / "key", "p")
    assert ee.Key.load(tmp_path / "key", "p") == key
    document = key._document()
    no_digest = {"name": "client_encoder", "encoder": "0x", "sigma": None}
    for wrong in ({"name": "noise", "sigma": "-1"}, {"name": "ckks"}, {"name": "noise"}, "noise", no_digest):
        with pytest.raises(KeyFileError):
            ee.Key._parse(document | {"scheme": wrong})
