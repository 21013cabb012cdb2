"""Reading what OpenAI-compatible servers send: completions, error messages, pauses they ask for, redirects.

Servers agree on the form of a request and differ in that of an answer. Whatever one response holds, it costs at most
its own request: nothing here raises but ``Retry``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from talking_points.descriptions.backends.protocol import BackendUnavailable, Completion, FinishReason, RequestError
from talking_points.escaping import encodable

TRANSIENT = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529))
"""Statuses of failures that may pass."""
UNPAID = "unpaid"
"""Why a request was refused that an account without money has made."""
_TOO_LONG = re.compile(
    r"context[ _-]?(?:length|window|size)|too (?:long|many tokens)|maximum .{0,40}tokens", re.IGNORECASE
)
_REFUSED_FIELDS = {
    "max_tokens": "set .request.max_tokens_as=max_completion_tokens",
    "temperature": "set .request.temperature=false",
    "seed": "set .request.seed=false",
    "response_format": "set .options.schema_as=json_object, or .structured=false",
}
_UNPAID = frozenset(
    (
        *("insufficient_quota", "insufficient_balance", "exceeded_current_quota_error", "insufficient_credits"),
        *("billing_hard_limit_reached", "billing_not_active"),
    )
)
"""What servers call an account without money; the first comes with the status of too many requests, 429."""
_UNPAID_MESSAGE = re.compile(r"credit balance is too low|insufficient (?:credits?|balance|funds)", re.IGNORECASE)
_FINISHED: dict[FinishReason, tuple[str, ...]] = {
    "stop": (
        *(
            "",
            "stop",
            "stopped",
            "eos",
            "eos_token",
            "eot",
            "end_turn",
            "end_of_turn",
            "end",
            "endoftext",
            "end_of_text",
        ),
        *("stop_sequence", "stop_token", "complete", "completed", "finished", "finish", "done", "natural", "normal"),
    ),
    "length": (
        *("length", "max_tokens", "max_length", "max_output_tokens", "max_new_tokens", "model_length", "token_limit"),
        *("max_completion_tokens", "model_context_window_exceeded", "context_length", "incomplete", "truncated"),
        *("max_tokens_reached", "length_capped", "limit"),
    ),
    "content_filter": (
        *("content_filter", "content_filtered", "safety", "recitation", "blocklist", "prohibited_content", "spii"),
        *("refusal", "sensitive", "guardrail_intervened", "guardrail", "image_safety", "moderation", "error_toxic"),
        *("content_filter_error", "language"),
    ),
}
"""How servers say why an answer ended, in lower case: OpenAI, vLLM, TGI, llama.cpp, Anthropic, Gemini, Mistral,
Cohere, Bedrock, Zhipu and gateways before them."""
_REASONS = {name: reason for reason, names in _FINISHED.items() for name in names}
_BROKEN_OFF = frozenset(
    (
        *(
            "error",
            "network_error",
            "abort",
            "aborted",
            "cancelled",
            "canceled",
            "timeout",
            "overloaded",
            "interrupted",
        ),
        *("insufficient_system_resource", "malformed_response", "server_error", "internal_error"),
    )
)
_COUNTS = (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"), ("total_tokens",))
"""What servers call their counts of tokens: of the prompt, of the answer, of both."""
_TEXT_PARTS = frozenset((None, "text", "output_text", "message", "answer", "final"))


class Retry(Exception):
    """A failure worth another try: what it becomes when the tries are used up, and how long the server asks to wait."""

    def __init__(self, error: RequestError, wait: float | None = None) -> None:
        super().__init__(error.reason)
        self.error = error
        self.wait = wait


def read_completion(response: httpx.Response) -> Completion | RequestError:
    """The first choice of a successful response; raises ``Retry`` for a body that is not a chat completion."""
    try:
        body = response.json()
        choice = body["choices"][0]
        message = choice.get("message")
        if not isinstance(message, Mapping):
            # Servers of the older completions API, and some gateways, put the text beside the reason.
            message = {"content": choice["text"]}
        content, refused = message.get("content"), message.get("refusal")
        finish, tokens = _finish(choice), _tokens(body.get("usage"))
        said = encodable(str(refused)) if refused else content_text(content)
        odd = str(content)[:120] if said is None else ""
    except Exception as error:  # not JSON, or JSON of another form, in any of the ways there are
        detail = f"HTTP {response.status_code}: expected a chat completion, found {_start(response)}"
        raise Retry(RequestError("malformed_response", detail, retryable=True)) from error
    if refused:
        return Completion(said or "", "content_filter", *tokens)
    if finish in _BROKEN_OFF:
        detail = f"the server broke the answer off ('{finish}')"
        raise Retry(RequestError("server_error", detail, retryable=True))
    if finish not in _REASONS:
        return RequestError("unexpected_finish", f"the server ended the answer with '{finish[:80]}'", False, *tokens)
    if said is None:
        detail = f"expected the answer as text or a list of text parts, found {odd!r}"
        raise Retry(RequestError("malformed_response", detail, retryable=True))
    if not said.strip() and _REASONS[finish] == "stop" and _reasoning(message):
        detail = (
            "all of the answer went into the server's reasoning: raise max_tokens, or switch thinking off, e.g. with "
            "extra_body.chat_template_kwargs.enable_thinking=false"
        )
        return RequestError("reasoning_only", detail, True, *tokens)
    return Completion(encodable(said), _REASONS[finish], *tokens)


def read_refusal(response: httpx.Response) -> RequestError:
    """What a status of 400 or more says about one request."""
    status, message = response.status_code, error_message(response)
    if is_unpaid(response):
        return RequestError(UNPAID, f"HTTP {status}: {message}", retryable=True)
    if status in TRANSIENT:
        reason = "rate_limited" if status == 429 else "server_error"
        return RequestError(reason, f"HTTP {status}: {message}{_way_out(message)}", retryable=True)
    if _TOO_LONG.search(message):
        return RequestError("too_long", f"HTTP {status}: {message}")
    return RequestError("bad_request", f"HTTP {status}: {message}{_way_out(message)}")


def is_unpaid(response: httpx.Response) -> bool:
    """Whether the account behind a response has no money left: no wait helps, and every request meets the same."""
    if response.status_code < 400:
        return False
    try:
        return response.status_code == 402 or says_unpaid(response.json()["error"])
    except Exception:  # a body of another form
        return False


def says_unpaid(error: Mapping[str, Any]) -> bool:
    """The same of an error that a server tells."""
    known = not _UNPAID.isdisjoint((str(error.get("code")), str(error.get("type"))))
    return known or bool(_UNPAID_MESSAGE.search(str(error.get("message"))))


def no_money(server: object, told: str, variable: str) -> BackendUnavailable:
    """What stops a build whose account has no money left; ``variable`` is the name of the one that holds the key."""
    return BackendUnavailable(
        f"{server} gives no answers to an account without money ({told}): add to it, or set {variable} to another key"
    )


def with_told_status(response: httpx.Response) -> httpx.Response:
    """The response with the status that its body tells: some gateways answer 200 to everything, failures too."""
    if response.status_code != 200 or b'"error"' not in response.content:
        return response
    try:
        body = response.json()
        status = 200 if body.get("choices") else int(body["error"]["code"])
    except Exception:  # no failure, or one without a status
        return response
    headers = {name: value for name, value in response.headers.items() if name.lower() == "retry-after"}
    return httpx.Response(status, headers=headers, content=response.content) if 400 <= status < 600 else response


def _way_out(message: str) -> str:
    """The setting that helps where a server refuses a field that it names."""
    if not re.search(
        r"unsupported|not support|unknown|unrecognized|not permitted|extra|must be", message, re.IGNORECASE
    ):
        return ""
    found = next((name for name in _REFUSED_FIELDS if re.search(rf"\b{name}\b", message)), None)
    return f"; {_REFUSED_FIELDS[found]}" if found else ""


def content_text(content: Any) -> str | None:
    """The text of a message's content: a string, a part or a list of parts, of which thinking is left out.

    None where nothing in it is known to be text.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, Mapping):
        if content.get("type") not in _TEXT_PARTS:
            return ""
        for name in ("text", "content", "value"):
            if name in content:
                return content_text(content[name])
        return None
    if isinstance(content, list):
        texts = [content_text(part) for part in content]
        return "".join(text for text in texts if text) if not texts or any(text is not None for text in texts) else None
    return None


