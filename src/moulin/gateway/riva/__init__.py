"""Riva's speech recognition over gRPC: a translation to the gateway's recordings and live streams."""
