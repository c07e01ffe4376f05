"""Keying a HuggingFace folder of safetensors shard by shard, so that a model larger than memory can be keyed.

One tensor at a time is read, keyed in f64 and rounded once to the dtype it had; at most one output shard waits in memory. Beside it stand
the largest tensor in f64, a few times over, and the expanded key. The folder appears whole under its name or not at all.

The keyed folder loads in the stock class. It holds weights, config and generation config, with every token id moved; nothing that names
the plain model, and no tokenizer: its ids are the plain ones, which `encrypt_inputs` takes and `decrypt_outputs` gives back.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from rexis.ee.families import canonical_spec, family
from rexis.ee.key_generation import keygen, with_shift_scales
from rexis.ee.keys import Key
from rexis.ee.placements import decrypt_tensor, encrypt_tensor
from rexis.errors import KeyFileError
from rexis.models.builders import library_config, stored_beside
from rexis.models.folders import CONFIG, GENERATION, INDEX, WEIGHTS, ModelFolder, open_folder
from rexis.models.modules.special_ids import IdMap, moved_ids
from rexis.models.public_bases import listed_shapes, refuse_public_base
from rexis.models.spec import ModelSpec

SHARD_BYTES = 1 << 30

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Output:
    """A tensor that is made when its turn comes."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    make: Callable[[], Tensor]

    @property
    def size(self) -> int:
        return torch.Size(self.shape).numel() * self.dtype.itemsize


def describe_checkpoint(folder: Path) -> ModelSpec:
    """The spec of the model in a folder, by its config and the headers of its files; of a BERT the gains of its norms are read.

    Raises:
        MalformedMessageError: no config and safetensors there, or one that contradicts the other.
        UnsupportedLayerError: a model that no spec describes.
    """
    return open_folder(folder).spec


def keygen_checkpoint(folder: Path, **chosen: Any) -> Key:
    """A key for the model of a folder, as `keygen` makes it for the module; weights are read one at a time.

    Args:
        chosen: what `keygen` takes beside the model.

    Raises:
        MalformedMessageError: as `describe_checkpoint`; and all that `keygen` raises.
    """
    opened = open_folder(folder)
    if chosen.get("knowledge") == "private":
        _refuse_public_base(opened)
    return with_shift_scales(keygen(opened.spec, **chosen), opened.spec, opened.read)


def encrypt_checkpoint(source: Path, target: Path, key: Key, *, shard_bytes: int = SHARD_BYTES, progress: Progress | None = None) -> None:
    """Key the model of a folder into a new folder.

    Args:
        source: `config.json`, and `model.safetensors` or shards with their index.
        target: must not exist; what an interrupted run left beside it is cleared away.
        shard_bytes: bound of an output shard; a tensor that is larger alone has a shard of its own.
        progress: called with (bytes written, bytes in all) after every tensor.

    Raises:
        KeyFileError: the key is for another architecture.
        MalformedMessageError: tensors that are missing, unknown or of another shape than the config says; nothing is written then.
        PrivacyError: the key calls the model private, and it comes from a known public one.
        FileExistsError: there is a target already.
    """
    opened = open_folder(source)
    if canonical_spec(opened.spec) != key.spec:
        raise KeyFileError(f"the key is for {key.spec.document()}, the folder holds {opened.spec.document()}")
    if key.knowledge == "private":
        _refuse_public_base(opened)
    placements = {each.name: each for each in family(opened.spec).placements(opened.spec.config)}

    def made(name: str) -> Tensor:
        return encrypt_tensor(placements[name], placements, opened.read, key.site_keys)

    dtypes = {each.name: opened.tensors[each.source].dtype for each in placements.values()}
    _write(opened, target, key, _outputs(key.spec, dtypes, made), _mover(key, encrypting=True), shard_bytes, progress)


