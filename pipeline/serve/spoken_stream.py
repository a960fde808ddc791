"""A text that comes in pieces, as a language model writes it: spoken from the first whole phrase on.

WebSocket `/v1/audio/stream`. The client sends JSON: ``{"type": "start", ...}`` with the fields of a speech but its
input, then ``{"type": "text", "text": ...}`` as often as it likes, ``{"type": "flush"}`` where a phrase has ended
without a mark, and ``{"type": "end"}``. The server answers with binary frames of one audio file, with
``{"type": "sentence", ...}`` once the sound of a sentence is out, and ends with ``{"type": "done"}`` or
``{"type": "error", "error": {...}}``.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect
from pydantic import ValidationError

from pipeline.records.serving import SaidSentence
from pipeline.serve.answers import Refused
from pipeline.serve.app import Server, Speech
from pipeline.serve.bounds import refusal_of_body
from pipeline.serve.encoders import Encoder
from pipeline.serve.schema import StreamStart
from pipeline.serve.workers import Saying, SayingFailed, Sound
from pipeline.text.splitting import pause_after_s

AHEAD = 4  # phrases that are asked for before the first of them was sent
IDLE_S = 60.0  # a client that says nothing for so long has gone
_WHOLE = re.compile(r"(?:[.!?…;]+[\"'”’)\]]*(?=\s)|[。！？；…]+[”’」』）]*|\n)\s*")


class Phrases:
    """Cuts a growing text at its sentence ends. A full stop counts once a blank follows it: 3.14 has one, too."""

    def __init__(self) -> None:
        self.waiting = ""

    def add(self, text: str) -> list[str]:
        """The phrases that are whole now."""
        self.waiting += text
        ends = [match.end() for match in _WHOLE.finditer(self.waiting)]
        starts = [0, *ends]
        whole = [self.waiting[start:end] for start, end in zip(starts, ends, strict=False)]
        self.waiting = self.waiting[starts[-1] :]
        return [phrase for phrase in whole if any(letter.isalnum() for letter in phrase)]

    def rest(self) -> list[str]:
        """What waits for an end that does not come."""
        rest, self.waiting = self.waiting, ""
        return [rest] if any(letter.isalnum() for letter in rest) else []


async def stream(server: Server, socket: WebSocket) -> None:
    """One connection, from its beginning to its end."""
    await socket.accept()
    session: Session | None = None
    try:
        start = StreamStart.model_validate(await _read(socket, "start"))
        headers = {"authorization": f"Bearer {start.api_key}"} if start.api_key else socket.headers
        speech = await server.enter(start, headers)
        session = Session(server, socket, speech)
        await session.run()
    except ValidationError as error:
        await _end(socket, refusal_of_body(error.errors()))
    except SayingFailed as failed:
        await _end(socket, server.refusal_of(failed))
    except Refused as refused:
        await _end(socket, refused)
    except (WebSocketDisconnect, RuntimeError):  # starlette raises the latter for a socket that has closed
        return
    finally:
        if session is not None:
            session.close()


class Session:
    """A speech whose text is not known yet."""

    def __init__(self, server: Server, socket: WebSocket, speech: Speech) -> None:
        self.server, self.socket, self.speech = server, socket, speech
        self.phrases: asyncio.Queue[tuple[str, Saying] | None] = asyncio.Queue(AHEAD)
        self.sayings: list[Saying] = []
        self.encoder: Encoder | None = None

    async def run(self) -> None:
        reading = asyncio.create_task(self._listen())
        try:
            speaking = asyncio.create_task(self._speak())
            await asyncio.wait({reading, speaking}, return_when=asyncio.FIRST_EXCEPTION)
            for task in (reading, speaking):
                if task.done():
                    task.result()
        finally:
            reading.cancel()
            speaking.cancel()

    async def _listen(self) -> None:
        """Take text, and ask for each phrase as soon as it is whole."""
        phrases = Phrases()
        while True:
            told = await _read(self.socket, "text", "flush", "end")
            whole = phrases.add(told["text"]) if told["type"] == "text" else phrases.rest()
            if len(phrases.waiting) > self.server.settings.characters:
                raise Refused(400, "string_above_max_length", "a phrase without an end is too long", "text")
            for phrase in whole:
                await self._ask(phrase)
            if told["type"] == "end":
                if not self.speech.text:
                    raise Refused(400, "nothing_to_say", "nothing to pronounce in the text", "text")
                await self.phrases.put(None)
                return

    async def _ask(self, phrase: str) -> None:
        await self.server.catalog.find(self.speech.wanted)  # consent may have ended meanwhile
        self.server.doors.spend(self.speech.key, len(phrase))
        await self.speech.ready()
        saying = self.speech.ask(phrase, wants_words=True)
        self.sayings = [one for one in self.sayings if not one.is_over] + [saying]
        self.speech.text += phrase
        await self.phrases.put((phrase, saying))

    async def _speak(self) -> None:
        index, pause_s = 0, 0.0
        while (taken := await self.phrases.get()) is not None:
            phrase, saying = taken
            started_s = self.speech.duration_s
            async for event in saying:
                if isinstance(event, Sound):
                    await self._send(event, pause_s)
                    started_s, pause_s = started_s + pause_s, 0.0
                else:
                    await self._tell(event, index, started_s)
                    index += 1
            pause_s = pause_after_s(phrase)
        if self.encoder is not None:
            await self._send_bytes(await asyncio.to_thread(self.encoder.end))
        self.speech.outcome = "ok"
        await self.socket.send_text(json.dumps({"type": "done", "duration_s": round(self.speech.duration_s, 3)}))
        await self.socket.close()

    async def _send(self, sound: Sound, pause_s: float) -> None:
        if self.encoder is None:
            self.speech.rate_hz = sound.rate_hz
            self.server.metrics.first_sound.observe(time.monotonic() - self.speech.clock)
            self.encoder = Encoder(self.speech.asked.response_format, sound.rate_hz, self.speech.tags)
        samples = bytes(2 * round(pause_s * sound.rate_hz)) + sound.samples
        self.speech.samples += len(samples) // 2
        await self._send_bytes(await asyncio.to_thread(self.encoder.push, samples))

    async def _send_bytes(self, piece: bytes) -> None:
        if piece:
            await self.socket.send_bytes(piece)

    async def _tell(self, said: SaidSentence, index: int, started_s: float) -> None:
        self.speech.note(said)
        words = [{"word": one.word, "start": one.start + started_s, "end": one.end + started_s} for one in said.words]
        told = {"type": "sentence", "index": index, "text": said.text, "start": started_s + said.part.start_s}
        await self.socket.send_text(json.dumps({**told, "duration": said.part.duration_s, "words": words}))

    def close(self) -> None:
        for saying in self.sayings:
            saying.cancel()
        self.speech.close()


async def _read(socket: WebSocket, *kinds: str) -> dict[str, Any]:
    """The next message, if it is one of these. Raises Refused."""
    try:
        async with asyncio.timeout(IDLE_S):
            text = await socket.receive_text()
    except TimeoutError:
        raise Refused(408, "idle", f"nothing was said for {IDLE_S:g} s") from None
    except KeyError:
        raise Refused(400, "invalid_value", "binary frames are for the server; send JSON as text") from None
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        raise Refused(400, "invalid_value", "not JSON") from None
    if not isinstance(told, dict) or told.get("type") not in kinds:
        raise Refused(400, "invalid_value", f"expected a message of type {' or '.join(kinds)}", "type")
    extra = told.keys() - {"type", "text"} if kinds[0] == "text" else set()
    if extra or (told["type"] == "text" and not isinstance(told.get("text"), str)):
        raise Refused(400, "invalid_value", "a text message is {type, text}", "text")
    return told


async def _end(socket: WebSocket, refused: Refused) -> None:
    try:
        await socket.send_text(json.dumps({"type": "error", **refused.body}))
        await socket.close(1008 if refused.status < 500 else 1011, refused.code)
    except (WebSocketDisconnect, RuntimeError):
        return
