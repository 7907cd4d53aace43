"""One call of gRPC: who calls, its id, its messages, its status, and its line in the log."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import unquote

import grpc
from google.protobuf.message import DecodeError

from moulin.gateway.access import bearer_key
from moulin.gateway.api_error import ApiError, api_error, server_draining, server_stopping
from moulin.gateway.api_keys import KEY_NAME, ApiKeys
from moulin.gateway.request_context import REQUEST_ID, report_request, request_id_of
from moulin.gateway.riva.messages import SERVICE
from moulin.gateway.riva.trusted_proxies import TrustedProxies
from moulin.gateway.services import Services

logger = logging.getLogger(__name__)

_CLIENT_GONE = 499
_STATUS = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
    507: grpc.StatusCode.RESOURCE_EXHAUSTED,
}


class Call:
    """A call under way. Its messages are read one at a time: gRPC slows down a client that sends faster."""

    def __init__(self, context: Any, method: str, request_type: Any, proxies: TrustedProxies) -> None:
        self._context, self._request_type = context, request_type
        self.method = method
        self.metadata = {name: value for name, value in context.invocation_metadata() if isinstance(value, str)}
        self.request_id = request_id_of(self.metadata)
        self.address = proxies.client(address_of(context.peer()), self.metadata)
        self.caller = self.address
        """An API key or, without keys, an address, as `Limits` counts them."""
        self.log: dict[str, object] = {}
        """Further fields for the line in the log."""
        self.ignored: dict[str, str] = {}
        """Metadata that name fields of the client's that change nothing."""

    async def read(self) -> Any:
        """The next request; None when the client has sent its last. Raises ApiError 400."""
        data = await self._context.read()
        if data is grpc.aio.EOF:
            return None
        try:
            return self._request_type.FromString(data)
        except DecodeError:
            raise ApiError(400, f"Expected a message {self._request_type.DESCRIPTOR.name}, got other bytes") from None

    async def write(self, response: Any) -> None:
        await self._context.write(response)

    def trailing(self, error: ApiError | None = None) -> tuple[tuple[str, str], ...]:
        """Metadata at the end of the call."""
        found = [("x-request-id", self.request_id), *self.ignored.items()]
        if error is not None and error.retry_after_sec is not None:
            found.append(("retry-after", str(max(1, math.ceil(error.retry_after_sec)))))
        return tuple(found)


Behaviour = Callable[[Services, Call], Awaitable[Any]]
"""What a method does; raises MoulinErrors. Its result is the response, where the method has one."""


class Calls:
    """Makes gRPC's handlers of behaviours, with the gateway's access, limits on rates, log and metrics."""

    def __init__(self, services: Services) -> None:
        self._services, self._keys = services, ApiKeys(services.settings)
        self._proxies = TrustedProxies(services.settings.trusted_proxies)
        self._under_way: set[asyncio.Task[Any]] = set()
        self._refuses = self._ended = False

    @property
    def are_under_way(self) -> bool:
        return bool(self._under_way)

    def refuse(self) -> None:
        """Answer all that begins from now on with UNAVAILABLE."""
        self._refuses = True

    def end(self) -> None:
        """Answer all that is under way with UNAVAILABLE."""
        self._ended = True
        for task in self._under_way:
            task.cancel()

    def handler(self, method: str, behaviour: Behaviour, request_type: Any) -> Callable[[Any, Any], Awaitable[Any]]:
        async def handle(_requests: Any, context: Any) -> Any:
            task = asyncio.current_task()
            assert task is not None
            self._under_way.add(task)
            try:
                return await self._serve(Call(context, method, request_type, self._proxies), context, behaviour)
            finally:
                self._under_way.discard(task)

        return handle

    async def _serve(self, call: Call, context: Any, behaviour: Behaviour) -> Any:
        REQUEST_ID.set(call.request_id)
        KEY_NAME.set("")
        started, status = time.monotonic(), _CLIENT_GONE
        path = f"/{SERVICE}/{call.method}"
        about = {"rpc.system": "grpc", "rpc.method": call.method, "moulin.request_id": call.request_id}
        try:
            with self._services.tracing.request(f"gRPC {path}", call.metadata, about):
                self._admit(call)
                response = await self._answer(call, behaviour)
            status = 200
            context.set_trailing_metadata(call.trailing())
            return response
        except Exception as error:
            refusal = api_error(error)
            status = refusal.status
            if refusal.code == "internal_error":
                logger.exception("The gateway failed")
            return await context.abort(status_code(status), " ".join(str(refusal).split()), call.trailing(refusal))
        finally:
            report_request(
                self._services.metrics,
                "GRPC",
                path,
                route=path,
                status=status,
                seconds=time.monotonic() - started,
                client=call.address,
                log=call.log,
            )

    async def _answer(self, call: Call, behaviour: Behaviour) -> Any:
        try:
            return await behaviour(self._services, call)
        except asyncio.CancelledError:
            if not self._ended:
                raise  # the client has left
            raise server_stopping("call") from None

    def _admit(self, call: Call) -> None:
        """Raises ApiError 401, 429, 503."""
        if self._refuses:
            raise server_draining()
        if self._keys:
            call.caller = self._keys.name(bearer_key(call.metadata.get("authorization", "")))
            KEY_NAME.set(call.caller)
        self._services.limits.count(call.caller)


def status_code(status: int) -> Any:
    """gRPC's code for a status of HTTP."""
    return _STATUS.get(status, grpc.StatusCode.INVALID_ARGUMENT if status < 500 else grpc.StatusCode.INTERNAL)


def address_of(peer: str) -> str:
    """The address in gRPC's name of a peer, `ipv4:127.0.0.1:5000` or `ipv6:%5B::1%5D:5000`."""
    scheme, _, place = unquote(peer).partition(":")
    return place.rpartition(":")[0].strip("[]") if scheme in ("ipv4", "ipv6") else peer
