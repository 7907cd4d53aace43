from __future__ import annotations

import subprocess
import sys

CODE = """
import os, signal, socket
from moulin.isolated_decoding.fork_server import ForkServer
mine, caller = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
caller.shutdown(socket.SHUT_WR)
ForkServer(mine).serve()
process = os.fork()
if process == 0:
    os._exit(0)
os.waitpid(process, 0)
"""


def test_processes_that_end_after_it_are_no_fault() -> None:
    """The signal of their end wrote to a descriptor that was closed."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60, check=True)
    assert done.stderr == ""
