"""Clients of the service. They need numpy and tritonclient; only reading files needs the audio packages."""

from moulin.client.async_bundle import AsyncBundledStream, AsyncStreamBundle
from moulin.client.async_client import AsyncClient
from moulin.client.async_pool import AsyncStreamPool
from moulin.client.async_stream import AsyncLiveStream
from moulin.client.sync_bundle import BundledStream, StreamBundle
from moulin.client.sync_client import Client
from moulin.client.sync_stream import LiveStream

__all__ = [
    "AsyncBundledStream",
    "AsyncClient",
    "AsyncLiveStream",
    "AsyncStreamBundle",
    "AsyncStreamPool",
    "BundledStream",
    "Client",
    "LiveStream",
    "StreamBundle",
]
