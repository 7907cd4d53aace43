"""The pieces of a SentencePiece model (`bpe.model`), in the order of their ids.

A model is a protobuf message (sentencepiece_model.proto): field 1 is the list of pieces, each with its text (1), its
score (2) and its type (3). The other fields, among them the normalizer, matter only for encoding text into ids.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from moulin.bundle.protobuf_size import expect_few_values
from moulin.bundle.untrusted_file import errors_of, expect_regular
from moulin.errors import BundleError
from moulin.quoting import quoted

_BLANKS = ("<blk>", "<blank>", "<eps>")
_UNKNOWN_TYPE = 2
_UNKNOWN = ("<unk>", "<UNK>")
_MOST_BYTES = 1 << 26
_MOST_VALUES = 2_000_000
"""Fields in a model; each piece has its text, score and type."""


def read_pieces(file: Path) -> tuple[str, ...]:
    """The pieces of `file` by id: the symbols of the tokens.txt that Icefall makes from it.

    Raises BundleError where `file` is not a SentencePiece model, or its first piece is not the blank that every
    transducer is trained with.
    """
    with errors_of(file):
        pieces = tuple(_pieces(file))
    if not pieces:
        raise BundleError(f"{file} is no SentencePiece model: it holds no pieces", hint="fetch it again")
    if pieces[0] not in _BLANKS:
        raise BundleError(
            f"Expected {_BLANKS[0]} as the first piece of {file}, got {quoted(pieces[0])}",
            hint="the vocabulary is not this bpe.model alone: take tokens.txt from the training",
        )
    return pieces


def _pieces(file: Path) -> Iterator[str]:
    from google.protobuf.message import DecodeError

    model = _message_class()()
    size = expect_regular(file)
    if size > _MOST_BYTES:
        raise BundleError(f"Expected a SentencePiece model of at most {_MOST_BYTES:,} bytes in {file}, got {size:,}")
    try:
        expect_few_values(file, _message_class(), _MOST_VALUES)
        model.ParseFromString(file.read_bytes())
    except (DecodeError, UnicodeDecodeError):
        raise BundleError(
            f"{file} is no complete SentencePiece model ({file.stat().st_size:,} bytes)",
            hint="it may be truncated or a Git LFS pointer: fetch it again and compare its size",
        ) from None
    for piece in model.pieces:
        # The unknown piece may have any text; `TokenTable.unk_id` finds it by this name.
        unknown = piece.type == _UNKNOWN_TYPE and piece.piece not in _UNKNOWN
        yield _UNKNOWN[0] if unknown else piece.piece


@cache
def _message_class() -> Any:
    """The protobuf class of the model, in a descriptor pool of its own: the package sentencepiece may have registered
    the full definition in the default pool."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field = descriptor_pb2.FieldDescriptorProto
    definition = descriptor_pb2.FileDescriptorProto(name="pieces.proto", package="moulin", syntax="proto2")
    piece = definition.message_type.add(name="Piece")
    piece.field.add(name="piece", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    piece.field.add(name="type", number=3, type=field.TYPE_INT32, label=field.LABEL_OPTIONAL, default_value="1")
    model = definition.message_type.add(name="Model")
    model.field.add(
        name="pieces", number=1, type=field.TYPE_MESSAGE, label=field.LABEL_REPEATED, type_name=".moulin.Piece"
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(definition)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("moulin.Model"))
