"""The declarative model spec: family and config, never code. Torch-free.

    {"version": 1, "family": "mlp", "config": {"inputs": 30, "hidden": [64], "outputs": 2, "activation": "relu"}}

A spec fixes the ordered names and shapes of the model's tensors; its digest is leaf 0 of the model record (wire formats, section 1).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from types import MappingProxyType
from typing import Any, Self

from rexis.encoding import canonical_json, domain_tag, sha256
from rexis.errors import MalformedMessageError
from rexis.models.bert import BertConfig
from rexis.models.cox import CoxConfig
from rexis.models.llama import LlamaConfig
from rexis.models.mlp import LogisticConfig, MLPConfig
from rexis.models.text import BertHeadConfig, BertLoraConfig
from rexis.models.vit import ViTConfig

Config = MLPConfig | LogisticConfig | CoxConfig | BertConfig | BertHeadConfig | BertLoraConfig | LlamaConfig | ViTConfig
# Classifiers of texts on an encoder that is no part of them.
TextConfig = BertHeadConfig | BertLoraConfig

FAMILIES: Mapping[str, type[Config]] = MappingProxyType(
    {
        "mlp": MLPConfig,
        "logistic": LogisticConfig,
        "cox": CoxConfig,
        "bert": BertConfig,
        "bert-head": BertHeadConfig,
        "bert-lora": BertLoraConfig,
        "llama": LlamaConfig,
        "vit": ViTConfig,
    }
)


@dataclass(frozen=True)
class ModelSpec:
    """Family and config of a model.

    Raises:
        ValueError: a config out of bounds, by the config's own constructor. `parse` raises MalformedMessageError instead.
    """

    config: Config

    @property
    def family(self) -> str:
        """The family's name: a key of `FAMILIES`."""
        return next(name for name, config in FAMILIES.items() if isinstance(self.config, config))

    @property
    def tabular(self) -> MLPConfig | LogisticConfig | CoxConfig:
        """The config of a model that maps rows of features to outputs.

        Raises:
            MalformedMessageError: a model of another kind.
        """
        if not isinstance(self.config, MLPConfig | LogisticConfig | CoxConfig):
            raise MalformedMessageError(f"expected a model of feature rows (mlp, logistic, cox), got family {self.family}")
        return self.config

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name → shape of every tensor, in the order of the torch module's parameters."""
        return self.config.shapes

    @property
    def frozen(self) -> frozenset[str]:
        """Names of the tensors that no training moves."""
        return self.config.frozen if isinstance(self.config, BertLoraConfig) else frozenset()

    @classmethod
    def parse(cls, document: Any) -> Self:
        """Read a spec that came from someone else.

        Raises:
            MalformedMessageError: unknown or missing fields, an unknown family, a value out of bounds, or an optional field that gives its
                default.
        """
        if not isinstance(document, Mapping) or set(document) != {"version", "family", "config"}:
            raise MalformedMessageError("a model spec has exactly the fields version, family and config")
        if type(document["version"]) is not int or document["version"] != 1:
            raise MalformedMessageError(f"expected model spec version 1, got {document['version']!r:.40}")
        family, config = document["family"], document["config"]
        if not isinstance(family, str) or family not in FAMILIES:
            raise MalformedMessageError(f"expected a family among {', '.join(FAMILIES)}, got {family!r:.40}")
        required = {field.name for field in fields(FAMILIES[family]) if not field.metadata.get("optional")}
        names = {field.name for field in fields(FAMILIES[family])}
        if not isinstance(config, Mapping) or not required <= set(config) <= names:
            raise MalformedMessageError(f"the config of family {family} has exactly the fields {', '.join(sorted(required))}")
        try:
            spec = cls(FAMILIES[family](**config))
        except ValueError as error:
            raise MalformedMessageError(f"model spec of family {family}: {error}") from error
        if set(spec.document()["config"]) != set(config):
            raise MalformedMessageError(f"the config of family {family} leaves out optional fields that have their default")
        return spec

    def document(self) -> dict[str, Any]:
        """What `parse` reads. One model has one document: a field with `metadata={"optional": True}` is left out at its default, every
        other field is written."""
        optional = {field.name: field.default for field in fields(self.config) if field.metadata.get("optional")}
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self.config).items()}
        config = {name: value for name, value in values.items() if name not in optional or value != optional[name]}
        return {"version": 1, "family": self.family, "config": config}

    def digest(self) -> bytes:
        """SHA-256 over `"rexis/model-spec/1\\0"` and the canonical JSON of the document with its ordered names and shapes, 32 bytes."""
        tensors = [{"name": name, "shape": shape} for name, shape in self.shapes.items()]
        return sha256(domain_tag("model-spec", 1) + b"\0" + canonical_json({**self.document(), "tensors": tensors}))
