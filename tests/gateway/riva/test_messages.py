"""Our messages beside those of Riva's own client, and beside what protoc makes of our .proto files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import EnumDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from moulin.gateway.riva import messages

FOLDER = Path(messages.__file__).parent


def test_the_compiled_messages_are_those_of_the_proto_files(tmp_path: Path) -> None:
    from grpc_tools import protoc

    out = tmp_path / "messages.binpb"
    command = ["protoc", f"-I{FOLDER}", "--include_imports", f"--descriptor_set_out={out}"]
    command += ["riva_asr.proto", "health.proto"]
    assert protoc.main(command) == 0
    compiled = FileDescriptorSet.FromString(out.read_bytes())
    assert compiled == FileDescriptorSet.FromString((FOLDER / "messages.binpb").read_bytes())


@pytest.mark.needs("riva")
def test_the_messages_are_rivas() -> None:
    """Names, numbers, types, and which fields may be absent."""
    from riva.client.proto import riva_asr_pb2, riva_audio_pb2, riva_common_pb2

    theirs = _described(riva_asr_pb2.DESCRIPTOR, riva_audio_pb2.DESCRIPTOR, riva_common_pb2.DESCRIPTOR)
    ours = _described(*(messages.POOL.FindFileByName(name) for name in ("riva.proto", "riva_asr.proto")))
    assert len(theirs) > 70
    assert ours == theirs


def _described(*files: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for file in files:
        for message in file.message_types_by_name.values():
            found |= _fields(message)
        for enum in file.enum_types_by_name.values():
            found |= _values(enum)
        for service in file.services_by_name.values():
            for method in service.methods:
                types = (method.input_type.full_name, method.client_streaming)
                found[method.full_name] = (*types, method.output_type.full_name, method.server_streaming)
    return found


def _fields(message: Any) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in message.fields:
        kind = field.message_type or field.enum_type
        found[field.full_name] = (
            field.number,
            field.type,
            kind.full_name if kind else None,
            field.is_repeated,
            field.has_presence,
            field.containing_oneof.name if field.containing_oneof else None,
        )
    for nested in message.nested_types:
        found |= _fields(nested)
    return found


def _values(enum: EnumDescriptor) -> dict[str, Any]:
    return {f"{enum.full_name}.{value.name}": value.number for value in enum.values}
