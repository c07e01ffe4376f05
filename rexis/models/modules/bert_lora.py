"""The torch module of `bert-lora`: factors and classifier are its parameters, the encoder that they are added to is only lent to it.

The encoder is of the stock class, shared with whoever else uses it at the site, and never changed: its projections are added to while one
batch passes through, by hooks that are gone afterwards.
"""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rexis.models.text import BertLoraConfig, Pooling

# Texts that pass at once where no gradient is asked for.
CHUNK = 32
_PLACES = {"query": "self.query", "key": "self.key", "value": "self.value", "output": "output.dense"}


class Factors(nn.Module):
    """A [rank, width], drawn as torch draws a linear layer's weight, and B [width, rank] of zeros."""

    def __init__(self, config: BertLoraConfig, dtype: torch.dtype) -> None:
        super().__init__()
        self.A = nn.Parameter(torch.empty(config.rank, config.hidden, dtype=dtype), requires_grad=not config.freeze_a)
        self.B = nn.Parameter(torch.zeros(config.hidden, config.rank, dtype=dtype))
        nn.init.kaiming_uniform_(self.A, a=math.sqrt(5))

    def added(self, scale: float, _module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        """The projection's output and scale B A x: a forward hook."""
        rows: Tensor = inputs[0]
        return output + scale * (rows @ self.A.T) @ self.B.T


class LoraClassifier(nn.Module):
    """A classifier of token ids; `attach` lends it the encoder before it is called."""

    def __init__(self, config: BertLoraConfig, dtype: torch.dtype) -> None:
        super().__init__()
        blocks = [{name: Factors(config, dtype) for name in config.projections} for _ in range(config.layers)]
        self.layer = nn.ModuleList(nn.ModuleDict(block) for block in blocks)
        self.classifier = nn.Linear(config.hidden, config.outputs, dtype=dtype)
        self._config = config
        # By the projection that they are added to.
        self._factors = {
            f"encoder.layer.{number}.attention.{_PLACES[name]}": factors
            for number, block in enumerate(blocks)
            for name, factors in block.items()
        }
        # In a tuple: not a part of this module, nor of its state.
        self._encoder: tuple[nn.Module, ...] = ()

    def attach(self, encoder: nn.Module) -> None:
        """Lend it an encoder of the config's layers and width, with weights that ask for no gradient."""
        self._encoder = (encoder,)

    def forward(self, ids: Tensor) -> Tensor:
        """Logits [n, outputs] of ids i64 [n, s], -1 behind a text's end.

        Raises:
            ValueError: no encoder was attached.
        """
        if not self._encoder:
            raise ValueError("expected an encoder: attach one before the first batch")
        if not torch.is_grad_enabled() and len(ids) > CHUNK:
            return torch.cat([self(part) for part in torch.split(ids, CHUNK)])
        scale = self._config.alpha / self._config.rank
        (encoder,) = self._encoder
        handles = [
            encoder.get_submodule(place).register_forward_hook(partial(factors.added, scale)) for place, factors in self._factors.items()
        ]
        try:
            logits: Tensor = self.classifier(pooled(encoder, ids, self._config.pooling))
        finally:
            for handle in handles:
                handle.remove()
        return logits


def build(config: BertLoraConfig, dtype: torch.dtype) -> LoraClassifier:
    """The module of a config without an encoder, initialised from the process-wide generator."""
    return LoraClassifier(config, dtype)


def assemble(config: BertLoraConfig, state: Mapping[str, Tensor]) -> LoraClassifier:
    """The module that holds these very tensors."""
    with torch.device("meta"):
        model = build(config, torch.float32)
    model.load_state_dict(dict(state), assign=True)
    return model


def pooled(encoder: nn.Module, ids: Tensor, pooling: Pooling) -> Tensor:
    """One vector for each text, floats [n, hidden].

    Args:
        ids: i64 [n, s], -1 behind a text's end.
    """
    mask = ids >= 0
    # A text without a single token is one of padding: attention over nothing is no number.
    mask[:, 0] = True
    found = encoder(input_ids=ids.clamp(min=0), attention_mask=mask.long())
    if pooling == "pooler":
        vectors: Tensor = found.pooler_output
        return vectors
    counted = mask.unsqueeze(-1).to(found.last_hidden_state)
    mean = (found.last_hidden_state * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1)
    return nn.functional.normalize(mean, dim=-1)
