"""From what a person types to a voice folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.config import VoiceKeys


def find_voice_folder(name_or_path: str) -> Path:
    """``ana`` is voices/ana; anything with a slash is taken as a path.

    Raises:
        UsageError: there is no such folder; the hint lists what there is.
    """
    from pipeline.cli.common import repository_root, resolve_settings
    from pipeline.errors import UsageError
    from pipeline.io.voices import MANIFEST_FILE

    if "/" in name_or_path or name_or_path in (".", ".."):
        folder = Path(name_or_path).resolve()
    else:
        folder = repository_root() / resolve_settings().settings.voxline.voices / name_or_path
    if folder.is_dir():
        return folder
    known = sorted(path.parent.name for path in folder.parent.glob(f"*/{MANIFEST_FILE}"))
    hint = f"there are: {', '.join(known[:10])}" if known else "check the path; voxline new NAME makes a folder"
    raise UsageError(f"no voice folder at {folder}", hint=hint)


def is_among_voices(folder: Path) -> bool:
    """Whether a folder lies where the line looks for voices, so that it is one, whatever it lacks."""
    from pipeline.cli.common import repository_root, resolve_settings

    return folder.resolve().parent == (repository_root() / resolve_settings().settings.voxline.voices).resolve()


def keys_of_voice(name_or_path: str) -> VoiceKeys:
    """The settings that a voice's own voice.yaml makes."""
    from pipeline.config import VoiceKeys
    from pipeline.io.voices import load_manifest

    folder = find_voice_folder(name_or_path)
    return VoiceKeys(load_manifest(folder).settings_overrides(), f"voices/{folder.name}/voice.yaml")
