"""A script, never imported, that becomes another program which ends when its parent ends.

    python -I -S parent_death.py PARENT_PID PROGRAM ARGUMENT...

A signal handler cannot do this for a parent that is killed with SIGKILL; the kernel can. subprocess's `preexec_fn`
would be shorter, but it runs in a fork of a process with threads, and may deadlock.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0) != 0:
        sys.exit(f"error: prctl(PR_SET_PDEATHSIG): {os.strerror(ctypes.get_errno())}")
    # If the parent died before the call above, no signal is sent.
    if os.getppid() != int(sys.argv[1]):
        sys.exit("error: the parent process has ended")
    try:
        os.execv(sys.argv[2], sys.argv[2:])
    except OSError as error:
        sys.exit(f"error: {sys.argv[2]}: {error.strerror}")
