"""Writing the bodies of chat completion requests: the fields that an endpoint takes, images without copies."""

from __future__ import annotations

import binascii
import json
import secrets
import threading
from collections import OrderedDict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from talking_points.build_config import StepConfig
from talking_points.descriptions.backends.chat import encode_image, messages
from talking_points.descriptions.backends.protocol import BackendUnavailable, ChatRequest

_IMAGES_KEPT = 16
"""Encoded images kept for the next request: several points of one image are asked about one after another."""


class RequestWriter:
    """Writes requests as ``config`` says; may be called from several threads at once.

    ``config.options`` without ``attempts`` and ``schema_as`` and ``config.request.extra_body`` are merged into every
    body, in this order. Raises ``BackendUnavailable`` for an unknown ``schema_as``.
    """

    def __init__(self, config: StepConfig) -> None:
        self._config = config
        self._further = {
            name: value for name, value in config.options.items() if name not in ("attempts", "schema_as")
        } | config.request.extra_body
        self._schema_as = str(config.options.get("schema_as", "json_schema"))
        if self._schema_as not in ("json_schema", "json_object"):
            raise BackendUnavailable(
                f"options.schema_as: expected 'json_schema' or 'json_object', found '{self._schema_as}'"
            )
        self._mark = f"image-{secrets.token_hex(16)}"
        self._kept: OrderedDict[int, tuple[NDArray[np.uint8], bytes]] = OrderedDict()
        self._lock = threading.Lock()

    def body(self, request: ChatRequest) -> bytes:
        """The whole request as JSON. Each image is encoded once and joined in, so that its text is never copied."""
        pieces: list[bytes] = []
        for number, part in enumerate(json.dumps(self._fields(request), separators=(",", ":")).split(self._mark)):
            if number:
                pieces.append(self._data_url(request.images[number - 1]))
            pieces.append(part.encode())
        return b"".join(pieces)

    def _fields(self, request: ChatRequest) -> dict[str, Any]:
        form = self._config.request
        fields: dict[str, Any] = {
            "model": self._config.model,
            "messages": messages(request, lambda _: {"type": "image_url", "image_url": {"url": self._mark}}),
            form.max_tokens_as: request.max_tokens,
        }
        if form.temperature:
            fields["temperature"] = request.temperature
        if form.seed:
            fields["seed"] = request.seed
        fields |= self._further
        if request.schema is not None:
            schema = dict(request.schema)
            if self._schema_as == "json_schema":
                named = {"name": "answer", "strict": True, "schema": schema}
                fields["response_format"] = {"type": "json_schema", "json_schema": named}
            else:
                fields["response_format"] = {"type": "json_object", "schema": schema}
        return fields

    def _data_url(self, image: NDArray[np.uint8]) -> bytes:
        form = self._config.request.image_format
        with self._lock:
            kept = self._kept.get(id(image))
        # The array itself is kept beside its bytes, so that nothing else can have its id.
        if kept is None:
            encoded = binascii.b2a_base64(encode_image(image, form).data, newline=False)
            kept = image, b"data:image/%s;base64,%s" % (form.encode(), encoded)
            with self._lock:
                self._kept[id(image)] = kept
                while len(self._kept) > _IMAGES_KEPT:
                    self._kept.popitem(last=False)
        return kept[1]
