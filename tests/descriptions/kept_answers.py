"""Answers kept and found by what was asked, as the stages do it through the keys of requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from talking_points.descriptions.backends.protocol import ChatRequest, Completion
from talking_points.descriptions.request_cache import RequestCache, request_keys


def look_up(cache: RequestCache, identity: Mapping[str, Any], requests: Sequence[ChatRequest]) -> dict[str, Completion]:
    """Known answers by request id."""
    return cache.lookup(request_keys(identity, requests))


def keep(cache: RequestCache, identity: Mapping[str, Any], request: ChatRequest, completion: Completion) -> None:
    """Keep one answer."""
    cache.store(request_keys(identity, [request])[request.id], completion)
