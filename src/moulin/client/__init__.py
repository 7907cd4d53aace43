"""Clients of the service. They need numpy and tritonclient, and the audio packages only to read files."""

from moulin.client.async_client import AsyncClient
from moulin.client.sync_client import Client

__all__ = ["AsyncClient", "Client"]
