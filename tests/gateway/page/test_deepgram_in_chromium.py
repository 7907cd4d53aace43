"""A browser's MediaRecorder on Deepgram's WebSocket, with the key as a subprotocol, as Deepgram's examples do it."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser

from moulin.launch.server import TritonServer
from moulin.transcript import Transcript
from tests.gateway.page.conftest import PATIENCE_MS
from tests.gateway.running_gateway import running_gateway

pytestmark = [pytest.mark.browser, pytest.mark.triton]

_LISTEN = """async () => {
    const microphone = await navigator.mediaDevices.getUserMedia({ audio: true });
    const socket = new WebSocket(`ws://${location.host}/v1/listen?endpointing=1200`, ["token", "secret"]);
    const heard = [];
    const ended = new Promise((resolve) => {
        socket.onmessage = (message) => {
            const event = JSON.parse(message.data);
            if (event.type === "Results" && event.is_final) heard.push(event.channel.alternatives[0].transcript);
            if (event.type === "Metadata" || event.type === "Error") resolve(event);
        };
        socket.onclose = (event) => resolve({ type: "closed", code: event.code, reason: event.reason });
    });
    await new Promise((resolve) => { socket.onopen = resolve; });
    const recorder = new MediaRecorder(microphone, { mimeType: "audio/webm" });
    recorder.ondataavailable = (event) => { if (event.data.size) socket.send(event.data); };
    recorder.start(250);
    await new Promise((resolve) => setTimeout(resolve, 10000));
    const stopped = new Promise((resolve) => { recorder.onstop = resolve; });
    recorder.stop();
    await stopped;
    socket.send(JSON.stringify({ type: "CloseStream" }));
    const last = await ended;
    return { heard: heard.join(" "), last, protocol: socket.protocol };
}"""


def test_a_browser_records(listening_browser: Browser, server: TritonServer, heard_live: list[Transcript]) -> None:
    with running_gateway(server.grpc_url, api_keys=("secret",)) as address:
        page = listening_browser.new_page(permissions=["microphone"])
        page.set_default_timeout(PATIENCE_MS)
        page.goto(f"http://{address}/")
        found = page.evaluate(_LISTEN)
        page.close()
    assert found["protocol"] == "token"
    assert found["last"]["type"] == "Metadata", found["last"]
    assert found["last"]["duration"] > 9
    said, expected = found["heard"].split(), heard_live[0].text.split()
    assert len(set(said) & set(expected)) >= 5, found["heard"]
