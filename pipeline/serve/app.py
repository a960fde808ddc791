"""The HTTP API: OpenAI's audio API above the voices of a registry.

A handler finds out who answers (`catalog`), asks the worker, and encodes what comes. It waits for the first sound
before it answers at all, so that what can go wrong has a status; from then on the answer is sent as it is made.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.exceptions import HTTPException

from pipeline.records.api_key import ApiKey
from pipeline.records.release import Release
from pipeline.records.serving import SaidSentence, ServedVoice
from pipeline.records.settings import ServeSettings
from pipeline.serve.answers import Refused
from pipeline.serve.bounds import BoundedBodies, BrokenOff, refusal_of_body
from pipeline.serve.catalog import Catalog
from pipeline.serve.doors import Doors, audit_line
from pipeline.serve.encoders import Encoder, media_type
from pipeline.serve.kept_answers import Answers, Kept, Whole
from pipeline.serve.metrics import Metrics
from pipeline.serve.pages import FILES, PAGE, REPORT, description_page, read_page
from pipeline.serve.schema import OPENAI_MODELS, SpeechOptions, SpeechRequest, TimestampsRequest
from pipeline.serve.workers import Saying, SayingFailed, Sound, Worker

TEXT_CODES = ("text_refused", "nothing_to_say", "language_not_spoken")
CHANNEL_MODELS = ("production", "candidate")
READY_WAIT_S = 10.0


class Server:
    """What the handlers share."""

    def __init__(
        self,
        catalog: Catalog,
        worker: Worker,
        settings: ServeSettings,
        doors: Doors,
        *,
        version: str,
        audit: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.catalog, self.worker, self.settings, self.doors = catalog, worker, settings, doors
        self.version, self.audit = version, audit
        self.metrics = Metrics()
        self.answers = Answers(settings.cache_mb << 20)
        self.under_way = 0
        self.is_draining = False

    async def start(self) -> None:
        """Follow the registry, and start the worker with the bases of what it serves."""
        self.catalog.start()
        await self.catalog.first_round.wait()
        self.worker.warm(self.catalog.warm())
        self.worker.start()

    async def stop(self) -> None:
        await self.worker.stop()
        await self.catalog.stop()

    # -- speaking -------------------------------------------------------------------------------------------------

    async def speech(self, request: Request, asked: SpeechRequest) -> Response:
        """Say a text. The answer is sent while it is made."""
        speech = await self.begin(request, asked)
        if asked.stream_format == "sse":
            return Answer(speech, speech.events(), media_type="text/event-stream", headers=speech.headers)
        return Answer(speech, speech.file(), media_type=media_type(asked.response_format), headers=speech.headers)

    async def timestamps(self, request: Request, asked: TimestampsRequest) -> Response:
        """Say a text, and when each word is said: one answer, when all is made."""
        speech = await self.begin(request, asked, wants_words=True)
        try:
            audio = b"".join([piece async for piece in speech.file()])
        except (SayingFailed, TimeoutError) as error:
            raise self.refusal_of(error) from None
        finally:
            speech.close()
        words = [word.model_dump() for said in speech.sentences for word in said.words]
        told = {
            "audio": base64.b64encode(audio).decode(),
            "format": asked.response_format,
            "duration": round(speech.duration_s, 3),
            "words": words,
            "segments": [
                {"text": said.text, "start": said.part.start_s, "end": said.part.start_s + said.part.duration_s}
                for said in speech.sentences
            ],
        }
        return JSONResponse(told, headers=speech.headers)

    async def begin(self, request: Request, asked: TimestampsRequest, wants_words: bool = False) -> Speech:
        """A speech whose first sound is there. Raises Refused."""
        self._check_text(asked.input)
        speech = await self.enter(asked, request.headers, len(asked.input))
        if speech.remember(self.answers, asked.input, wants_words):
            return speech
        try:
            await speech.begin(request, asked.input, wants_words)
        except BaseException as error:
            speech.close(error.code if isinstance(error, Refused) else "cancelled")
            raise
        return speech

    async def enter(self, asked: SpeechOptions, headers: Mapping[str, str], characters: int = 0) -> Speech:
        """A place for one who may have it. Raises Refused."""
        clock = time.monotonic()
        key = self.doors.enter(headers)
        if self.is_draining:
            raise Refused(503, "draining", "the server is going down", retry_after_s=5)
        wanted = self._voice_of(asked)
        served, release = await self.catalog.find(wanted)
        self.doors.check(key, release)
        self._check_model(asked.model, release)
        if self.under_way >= self.settings.queue:
            raise Refused(429, "queue_full", f"{self.under_way} requests are under way", retry_after_s=1)
        self.doors.spend(key, characters)
        self.under_way += 1
        return Speech(self, asked, Granted(wanted, served, release, key), clock)

    @staticmethod
    def refusal_of(error: Exception) -> Refused:
        """What a request that failed on its way is refused with."""
        return _refused(error)

    def _check_text(self, text: str) -> None:
        if len(text) > self.settings.characters:
            told = f"input has {len(text)} characters, at most {self.settings.characters}"
            raise Refused(400, "string_above_max_length", told, "input")
        if not text.strip():
            raise Refused(400, "empty_input", "input is empty", "input")

    @staticmethod
    def _voice_of(asked: SpeechOptions) -> str:
        """`model` may name the channel, where the voice does not."""
        if asked.model not in CHANNEL_MODELS or "@" in asked.voice_name:
            return asked.voice_name
        return f"{asked.voice_name}@{asked.model}"

    def _check_model(self, model: str, release: Release) -> None:
        if model in (*CHANNEL_MODELS, *OPENAI_MODELS, release.base):
            return
        bases = sorted({one.base for one in self.catalog.serving()})
        if model in bases:
            told = f"{release.voice} speaks on base {release.base}, not {model}"
            raise Refused(400, "model_mismatch", told, "model")
        told = f"no model {model[:80]!r}; there are {', '.join([*CHANNEL_MODELS, *bases])}"
        raise Refused(404, "model_not_found", told, "model")

    # -- what there is --------------------------------------------------------------------------------------------

    async def models(self, request: Request) -> Response:
        """Channels and bases, as OpenAI lists models."""
        self.doors.enter(request.headers)
        created = {release.base: int(release.created_at.timestamp()) for release in self.catalog.serving()}
        names = [*CHANNEL_MODELS, *sorted(created)]
        models = [
            {"id": name, "object": "model", "created": created.get(name, 0), "owned_by": "voxline"} for name in names
        ]
        return JSONResponse({"object": "list", "data": models})

    async def model(self, request: Request, model: str) -> Response:
        """One of them."""
        listed = json.loads(bytes((await self.models(request)).body))
        for one in listed["data"]:
            if one["id"] == model:
                return JSONResponse(one)
        raise Refused(404, "model_not_found", f"no model {model[:80]!r}", "model")

    async def voices(self, request: Request) -> Response:
        """What production serves, to who may speak with it."""
        key = self.doors.enter(request.headers)
        voices = [
            {
                "id": release.voice,
                "object": "voice",
                "name": release.voice,
                "version": release.version,
                "language": release.language,
                "base": release.base,
                "license": release.license,
                "created_at": release.created_at.isoformat(),
            }
            for release in self.catalog.serving()
            if key is None or not key.voices or release.voice in key.voices
        ]
        return JSONResponse({"object": "list", "data": voices})

    async def passport(self, request: Request, name: str) -> Response:
        """Where a voice comes from: versions, licence, consent, measurements, commit."""
        self.doors.enter(request.headers)
        return JSONResponse(await self.catalog.passport(name))

    async def report(self, request: Request, name: str) -> Response:
        """The quality report that a voice was published with."""
        self.doors.enter(request.headers)
        return HTMLResponse(await self.catalog.report(name), headers=REPORT)

    async def page(self) -> Response:
        """A page to hear the voices."""
        return HTMLResponse(read_page("index.html"), headers=PAGE)

    async def page_file(self, name: str) -> Response:
        """What that page is made of."""
        if name not in FILES:
            raise Refused(404, "not_found", "Not Found")
        return Response(read_page(name), media_type=FILES[name], headers=PAGE)

    async def healthz(self) -> Response:
        """Whether this process lives."""
        return PlainTextResponse("ok\n")

    async def readyz(self) -> Response:
        """Whether it can answer; a registry that does not is told, and does not make it unready."""
        health, is_ready = self.catalog.health, self.worker.is_ready.is_set() and not self.is_draining
        told = {
            "ready": is_ready,
            "draining": self.is_draining,
            "worker": "ready" if self.worker.is_ready.is_set() else "starting",
            "registry": "ok" if health.is_reachable else "unreachable",
            "registry_problem": health.problem or None,
            "registry_age_s": round(time.monotonic() - health.answered_at, 1),
            "voices": len(self.catalog.serving()),
            "refused": self.catalog.problems,
        }
        return JSONResponse(told, 200 if is_ready else 503)

    async def metrics_page(self) -> Response:
        """For Prometheus."""
        page = self.metrics.text(self.worker, self.catalog, time.monotonic())
        return Response(page, media_type=CONTENT_TYPE_LATEST)


@dataclass(frozen=True)
class Granted:
    """Who may have what: the voice as it was asked for, the release that answers, and the key that asks."""

    wanted: str
    served: ServedVoice
    release: Release
    key: ApiKey | None


class Speech:
    """One answer on its way."""

    def __init__(self, server: Server, asked: SpeechOptions, granted: Granted, clock: float) -> None:
        self.server, self.asked, self.clock = server, asked, clock
        self.wanted, self.served = granted.wanted, granted.served
        self.release, self.key = granted.release, granted.key
        self.saying: Saying | None = None
        self.text = ""
        self.sentences: list[SaidSentence] = []
        self.first: Sound | None = None
        self.samples = 0
        self.rate_hz = 0
        self.outcome = "broken_off"
        self.is_closed = False
        self.kept: Kept | None = None
        self._answers, self._name = Answers(0), ""
        self._events: AsyncIterator[Sound | SaidSentence] | None = None

    async def begin(self, request: Request, text: str, wants_words: bool) -> None:
        """Wait for the first sound, as long as somebody waits for us. Raises Refused."""
        self.text = text
        async with _deadline(self.left_s):
            await self.ready()
            self.saying = self.ask(text, wants_words)
            self._events = aiter(self.saying)
            self.first = await _unless_gone(request, self._first())
        self.server.metrics.first_sound.observe(time.monotonic() - self.clock)

    def remember(self, answers: Answers, text: str, wants_words: bool) -> bool:
        """Whether the same was said before and is still known; else it is kept when it has been said."""
        if self.release.consent.scope:
            return False
        manner = (self.asked.language, self.asked.seed, self.asked.speed, self.asked.response_format)
        self._answers = answers
        self._name = Answers.name_of(self.served.voice, self.served.version, text, wants_words, *manner)
        self.kept = answers.find(self._name)
        if self.kept is None:
            return False
        self.text, self.rate_hz, self.samples = text, self.kept.rate_hz, self.kept.samples
        self.sentences = list(self.kept.sentences)
        return True

    async def ready(self) -> None:
        """Raises Refused where the worker takes too long to start."""
        try:
            await asyncio.wait_for(self.server.worker.is_ready.wait(), READY_WAIT_S)
        except TimeoutError:
            raise Refused(503, "worker_starting", "the worker is starting", retry_after_s=3) from None

    def ask(self, text: str, wants_words: bool) -> Saying:
        """Let the worker say a text in this voice and manner."""
        manner = {"language": self.asked.language, "seed": self.asked.seed, "speed": self.asked.speed}
        owner = self.key.id if self.key else ""
        told = {"owner": owner, "voice": self.served, "text": text, "wants_words": wants_words}
        return self.server.worker.say({**told, **manner})

    @property
    def left_s(self) -> float:
        return self.server.settings.deadline_s - (time.monotonic() - self.clock)

    async def _first(self) -> Sound:
        assert self._events is not None
        try:
            async for event in self._events:
                if isinstance(event, Sound):
                    self.rate_hz = event.rate_hz
                    return event
                self.note(event)
        except SayingFailed as failed:
            raise _refused(failed) from None
        raise Refused(400, "nothing_to_say", "nothing to pronounce in the input", "input")

    def note(self, said: SaidSentence) -> None:
        """A sentence was sounded."""
        self.sentences.append(said)
        if said.part.problems:
            self.server.metrics.damaged.labels(self.served.voice).inc()

    async def sounds(self) -> AsyncIterator[bytes]:
        """Samples as they come. Raises SayingFailed, or TimeoutError at the deadline."""
        assert self.first is not None and self._events is not None
        self.samples += len(self.first.samples) // 2
        yield self.first.samples
        async with asyncio.timeout(max(0.0, self.left_s)):
            async for event in self._events:
                if isinstance(event, Sound):
                    self.samples += len(event.samples) // 2
                    yield event.samples
                else:
                    self.note(event)

    async def file(self) -> AsyncIterator[bytes]:
        """The answer in its format, in pieces."""
        if self.kept is not None:
            self.outcome = "ok"
            yield self.kept.content
            return
        encoder, whole = Encoder(self.asked.response_format, self.rate_hz, self.tags), Whole(self._answers)
        async for samples in self.sounds():
            if piece := await asyncio.to_thread(encoder.push, samples):
                whole.add(piece)
                yield piece
        last = await asyncio.to_thread(encoder.end)
        whole.add(last)
        if self._name:
            self._answers.keep(self._name, Kept(whole.content, self.rate_hz, self.samples, tuple(self.sentences)))
        self.outcome = "ok"
        yield last

    async def events(self) -> AsyncIterator[bytes]:
        """The same as server-sent events, as OpenAI names them."""
        try:
            async for piece in self.file():
                if piece:
                    yield _event({"type": "speech.audio.delta", "audio": base64.b64encode(piece).decode()})
        except (SayingFailed, TimeoutError) as error:
            yield _event({"type": "error", **_refused(error).body})
            return
        characters, frames = len(self.text), len(self.sentences)
        usage = {"input_tokens": characters, "output_tokens": frames, "total_tokens": characters + frames}
        yield _event({"type": "speech.audio.done", "usage": usage})

    @property
    def duration_s(self) -> float:
        return self.samples / self.rate_hz if self.rate_hz else 0.0

    @property
    def headers(self) -> dict[str, str]:
        """Where the sound comes from."""
        release = self.release
        return {
            "X-Voxline-Voice": self.served.voice,
            "X-Voxline-Version": self.served.version,
            "X-Voxline-Base": release.base,
            "X-Voxline-Commit": release.provenance.git_revision,
            "X-Voxline-Synthetic": "true",
            "X-Voxline-Sample-Rate": str(self.rate_hz),
            "Cache-Control": "no-store",
        }

    @property
    def tags(self) -> dict[str, str]:
        """The same inside the file."""
        voice = f"{self.served.voice}@{self.served.version}"
        tags = {"title": "Synthetic speech", "artist": voice, "comment": f"Synthetic speech by voxline, voice {voice}"}
        return {**tags, "copyright": self.release.copyright_notice} if self.release.copyright_notice else tags

    def close(self, outcome: str = "") -> None:
        """Whatever is still being made for it is not wanted any more."""
        if self.is_closed:
            return
        self.is_closed = True
        self.server.under_way -= 1
        if self.saying is not None:
            self.saying.cancel()
        voice, version = self.served.voice, self.served.version
        self.server.metrics.characters.labels(voice).inc(len(self.text))
        self.server.metrics.seconds.labels(voice).inc(self.duration_s)
        self.server.audit(audit_line(self.key, voice, version, self.text, self.duration_s, outcome or self.outcome))


class Answer(StreamingResponse):
    """A speech being sent; when the client leaves, nothing more is made for it."""

    def __init__(
        self, speech: Speech, pieces: AsyncIterator[bytes], *, media_type: str, headers: dict[str, str]
    ) -> None:
        super().__init__(pieces, media_type=media_type, headers=headers)
        self.speech = speech

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await super().__call__(scope, receive, send)
        except (SayingFailed, TimeoutError):
            # The status is out; an answer that breaks off is how HTTP tells that it is not whole.
            raise BrokenOff() from None
        finally:
            self.speech.close()


def _event(told: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(told)}\n\n".encode()


def _refused(error: Exception) -> Refused:
    if not isinstance(error, SayingFailed):
        return Refused(503, "deadline", "the answer took too long", retry_after_s=1)
    failure = error.failure
    if failure.code in TEXT_CODES:
        return Refused(400, failure.code, failure.message, "language" if "language" in failure.code else "input")
    retry_after_s = 1.0 if failure.code in ("worker_failed", "out_of_memory") else None
    return Refused(503, failure.code, failure.message, retry_after_s=retry_after_s)


@asynccontextmanager
async def _deadline(left_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(max(0.0, left_s)):
            yield
    except TimeoutError:
        raise Refused(503, "deadline", "no answer within the deadline", retry_after_s=1) from None


async def _unless_gone(request: Request, work: Awaitable[Sound]) -> Sound:
    """The result, unless the client leaves before. Raises Refused then, for nobody."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise Refused(499, "client_closed", "the client has gone")
    finally:
        working.cancel()
        leaving.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


