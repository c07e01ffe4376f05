"""A small BERT with a tokenizer of whole words, in a HuggingFace folder: no weights of anybody's."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from rexis.models.bert import BertConfig
from rexis.models.builders import build
from rexis.models.modules import bert
from rexis.models.spec import ModelSpec

TEXT = "[PAD] [CLS] [SEP] [UNK] the patient has chest pain no stenosis narrow artery normal clear rest severe mild after left right"
WORDS = TEXT.split()
ENCODER = BertConfig(vocabulary=len(WORDS), positions=16, hidden=24, layers=2, heads=3, intermediate=32, outputs=0)


def save_text_folder(folder: Path, *, seed: int = 1, config: BertConfig = ENCODER) -> Path:
    """Weights from a seed, and a tokenizer that lowers nothing."""
    folder.mkdir()
    model = build(ModelSpec(config), seed=seed)
    with torch.no_grad():
        # HuggingFace's initial weights are so small that all texts look alike.
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(10)
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({**bert.library_config(config).to_dict(), "model_type": "bert"}))
    tokenizer = Tokenizer(WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
