"""Decoding of other people's recordings in processes of their own, which can be limited and killed.

`processes.py` is what callers use. `fork_server.py` is a process that has all libraries loaded and forks for each
recording, `decode.py` what the fork does, and `messages.py` what goes between them.
"""
