"""A frozen BERT encoder with its tokenizer, from a HuggingFace folder: what text classifiers of a federation are trained on at each site.

Two folders hold the same base if their configs say the same encoder, their tensors have the same digests and their `tokenizer.json` the
same bytes; the rest of a folder is not read. The digest of a base is taken over what is in memory, so that a file which changes under it
can not become another base under the same name:

    SHA-256("rexis/text-base/1\\0" ‖ JCS({"model": model spec digest, "tensors": [tensor digests in its order], "tokenizer": SHA-256}))
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from rexis.commitments import tensor_digest
from rexis.encoding import canonical_json, domain_tag, sha256, to_hex
from rexis.errors import MalformedMessageError, UnsupportedLayerError
from rexis.models.bert import BertConfig
from rexis.models.builders import describe
from rexis.models.modules.bert_lora import CHUNK, pooled
from rexis.models.pretrained import read_model
from rexis.models.text import Pooling

TOKENIZER = "tokenizer.json"
MAX_TOKENIZER_BYTES = 1 << 26


@dataclass(frozen=True, eq=False)
class TextBase:
    """An encoder in evaluation mode, none of whose weights is trained, and its tokenizer.

    Attributes:
        digest: 32 bytes.
        config: of the encoder.
    """

    digest: bytes
    config: BertConfig
    encoder: nn.Module
    tokenizer: Tokenizer

    def tokens(self, texts: Sequence[str], length: int) -> Tensor:
        """Ids of the texts' tokens with those that the tokenizer puts around them, i64 [n, s]; -1 behind a text's end.

        Args:
            length: most tokens of a text; the rest is cut off.

        Raises:
            MalformedMessageError: more tokens than the encoder has positions, or ids that it has no embedding for.
        """
        if length > self.config.positions:
            raise MalformedMessageError(f"text: expected a length of at most {self.config.positions} tokens for this base, got {length}")
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(length)
        found = [encoding.ids for encoding in self.tokenizer.encode_batch(list(texts))]
        ids = torch.full((len(found), max(1, *(len(each) for each in found))), -1)
        for row, each in zip(ids, found, strict=True):
            row[: len(each)] = torch.tensor(each, dtype=torch.int64)
        if ids.max() >= self.config.vocabulary:
            raise MalformedMessageError("the tokenizer of this base gives ids that its encoder has no embedding for")
        return ids

    def embed(self, ids: Tensor, pooling: Pooling) -> Tensor:
        """Pooled outputs of texts, f32 [n, hidden], without gradients.

        Args:
            ids: from `tokens`.
        """
        lengths = (ids >= 0).sum(dim=1)
        embedded = torch.empty((len(ids), self.config.hidden))
        with torch.no_grad():
            # Texts of a chunk are as long as its longest one.
            for rows in torch.split(lengths.argsort(), CHUNK):
                embedded[rows] = pooled(self.encoder, ids[rows, : max(1, int(lengths[rows].max()))], pooling).float()
        return embedded


def read_base(folder: Path) -> TextBase:
    """The base in a HuggingFace folder.

    Raises:
        MalformedMessageError: no safetensors, config or tokenizer.json there, or one that is none.
        UnsupportedLayerError: another model than a BERT encoder without a classifier.
    """
    encoder = read_model(folder)
    spec = describe(encoder)
    if not isinstance(spec.config, BertConfig) or spec.config.outputs:
        raise UnsupportedLayerError(f"{folder.name}: expected a BERT encoder without a classifier, got {spec.family} with other outputs")
    content = _tokenizer(folder / TOKENIZER)
    try:
        tokenizer = Tokenizer.from_str(content.decode("utf-8"))
    # The library raises nothing more special.
    except Exception as error:
        raise MalformedMessageError(f"{folder.name}/{TOKENIZER}: not a tokenizer: {' '.join(str(error).split()):.200}") from error
    state = encoder.state_dict()
    parts = {
        "model": to_hex(spec.digest()),
        "tensors": [to_hex(tensor_digest(state[name])) for name in spec.shapes],
        "tokenizer": to_hex(sha256(content)),
    }
    digest = sha256(domain_tag("text-base", 1) + b"\0" + canonical_json(parts))
    return TextBase(digest, spec.config, encoder.eval().requires_grad_(False), tokenizer)


def _tokenizer(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_TOKENIZER_BYTES + 1)
    except OSError:
        raise MalformedMessageError(f"{path.parent.name}: expected a HuggingFace folder with {path.name}") from None
    if len(content) > MAX_TOKENIZER_BYTES:
        raise MalformedMessageError(f"{path.parent.name}/{path.name}: expected at most {MAX_TOKENIZER_BYTES} bytes")
    return content
