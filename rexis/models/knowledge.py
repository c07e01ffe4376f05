"""Who holds the plain weights of a keyed model, and what may be said of a job under its key. Torch-free.

Equivariant encryption is a keyed transformation. Whoever holds the plain weights recovers the key from the keyed ones, so for a model that
the members of a federation trained, or that is public, it is obfuscation only, and every place that shows such a model says so.
"""

from typing import Literal, get_args

Knowledge = Literal["private", "members", "public"]

KEYED, OBFUSCATED = "keyed transformation", "obfuscation only"


def protection(knowledge: str) -> str:
    """The label of a job: "keyed transformation" if only the owner holds the plain weights, else "obfuscation only".

    Raises:
        ValueError: no such knowledge.
    """
    if knowledge not in get_args(Knowledge):
        raise ValueError(f"knowledge: expected one of {', '.join(get_args(Knowledge))}, got {knowledge!r:.40}")
    return KEYED if knowledge == "private" else OBFUSCATED
