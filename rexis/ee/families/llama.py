"""Llama: RMSNorm, rotary positions, grouped-query attention and SwiGLU (`specs/equivariant-encryption.md` 2a, 2c).

The canonical model has every gain of RMSNorm folded into the layers that read the norm, and a head of its own: a tied head would have to
be keyed with the last gain, its embedding table without. Its norms hold ones and are not trained. The keyed module is of the stock class.

Sites: `vocabulary` (ids in and logits out, so that a generated id is the next input), `residual`, and in every layer `keys`, `queries`,
`values`, `attended`, `gate` and `gated`.
"""

from collections.abc import Iterator
from dataclasses import replace

from rexis.ee.families.ends import Ends
from rexis.ee.placements import Along, Placement, linear
from rexis.ee.sites import Heads, Site, SiteKind
from rexis.models.llama import LlamaConfig

VOCABULARY, RESIDUAL = "vocabulary", "residual"


def canonical(config: LlamaConfig) -> LlamaConfig:
    """The config of the model that is keyed: the head is a tensor of its own."""
    return replace(config, tied=False)


def sites(config: LlamaConfig) -> tuple[Site, ...]:
    """The sites of a model, leaders before those that follow them."""
    vocabulary = Site(VOCABULARY, SiteKind.VOCABULARY, config.vocabulary)
    residual = Site(RESIDUAL, SiteKind.RESIDUAL_RMS, config.hidden, biased=False)
    return (vocabulary, residual, *(site for layer in range(config.layers) for site in _layer_sites(config, layer)))


def placements(config: LlamaConfig) -> tuple[Placement, ...]:
    """How every tensor of the keyed model comes from the plain one, in the order of the torch module's parameters."""
    embedding, head, last_gain = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
    return (
        Placement(embedding, embedding, (Along(VOCABULARY), Along(RESIDUAL))),
        *(placement for layer in range(config.layers) for placement in _layer_placements(layer)),
        _ones(last_gain),
        Placement(head, embedding if config.tied else head, (Along(VOCABULARY), Along(RESIDUAL, "reads")), gain=last_gain),
    )


def ends(config: LlamaConfig) -> Ends:
    """Token ids go in, or embeddings that the owner looked up; scores of tokens come out."""
    return Ends(ids=VOCABULARY, rows=RESIDUAL, outputs=VOCABULARY)


def _layer_sites(config: LlamaConfig, layer: int) -> Iterator[Site]:
    at = f"layer{layer}"
    narrow = Heads(f"{at}/heads", config.key_value_heads, config.heads // config.key_value_heads)
    wide = replace(narrow, expanded=True)
    keys, queries = config.key_value_heads * config.head_width, config.heads * config.head_width
    yield Site(f"{at}/keys", SiteKind.KEYS_ROTARY, keys, narrow, biased=False)
    yield Site(f"{at}/queries", SiteKind.KEYS_ROTARY, queries, wide, follows=f"{at}/keys", biased=False)
    yield Site(f"{at}/values", SiteKind.VALUES, keys, narrow, biased=False)
    yield Site(f"{at}/attended", SiteKind.VALUES, queries, wide, follows=f"{at}/values", biased=False)
    yield Site(f"{at}/gate", SiteKind.GATE, config.intermediate, biased=False)
    yield Site(f"{at}/gated", SiteKind.GATED, config.intermediate, follows=f"{at}/gate", biased=False)


def _layer_placements(layer: int) -> Iterator[Placement]:
    site, tensor = f"layer{layer}", f"model.layers.{layer}"
    attention_gain, unit_gain = f"{tensor}.input_layernorm.weight", f"{tensor}.post_attention_layernorm.weight"
    yield from linear(f"{tensor}.self_attn.q_proj", RESIDUAL, f"{site}/queries", gain=attention_gain, bias=False)
    yield from linear(f"{tensor}.self_attn.k_proj", RESIDUAL, f"{site}/keys", gain=attention_gain, bias=False)
    yield from linear(f"{tensor}.self_attn.v_proj", RESIDUAL, f"{site}/values", gain=attention_gain, bias=False)
    yield from linear(f"{tensor}.self_attn.o_proj", f"{site}/attended", RESIDUAL, bias=False)
    yield from linear(f"{tensor}.mlp.gate_proj", RESIDUAL, f"{site}/gate", gain=unit_gain, bias=False)
    yield from linear(f"{tensor}.mlp.up_proj", RESIDUAL, f"{site}/gated", gain=unit_gain, bias=False)
    yield from linear(f"{tensor}.mlp.down_proj", f"{site}/gated", RESIDUAL, bias=False)
    yield _ones(attention_gain)
    yield _ones(unit_gain)


def _ones(name: str) -> Placement:
    return Placement(name, name, (None,), fill=1.0)
