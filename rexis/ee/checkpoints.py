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
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rexis.ee.families import canonical_spec, family
from rexis.ee.keys import Key
from rexis.ee.placements import Placement, decrypt_tensor, encrypt_tensor
from rexis.errors import KeyFileError, MalformedMessageError
from rexis.models.builders import library_config, read_library_config
from rexis.models.llama import LlamaConfig
from rexis.models.modules.special_ids import IdMap, moved_ids
from rexis.models.public_bases import listed_shapes, refuse_public_base
from rexis.models.spec import ModelSpec

SHARD_BYTES = 1 << 30

CONFIG, GENERATION_CONFIG, INDEX, SINGLE = "config.json", "generation_config.json", "model.safetensors.index.json", "model.safetensors"
MAX_DOCUMENT_BYTES = 1 << 26

# Buffers that older checkpoints carry along; they follow from the config.
_RECOMPUTED = (".rotary_emb.inv_freq", ".embeddings.position_ids")

DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Entry:
    file: Path
    stored: str
    shape: tuple[int, ...]

    @property
    def dtype(self) -> torch.dtype:
        return DTYPES[self.stored]


def describe_checkpoint(folder: Path) -> ModelSpec:
    """The spec of the model in a folder, by its `config.json`; no weights are read.

    Raises:
        MalformedMessageError: no config there.
        UnsupportedLayerError: a model that no spec describes.
    """
    return read_library_config(_document(folder / CONFIG))


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
    spec = describe_checkpoint(source)
    if canonical_spec(spec) != key.spec:
        raise KeyFileError(f"the key is for {key.spec.document()}, the folder holds {spec.document()}")
    entries = _entries(source, spec)
    if key.knowledge == "private":
        refuse_public_base({name: _read(entries, name) for name, entry in entries.items() if entry.shape in listed_shapes()})
    placements = {each.name: each for each in family(spec).placements(spec.config)}

    def tensor(each: Placement) -> Tensor:
        return encrypt_tensor(each, placements, lambda name: _read(entries, name), key.site_keys)

    dtypes = {each.name: entries[each.source].dtype for each in placements.values()}
    _write(source, target, key, tuple(placements.values()), tensor, dtypes, _mover(key, encrypting=True), shard_bytes, progress)


def decrypt_checkpoint(source: Path, target: Path, key: Key, *, shard_bytes: int = SHARD_BYTES, progress: Progress | None = None) -> None:
    """Turn a keyed folder back into the canonical plain model, also after training; arguments and errors as `encrypt_checkpoint`."""
    spec = describe_checkpoint(source)
    if spec != key.spec:
        raise KeyFileError(f"the key is for {key.spec.document()}, the folder holds {spec.document()}")
    entries = _entries(source, spec)
    placements = family(spec).placements(spec.config)

    def tensor(each: Placement) -> Tensor:
        return decrypt_tensor(each, lambda name: _read(entries, name), key.site_keys)

    dtypes = {name: entry.dtype for name, entry in entries.items()}
    _write(source, target, key, placements, tensor, dtypes, _mover(key, encrypting=False), shard_bytes, progress)


def _write(
    source: Path,
    target: Path,
    key: Key,
    placements: Sequence[Placement],
    tensor: Callable[[Placement], Tensor],
    dtypes: Mapping[str, torch.dtype],
    move: IdMap,
    shard_bytes: int,
    progress: Progress | None,
) -> None:
    if target.exists():
        raise FileExistsError(f"{target}: expected a folder that does not exist yet")
    shapes = key.spec.shapes
    sizes = {each.name: torch.Size(shapes[each.name]).numel() * dtypes[each.name].itemsize for each in placements}
    shards = list(_shards(placements, sizes, shard_bytes))
    names = [SINGLE] if len(shards) == 1 else [f"model-{n:05d}-of-{len(shards):05d}.safetensors" for n in range(1, len(shards) + 1)]
    total, done = sum(sizes.values()), 0
    # Beside the target, so that the last step is a rename within one file system.
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(mode=0o700)
    try:
        for name, shard in zip(names, shards, strict=True):
            held: dict[str, Tensor] = {}
            for each in shard:
                # A transform along rows leaves a transposed layout behind.
                held[each.name] = tensor(each).to(dtypes[each.name]).contiguous()
                done += sizes[each.name]
                if progress is not None:
                    progress(done, total)
            save_file(held, partial / name, metadata={"format": "pt"})
        if len(shards) > 1:
            places = {each.name: name for name, shard in zip(names, shards, strict=True) for each in shard}
            _write_document(partial / INDEX, {"metadata": {"total_size": total}, "weight_map": places})
        _write_configs(source, partial, key, dtypes, move)
        for path in [*partial.iterdir(), partial]:
            _synchronise(path)
        partial.rename(target)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    _synchronise(target.parent)


