"""The special token ids that a HuggingFace module names: in its config, in its generation config, and as the row without a gradient.

A vocabulary key moves every id, so these move with it; one left behind would stop generation at a random word, and let the padding
row train (`specs/equivariant-encryption.md` 4).
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from rexis.errors import UnsupportedLayerError

IdMap = Callable[[int], int]

# Fields of a generation config that hold ids in lists, or in lists of lists; the others are named `..._token_id`.
_LISTS = ("suppress_tokens", "begin_suppress_tokens", "bad_words_ids", "force_words_ids")


def name_ids(model: nn.Module, ids: Mapping[str, Any]) -> None:
    """Name special ids in a module's config; the padding id is also the row without a gradient."""
    for name, value in ids.items():
        setattr(model.config, name, value)
    padding = ids.get("pad_token_id")
    _table(model).padding_idx = padding if isinstance(padding, int) else None


def carry(source: nn.Module, target: nn.Module, move: IdMap) -> None:
    """Give a module the special ids and the generation config of another, every id moved: id → `move(id)`."""
    _table(target).padding_idx = None if _table(source).padding_idx is None else move(_table(source).padding_idx)
    if getattr(source, "generation_config", None) is not None:
        target.generation_config = copy.deepcopy(source.generation_config)
    for part in ("config", "generation_config"):
        plain, keyed = getattr(source, part, None), getattr(target, part, None)
        if plain is not None and keyed is not None:
            for name, value in moved_ids(vars(plain), move).items():
                setattr(keyed, name, value)


def moved_ids(settings: Mapping[str, Any], move: IdMap) -> dict[str, Any]:
    """Every entry whose name says that it is a token id, or a list of them, moved.

    Raises:
        UnsupportedLayerError: an entry that names tokens in a form that is not moved.
    """
    if settings.get("sequence_bias"):
        raise UnsupportedLayerError("generation config: expected no sequence_bias, whose tokens are not moved; leave it out")
    moved = {name: _moved(value, move) for name, value in settings.items() if name.endswith("_token_id") or name in _LISTS}
    return {name: value for name, value in moved.items() if value is not None}


def _moved(value: Any, move: IdMap) -> Any:
    if isinstance(value, list | tuple):
        return [_moved(entry, move) for entry in value]
    return move(value) if type(value) is int else None


def _table(model: nn.Module) -> Any:
    return model.get_submodule(next(name for name, part in model.named_modules() if isinstance(part, nn.Embedding)))
