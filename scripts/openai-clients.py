#!/usr/bin/env python3
"""Tries stock clients of OpenAI's API on a running server, the newest and a year-old, and prints a table of what came.

    moulin serve
    python scripts/openai-clients.py speech.wav              # 16 bits, one channel; --server http://localhost:9000

Live sessions of openai-node, and of openai for Python a year ago, want TLS, of the same server or of a gateway before
it:

    moulin gateway --port 9443 --tls-certificate certificate.pem --tls-key key.pem
    python scripts/openai-clients.py speech.wav --tls https://localhost:9443 --ca certificate.pem

Makes its environments in build/openai-clients on the first run (Python's, and Node's 22, by pip and npm), and needs
nothing of moulin in them. Every client has its own default model and settings, but for the address. The result is
compared with what the server says to a plain request: of a recording by its default model, of live speech by its
streaming model.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import shutil
import subprocess
import sys
import time
import traceback
import urllib.request
import wave
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

_FOLDER = Path("build/openai-clients")
_PYTHONS = {
    "newest": ["openai[realtime]", "livekit-plugins-openai", "pipecat-ai[openai]"],
    "others": ["groq", "litellm"],
    "a year old": [
        *("openai[realtime]==2.8.1", "livekit-plugins-openai==1.3.5", "livekit-agents==1.3.5"),
        *("pipecat-ai[openai]==0.0.96", "opentelemetry-sdk==1.38.0", "opentelemetry-exporter-otlp==1.38.0"),
    ],
}
_NODES = {
    "newest": ["node@22", "openai@latest", "ai@latest", "@ai-sdk/openai@latest", "ws@8"],
    "a year old": ["node@22", "openai@6.9.1", "ai@5.0.104", "@ai-sdk/openai@2.0.71", "ws@8"],
}
"""The releases of the end of November 2025."""
_KEY = "unused"
_PIECE_SEC = 0.05
_PAUSE_SEC = 2.0
"""Silence behind the recording, by which a server that detects turns knows that speech has ended."""
_SETTLED_SEC = 6.0
"""The time in which the last text comes."""
_TIMEOUT_SEC = 120

Tried = tuple[str, str, str]
"""What was tried, the text, and what the text should be: `recording`, `live`, or nothing to compare."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--server", default="http://localhost:9000")
    parser.add_argument("--tls", help="the same server with TLS")
    parser.add_argument("--ca", help="the certificate to trust there")
    parser.add_argument("--key", default=_KEY, help="an API key, if the server wants one")
    parser.add_argument("--only", default="", help="a part of the name of what to try")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.inside:
        _inside(chosen)
        return 0
    right = {kind: _plain_text(chosen, model) for kind, model in _MODELS.items()}
    print("| client | version | surface | tried | result | date |\n|---|---|---|---|---|---|")
    failed = 0
    for row in _rows(chosen):
        result = row["error"] or _judged(row["text"], right.get(row["like"], ""), row["like"])
        failed += bool(row["error"]) or result.startswith("other")
        cells = (row["client"], row["version"], row["surface"], row["tried"], result, time.strftime("%Y-%m-%d"))
        print("| " + " | ".join(str(cell).replace("|", "/").replace("\n", " ") for cell in cells) + " |", flush=True)
    return min(failed, 1)


_MODELS = {"recording": "whisper-1", "live": "transducer_streaming"}


def _judged(text: str, right: str, like: str) -> str:
    if not like:
        return text
    ours, theirs = " ".join(text.split()), " ".join(right.split())
    if ours == theirs:
        return "the text of a plain request"
    # A turn that the client or its detector ends cuts what the stream hears there.
    return (
        f"the words of a plain request but for {abs(len(ours.split()) - len(theirs.split()))}: {ours}"
        if (like == "live" and _overlap(ours, theirs) >= 0.8)
        else f"other text: {ours or 'none'}"
    )


def _overlap(ours: str, theirs: str) -> float:
    from difflib import SequenceMatcher

    return SequenceMatcher(None, ours.split(), theirs.split()).ratio()