# -- the application --------------------------------------------------------------------------------------------------


def build_app(server: Server) -> FastAPI:
    """The routes, and every error in OpenAI's shape."""

    @asynccontextmanager
    async def living(_: FastAPI) -> AsyncIterator[None]:
        starting = asyncio.create_task(server.start())
        try:
            yield
        finally:
            starting.cancel()
            await server.stop()

    app = FastAPI(
        title="voxline",
        version=server.version,
        description="Published voices, with OpenAI's audio API.",
        lifespan=living,
        docs_url=None,  # FastAPI's own loads its scripts from elsewhere
        redoc_url=None,
    )

    async def speech(request: Request, asked: SpeechRequest) -> Response:
        return await server.speech(request, asked)

    async def timestamps(request: Request, asked: TimestampsRequest) -> Response:
        return await server.timestamps(request, asked)

    async def docs() -> Response:
        return HTMLResponse(description_page(app.openapi()), headers=PAGE)

    async def stream(socket: WebSocket) -> None:
        from pipeline.serve.spoken_stream import stream  # which builds upon this module

        await stream(server, socket)

    routes: Sequence[tuple[str, Callable[..., Any], str]] = (
        ("/v1/audio/speech", speech, "POST"),
        ("/v1/audio/speech/timestamps", timestamps, "POST"),
        ("/v1/models", server.models, "GET"),
        ("/v1/models/{model}", server.model, "GET"),
        ("/v1/audio/voices", server.voices, "GET"),
        ("/v1/voices/{name}", server.passport, "GET"),
        ("/v1/voices/{name}/report", server.report, "GET"),
        ("/healthz", server.healthz, "GET"),
        ("/readyz", server.readyz, "GET"),
        ("/metrics", server.metrics_page, "GET"),
    )
    for path, handler, method in routes:
        app.add_api_route(path, handler, methods=[method], response_model=None)
    for path, handler in (("/", server.page), ("/page/{name}", server.page_file), ("/docs", docs)):
        app.add_api_route(path, handler, methods=["GET"], response_model=None, include_in_schema=False)
    app.add_api_websocket_route("/v1/audio/stream", stream)
    app.add_exception_handler(Refused, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_body)
    app.add_exception_handler(HTTPException, _refuse_route)
    app.add_exception_handler(Exception, _fail)
    app.add_middleware(BoundedBodies, counted=server.metrics.requests)
    return app


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    return JSONResponse(error.body, error.status, headers=error.all_headers)


async def _refuse_body(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return await _refuse(request, refusal_of_body(error.errors()))


async def _refuse_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
    refused = Refused(error.status_code, code, str(error.detail), headers=dict(error.headers or {}))
    return await _refuse(request, refused)


async def _fail(request: Request, _: Exception) -> Response:
    return await _refuse(request, Refused(500, "internal_error", "a fault of the server; its log says more"))
