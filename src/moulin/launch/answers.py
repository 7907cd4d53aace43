"""A check whether an HTTP server answers."""

from __future__ import annotations

import http.client
import ssl

_TIMEOUT_SEC = 1.5


def answers(address: str, path: str, *, tls: bool = False) -> bool:
    """Whether a GET of `path` at `host:port` succeeds; with `tls` over HTTPS, whatever the certificate is."""
    probe = Probe(address, path, tls=tls)
    try:
        return probe.answers()
    finally:
        probe.close()


class Probe:
    """Asks again and again over one connection, which a server that can take no more connections still answers."""

    def __init__(self, address: str, path: str, *, tls: bool = False) -> None:
        host, _, port = address.rpartition(":")
        self._path = path
        self._closed = False
        self._connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=_TIMEOUT_SEC)
        if tls:  # our own process, by an address that its certificate need not name
            unchecked = ssl._create_unverified_context()
            self._connection = http.client.HTTPSConnection(
                host.strip("[]"), int(port), timeout=_TIMEOUT_SEC, context=unchecked
            )

    def answers(self) -> bool:
        """Whether a GET succeeds now; a connection that the server has closed since is opened anew.

        False after `close`, also where that is called meanwhile from another thread.
        """
        was_open = self._connection.sock is not None
        try:
            return self._ask()
        except TimeoutError:
            return False
        except (OSError, http.client.HTTPException):
            if not was_open:
                return False
        try:
            return self._ask()
        except (OSError, http.client.HTTPException):
            return False

    def close(self) -> None:
        """Close the connection for good."""
        self._closed = True
        self._connection.close()

    def _ask(self) -> bool:
        if self._closed:
            return False
        try:
            self._connection.request("GET", self._path)
            response = self._connection.getresponse()
            response.read()
            return response.status == 200
        except BaseException:
            self._connection.close()
            raise
