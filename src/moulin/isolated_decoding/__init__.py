"""Decoding of other people's recordings in processes of their own, which can be limited and killed.

`processes.py` is what callers use. `fork_server.py` is a process that has all libraries loaded and forks others,
`decode.py` what these do, one recording after another, and `messages.py` what goes between them.
"""
