"""An OpenAI-compatible server that answers at once, so that what is measured is the client.

    python benchmarks/null_server.py PORT

HTTP by hand, in one process. Drafts and refinements are sentences that the verifier accepts, put together from the
places and captions that the prompt quotes; everything else is one and the same caption. ``GET /count`` tells how many
completions were given.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import sys

CAPTION = "a smooth brown surface with a faint dark stripe"
_QUOTED = re.compile(
    r'Object: "[^"]*", here "(?P<object>[^"]*)"; it "(?P<place>[^"]*)"\n'
    r'Part: "(?P<part>[^"]*)", placed "(?P<on>[^"]*)"\n'
    r'Point: within the [^"]* it is "(?P<within>[^"]*)"'
)


def answer(prompt: str) -> str:
    """The sentence for a prompt that quotes an object, a part and a point; the last are those that are asked about."""
    found = [*_QUOTED.finditer(prompt)]
    if not found:
        return CAPTION
    said = found[-1].groupdict()
    return (
        f"The point is located on {said['object']}, which {said['place']}, specifically on its {said['part']}, "
        f"{said['on']}, and within the {said['part']}, the point lies {said['within']}, in a region that features "
        f"{CAPTION}."
    )


async def serve(port: int) -> None:
    """Until the process is ended."""
    given = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal given
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = re.search(rb"content-length: *(\d+)", head)
                body = await reader.readexactly(int(length[1]) if length else 0)
                if head.startswith(b"get /count"):
                    value: object = given
                elif head.startswith(b"get"):
                    value = {"object": "list", "data": [{"id": "m", "object": "model"}]}
                else:
                    # One that shows an image quotes nothing; one without any message only looks for limits.
                    asked = [{"content": ""}] if b"base64," in body else json.loads(body)["messages"]
                    given += bool(asked)
                    value = completion(asked[-1]["content"] if asked else "")
                sent = json.dumps(value).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
                writer.write(b"Content-Length: %d\r\n\r\n%b" % (len(sent), sent))
                await writer.drain()
                if b"connection: close" in head:
                    writer.close()
                    return

    async with await asyncio.start_server(talk, "127.0.0.1", port, limit=2**24) as server:
        await server.serve_forever()


def completion(prompt: str | list[dict[str, str]]) -> dict[str, object]:
    """A finished chat completion."""
    text = prompt if isinstance(prompt, str) else "".join(part.get("text", "") for part in prompt)
    message = {"role": "assistant", "content": answer(text)}
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 0,
        "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 400, "completion_tokens": 12, "total_tokens": 412},
    }


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
