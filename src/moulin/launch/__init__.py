"""tritonserver as a process: found, started, watched and stopped; with the gateway beside it."""

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
