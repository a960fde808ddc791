"""What every request is held to before anything reads it, and counted by."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any

from starlette.responses import JSONResponse

from pipeline.serve.answers import Refused

MAX_BODY_BYTES = 256 * 1024
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class BrokenOff(Exception):
    """An answer that could not be finished after it had begun."""


def refusal_of_body(errors: Sequence[Mapping[str, Any]]) -> Refused:
    """The first thing that is wrong, by the name of its field; what was sent is not sent back."""
    first = errors[0]
    place = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path", "str", "VoiceId"))
    code = {"extra_forbidden": "unknown_parameter", "missing": "missing_required_parameter"}.get(first["type"])
    told = f"{place}: {first['msg']}" if place else str(first["msg"])
    return Refused(400, code or "invalid_value", told[:300], place[:100] or None)


class BoundedBodies:
    """ASGI middleware: bodies are bounded whatever their headers say, and answers are counted by route and status."""

    def __init__(self, app: Callable[[Scope, Receive, Send], Awaitable[None]], counted: Any) -> None:
        self.app, self.counted = app, counted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        read, status = 0, 0
        too_large = Refused(413, "body_too_large", f"the body has more than {MAX_BODY_BYTES} bytes")

        async def bounded() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > MAX_BODY_BYTES:
                raise too_large
            return message

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if _announced(scope) > MAX_BODY_BYTES:
                await JSONResponse(too_large.body, 413)(scope, receive, noted)
            else:
                await self.app(scope, bounded, noted)
        except BrokenOff:
            return  # the connection is closed before the answer's end, and that is how HTTP tells it
        finally:
            route = scope.get("route")
            self.counted.labels(getattr(route, "path", "other"), str(status)).inc()


def _announced(scope: Scope) -> int:
    """The length that the client says its body has; 0 where it says none."""
    told = dict(scope["headers"]).get(b"content-length", b"0")
    return int(told) if told.isdigit() else 0