def _write_configs(source: Path, target: Path, key: Key, dtypes: Mapping[str, torch.dtype], move: IdMap) -> None:
    dtype = next(iter(dtypes.values()))
    _write_document(target / CONFIG, library_config(key.spec, _document(source / CONFIG), dtype, move))
    if (source / GENERATION_CONFIG).exists():
        generation = _document(source / GENERATION_CONFIG)
        _write_document(target / GENERATION_CONFIG, generation | moved_ids(generation, move))


def _shards(placements: Sequence[Placement], sizes: Mapping[str, int], bound: int) -> Iterator[list[Placement]]:
    shard: list[Placement] = []
    held = 0
    for each in placements:
        if shard and held + sizes[each.name] > bound:
            yield shard
            shard, held = [], 0
        shard.append(each)
        held += sizes[each.name]
    yield shard


def _entries(folder: Path, spec: ModelSpec) -> dict[str, _Entry]:
    """Where each tensor lies: exactly those of the spec, so that a run does not stop halfway through."""
    entries: dict[str, _Entry] = {}
    for file in _files(folder):
        try:
            with safe_open(file, framework="pt", backend="pread") as opened:
                for name in opened.offset_keys():
                    view = opened.get_slice(name)
                    entries[name] = _Entry(file, str(view.get_dtype()), tuple(view.get_shape()))
        except (OSError, SafetensorError) as error:
            raise MalformedMessageError(f"{file.name}: not a safetensors file: {error}") from error
    for name, shape in spec.shapes.items():
        found = entries.get(name)
        if found is None or found.shape != shape or found.stored not in DTYPES:
            raise MalformedMessageError(
                f"{name}: expected floats ({', '.join(DTYPES)}) of shape {list(shape)}, "
                f"got {'nothing' if found is None else f'{found.stored} of shape {list(found.shape)}'}"
            )
    unknown = sorted(name for name in set(entries) - set(spec.shapes) if not _follows(name, spec))
    if unknown:
        raise MalformedMessageError(f"expected the tensors of a {spec.family} and no other, got {unknown[0]}")
    return entries


def _follows(name: str, spec: ModelSpec) -> bool:
    """Whether a tensor says nothing that config and other tensors do not."""
    return name.endswith(_RECOMPUTED) or (isinstance(spec.config, LlamaConfig) and spec.config.tied and name == "lm_head.weight")


def _files(folder: Path) -> list[Path]:
    if not (folder / INDEX).exists():
        return [folder / SINGLE]
    places = _document(folder / INDEX).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise MalformedMessageError(f"{INDEX}: expected a weight_map from tensors to files")
    names = sorted(set(map(str, places.values())))
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise MalformedMessageError(f"{INDEX}: expected names of safetensors files in the same folder, got {name!r:.80}")
    return [folder / name for name in names]


def _read(entries: Mapping[str, _Entry], name: str) -> Tensor:
    # Read, not mapped: pages of a mapped file would count as memory for as long as a tensor of it lives.
    with safe_open(entries[name].file, framework="pt", backend="pread") as opened:
        tensor: Tensor = opened.get_tensor(name)
    return tensor


def _mover(key: Key, *, encrypting: bool) -> IdMap:
    site = family(key.spec).ends(key.spec.config).ids

    def move(token: int) -> int:
        ids = torch.tensor(token)
        return int(key.site_keys[site].encrypt_ids(ids) if encrypting else key.site_keys[site].decrypt_ids(ids))

    return move


def _document(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(MAX_DOCUMENT_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise MalformedMessageError(f"{path.name}: expected a JSON object: {error}") from error
    if not isinstance(document, dict):
        raise MalformedMessageError(f"{path.name}: expected a JSON object, got {type(document).__name__}")
    return document


def _write_document(path: Path, document: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _synchronise(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
