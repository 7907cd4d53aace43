"""Deepgram's `/v1/listen`, over HTTP and WebSocket: a translation to the gateway's recordings and live streams."""
