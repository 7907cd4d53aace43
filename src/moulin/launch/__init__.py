"""Finds tritonserver, owns its process, waits until it is ready."""