def decrypt_checkpoint(source: Path, target: Path, key: Key, *, shard_bytes: int = SHARD_BYTES, progress: Progress | None = None) -> None:
    """Turn a keyed folder back into the canonical plain model, also after training; arguments and errors as `encrypt_checkpoint`."""
    opened = open_folder(source)
    if opened.spec != key.spec:
        raise KeyFileError(f"the key is for {key.spec.document()}, the folder holds {opened.spec.document()}")
    placements = {each.name: each for each in family(opened.spec).placements(opened.spec.config)}

    def made(name: str) -> Tensor:
        return decrypt_tensor(placements[name], opened.read, key.site_keys)

    dtypes = {name: tensor.dtype for name, tensor in opened.tensors.items()}
    _write(opened, target, key, _outputs(key.spec, dtypes, made), _mover(key, encrypting=False), shard_bytes, progress)


def _refuse_public_base(opened: ModelFolder) -> None:
    shapes = listed_shapes()
    refuse_public_base({name: opened.read(name) for name, tensor in opened.tensors.items() if tensor.shape in shapes})


def _outputs(spec: ModelSpec, dtypes: Mapping[str, torch.dtype], made: Callable[[str], Tensor]) -> tuple[_Output, ...]:
    """What a folder of a spec holds, in the order of its placements, and last what the stock class asks for beside it."""
    names = [each.name for each in family(spec).placements(spec.config)]
    beside, dtype = stored_beside(spec), next(iter(dtypes.values()))
    return (
        *(_Output(name, spec.shapes[name], dtypes[name], partial(made, name)) for name in names),
        *(_Output(name, tuple(tensor.shape), dtype, tensor.clone) for name, tensor in beside.items()),
    )


def _write(
    source: ModelFolder,
    target: Path,
    key: Key,
    outputs: Sequence[_Output],
    move: IdMap,
    shard_bytes: int,
    progress: Progress | None,
) -> None:
    if target.exists():
        raise FileExistsError(f"{target}: expected a folder that does not exist yet")
    shards = list(_shards(outputs, shard_bytes))
    names = [WEIGHTS] if len(shards) == 1 else [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    total, done = sum(each.size for each in outputs), 0
    # Beside the target, so that the last step is a rename within one file system.
    unfinished = target.with_name(f".{target.name}.partial")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    try:
        for name, shard in zip(names, shards, strict=True):
            held: dict[str, Tensor] = {}
            for each in shard:
                # A transform along rows leaves a transposed layout behind.
                held[each.name] = each.make().to(each.dtype).contiguous()
                done += each.size
                if progress is not None:
                    progress(done, total)
            save_file(held, unfinished / name, metadata={"format": "pt"})
        if len(shards) > 1:
            places = {each.name: name for name, shard in zip(names, shards, strict=True) for each in shard}
            _write_document(unfinished / INDEX, {"metadata": {"total_size": total}, "weight_map": places})
        _write_document(unfinished / CONFIG, library_config(key.spec, source.config, outputs[0].dtype, move))
        if source.generation is not None:
            # Names that begin so say where a config came from.
            generation = {name: value for name, value in source.generation.items() if not name.startswith("_")}
            _write_document(unfinished / GENERATION, generation | moved_ids(generation, move))
        for path in [*unfinished.iterdir(), unfinished]:
            _synchronise(path)
        unfinished.rename(target)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    _synchronise(target.parent)


def _shards(outputs: Sequence[_Output], bound: int) -> Iterator[list[_Output]]:
    shard: list[_Output] = []
    held = 0
    for each in outputs:
        if shard and held + each.size > bound:
            yield shard
            shard, held = [], 0
        shard.append(each)
        held += each.size
    yield shard


def _mover(key: Key, *, encrypting: bool) -> IdMap:
    site = family(key.spec).ends(key.spec.config).ids

    def move(token: int) -> int:
        ids = torch.tensor(token)
        return int(key.site_keys[site].encrypt_ids(ids) if encrypting else key.site_keys[site].decrypt_ids(ids))

    return move


def _write_document(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _synchronise(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
