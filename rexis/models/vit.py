"""The vision transformer as data: an encoder of image patches (Dosovitskiy et al., ICLR 2021) with a classifier. Torch-free."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType

from rexis.models.bert import ACTIVATIONS, MAX_LAYERS, MAX_PARAMETERS, MAX_WIDTH, check_count, check_epsilon

MAX_CHANNELS = 4096


@dataclass(frozen=True)
class ViTConfig:
    """HuggingFace's `ViTForImageClassification`: patches without overlap, layer norms before each block, the first token classified.

    A patch of one pixel makes it an encoder of pixels, as a convolution of width one does.

    Attributes:
        image, patch: edges of the square image and of its square patches, in pixels; the patch divides the image.
        channels: of a pixel.
        hidden: width d of the residual stream, a multiple of `heads`.
        intermediate: width inside the feed-forward blocks.
        outputs: logits of the classifier.
        activation: one of `rexis.models.bert.ACTIVATIONS`.
        epsilon: of the layer norms, as Python prints the float.

    Raises:
        ValueError: a value out of bounds.
    """

    image: int
    patch: int
    channels: int
    hidden: int
    layers: int
    heads: int
    intermediate: int
    outputs: int
    activation: str = field(default="gelu", metadata={"optional": True})
    epsilon: str = field(default="1e-12", metadata={"optional": True})

    def __post_init__(self) -> None:
        for name, bound in (
            ("image", MAX_WIDTH),
            ("patch", MAX_WIDTH),
            ("channels", MAX_CHANNELS),
            ("hidden", MAX_WIDTH),
            ("layers", MAX_LAYERS),
            ("heads", MAX_WIDTH),
            ("intermediate", MAX_WIDTH),
            ("outputs", MAX_WIDTH),
        ):
            check_count(name, getattr(self, name), bound)
        if self.image % self.patch or self.hidden % self.heads:
            raise ValueError(f"expected a patch that divides {self.image} pixels, and a hidden width that {self.heads} heads divide")
        if self.activation not in ACTIVATIONS:
            raise ValueError(f"expected an activation among {', '.join(ACTIVATIONS)}, got {self.activation!r:.40}")
        check_epsilon(self.epsilon)
        parameters = sum(prod(shape) for shape in self.shapes.values())
        if parameters > MAX_PARAMETERS:
            raise ValueError(f"expected at most {MAX_PARAMETERS} parameters, got {parameters}")

    @property
    def patch_width(self) -> int:
        """Numbers in a patch."""
        return self.channels * self.patch**2

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name → shape of every tensor, in the order of the torch module's parameters."""
        d, positions = self.hidden, (self.image // self.patch) ** 2 + 1
        shapes: dict[str, tuple[int, ...]] = {
            "vit.embeddings.cls_token": (1, 1, d),
            "vit.embeddings.position_embeddings": (1, positions, d),
            "vit.embeddings.patch_embeddings.projection.weight": (d, self.channels, self.patch, self.patch),
            "vit.embeddings.patch_embeddings.projection.bias": (d,),
        }
        for layer in range(self.layers):
            at = f"vit.layers.{layer}"
            for part in ("q", "k", "v", "o"):
                shapes |= {f"{at}.attention.{part}_proj.weight": (d, d), f"{at}.attention.{part}_proj.bias": (d,)}
            for norm in ("layernorm_before", "layernorm_after"):
                shapes |= {f"{at}.{norm}.weight": (d,), f"{at}.{norm}.bias": (d,)}
            shapes |= {f"{at}.mlp.fc1.weight": (self.intermediate, d), f"{at}.mlp.fc1.bias": (self.intermediate,)}
            shapes |= {f"{at}.mlp.fc2.weight": (d, self.intermediate), f"{at}.mlp.fc2.bias": (d,)}
        shapes |= {"vit.layernorm.weight": (d,), "vit.layernorm.bias": (d,)}
        return MappingProxyType(shapes | {"classifier.weight": (self.outputs, d), "classifier.bias": (self.outputs,)})
