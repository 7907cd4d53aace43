"""The model for clients that name another service's models."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from moulin.client.served_model import ServedModel
from moulin.gateway.api_error import ApiError


async def named_or_default(find: Callable[[str | None], Awaitable[ServedModel]], name: str) -> ServedModel:
    """The model called `name` by a method of `ModelCatalog`, or the default one. Raises ApiError, ServerUnavailable."""
    try:
        return await find(name or None)
    except ApiError:
        return await find(None)
