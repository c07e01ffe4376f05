"""Every row of the site table against what stands at the site: a group commutes with it exactly if the row admits it, or a larger one.

Each kind of site is a small network with the site in its middle. In mode "infer" a key commutes if the keyed network computes the same; in
mode "train" also if an SGD step with momentum and weight decay on keyed parameters is the key of the plain step.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from rexis.ee.groups import (
    Group,
    Linear,
    MeanPreserving,
    MonomialScaling,
    Orthogonal,
    Permutation,
    PlaneRotations,
    PlaneScalings,
    QuarterTurns,
    ScaledPermutation,
    SignedPermutation,
    Transform,
)
from rexis.ee.site_keys import SiteKey
from rexis.ee.sites import RULES, Mode, Site, SiteKind
from rexis.errors import UnsupportedLayerError

D, ROWS = 8, 12
SEED = bytes(range(32))

# Which groups a group contains, besides itself.
CONTAINS: Mapping[type[Group], frozenset[type[Group]]] = {
    Permutation: frozenset(),
    SignedPermutation: frozenset({Permutation, QuarterTurns}),
    ScaledPermutation: frozenset({Permutation}),
    MonomialScaling: frozenset({Permutation, SignedPermutation, ScaledPermutation, QuarterTurns}),
    MeanPreserving: frozenset({Permutation}),
    Orthogonal: frozenset({Permutation, SignedPermutation, MeanPreserving, QuarterTurns, PlaneRotations}),
    QuarterTurns: frozenset(),
    PlaneRotations: frozenset({QuarterTurns}),
    PlaneScalings: frozenset({QuarterTurns, PlaneRotations}),
}
GROUPS: tuple[type[Group], ...] = (*CONTAINS, Linear)

Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class Network:
    """A site in the middle of a network.

    Attributes:
        forward: of parameters and inputs.
        axes: parameter → which side of the key acts along each axis ("w" writes, "r" reads, "." nothing, "g" the gate's part of the key).
        inputs: "x" floats, "i" ids; with "k" behind it they are keyed too.
        outputs: whether the site is the network's output.
        writer: bias of the layer before the site; reader: weight and bias of the layer behind it.
    """

    forward: Callable[[Parameters, Tensor], Tensor]
    axes: Mapping[str, str]
    inputs: str = "x"
    outputs: bool = False
    writer: str | None = "b1"
    reader: tuple[str, str] | None = ("w2", "b2")


def between(function: Callable[[Tensor, Parameters], Tensor], **more: str) -> Network:
    """A linear layer, the function of the site, and a linear layer."""
    axes = {"w1": "w.", "b1": "w", "w2": ".r", "b2": "."} | more
    return Network(lambda p, x: function(x @ p["w1"].T + p["b1"], p) @ p["w2"].T + p["b2"], axes)


def layer_norm(h: Tensor, p: Parameters) -> Tensor:
    return functional.layer_norm(h, (D,), p.get("gamma"), p.get("beta"))


def rotated(x: Tensor) -> Tensor:
    angles = torch.arange(len(x), dtype=torch.float64)[:, None] * torch.tensor([1.0, 0.5, 0.2, 0.1], dtype=torch.float64)
    cos, sin = torch.cat([angles.cos()] * 2, -1), torch.cat([angles.sin()] * 2, -1)
    return x * cos + torch.cat([-x[:, D // 2 :], x[:, : D // 2]], -1) * sin


def attention(turn: Callable[[Tensor], Tensor]) -> Network:
    def forward(p: Parameters, x: Tensor) -> Tensor:
        queries, keys = turn(x @ p["wq"].T), turn(x @ p["w1"].T + p["b1"])
        return torch.softmax(queries @ keys.T, -1) @ x

    return Network(forward, {"w1": "w.", "b1": "w", "wq": "r."}, reader=None)


def averaged(h: Tensor, _p: Parameters) -> Tensor:
    return torch.softmax(torch.linspace(-1, 1, ROWS * ROWS, dtype=torch.float64).reshape(ROWS, ROWS), -1) @ h


def gated(gate: str) -> Network:
    axes = {"wg": f"{gate}.", "w1": "w.", "b1": "w", "w2": ".r", "b2": "."}
    return Network(lambda p, x: (functional.silu(x @ p["wg"].T) * (x @ p["w1"].T + p["b1"])) @ p["w2"].T + p["b2"], axes)


NORMED = {"gamma": "w", "beta": "w"}
LAST = Network(lambda p, x: torch.tanh(x @ p["w0"].T) @ p["w1"].T + p["b1"], {"w0": "..", "w1": "w.", "b1": "w"}, outputs=True, reader=None)
NETWORKS: Mapping[SiteKind, tuple[Network, ...]] = {
    SiteKind.INPUT: (Network(lambda p, x: torch.tanh(x @ p["w2"].T + p["b2"]), {"w2": ".r", "b2": "."}, inputs="xk", writer=None),),
    SiteKind.HIDDEN: tuple(between(lambda h, _p, f=f: f(h)) for f in (functional.gelu, functional.silu)),
    SiteKind.HIDDEN_RELU: tuple(between(lambda h, _p, f=f: f(h)) for f in (functional.relu, functional.leaky_relu)),
    SiteKind.HIDDEN_ODD: (between(lambda h, _p: torch.tanh(h)),),
    SiteKind.HIDDEN_NORMALISED: tuple(
        between(lambda h, p, f=f: f(layer_norm(h, p)), **NORMED) for f in (functional.relu, functional.gelu, torch.tanh)
    ),
    SiteKind.OUTPUT: (LAST,),
    SiteKind.RETURNED: (LAST,),
    SiteKind.VOCABULARY: (Network(lambda p, ids: p["table"][ids], {"table": "w."}, inputs="ik", writer=None, reader=None),),
    SiteKind.RESIDUAL_AFFINE: (between(layer_norm, **NORMED),),
    SiteKind.RESIDUAL_PLAIN: (between(layer_norm),),
    SiteKind.RESIDUAL_RMS: (between(lambda h, _p: functional.rms_norm(h, (D,))),),
    SiteKind.KEYS: (attention(lambda x: x),),
    SiteKind.KEYS_ROTARY: (attention(rotated),),
    SiteKind.VALUES: (between(averaged),),
    SiteKind.GATE: (gated("w"),),
    SiteKind.GATED: (gated("g"),),
}


def leader(transform: Transform) -> Transform:
    """The part of a key at the linear half of a gated unit that the gate has too: its permutation."""
    matrix = transform.apply(torch.eye(D, dtype=torch.float64), axis=0)
    monomial = bool((matrix != 0).sum() == D)
    return Permutation(matrix.abs().argmax(dim=1) if monomial else torch.arange(D))


def keyed(network: Network, parameters: Parameters, key: SiteKey) -> Parameters:
    sides = {"w": key.transform, "r": key.transform.contragredient(), "g": leader(key.transform)}
    result = {}
    for name, axes in network.axes.items():
        result[name] = parameters[name]
        for axis, side in enumerate(axes):
            if side != ".":
                result[name] = sides[side].apply(result[name], axis)
    if network.writer:
        result[network.writer] = result[network.writer] + key.shift
    if network.reader:
        weight, bias = network.reader
        result[bias] = result[bias] - result[weight] @ key.shift
    return result


def keyed_ids(ids: Tensor, key: SiteKey) -> Tensor:
    return torch.argsort(leader(key.transform).apply(torch.arange(D)))[ids]


def steps(network: Network, parameters: Parameters, loss: Callable[[Tensor], Tensor], x: Tensor, decayed: set[str]) -> Parameters:
    """Two steps of SGD with momentum; `loss` may return the gradient of the output in its stead."""
    trained = {name: value.clone().requires_grad_() for name, value in parameters.items()}
    velocities = {name: torch.zeros_like(value) for name, value in parameters.items()}
    for _ in range(2):
        output = network.forward(trained, x)
        found = loss(output)
        given = found if found.shape == output.shape else torch.autograd.grad(found, output, retain_graph=True)[0]
        gradients = torch.autograd.grad(output, list(trained.values()), given)
        for (name, value), gradient in zip(trained.items(), gradients, strict=True):
            velocities[name] = 0.9 * velocities[name] + gradient + 0.1 * (name in decayed) * value.detach()
            trained[name] = (value.detach() - 0.1 * velocities[name]).requires_grad_()
    return {name: value.detach() for name, value in trained.items()}


@dataclass(frozen=True)
class Run:
    """A plain network before and after training."""

    parameters: Parameters
    x: Tensor
    output: Tensor
    loss: Callable[[Tensor], Tensor]
    decayed: set[str]
    trained: Parameters


LABELS = torch.arange(ROWS) % D


@cache
def plain_run(kind: SiteKind, place: int) -> Run:
    network, generator = NETWORKS[kind][place], torch.Generator().manual_seed(3)
    parameters = {name: torch.randn([D] * len(axes), generator=generator, dtype=torch.float64) / 2 for name, axes in network.axes.items()}
    x = torch.randn(ROWS, D, generator=generator, dtype=torch.float64)
    x = x if network.inputs[0] == "x" else torch.arange(ROWS) % D
    output = network.forward(parameters, x)
    target = torch.randn(output.shape, generator=generator, dtype=torch.float64)

    def loss(y: Tensor) -> Tensor:
        return functional.cross_entropy(y, LABELS) if kind is SiteKind.OUTPUT else functional.mse_loss(y, target)

    # A shift decays with its bias (correction 2), so that the bias before returned outputs is not decayed.
    decayed = set(parameters) - ({"b1"} if kind is SiteKind.RETURNED else set())
    return Run(parameters, x, output, loss, decayed, steps(network, parameters, loss, x, decayed))


def distance(kind: SiteKind, place: int, key: SiteKey, mode: Mode) -> float:
    """How far the keyed network is from the plain one: of its outputs and, in training, its parameters."""
    network, plain = NETWORKS[kind][place], plain_run(kind, place)
    keyed_x = x = plain.x
    if network.inputs == "xk":
        keyed_x = key.encrypt(x)
    elif network.inputs == "ik":
        keyed_x = keyed_ids(x, key)
    copy = keyed(network, plain.parameters, key)
    output = network.forward(copy, keyed_x)
    far = ((key.decrypt(output) if network.outputs else output) - plain.output).abs().max().item()
    if mode == "infer":
        return far

    def keyed_loss(y: Tensor) -> Tensor:
        if kind is SiteKind.OUTPUT:
            return functional.cross_entropy(y, keyed_ids(LABELS, key))
        if kind is SiteKind.RETURNED:
            decrypted = key.decrypt(y.detach()).requires_grad_()
            return key.transform.contragredient().apply(torch.autograd.grad(plain.loss(decrypted), decrypted)[0])
        return plain.loss(y)

    expected, found = keyed(network, plain.trained, key), steps(network, copy, keyed_loss, keyed_x, plain.decayed)
    return max(far, *((found[name] - expected[name]).abs().max().item() for name in expected))


ROWS_OF_THE_TABLE = [pytest.param(kind, mode, id=f"{kind.name}-{mode}") for kind, mode in RULES]


@pytest.mark.parametrize(("kind", "mode"), ROWS_OF_THE_TABLE)
def test_a_group_commutes_exactly_if_the_table_admits_it_or_a_larger_one(kind: SiteKind, mode: Mode) -> None:
    largest = RULES[kind, mode].groups[-1]
    for group in GROUPS:
        key = SiteKey(group.draw(SEED, "x", D, 3.0), torch.zeros(D, dtype=torch.float64))
        distances = [distance(kind, place, key, mode) for place in range(len(NETWORKS[kind]))]
        if group is largest or largest is Linear or group in CONTAINS[largest]:
            assert max(distances) <= 1e-9, group
        else:
            assert min(distances) > 1e-3, group
            with pytest.raises(UnsupportedLayerError):
                Site("layer0/x", kind, D).admit(group, shift=False, mode=mode)


@pytest.mark.parametrize(("kind", "mode"), ROWS_OF_THE_TABLE)
def test_a_shift_commutes_exactly_if_the_table_admits_it(kind: SiteKind, mode: Mode) -> None:
    if kind is SiteKind.VOCABULARY:
        return
    rule = RULES[kind, mode]
    key = SiteKey(rule.groups[0].draw(SEED, "x", D), torch.linspace(-1, 2, D, dtype=torch.float64))
    distances = [distance(kind, place, key, mode) for place in range(len(NETWORKS[kind]))]
    if rule.shift:
        assert max(distances) <= 1e-9
    else:
        assert min(distances) > 1e-3
        with pytest.raises(UnsupportedLayerError, match="without a shift"):
            Site("layer0/x", kind, D).admit(rule.groups[0], shift=True, mode=mode)


@pytest.mark.parametrize(("kind", "mode"), ROWS_OF_THE_TABLE)
def test_groups_of_a_row_grow(kind: SiteKind, mode: Mode) -> None:
    groups = RULES[kind, mode].groups
    for smaller, larger in pairwise(groups):
        assert larger is Linear or smaller in CONTAINS[larger]
