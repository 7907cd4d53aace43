"""The messages of riva.proto, riva_asr.proto and health.proto, as classes.

They are made from `messages.binpb`, protoc's compiled form of all, in a pool of their own: generated Python would
refuse older releases of protobuf, and would clash in protobuf's common pool with the code of Riva's own client.
After a change of a .proto, here:

    python -m grpc_tools.protoc -I. --include_imports --descriptor_set_out=messages.binpb riva_asr.proto \
        health.proto
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

SERVICE = "nvidia.riva.asr.RivaSpeechRecognition"
HEALTH_SERVICE = "grpc.health.v1.Health"


def _pool() -> DescriptorPool:
    pool = DescriptorPool()
    for file in FileDescriptorSet.FromString(Path(__file__).with_name("messages.binpb").read_bytes()).file:
        pool.Add(file)
    return pool


POOL = _pool()


def _message(name: str, package: str = "nvidia.riva.asr") -> Any:
    return GetMessageClass(POOL.FindMessageTypeByName(f"{package}.{name}"))


RecognizeRequest = _message("RecognizeRequest")
RecognizeResponse = _message("RecognizeResponse")
StreamingRecognizeRequest = _message("StreamingRecognizeRequest")
StreamingRecognizeResponse = _message("StreamingRecognizeResponse")
RecognitionConfig = _message("RecognitionConfig")
StreamingRecognitionConfig = _message("StreamingRecognitionConfig")
ConfigRequest = _message("RivaSpeechRecognitionConfigRequest")
ConfigResponse = _message("RivaSpeechRecognitionConfigResponse")
SpeechRecognitionResult = _message("SpeechRecognitionResult")
StreamingRecognitionResult = _message("StreamingRecognitionResult")
SpeechRecognitionAlternative = _message("SpeechRecognitionAlternative")
WordInfo = _message("WordInfo")
HealthRequest = _message("HealthCheckRequest", "grpc.health.v1")
HealthResponse = _message("HealthCheckResponse", "grpc.health.v1")

_ENCODINGS = POOL.FindEnumTypeByName("nvidia.riva.AudioEncoding").values_by_number


def encoding_name(number: int) -> str:
    """`LINEAR_PCM` and so on; the number where it is none of Riva's."""
    return _ENCODINGS[number].name if number in _ENCODINGS else str(number)
