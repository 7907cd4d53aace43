"""The transcript of one whole recording, for protocols that answer once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moulin.audio.selection import Selection
from moulin.client.served_model import ServedModel
from moulin.gateway.services import Services
from moulin.gateway.upload import Recording
from moulin.long_audio.joined_transcript import JoinedTranscript
from moulin.transcript import Transcript


async def heard_recording(
    services: Services,
    recording: Recording,
    selection: Selection,
    model: ServedModel,
    options: Mapping[str, Any],
    *,
    caller: str,
    request_id: str,
) -> Transcript:
    """What `POST /v1/audio/transcriptions` would hear. Raises AudioError, and what `TritonServers` raises."""
    recordings, joined = services.recordings, JoinedTranscript()
    hear = services.recordings_by_stream.heard if model.streaming else recordings.heard
    async with recordings.decoding(
        recording,
        selection,
        caller,
        max_audio_sec=services.settings.max_audio_sec,
        max_utterance_sec=None if model.streaming else model.max_utterance_sec,
    ) as pieces:
        async for piece, heard in hear(pieces, caller, model.name, options, request_id):
            joined.add(piece, heard)
    return joined.transcript(pieces.decoded_sec, pieces.warnings)
