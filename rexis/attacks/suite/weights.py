"""Attacks on the keyed weights, by whoever holds plain ones or an earlier upload."""

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from rexis import ee
from rexis.attacks import plain_activations
from rexis.attacks.exposure import Exposure, Floats, Integers
from rexis.attacks.linking import SAME_WEIGHTS, link_layers, link_transformers
from rexis.attacks.members import recover_sites
from rexis.attacks.norm_gains import match_gains, norm_profiles
from rexis.attacks.plain_activations import read_rows
from rexis.attacks.public_base import read_tokens, recover_basis
from rexis.attacks.readings import explained_variance
from rexis.attacks.suite.attack import Attack, Knows, Outcome, Reads
from rexis.attacks.suite.rows import pair
from rexis.attacks.vocabulary import match_vocabulary
from rexis.ee.families import family
from rexis.models.bert import BertConfig
from rexis.models.llama import LlamaConfig
from rexis.models.mlp import MLPConfig
from rexis.models.public_bases import base_match

State = Mapping[str, NDArray[np.float32]]
# Tokens of the vocabulary that the owner looks up in what the attacker read.
TOKENS = 2_000
NO_BASE = "private weights, and no base was given"


def _transformer(exposure: Exposure) -> BertConfig | LlamaConfig | None:
    config = exposure.key.spec.config
    return config if isinstance(config, BertConfig | LlamaConfig) else None


def _state(model: nn.Module) -> State:
    return {name: tensor.detach().float().numpy() for name, tensor in model.state_dict().items() if tensor.is_floating_point()}


def _head_width(config: BertConfig | LlamaConfig) -> int:
    return config.head_width if isinstance(config, LlamaConfig) else config.hidden // config.heads


def _words(state: State) -> NDArray[np.float32]:
    for name, tensor in state.items():
        if name.endswith(("word_embeddings.weight", "embed_tokens.weight")):
            return tensor
    raise ValueError("expected word embeddings among the weights")


def _vocabulary_sample(exposure: Exposure, size: int, generator: np.random.Generator) -> tuple[Integers, Integers]:
    """Plain token ids, and the rows of the keyed table at which they stand."""
    plain = np.sort(generator.permutation(size)[:TOKENS])
    return plain, ee.encrypt_inputs(torch.from_numpy(plain), exposure.key).numpy()


def _base(exposure: Exposure) -> nn.Module:
    if exposure.base is None:
        raise ValueError("expected the base model")
    return exposure.base


def _public_fingerprint(exposure: Exposure, _generator: np.random.Generator) -> Outcome:
    match = base_match(exposure.model.state_dict())
    if match is None:
        return Outcome({"found": 0.0})
    return Outcome({"found": 1.0, "share": match.share}, note=str(match))


def _no_plain_layer(exposure: Exposure) -> str:
    return _no_base(exposure) or ("" if exposure.key.suite == "inputs" else "the provider gets no plain layer")


def _plain_activations(exposure: Exposure, _generator: np.random.Generator) -> Outcome:
    """The provider computes W' x' + b, which is W x + b: whoever knows W and b reads x in the row space of W."""
    rows, keyed = pair(exposure)
    (weight, bias), (weight_seen, bias_seen) = _layers(_base(exposure))[0], _layers(exposure.keyed)[0]
    return Outcome({"read": _share(rows, read_rows(weight, bias, keyed @ weight_seen.T + bias_seen))})


def _keyed_model(exposure: Exposure) -> str:
    return "" if exposure.key.suite == "inputs" else "the model is keyed, not only its rows"


def _plain_model(exposure: Exposure, _generator: np.random.Generator) -> Outcome:
    """What the provider sees without any attack, and what the first layer would open if it became known."""
    rows, keyed = pair(exposure)
    return Outcome(plain_activations.figures(exposure.key, exposure.keyed, None, rows, keyed))


def _no_base(exposure: Exposure) -> str:
    return "" if exposure.base is not None else NO_BASE


def _public_base(exposure: Exposure, generator: np.random.Generator) -> Outcome:
    base = _base(exposure)
    config = _transformer(exposure)
    if config is None:
        return _perceptron_base(exposure, base)
    plain, seen = _state(base), _state(exposure.keyed)
    basis = recover_basis(plain, seen, head_width=_head_width(config))
    tokens, places = _vocabulary_sample(exposure, config.vocabulary, generator)
    read = read_tokens(basis, _words(seen)[places], _words(plain))
    return Outcome({"read": float(np.mean(read == tokens)), "fit": basis.fit})


def _perceptron_base(exposure: Exposure, base: nn.Module) -> Outcome:
    plain, seen = _layers(ee.canonical_model(base)), _layers(exposure.keyed)
    rows, keyed = pair(exposure)
    if len(plain) < 2:
        # One layer: its rows, matched by angles, are all there is.
        linked = link_layers(plain[0][0], seen[0][0])
        read = (keyed - keyed.mean(axis=0)) @ linked.relative_key + rows.mean(axis=0)
        return Outcome({"read": _share(rows, read), "residual": linked.residual})
    sites = recover_sites(plain, seen, odd_activation=_odd(exposure))
    return Outcome({"read": _share(rows, sites.inputs.decrypt(keyed)), "residual": sites.residual})


def _odd(exposure: Exposure) -> bool:
    config = exposure.key.spec.config
    return isinstance(config, MLPConfig) and config.activation == "tanh"


