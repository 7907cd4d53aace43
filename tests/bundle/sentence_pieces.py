"""Models that sentencepiece trains as Icefall's `local/train_bpe_model.py` does."""

from __future__ import annotations

import io
from collections.abc import Sequence

import sentencepiece

SENTENCES = ("one two three four", "five six seven eight nine zero") * 20
SPECIAL = ("<blk>", "<sos/eos>")


def trained(
    vocab_size: int,
    kind: str = "bpe",
    *,
    special: Sequence[str] = SPECIAL,
    byte_fallback: bool = False,
    unknown: str = "<unk>",
) -> bytes:
    """A bpe.model with `vocab_size` pieces, of which the unknown one comes after the `special` ones."""
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES),
        model_writer=written,
        vocab_size=vocab_size,
        model_type=kind,
        user_defined_symbols=list(special),
        unk_id=len(special),
        unk_piece=unknown,
        bos_id=-1,
        eos_id=-1,
        byte_fallback=byte_fallback,
        minloglevel=2,
    )
    return written.getvalue()


def pieces_of(model: bytes) -> list[str]:
    """What sentencepiece itself says of a model."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=model)
    return [processor.id_to_piece(token) for token in range(processor.vocab_size())]