def _plain_text(chosen: argparse.Namespace, model: str) -> str:
    """What the server says to a form that is written by hand."""
    body = b"".join(
        f'--b\r\nContent-Disposition: form-data; name="{name}"{rest}\r\n\r\n'.encode() + value + b"\r\n"
        for name, rest, value in (
            ("model", "", model.encode()),
            ("file", '; filename="speech.wav"', Path(chosen.file).read_bytes()),
        )
    )
    request = urllib.request.Request(
        f"{chosen.server}/v1/audio/transcriptions",
        body + b"--b--\r\n",
        {"Content-Type": "multipart/form-data; boundary=b", "Authorization": f"Bearer {chosen.key}"},
    )
    with urllib.request.urlopen(request, timeout=_TIMEOUT_SEC) as answer:
        text: str = json.load(answer)["text"]
    return text


def _rows(chosen: argparse.Namespace) -> Iterator[dict[str, Any]]:
    for age, packages in _PYTHONS.items():
        python = _python(age, packages)
        for inside in _OTHERS if age == "others" else [name for name in _TRIES if name not in _OTHERS]:
            if chosen.only in f"python {age} {inside}":
                command = [str(python), __file__, chosen.file, "--inside", inside, "--server", chosen.server]
                command += ["--key", chosen.key, *(["--tls", chosen.tls] if chosen.tls else [])]
                yield from _run(command, inside, **({"SSL_CERT_FILE": chosen.ca} if chosen.ca else {}))
    for age, packages in _NODES.items():
        node = _node(age, packages)
        if chosen.only in f"node {age}":
            shutil.copy(Path(__file__).with_suffix(".mjs"), node.parents[2] / "tries.mjs")
            command = [str(node), str(node.parents[2] / "tries.mjs"), chosen.server, chosen.file, chosen.key]
            environ = {"NODE_EXTRA_CA_CERTS": chosen.ca} if chosen.ca else {}
            yield from _run([*command, *([chosen.tls] if chosen.tls else [])], f"node {age}", **environ)


def _run(command: list[str], what: str, **environ: str) -> Iterator[dict[str, Any]]:
    """The rows that a process prints, a JSON object a line."""
    environ = {**os.environ, "OPENAI_API_KEY": _KEY, "HF_HUB_OFFLINE": "1", **environ}
    done = subprocess.run(command, capture_output=True, text=True, timeout=5 * _TIMEOUT_SEC, env=environ, check=False)
    for line in done.stdout.splitlines():
        if line.startswith('{"client"'):
            yield json.loads(line)
    if done.returncode:
        print(f"{what}: exit code {done.returncode}\n{done.stderr[-3000:]}", file=sys.stderr)


def _python(age: str, packages: list[str]) -> Path:
    folder = (_FOLDER / f"python {age}".replace(" ", "-")).resolve()
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        (folder / "ready").touch()
    return python


def _node(age: str, packages: list[str]) -> Path:
    folder = (_FOLDER / f"node {age}".replace(" ", "-")).resolve()
    if not (folder / "ready").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "package.json").write_text("{}")
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", *packages], cwd=folder, check=True)
        (folder / "ready").touch()
    return folder / "node_modules" / ".bin" / "node"


# Inside of an environment of Python


def _inside(chosen: argparse.Namespace) -> None:
    package, surface, tries = _TRIES[chosen.inside]
    for tried in tries:
        row = {"client": package, "version": version(package), "surface": surface, "tried": "", "error": ""}
        try:

            async def limited(tried: Callable[..., Awaitable[Tried]] = tried) -> Tried:
                async with asyncio.timeout(_TIMEOUT_SEC):
                    return await tried(chosen)

            row["tried"], row["text"], row["like"] = asyncio.run(limited())
        except BaseException as error:
            traceback.print_exc()
            row |= {
                "tried": tried.__doc__,
                "text": "",
                "like": "",
                "error": f"{type(error).__name__}: {str(error)[:300]}",
            }
        print(json.dumps(row), flush=True)


def _pieces(file: str, rate: int | None = None) -> tuple[int, list[bytes]]:
    """The rate in Hz, and samples in 16 bits with silence behind them; resampled, where `rate` is given."""
    import numpy as np
    import soxr

    with wave.open(file) as recording:
        own, data = recording.getframerate(), recording.readframes(recording.getnframes())
    samples = np.frombuffer(data, "<i2")
    if rate is not None:
        samples, own = soxr.resample(samples, own, rate), rate
    data = samples.astype("<i2").tobytes() + bytes(2 * round(_PAUSE_SEC * own))
    size = 2 * round(_PIECE_SEC * own)
    return own, [data[at : at + size] for at in range(0, len(data), size)]


