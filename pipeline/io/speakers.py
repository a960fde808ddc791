"""Who can be asked to speak: a release of a registry, or what was trained here. Loads nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.io.registry.registry import Registry
from pipeline.records.adapter import ADAPTER_FOLDER
from pipeline.records.reference import REFERENCE_FOLDER
from pipeline.records.voice import Consent


@dataclass(frozen=True)
class Speaker:
    """Who speaks.

    Attributes:
        voxline_version: which made the release; it has that base.
        adapter, reference: folders with the trained adapters and the clip to be prompted with.
        is_published: it passed its gate and is in a registry.
    """

    voice: str
    version: str
    language: str
    base: str
    base_digest: str
    voxline_version: str
    consent: Consent
    adapter: Path
    reference: Path
    is_published: bool = True


def published_speaker(registry: Registry, voice: str, channel: str = "production") -> Speaker:
    """The release that a channel serves.

    Raises:
        UsageError: there is none.
        NotTrusted: it is not what was published, or nobody trusted signed it.
    """
    release, folder = registry.verified(voice, channel, below=(ADAPTER_FOLDER, REFERENCE_FOLDER))
    return Speaker(
        voice=voice,
        version=release.version,
        language=release.language,
        base=release.base,
        base_digest=release.base_digest,
        voxline_version=release.voxline_version,
        consent=release.consent,
        adapter=folder / ADAPTER_FOLDER,
        reference=folder / REFERENCE_FOLDER,
    )
