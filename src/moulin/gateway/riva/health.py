"""gRPC's own health check (`grpc.health.v1`), for Kubernetes' probes and load balancers. It needs no key."""

from __future__ import annotations

from typing import Any

import grpc

from moulin.gateway.riva.messages import HEALTH_SERVICE, SERVICE, HealthRequest, HealthResponse
from moulin.gateway.services import Services


class Health:
    """Its `Check` is as `/readyz` is. `Watch` is not offered: each takes a call for as long as somebody looks."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._stopping = False

    def stop(self) -> None:
        """Answer NOT_SERVING from now on."""
        self._stopping = True

    def handlers(self) -> Any:
        check = grpc.unary_unary_rpc_method_handler(
            self._check, request_deserializer=HealthRequest.FromString, response_serializer=_serialized
        )
        return grpc.method_handlers_generic_handler(HEALTH_SERVICE, {"Check": check})

    async def _check(self, request: Any, context: Any) -> Any:
        if request.service not in ("", SERVICE):
            await context.abort(grpc.StatusCode.NOT_FOUND, f"The services are {SERVICE} and all together")
        serves = not self._stopping and await self._services.triton.is_ready()
        return HealthResponse(status="SERVING" if serves else "NOT_SERVING")


def _serialized(message: Any) -> bytes:
    return bytes(message.SerializeToString())
