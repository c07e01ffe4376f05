"""At which sites the owner's data enter a keyed model, and where its answers leave it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Ends:
    """Names of sites.

    Attributes:
        outputs: of what the model returns: logits, hidden states, or scores of tokens.
        rows: of feature rows or of embeddings [..., d] looked up by the owner; None if floats have no way in.
        ids: of token ids; None for models of rows.
        patch: edge of the square patches where images go in, whose rows are patches; None for other models.
    """

    outputs: str
    rows: str | None = None
    ids: str | None = None
    patch: int | None = None
