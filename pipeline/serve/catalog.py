"""Which voices there are, as the registry has it now, and which release answers a request.

The registry is asked again and again, on threads of its own: voices that somebody uses every `poll_s`, all of them in a
round that takes a small share of the time. A request whose voice was looked at longer ago waits for a look. So a move
of a channel counts within two seconds, whatever the backend, and a registry that does not answer changes nothing: what
was verified and copied goes on speaking.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pipeline.errors import PipelineError, UsageError
from pipeline.io.files import read_regular
from pipeline.io.registry.registry import Registry
from pipeline.io.registry.trust import NotTrusted
from pipeline.records.quality import REPORT_FILE
from pipeline.records.release import Channel, ChannelPointer, Event, Release, is_version
from pipeline.records.serving import ServedVoice
from pipeline.records.voice import is_voice_name
from pipeline.serve.answers import Refused
from pipeline.serve.local_copies import USED, copy_release, served_voice

ROUND_SHARE = 0.05  # of the time that rounds over all voices may take
MAX_REPORT_BYTES = 64 * 2**20
IN_USE_S = 60.0  # a voice asked for so lately is looked at every time
PATIENCE_S = 1.0  # longest wait of a request for a look at the registry
UNKNOWN_KEPT = 1000  # names that nobody published, remembered for a moment
CHANNELS: dict[str, Channel] = {"production": "production", "candidate": "candidate"}

Result = TypeVar("Result")
Clock = Callable[[], datetime]


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Wanted:
    """A voice as requests name it: ``ana``, ``ana@candidate`` or ``ana@7b3b3e7499bc``."""

    name: str
    at: str = "production"

    @property
    def channel(self) -> Channel | None:
        return CHANNELS.get(self.at)


def parse_wanted(text: str) -> Wanted:
    """Raises Refused for what names no voice."""
    name, separator, at = text.partition("@")
    if not is_voice_name(name) or (separator and at not in CHANNELS and not is_version(at)):
        raise Refused(
            404, "voice_not_found", f"{text[:80]!r}: no such voice; NAME, NAME@CHANNEL or NAME@VERSION", "voice"
        )
    return Wanted(name, at or "production")


@dataclass
class _Look:
    """A channel as it was seen last."""

    pointer: ChannelPointer | None
    at: float
    tag: str | None = None  # of all that the voice has, where the registry tells that


@dataclass
class Health:
    """How the registry is."""

    is_reachable: bool = True
    problem: str = ""
    answered_at: float = field(default_factory=time.monotonic)
    rounds: int = 0


class Catalog:
    """Asked by requests, on the server's event loop."""

    def __init__(self, registry: Registry, copies: Path, *, poll_s: float = 0.5, clock: Clock = utc_now) -> None:
        self.registry, self.copies, self.poll_s, self.clock = registry, copies, poll_s, clock
        self.health = Health()
        self.problems: dict[str, str] = {}  # voice -> why its newest version is not served
        self._threads = ThreadPoolExecutor(4, "registry")
        self._looks: dict[tuple[str, Channel], _Look] = {}
        self._used: dict[tuple[str, Channel], float] = {}
        self._releases: dict[tuple[str, str], Release] = {}
        self._ready: dict[tuple[str, str], ServedVoice] = {}  # verified and copied
        self._last_good: dict[tuple[str, Channel], str] = {}  # channel -> version that was verified on it
        self._running: dict[object, asyncio.Task[Any]] = {}
        self._tags: Mapping[str, str] | None = None
        self._tags_at = -math.inf
        self._tasks: list[asyncio.Task[None]] = []
        self.first_round = asyncio.Event()

    # -- following the registry -----------------------------------------------------------------------------------

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._go_round()), asyncio.create_task(self._follow_used())]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _go_round(self) -> None:
        while True:
            started = time.monotonic()
            names = await self._look_round()
            took_s = time.monotonic() - started
            for name in names:
                with suppress(Refused):
                    await self._prepare(name, "production")
                    self.first_round.set()  # somebody can speak; the others come one by one
            self.first_round.set()
            await asyncio.sleep(max(self.poll_s, took_s / ROUND_SHARE))

    async def _look_round(self) -> list[str]:
        """Look at the production channel of every voice; their names."""
        try:
            names = await self._in_thread(self.registry.voices)
        except (PipelineError, OSError) as error:
            self._gone(str(error))
            return []
        known = {name for name, _ in self._looks}
        if not names and known:  # voices retire, they do not vanish
            self._gone(f"{self.registry.url}: is empty, and held {len(known)} voices")
            return []
        self.health.rounds += 1
        for name in names:
            with suppress(Refused):
                await self._look(name, "production")
        return names

    async def _follow_used(self) -> None:
        while True:
            await asyncio.sleep(self.poll_s)
            now = time.monotonic()
            self._used = {key: at for key, at in self._used.items() if now - at < IN_USE_S}
            for name, channel in list(self._used):
                with suppress(Refused):
                    await self._look(name, channel)
                    await self._prepare(name, channel)

    def _gone(self, problem: str) -> None:
        self.health.is_reachable, self.health.problem = False, problem

    def _answered(self) -> None:
        self.health.is_reachable, self.health.problem, self.health.answered_at = True, "", time.monotonic()

    async def _in_thread(self, function: Callable[..., Result], *arguments: object) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    async def _once(self, key: object, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
        """The same work for all who want it at the same time; it goes on when one of them leaves."""
        task = self._running.get(key)
        if task is None:
            task = asyncio.create_task(work())
            self._running[key] = task
            task.add_done_callback(lambda _: self._running.pop(key, None))
        found: Result = await asyncio.shield(task)
        return found

    async def _look(self, name: str, channel: Channel) -> _Look:
        """What a channel serves now, or what it served when the registry last answered."""
        return await self._once(("look", name, channel), lambda: self._look_once(name, channel))

    async def _look_once(self, name: str, channel: Channel) -> _Look:
        before = self._looks.get((name, channel))
        try:
            tags = await self._once("tags", self._recent_tags)
            tag = None if tags is None else tags.get(name, "")
            if tag is not None and before is not None and before.tag == tag:
                pointer = before.pointer  # nothing of the voice has changed
            else:
                pointer = await self._in_thread(self.registry.pointer, name, channel)
        except (PipelineError, OSError) as error:
            self._gone(str(error))
            if before is None:
                raise Refused(503, "registry_unreachable", "the registry does not answer", retry_after_s=2) from None
            return before
        if pointer is None and before is not None and before.pointer is not None:
            self._gone(f"{self.registry.url}: {name}'s channel {channel} is not there any more")
            return before
        if pointer is not None:
            self._answered()
        look = _Look(pointer, time.monotonic(), tag)
        self._looks[name, channel] = look
        unknown = [key for key, one in self._looks.items() if one.pointer is None]
        for key in unknown[:-UNKNOWN_KEPT]:
            del self._looks[key]
        return look

    async def _recent_tags(self) -> Mapping[str, str] | None:
        """One request that tells which voices have changed, where the registry is elsewhere; None: look at each."""
        if time.monotonic() - self._tags_at > self.poll_s:
            self._tags = await self._in_thread(self.registry.backend.tags)
            self._tags_at = time.monotonic()
        return self._tags

    async def _recent(self, name: str, channel: Channel) -> _Look:
        """A look that is not older than a poll, unless the registry is too slow for a request to wait."""
        look = self._looks.get((name, channel))
        if look is not None and time.monotonic() - look.at <= max(1.0, 2 * self.poll_s):
            return look
        if look is not None and not self.health.is_reachable:
            return look  # whoever follows it tells when it is back
        waited = asyncio.ensure_future(self._look(name, channel))
        done, _ = await asyncio.wait({waited}, timeout=PATIENCE_S)
        if done:
            return waited.result()
        self._gone(f"{self.registry.url}: no answer within {PATIENCE_S:g} s")
        if look is not None:
            return look
        raise Refused(503, "registry_unreachable", "the registry does not answer", retry_after_s=2)

    # -- who answers ----------------------------------------------------------------------------------------------

    async def find(self, text: str) -> tuple[ServedVoice, Release]:
        """The release that answers for a voice, verified and on this machine.

        Raises:
            Refused: 404 nobody of this name or version, 410 retired or without consent now, 503 not to be had.
        """
        wanted = parse_wanted(text)
        production = await self._recent(wanted.name, "production")
        look = production
        if wanted.channel == "candidate":
            look = await self._recent(wanted.name, "candidate")
        channel = wanted.channel or "production"
        if production.pointer is None and look.pointer is None:
            raise self._unknown(wanted)
        self._used[wanted.name, channel] = time.monotonic()
        if production.pointer is not None:
            self._refuse_retired(wanted.name, production.pointer)
        if look.pointer is None:
            raise Refused(404, "voice_not_found", f"{wanted.name}: nothing on channel {channel}", "voice")
        self._refuse_retired(wanted.name, look.pointer)
        if wanted.channel is None:
            served = await self._prepare_version(wanted.name, wanted.at, wanted.at)
        else:
            served = await self._prepare(wanted.name, channel)
        release = self._releases[served.voice, served.version]
        self._refuse_expired(release)
        newest = self._releases.get((wanted.name, production.pointer.version or "")) if production.pointer else None
        if newest is not None:
            self._refuse_expired(newest)  # an older version is of the same person
        return served, release

    def _unknown(self, wanted: Wanted) -> Refused:
        near = get_close_matches(wanted.name, self.names(), 3)
        told = f"; did you mean {' or '.join(near)}?" if near else ""
        return Refused(404, "voice_not_found", f"no voice {wanted.name!r} was published here{told}", "voice")

    def _refuse_retired(self, name: str, pointer: ChannelPointer) -> None:
        if pointer.version is None:
            raise Refused(410, "voice_retired", f"{name} was retired on {pointer.event.at:%Y-%m-%d}", "voice")

    def _refuse_expired(self, release: Release) -> None:
        if release.consent.has_expired(self.clock().astimezone(UTC).date()):
            told = f"{release.voice}: the speaker's consent expired on {release.consent.expires_on}"
            raise Refused(410, "consent_expired", told, "voice")

    async def _prepare(self, name: str, channel: Channel) -> ServedVoice:
        """What a channel serves, or, where that is not what was published, what it served before."""
        look = self._looks.get((name, channel))
        version = look.pointer.version if look and look.pointer else None
        if version is None:
            raise Refused(410, "voice_retired", f"{name} is retired", "voice")
        try:
            served = await self._prepare_version(name, version, channel)
        except Refused as refused:
            good = self._last_good.get((name, channel))
            if refused.status != 503 or good is None or good == version:
                raise
            return self._ready[name, good]
        self._last_good[name, channel] = version
        return served

    async def _prepare_version(self, name: str, version: str, way: str) -> ServedVoice:
        """A version, verified and copied before its first use. way: the channel it was found on, or itself."""
        if (name, version) in self._ready:
            return self._ready[name, version]
        found = await self._once(("prepare", name, version), lambda: self._prepare_once(name, version, way))
        if isinstance(found, Refused):
            raise found
        return found

    async def _prepare_once(self, name: str, version: str, way: str) -> ServedVoice | Refused:
        try:
            release, voice = await self._in_thread(self._verify_and_copy, name, way)
        except NotTrusted as error:
            self.problems[name] = error.message
            return Refused(503, "voice_not_trusted", f"{name} {version} is not what was published; it is not used")
        except UsageError as error:
            if way == version:
                return Refused(404, "voice_not_found", error.message, "voice")
            return Refused(503, "voice_moving", f"{name} is being moved; ask again", retry_after_s=1)
        except (PipelineError, OSError) as error:
            self._gone(str(error))
            return Refused(503, "registry_unreachable", f"{name} {version} cannot be fetched now", retry_after_s=2)
        self.problems.pop(name, None)
        self._releases[name, release.version], self._ready[name, release.version] = release, voice
        if release.version != version:  # the channel moved between our two looks
            return await self._prepare_once(name, version, version)
        return voice

    def _verify_and_copy(self, name: str, way: str) -> tuple[Release, ServedVoice]:
        release, folder = self.registry.verified(name, way, below=USED)
        return release, served_voice(release, copy_release(release, folder, self.copies))

    # -- to be shown ----------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        """Voices with something on production, as seen last."""
        return sorted(name for (name, channel), look in self._looks.items() if channel == "production" and look.pointer)

    def serving(self) -> list[Release]:
        """What production serves and may be used now, by name."""
        found = []
        for name in self.names():
            pointer = self._looks[name, "production"].pointer
            release = self._releases.get((name, pointer.version or "")) if pointer else None
            if release is not None and not release.consent.has_expired(self.clock().astimezone(UTC).date()):
                found.append(release)
        return found

    def warm(self) -> tuple[ServedVoice, ...]:
        """A voice of each base, for a worker that starts."""
        by_base = {release.base_digest: self._ready[release.voice, release.version] for release in self.serving()}
        return tuple(by_base.values())

    async def passport(self, text: str) -> dict[str, object]:
        """Everything that is published about a voice. Raises Refused."""
        served, release = await self.find(text)
        history = await self._in_thread(self.registry.history, served.voice)
        return passport_of(release, history, self.problems.get(served.voice, ""))

    async def report(self, text: str) -> bytes:
        """The page of the quality report. Raises Refused."""
        served, release = await self.find(text)
        if REPORT_FILE not in release.files:
            raise Refused(404, "report_not_found", f"{served.voice} {served.version} was published without a report")
        try:
            return await self._in_thread(self._read_report, served)
        except NotTrusted:
            raise Refused(503, "voice_not_trusted", "the report is not what was published") from None
        except (PipelineError, OSError):
            raise Refused(503, "registry_unreachable", "the report cannot be fetched now", retry_after_s=2) from None

    def _read_report(self, served: ServedVoice) -> bytes:
        _, folder = self.registry.verified(served.voice, served.version, below=("report",))
        return read_regular(folder / REPORT_FILE, MAX_REPORT_BYTES, follow_links=False)


def passport_of(release: Release, history: list[Event], problem: str) -> dict[str, object]:
    """A release and how its voice came to it, without what is nobody's business: no author, no actor."""
    versions = list(dict.fromkeys(event.version for event in reversed(history) if event.version))
    consent = release.consent
    return {
        "object": "voice",
        "id": release.voice,
        "version": release.version,
        "versions": versions,
        "created_at": release.created_at.isoformat(),
        "language": release.language,
        "base": release.base,
        "license": release.license,
        "copyright_notice": release.copyright_notice,
        "consent": {
            "granted_on": consent.granted_on.isoformat(),
            "expires_on": consent.expires_on.isoformat() if consent.expires_on else None,
            "scope": list(consent.scope),
        },
        "metrics": dict(sorted(release.metrics.items())),
        "commit": release.provenance.git_revision,
        "repository": re.sub(r"//[^/@]*@", "//", release.provenance.repository),
        "pipeline": release.provenance.pipeline,
        "signed_by": release.signature.key if release.signature else None,
        "moves": [
            {"action": event.action, "channel": event.channel, "version": event.version, "at": event.at.isoformat()}
            for event in history
        ],
        "has_report": REPORT_FILE in release.files,
        "problem": problem or None,
    }
