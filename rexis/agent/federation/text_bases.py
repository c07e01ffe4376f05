"""The encoders that a site has on its premises for text classifiers: folders of the site file, known by the digest of what is in them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rexis.encoding import to_hex
from rexis.errors import ConfigurationError, UnexpectedMessageError
from rexis.models.features import Features
from rexis.models.spec import TextConfig
from rexis.models.text import BertLoraConfig
from rexis.protocol.federation_config import FederationConfig

if TYPE_CHECKING:
    from torch import nn

    from rexis.training.text_base import TextBase


class TextBases:
    """Bases of a site; each folder is read when a federation first asks for one.

    Args:
        folders: HuggingFace folders.
    """

    def __init__(self, folders: Sequence[Path] = ()) -> None:
        self._folders = tuple(folders)
        self._digests: dict[Path, bytes] = {}
        self._bases: dict[bytes, TextBase] = {}

    def check(self, config: FederationConfig) -> None:
        """Return if this site has what a federation's model is trained on; a model of rows needs nothing.

        Raises:
            ConfigurationError: the site file names no folder with this base.
            UnexpectedMessageError: the base is of another width or depth than the model says, pools otherwise, or takes shorter texts.
        """
        model, text = None if config.training is None else config.training.model.config, config.features.text
        if isinstance(model, TextConfig) and text is not None and text.length is not None:
            positions = self._base(model).config.positions
            if text.length > positions:
                raise UnexpectedMessageError(
                    f"expected texts of at most {positions} tokens, which base {model.base} takes, got {text.length}"
                )

    def rows(self, config: FederationConfig, features: Features) -> Features:
        """Prepared rows with what the model takes in the place of their texts; rows of numbers as they are.

        For a head these are the encoder's outputs [n, hidden], computed here once; for LoRA, whose encoder is trained along, tokens.

        Raises:
            ConfigurationError, UnexpectedMessageError: see `check`.
            MalformedMessageError: texts of the plan's length are longer than the base takes.
        """
        model = None if config.training is None else config.training.model.config
        text = config.features.text
        if text is None or not isinstance(model, TextConfig) or text.length is None or features.texts is None:
            return features
        base = self._base(model)
        ids = base.tokens(features.texts, text.length)
        if isinstance(model, BertLoraConfig):
            return replace(features, tokens=ids.numpy(), texts=None)
        return replace(features, inputs=base.embed(ids, model.pooling).double().numpy(), texts=None)

    def encoder(self, config: FederationConfig) -> "nn.Module | None":
        """The encoder that a federation's model is called with; None for a model that needs none.

        Raises:
            ConfigurationError, UnexpectedMessageError: see `check`.
        """
        model = None if config.training is None else config.training.model.config
        return self._base(model).encoder if isinstance(model, BertLoraConfig) else None

    def _base(self, model: TextConfig) -> "TextBase":
        base = self._find(bytes.fromhex(model.base[2:]))
        if base.config.hidden != model.hidden or (model.pooling == "pooler" and not base.config.pooler):
            raise UnexpectedMessageError(
                f"expected a base of width {model.hidden} with the pooling {model.pooling}, base {model.base} is of width "
                f"{base.config.hidden} and {'has' if base.config.pooler else 'lacks'} a pooler"
            )
        if isinstance(model, BertLoraConfig) and model.layers != base.config.layers:
            raise UnexpectedMessageError(f"expected a base of {model.layers} layers, base {model.base} has {base.config.layers}")
        return base

    def _find(self, digest: bytes) -> "TextBase":
        if digest in self._bases:
            return self._bases[digest]
        # Whoever trains models of rows only needs no torch for this.
        from rexis.training.text_base import read_base

        for folder in self._folders:
            if self._digests.get(folder, digest) != digest:
                continue
            base = read_base(folder)
            self._digests[folder] = base.digest
            if base.digest == digest:
                self._bases[digest] = base
                return base
        raise ConfigurationError(
            f"expected a folder under [models] of the site file with the base {to_hex(digest)}, which the federation's model is trained "
            f"on; of the {len(self._folders)} named there none holds it (`rexis federation base FOLDER` prints a folder's digest)"
        )
