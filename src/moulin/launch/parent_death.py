"""Run as a script, never imported: become another program that ends when its parent ends.

    python -I -S parent_death.py PARENT_PID PROGRAM ARGUMENT...

A signal handler cannot do this for a parent that is killed with SIGKILL; the kernel can. `preexec_fn` of
subprocess would be the short way, but it forks a process with threads and may deadlock there.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0) != 0:
        sys.exit(f"error: prctl(PR_SET_PDEATHSIG): {os.strerror(ctypes.get_errno())}")
    # The parent may have died before the call above, and then no signal ever comes.
    if os.getppid() != int(sys.argv[1]):
        sys.exit("error: the process that wanted this one is gone")
    try:
        os.execv(sys.argv[2], sys.argv[2:])
    except OSError as error:
        sys.exit(f"error: {sys.argv[2]}: {error.strerror}")
