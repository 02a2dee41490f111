"""A small sentencepiece tokenizer in the files that original checkpoints have, and a fast one with Llama 3's tokens."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import sentencepiece
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

_TEXT = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful answers to "
    "the user's questions. USER: where is the nodule in the left lung? is it red? Answer the question using a single "
    "word or phrase. ASSISTANT: yes no Write a general description of the image what is there general x ray"
)


@cache
def _model() -> bytes:
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([_TEXT] * 3),
        model_writer=made,
        model_type="bpe",
        vocab_size=400,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return made.getvalue()


def llama_pieces(folder: Path, added: Sequence[str] = (), **settings: object) -> int:
    """Writes `tokenizer.model` and its config; tokens that are added follow the pieces. Returns how many there are."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(_model())
    first = sentencepiece.SentencePieceProcessor(model_proto=_model()).get_piece_size()
    decoder = {
        str(first + i): {
            "content": token,
            "special": True,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "single_word": False,
        }
        for i, token in enumerate(added)
    }
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "pad_token": "<unk>",
        "add_bos_token": True,
        "add_eos_token": False,
        "legacy": False,
        "added_tokens_decoder": decoder,
        **settings,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return first + len(added)


def pieces() -> sentencepiece.SentencePieceProcessor:
    """The tokenizer itself, in the library the original code uses."""
    return sentencepiece.SentencePieceProcessor(model_proto=_model())


LLAMA3 = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
)


def llama3(folder: Path) -> int:
    """Writes a byte-level tokenizer with some of Llama 3's special tokens. Returns how many tokens there are."""
    backend = Tokenizer(
        models.BPE({c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, [])
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(LLAMA3))
    first = backend.token_to_id("<|begin_of_text|>")
    backend.post_processor = processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", first)]
    )
    made = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|begin_of_text|>", eos_token="<|end_of_text|>"
    )
    made.save_pretrained(str(folder))
    return len(made)