def error_message(response: httpx.Response) -> str:
    """The error message of a response in any of the usual shapes, shortened."""
    try:
        body = response.json()
        error = body.get("error", body) if isinstance(body, Mapping) else body
        message = error.get("message") or error.get("detail") or error if isinstance(error, Mapping) else error
    except Exception:  # a proxy's page, a body of another encoding, nesting without end
        message = _body_text(response)
    return encodable(" ".join(str(message).split())[:300])


def retry_after(response: httpx.Response) -> float | None:
    """Seconds that the server asks to wait: a number or an HTTP date (RFC 9110, section 10.2.3), which is in UTC."""
    value = response.headers.get("Retry-After")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
            # asctime and "-0000" name no zone: RFC 9110 says that it is UTC.
            seconds = ((moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - datetime.now(UTC)).total_seconds()
        except Exception:  # no date in any form: as if nothing had been asked
            return None
    return max(0.0, seconds) if seconds == seconds else None


def _finish(choice: Mapping[str, Any]) -> str:
    reason = choice.get("finish_reason")
    if isinstance(reason, Mapping):
        reason = reason.get("type") or reason.get("reason") or reason
    known = "" if reason is None else str(reason).strip().lower().replace("-", "_").replace(" ", "_")
    return known.removeprefix("finish_reason_").removeprefix("finishreason.")


def _tokens(usage: Any) -> tuple[int, int]:
    """Tokens of prompt and answer; 0 where the server counts in another way, which is no reason to lose the answer.

    Some (Gemini, Grok) count reasoning, which is paid for like the answer, in the total alone.
    """
    counted = usage if isinstance(usage, Mapping) else {}
    prompt, answer, total = (max(map(_count, map(counted.get, names))) for names in _COUNTS)
    return prompt, max(answer, total - prompt) if prompt and answer else answer


def _count(value: Any) -> int:
    return int(value) if isinstance(value, int | float) and 0 <= value < 2**31 else 0


def _reasoning(message: Mapping[str, Any]) -> bool:
    return any(message.get(name) for name in ("reasoning_content", "reasoning", "thinking", "reasoning_details"))


def _body_text(response: httpx.Response) -> str:
    try:
        return encodable(response.text)
    except Exception:  # a charset that Python does not know
        return repr(response.content[:300])


def _start(response: httpx.Response) -> str:
    return repr(_body_text(response)[:120])