def _share(rows: Floats, read: Floats) -> float:
    return max(0.0, explained_variance(rows, read))


def _layers(model: nn.Module) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Weight and bias of each linear layer, f64."""
    found = []
    for layer in (module for module in model.modules() if isinstance(module, nn.Linear)):
        bias = np.zeros(layer.out_features) if layer.bias is None else layer.bias.detach().double().numpy()
        found.append((layer.weight.detach().double().numpy(), bias))
    return found


def _no_vocabulary(exposure: Exposure) -> str:
    return _no_base(exposure) or ("" if _transformer(exposure) is not None else "no vocabulary")


def _vocabulary(exposure: Exposure, generator: np.random.Generator) -> Outcome:
    config = _transformer(exposure)
    if config is None:
        raise ValueError("expected a transformer")
    tokens, places = _vocabulary_sample(exposure, config.vocabulary, generator)
    found = match_vocabulary(_words(_state(_base(exposure))), _words(_state(exposure.keyed)), rows=places)
    return Outcome({"read": float(np.mean(found.tokens == tokens)), "by_norm": float(np.mean(found.by_norm[places] == tokens))})


def _no_gains(exposure: Exposure) -> str:
    config = exposure.key.spec.config
    if not isinstance(config, BertConfig) or not config.affine:
        return "no LayerNorm gains"
    return _no_base(exposure)


def _norm_gains(exposure: Exposure, _generator: np.random.Generator) -> Outcome:
    plain, seen = (norm_profiles(_state(model)) for model in (_base(exposure), exposure.keyed))
    site = family(exposure.key.spec).ends(exposure.key.spec.config).rows
    truth = exposure.key.site_keys[site].transform.apply(torch.arange(plain.shape[0], dtype=torch.float64)).numpy()
    return Outcome({"read": float(np.mean(match_gains(plain, seen) == np.rint(truth)))})


def _no_earlier(exposure: Exposure) -> str:
    if exposure.earlier is None:
        return "no earlier upload was given"
    if _transformer(exposure) is None and len(_layers(exposure.keyed)[0][0]) < 2:
        return "a single row of weights: a rotation takes any row to any other"
    return ""


def _linking(exposure: Exposure, _generator: np.random.Generator) -> Outcome:
    if exposure.earlier is None:
        raise ValueError("expected an earlier upload")
    config = _transformer(exposure)
    if config is not None:
        residual = link_transformers(_state(exposure.earlier), _state(exposure.keyed), head_width=_head_width(config)).fit
    else:
        first, second = (_layers(model)[0][0] for model in (exposure.earlier, exposure.keyed))
        residual = link_layers(first, second, odd_activation=_odd(exposure)).residual
    return Outcome({"alike": max(0.0, 1 - residual), "residual": residual, "linked": float(residual < SAME_WEIGHTS)})


def _spectral_seconds(exposure: Exposure) -> float:
    """Products and decompositions [d, d] in each layer, and products of the tables."""
    config = _transformer(exposure)
    return 1.0 if config is None else 7e-8 * config.hidden**3 * config.layers + _table_seconds(exposure)


def _table_seconds(exposure: Exposure) -> float:
    """Products of the keyed embedding table, or 4,096 rows of it, with the plain one."""
    config = _transformer(exposure)
    return 1.0 if config is None else 1.0 + 2e-10 * min(config.vocabulary, 4_096) * config.vocabulary * config.hidden


ATTACKS: tuple[Attack, ...] = (
    Attack(
        "public_fingerprint",
        1,
        "A known public base shows in the weights",
        Knows.WEIGHTS,
        Reads.RECORDS,
        missing=lambda _exposure: "",
        seconds=lambda exposure: 1.0 if _transformer(exposure) is None else 10.0,
        run=_public_fingerprint,
    ),
    Attack(
        "plain_model",
        1,
        "A plaintext model: activations, labels and outputs in plain",
        Knows.UPLOAD,
        Reads.STRUCTURE,
        missing=_keyed_model,
        seconds=lambda _exposure: 0.0,
        run=_plain_model,
    ),
    Attack(
        "plain_activations",
        1,
        "The provider reads rows from the activations that it computes",
        Knows.WEIGHTS,
        Reads.RECORDS,
        missing=_no_plain_layer,
        seconds=lambda _exposure: 1.0,
        run=_plain_activations,
    ),
    Attack(
        "norm_gains",
        1,
        "LayerNorm gains against permutation keys",
        Knows.WEIGHTS,
        Reads.RECORDS,
        missing=_no_gains,
        seconds=lambda _exposure: 2.0,
        run=_norm_gains,
    ),
    Attack(
        "vocabulary",
        1,
        "A public embedding table against the keyed one",
        Knows.WEIGHTS,
        Reads.RECORDS,
        missing=_no_vocabulary,
        seconds=_table_seconds,
        run=_vocabulary,
    ),
    Attack(
        "linking",
        1,
        "Two uploads of the same weights are linked",
        Knows.UPLOAD,
        Reads.STRUCTURE,
        missing=_no_earlier,
        seconds=_spectral_seconds,
        run=_linking,
    ),
    Attack(
        "public_base",
        1,
        "Plain weights against the keyed ones",
        Knows.WEIGHTS,
        Reads.RECORDS,
        missing=_no_base,
        seconds=_spectral_seconds,
        run=_public_base,
    ),
)
