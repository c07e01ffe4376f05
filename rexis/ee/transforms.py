"""The linear layer between two keyed sites (`specs/equivariant-encryption.md` 2), in f64.

W' = T_o W T_i^-1        b' = T_o b - W' δ_i + δ_o
W  = T_o^-1 W' T_i       b  = T_o^-1 (b' + W' δ_i - δ_o)
"""

from torch import Tensor

from rexis.ee.sites import SiteKey


def encrypt_linear(weight: Tensor, bias: Tensor, source: SiteKey, target: SiteKey) -> tuple[Tensor, Tensor]:
    """Key a linear layer so that it maps keyed inputs to keyed outputs.

    Args:
        weight: f64 [out, in].
        bias: f64 [out].
        source: key of the site before the layer; target: of the site after it.
    """
    keyed = target.transform.apply(source.transform.apply(weight, axis=1), axis=0)
    return keyed, target.transform.apply(bias) - keyed @ source.shift.to(keyed) + target.shift.to(keyed)


def decrypt_linear(weight: Tensor, bias: Tensor, source: SiteKey, target: SiteKey) -> tuple[Tensor, Tensor]:
    """Undo `encrypt_linear`; also right after training in a mode whose rules were kept."""
    inverse = target.transform.inverse()
    plain = inverse.apply(source.transform.inverse().apply(weight, axis=1), axis=0)
    return plain, inverse.apply(bias + weight @ source.shift.to(weight) - target.shift.to(weight))
