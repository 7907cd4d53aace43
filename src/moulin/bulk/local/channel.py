"""Messages between the executor and its processes: a JSON object and, with some, a table in a memory file."""

from __future__ import annotations

import json
import os
import pickle
import socket
from dataclasses import dataclass
from typing import Any

from moulin.bulk.pyarrow_here import pa

_MAX_MESSAGE_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class Message:
    """What came; `file` is the descriptor of a memory file, which the receiver closes, or None."""

    fields: dict[str, Any]
    file: int | None


class Channel:
    """One end of a pair of sockets. Messages are whole, and those sent before an end closed still come."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(one), cls(other)

    @classmethod
    def of(cls, descriptor: int) -> Channel:
        """An end that another process has passed on."""
        return cls(socket.socket(fileno=descriptor))

    def fileno(self) -> int:
        return self._end.fileno()

    def send(self, fields: dict[str, Any], file: int | None = None) -> None:
        """Send a message; the descriptor stays open here. Raises OSError where the other end has closed."""
        socket.send_fds(self._end, [json.dumps(fields).encode()], [] if file is None else [file])

    def send_table(self, fields: dict[str, Any], table: Any) -> None:
        """`send` with a table."""
        file = table_file(table)
        try:
            self.send(fields, file)
        finally:
            os.close(file)

    def receive(self) -> Message | None:
        """The next message; None when the other end has closed."""
        try:
            data, files, _, _ = socket.recv_fds(self._end, _MAX_MESSAGE_BYTES, 1)
        except ConnectionResetError:
            return None
        if not data:
            return None
        return Message(json.loads(data), files[0] if files else None)

    def close(self) -> None:
        self._end.close()


def table_file(table: Any) -> int:
    """The descriptor of a new memory file that holds `table`. It has no name, and is gone with its last descriptor."""
    file = os.memfd_create("moulin-table")
    try:
        with pa.OSFile(_path(file), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
    except BaseException:
        os.close(file)
        raise
    return file


def read_table(file: int) -> Any:
    """The table in a memory file, without a copy: it keeps the memory, and the descriptor may be closed."""
    return pa.ipc.open_file(pa.memory_map(_path(file))).read_all()


def taken_table(message: Message) -> Any:
    """The table of a message. Closes the message's descriptor."""
    assert message.file is not None
    try:
        return read_table(message.file)
    finally:
        os.close(message.file)


def copied_table(message: Message) -> Any:
    """The table of a message, read into this process's memory: tables that are kept would else be a mapping each."""
    assert message.file is not None
    with os.fdopen(message.file, "rb") as written:
        written.seek(0)
        return pa.ipc.open_file(pa.py_buffer(written.read())).read_all()


def object_file(value: object) -> int:
    """The descriptor of a memory file with a pickled object, for a process of our own."""
    file = os.memfd_create("moulin-object")
    with os.fdopen(os.dup(file), "wb") as written:
        pickle.dump(value, written)
    return file


def taken_object(message: Message) -> Any:
    """The inverse of `object_file`. Closes the descriptor."""
    assert message.file is not None
    with os.fdopen(message.file, "rb") as written:
        written.seek(0)
        return pickle.load(written)


def _path(file: int) -> str:
    return f"/proc/self/fd/{file}"
