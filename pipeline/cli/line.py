"""From a command line to a workspace: which folder, which settings, which base."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from models.loading.bases import Base
    from pipeline.line.workspace import Workspace
    from pipeline.records.job import Reporter
    from pipeline.records.settings import GeneralSettings


def open_workspace(name: str, flags: Mapping[str, Any], reporter: Reporter) -> Workspace:
    """Resolve a voice by name or path. ``flags``: ``{"section.key": value}`` as for the settings.

    Raises:
        UsageError, SettingsError, ConsentError, VoiceRefused: before any stage starts.
    """
    from pipeline.cli.common import (
        is_untrusted_here,
        prepare_machine,
        registry_of,
        repository_root,
        resolve_settings,
        typed,
    )
    from pipeline.cli.voices import find_voice_folder
    from pipeline.config import VoiceKeys
    from pipeline.io.voices import load_voice
    from pipeline.line.workspace import Workspace, digest_of
    from pipeline.stages.plan import forbid_below_card

    voice = load_voice(find_voice_folder(name))
    source = f"voices/{voice.name}/voice.yaml"
    resolved = resolve_settings(flags, voice=VoiceKeys(voice.manifest.settings_overrides(), source))
    general = resolved.settings.voxline
    with typed(flags.get("voxline.base")):
        base = open_base(general.base, general)
    forbid_below_card(resolved, base, source)
    root = repository_root()
    return Workspace(
        voice=voice,
        settings=resolved.settings,
        base=base,
        content_digest=digest_of(voice, resolved.settings, root),
        root=root,
        registry=registry_of(resolved.settings, flag=flags.get("voxline.registry")),
        machine=prepare_machine(general),
        reporter=reporter,
        is_untrusted=is_untrusted_here(),
    )


def open_base(name: str, general: GeneralSettings) -> Base:
    """A base by name, from the package or the repository's own folder. Raises SettingsError."""
    from pipeline.cli.common import governing_here, repository_root
    from pipeline.stages.plan import load_known_base

    root, governing = repository_root(), governing_here()
    return load_known_base(name, root, general, governing)
