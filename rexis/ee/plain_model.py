"""Scenario 2 with a plaintext model: only the owner's rows are keyed, and the provider holds and trains the weights in the clear.

    key = ee.keygen(model, mode="train", suite="inputs", knowledge="private")
    start = ee.encrypt_model(model, key)                  # W T^-1 in the first layer, every other tensor as it was
    ...                                                   # the provider trains `start` on ee.encrypt_inputs(x, key) and plain labels
    trained = ee.decrypt_model(start, key)                # what plaintext training gives, up to float error

The owner maps the initial weights, because a plaintext first layer does not fit keyed rows: W T^-1 T x = W x. What follows is that the
provider computes W x + b itself. It sees every hidden activation, every label, every output and the trained layers above the first; and if
it knows the plain initial weights of the first layer, it solves these activations for the rows, or the weights for T, at once and for ever:
the initial weights have to be the owner's own, drawn at random and never published. `exposure` gives these facts for a key.
"""

from dataclasses import dataclass
from typing import Any

from rexis.ee.families import family
from rexis.ee.keys import Key
from rexis.ee.sites import SiteKind


@dataclass(frozen=True)
class Exposure:
    """What a provider sees of a model under suite "inputs".

    Attributes:
        keyed_sites, plain_sites: names, from input to output.
        columns: d, the width of a row.
        readable_directions: of these, how many whoever knows the plain first layer reads without a single known pair: min(d, hidden).
        first_layer_known: whether somebody but the owner holds the plain initial weights.
        statements: the same as sentences for a report.
    """

    keyed_sites: tuple[str, ...]
    plain_sites: tuple[str, ...]
    columns: int
    readable_directions: int
    first_layer_known: bool
    statements: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether the rows are keyed at all against whom the key names."""
        return not self.first_layer_known

    def document(self) -> dict[str, Any]:
        """For a report in JSON."""
        return {
            "keyed_sites": list(self.keyed_sites),
            "plain_sites": list(self.plain_sites),
            "columns": self.columns,
            "readable_directions": self.readable_directions,
            "first_layer_known": self.first_layer_known,
            "statements": list(self.statements),
        }


def exposure(key: Key) -> Exposure:
    """The facts of a key of suite "inputs".

    Raises:
        ValueError: a key of another suite.
    """
    if key.suite != "inputs":
        raise ValueError(f"expected a key of suite 'inputs', under which the model stays plain, got {key.suite!r}")
    sites = family(key.spec).sites(key.spec.config)
    keyed = tuple(site.name for site in sites if site.kind is SiteKind.INPUT)
    plain = tuple(site for site in sites if site.kind is not SiteKind.INPUT)
    columns = next(site.dimension for site in sites if site.kind is SiteKind.INPUT)
    readable = min(columns, plain[0].dimension)
    known = key.knowledge != "private"
    statements = (
        f"the provider sees in the clear: {', '.join(site.name for site in plain)}, all labels, and every layer above the first",
        f"whoever knows the plain initial weights of the first layer reads {readable} of {columns} directions of every row, without pairs",
        "these weights are known beyond the owner: the rows are not protected" if known else "these weights are the owner's alone",
    )
    return Exposure(keyed, tuple(site.name for site in plain), columns, readable, known, statements)
