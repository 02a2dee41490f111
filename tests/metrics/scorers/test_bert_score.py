from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from interp import Prompt
from interp.errors import StudyError
from interp.metrics.scorers import BertScore
from tests.metrics.scorers.answers import asked

WORDS = (
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "left", "right", "lung", "is", "clear", "liver", "yes", "no",
)  # fmt: skip


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT of three layers and 14 words."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    folder = tmp_path_factory.mktemp("encoder")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 16,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=12, **sizes)).save_pretrained(folder)
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def by_hand(folder: Path, text: str, reference: str, layer: int) -> float:
    """F1 of greedy matching by cosine; each text's [CLS] and [SEP] take part in matching but weigh nothing."""
    import torch
    from transformers import BertModel

    model = BertModel.from_pretrained(folder).eval()

    def states(words: str) -> np.ndarray:
        ids = [WORDS.index(word) for word in ("[CLS]", *words.split(), "[SEP]")]
        with torch.no_grad():
            found = model(torch.tensor([ids]), output_hidden_states=True).hidden_states[layer][0].numpy()
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    cosines = states(text) @ states(reference).T
    precision, recall = cosines.max(1)[1:-1].mean(), cosines.max(0)[1:-1].mean()
    return 2 * precision * recall / (precision + recall)


def test_f1_is_greedy_matching_by_cosine(encoder: Path) -> None:
    pairs = [("left lung", "the right lung is clear"), ("liver", "no"), ("yes", "yes")]
    texts, samples = [text for text, _ in pairs], [asked(own) for _, own in pairs]
    found = BertScore(str(encoder), num_layers=2).scores(texts, samples, Prompt())
    assert found == pytest.approx([by_hand(encoder, text, own, 2) for text, own in pairs], abs=1e-5)
    assert found[2] == pytest.approx(1)
    alone = BertScore(str(encoder), num_layers=2, batch_size=1).scores(texts[:1], samples[:1], Prompt())
    assert alone == pytest.approx(found[:1], abs=1e-6)


def test_what_has_no_words_and_what_is_too_long(encoder: Path) -> None:
    scorer = BertScore(str(encoder), num_layers=1)
    samples = [asked("liver"), asked("liver"), asked(None), asked("liver")]
    first, second, third, fourth = scorer.scores([" ", None, "liver", "liver " * 40], samples, Prompt())
    assert (first, second, third) == (0, 0, None)
    assert fourth is not None
    assert fourth > 0


def test_the_encoder_is_recorded_and_hashed(encoder: Path) -> None:
    scorer = BertScore(str(encoder), num_layers=2, device="cpu", batch_size=3)
    assert scorer.to_dict() == {
        "scorer": "BERTScore",
        "model": str(encoder),
        "num_layers": 2,
        "extract": "whole",
    }
    assert scorer == BertScore(str(encoder), num_layers=2)
    found = re.fullmatch(rf"{encoder} \(sha256 (\w{{12}})\), layer 2, bert-score 0\.3\.\d+", scorer.encoder)
    assert found
    (encoder / "vocab.txt").write_text("\n".join([*WORDS[::-1]]) + "\n")
    assert found[1] not in scorer.encoder
    (encoder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    assert found[1] in scorer.encoder


def test_an_encoder_with_code_of_its_own_is_refused(encoder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(encoder, tmp_path / "own"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoModel": "own.Own"}}))
    with pytest.raises(
        StudyError, match=r"needs code of its own, which is not run: config\.json holds auto_map"
    ):
        BertScore(str(folder), num_layers=2).scores(["liver"], [asked("liver")], Prompt())


def test_errors_say_what_to_give(encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    ask = (["liver"], [asked("liver")], Prompt())
    with pytest.raises(StudyError, match="num_layers says which layer of the encoder"):
        BertScore(str(encoder))
    with pytest.raises(StudyError, match=r"cannot be used with num_layers=9 .*at least that many layers"):
        BertScore(str(encoder), num_layers=9).scores(*ask)
    with pytest.raises(StudyError, match="bert-score knows no layer for 'someone/encoder'; give num_layers"):
        BertScore("someone/encoder").scores(*ask)
    with pytest.raises(
        StudyError, match=r"no encoder 'someone/encoder' on this machine\. Pass download=True"
    ):
        BertScore("someone/encoder", num_layers=2).scores(*ask)
    monkeypatch.setitem(sys.modules, "bert_score", None)
    with pytest.raises(
        StudyError, match=r"needs the library bert-score; install it with: pip install 'interp\[eval\]'"
    ):
        BertScore(str(encoder), num_layers=3).scores(*ask)