def _client(chosen: argparse.Namespace, key: str | None = None, *, live: bool = False) -> Any:
    from openai import AsyncOpenAI

    server = chosen.tls if live and chosen.tls and version("openai") < "3" else chosen.server
    return AsyncOpenAI(base_url=f"{server}/v1", api_key=key or chosen.key, max_retries=0)


async def _transcribed(chosen: argparse.Namespace) -> Tried:
    """transcriptions.create"""
    names = ("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "gpt-transcribe")
    texts = set()
    for name in names:
        with Path(chosen.file).open("rb") as file:
            texts.add((await _client(chosen).audio.transcriptions.create(file=file, model=name)).text)
    return f"transcriptions.create of {', '.join(names)}", " / ".join(texts), "recording"


async def _transcribed_with_all_fields(chosen: argparse.Namespace) -> Tried:
    """transcriptions.create with every field"""
    import inspect

    client = _client(chosen)
    values: dict[str, Any] = {
        "chunking_strategy": {"type": "server_vad", "threshold": 0.3},
        "include": ["logprobs"],
        "keywords": ["one", "two"],
        "known_speaker_names": ["Ann"],
        "known_speaker_references": ["data:audio/wav;base64,UklGRg=="],
        "language": "en",
        "languages": ["en", "fr"],
        "prompt": "Somebody says digits.",
        "temperature": 0.2,
        "timestamp_granularities": ["word", "segment"],
        "response_format": "verbose_json",
    }
    known = inspect.signature(client.audio.transcriptions.create).parameters
    given = {name: value for name, value in values.items() if name in known and name != "keywords"}
    with Path(chosen.file).open("rb") as file:
        heard = await client.audio.transcriptions.create(file=file, model="whisper-1", **given)
    assert len(heard.words) == len(heard.text.split())
    return f"transcriptions.create with {', '.join(given)}", heard.text, "recording"


async def _transcribed_as_events(chosen: argparse.Namespace) -> Tried:
    """transcriptions.create with stream=True"""
    text = ""
    with Path(chosen.file).open("rb") as file:
        async for event in await _client(chosen).audio.transcriptions.create(
            file=file, model="gpt-4o-transcribe", stream=True
        ):
            text = event.text if event.type == "transcript.text.done" else text
    return "transcriptions.create with stream=True", text, "recording"


async def _models(chosen: argparse.Namespace) -> Tried:
    """models"""
    client = _client(chosen)
    listed = [model.id async for model in await client.models.list()]
    found = await client.models.retrieve("gpt-4o-transcribe")
    return "models.list, models.retrieve('gpt-4o-transcribe')", f"{', '.join(listed)}; {found.id}", ""


async def _realtime(chosen: argparse.Namespace, client: Any = None, detection: str | None = "server_vad") -> str:
    _, pieces = _pieces(chosen.file, 24_000)
    texts = []
    client = client or _client(chosen, live=True)
    async with client.realtime.connect(extra_query={"intent": "transcription"}) as connection:
        transcription = {"model": "gpt-4o-transcribe", "language": "en"}
        given = {
            "format": {"type": "audio/pcm", "rate": 24000},
            "transcription": transcription,
            "turn_detection": {"type": detection} if detection else None,
        }
        await connection.session.update(session={"type": "transcription", "audio": {"input": given}})

        async def send() -> None:
            for piece in pieces:
                await connection.input_audio_buffer.append(audio=base64.b64encode(piece).decode())
                await asyncio.sleep(_PIECE_SEC / 4)
            if detection is None:
                await connection.input_audio_buffer.commit()
            await asyncio.sleep(_SETTLED_SEC)
            await connection.close()

        sending = asyncio.create_task(send())
        async for event in connection:
            if event.type == "error":
                raise RuntimeError(event.error.message)
            if event.type == "conversation.item.input_audio_transcription.completed":
                texts.append(event.transcript)
        await sending
    return " ".join(texts)


async def _realtime_by_turns(chosen: argparse.Namespace) -> Tried:
    """realtime.connect, server_vad"""
    return "realtime.connect, session.update, server_vad", await _realtime(chosen), "live"


async def _realtime_by_commits(chosen: argparse.Namespace) -> Tried:
    """realtime.connect, a commit"""
    text = await _realtime(chosen, detection=None)
    return "realtime.connect, session.update, turn_detection null, commit", text, "live"


async def _realtime_with_secret(chosen: argparse.Namespace) -> Tried:
    """client_secrets"""
    session: Any = {"type": "transcription", "audio": {"input": {"transcription": {"model": "gpt-4o-transcribe"}}}}
    secret = await _client(chosen).realtime.client_secrets.create(session=session)
    text = await _realtime(chosen, _client(chosen, secret.value, live=True))
    return "realtime.client_secrets.create, realtime.connect with its value", text, "live"


async def _livekit_session() -> AsyncIterator[Any]:
    import aiohttp

    async with aiohttp.ClientSession() as session:
        yield session


def _livekit_stt(chosen: argparse.Namespace, **options: Any) -> Any:
    from livekit.plugins import openai

    return openai.STT(base_url=f"{chosen.server}/v1", api_key=chosen.key, **options)


async def _livekit_recording(chosen: argparse.Namespace) -> Tried:
    """STT().recognize"""
    from livekit import rtc

    rate, pieces = _pieces(chosen.file)
    data = b"".join(pieces)
    stt = _livekit_stt(chosen)
    heard = await stt.recognize(rtc.AudioFrame(data, rate, 1, len(data) // 2))
    return f"STT(), which is {stt._opts.model}: recognize", heard.alternatives[0].text, "recording"


async def _livekit_stream(chosen: argparse.Namespace, **options: Any) -> Tried:
    from livekit import rtc
    from livekit.agents.utils import http_context

    rate, pieces = _pieces(chosen.file)
    async with http_context.open() if hasattr(http_context, "open") else _LiveKitHttp():
        stt = _livekit_stt(chosen, **options)
        stream = stt.stream()
        kinds, texts = set(), []

        async def speak() -> None:
            for piece in pieces:
                stream.push_frame(rtc.AudioFrame(piece, rate, 1, len(piece) // 2))
                await asyncio.sleep(_PIECE_SEC)
            await asyncio.sleep(_SETTLED_SEC)
            listening.cancel()  # the stream goes on as long as the server's session

        async def listen() -> None:
            async for event in stream:
                kinds.add(event.type.value)
                if event.type.value == "final_transcript":
                    texts.append(event.alternatives[0].text)

        listening = asyncio.create_task(listen())
        speaking = asyncio.create_task(speak())
        with suppress(asyncio.CancelledError):
            await listening
        await speaking
        await stream.aclose()
    said = ", ".join(f"{name}={value}" for name, value in options.items())
    return f"STT({said}): stream ({', '.join(sorted(kinds))})", " ".join(texts), "live"


class _LiveKitHttp:
    """The session of HTTP that LiveKit's worker would have."""

    async def __aenter__(self) -> None:
        from livekit.agents.utils import http_context

        http_context._new_session_ctx()

    async def __aexit__(self, *_: object) -> None:
        from livekit.agents.utils import http_context

        await http_context._close_http_ctx()


async def _livekit_by_turns(chosen: argparse.Namespace) -> Tried:
    """STT(use_realtime=True)"""
    return await _livekit_stream(chosen, use_realtime=True)


async def _livekit_live(chosen: argparse.Namespace, model: str) -> Tried:
    if version("livekit-plugins-openai") < "1.4":
        return f"STT(model={model})", "this release does not know it", ""
    return await _livekit_stream(chosen, model=model)


async def _livekit_whisper(chosen: argparse.Namespace) -> Tried:
    """STT(model='gpt-realtime-whisper')"""
    return await _livekit_live(chosen, "gpt-realtime-whisper")


async def _livekit_transcribe(chosen: argparse.Namespace) -> Tried:
    """STT(model='gpt-live-transcribe')"""
    return await _livekit_live(chosen, "gpt-live-transcribe")


async def _pipecat(chosen: argparse.Namespace, service: Any, name: str) -> tuple[str, str]:
    from pipecat.frames import frames
    from pipecat.pipeline.pipeline import Pipeline
    from pipecat.pipeline.runner import PipelineRunner
    from pipecat.pipeline.task import PipelineParams, PipelineTask
    from pipecat.processors.frame_processor import FrameProcessor

    texts: list[str] = []
    errors: list[str] = []

    class Heard(FrameProcessor):  # type: ignore[misc]
        async def process_frame(self, frame: Any, direction: Any) -> None:
            await super().process_frame(frame, direction)
            if isinstance(frame, frames.TranscriptionFrame):
                texts.append(frame.text)
            if isinstance(frame, frames.ErrorFrame):
                errors.append(frame.error)
            await self.push_frame(frame, direction)

    rate, pieces = _pieces(chosen.file)
    before, after = Heard(), Heard()
    task = PipelineTask(Pipeline([before, service, after]), params=PipelineParams(audio_in_sample_rate=rate))
    older = getattr(frames, "VADUserStartedSpeakingFrame", None) is None or version("pipecat-ai") < "0.1"
    started = frames.UserStartedSpeakingFrame if older else frames.VADUserStartedSpeakingFrame
    stopped = frames.UserStoppedSpeakingFrame if older else frames.VADUserStoppedSpeakingFrame

    async def speak() -> None:
        await asyncio.sleep(1)
        await task.queue_frame(started())
        for piece in pieces:
            await task.queue_frame(frames.InputAudioRawFrame(audio=piece, sample_rate=rate, num_channels=1))
            await asyncio.sleep(_PIECE_SEC)
        await task.queue_frame(stopped())
        await asyncio.sleep(_SETTLED_SEC)
        await task.queue_frame(frames.EndFrame())

    await asyncio.gather(PipelineRunner(handle_sigint=False).run(task), speak())
    if errors:
        raise RuntimeError("; ".join(errors))
    return f"{name}: a pipeline", " ".join(texts)


async def _pipecat_segments(chosen: argparse.Namespace) -> Tried:
    """OpenAISTTService()"""
    from pipecat.services.openai.stt import OpenAISTTService

    service = OpenAISTTService(base_url=f"{chosen.server}/v1", api_key=chosen.key)
    return (*await _pipecat(chosen, service, "OpenAISTTService()"), "recording")


async def _pipecat_live(chosen: argparse.Namespace) -> Tried:
    """OpenAIRealtimeSTTService()"""
    from pipecat.services.openai import stt

    if not hasattr(stt, "OpenAIRealtimeSTTService"):
        return "OpenAIRealtimeSTTService()", "this release has none", ""
    service = stt.OpenAIRealtimeSTTService(
        base_url=f"{chosen.server}/v1/realtime".replace("http", "ws", 1), api_key=chosen.key
    )
    return (*await _pipecat(chosen, service, "OpenAIRealtimeSTTService()"), "live")


async def _groq(chosen: argparse.Namespace) -> Tried:
    """AsyncGroq"""
    from groq import AsyncGroq

    client = AsyncGroq(base_url=chosen.server, api_key=chosen.key, max_retries=0)
    with Path(chosen.file).open("rb") as file:
        heard = await client.audio.transcriptions.create(file=file, model="whisper-large-v3-turbo")
    return "AsyncGroq(base_url=…): audio.transcriptions.create of whisper-large-v3-turbo", heard.text, "recording"


async def _litellm(chosen: argparse.Namespace) -> Tried:
    """atranscription"""
    import litellm

    with Path(chosen.file).open("rb") as file:
        heard = await litellm.atranscription(
            model="openai/whisper-1", file=file, api_base=f"{chosen.server}/v1", api_key=chosen.key
        )
    return "atranscription of openai/whisper-1", heard.text, "recording"


_TRIES: dict[str, tuple[str, str, list[Callable[[argparse.Namespace], Awaitable[Tried]]]]] = {
    "openai": (
        "openai",
        "REST",
        [_models, _transcribed, _transcribed_with_all_fields, _transcribed_as_events],
    ),
    "openai realtime": (
        "openai",
        "realtime",
        [_realtime_by_turns, _realtime_by_commits, _realtime_with_secret],
    ),
    "livekit": ("livekit-plugins-openai", "REST", [_livekit_recording]),
    "livekit realtime": (
        "livekit-plugins-openai",
        "realtime",
        [_livekit_by_turns, _livekit_whisper, _livekit_transcribe],
    ),
    "pipecat": ("pipecat-ai", "REST", [_pipecat_segments]),
    "pipecat realtime": ("pipecat-ai", "realtime", [_pipecat_live]),
    "groq": ("groq", "REST", [_groq]),
    "litellm": ("litellm", "REST", [_litellm]),
}
_OTHERS = ("groq", "litellm")
"""Tried in an environment of their own."""


if __name__ == "__main__":
    sys.exit(main())
