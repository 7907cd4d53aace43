"""Finds tritonserver, owns its process, waits until it is ready."""

from moulin.launch.cache import cache_dir
from moulin.launch.doctor import Check, examine
from moulin.launch.server import ServerOptions, TritonServer
from moulin.launch.tritonserver import TritonInstallation, find_tritonserver

__all__ = [
    "Check",
    "ServerOptions",
    "TritonInstallation",
    "TritonServer",
    "cache_dir",
    "examine",
    "find_tritonserver",
]
