"""Voices in a worker's memory: small tensors above one base each. The least recently used leave."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from models.errors import ModelsError
from models.loading.bases import find_base
from models.loading.networks import prepare_device
from models.loading.shared import Adapters, SharedBase, read_prepared, write_prepared
from models.loading.voices import AdapterFolders
from models.speaking.rendering import PreparedReference
from pipeline.errors import SettingsError
from pipeline.jobs.speak import read_reference
from pipeline.records.adapter import ADAPTER_FOLDER
from pipeline.records.reference import REFERENCE_FOLDER
from pipeline.records.serving import ServedVoice, WorkerSettings

PREPARED = "prepared-1"  # raise when the networks make something else of the same clip


@dataclass(frozen=True, eq=False)
class Resident:
    """A voice that can speak at once."""

    base: SharedBase
    adapters: Adapters
    reference: PreparedReference

    @property
    def size_bytes(self) -> int:
        parts = (self.reference.tokens, self.reference.ge, self.reference.prompt_mel, self.reference.prompt_features)
        kept = sum(part.numel() * part.element_size() for part in parts if part is not None)
        return self.adapters.size_bytes + kept


class Residents:
    """Bases that stay, and voices that come and go. ``of`` is for one thread; the rest may be asked from any."""

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self.device = prepare_device(settings.device, settings.threads)
        self.bases: dict[str, SharedBase] = {}  # by digest
        self.loads = self.evictions = 0
        self._voices: OrderedDict[tuple[str, str], Resident] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        return len(self._voices)

    @property
    def size_bytes(self) -> int:
        with self._lock:
            return sum(voice.size_bytes for voice in self._voices.values())

    def find(self, voice: ServedVoice) -> Resident | None:
        """The voice, if it is in memory; it is then the most recently used."""
        with self._lock:
            found = self._voices.get((voice.voice, voice.version))
            if found is not None:
                self._voices.move_to_end((voice.voice, voice.version))
            return found

    def of(self, voice: ServedVoice) -> Resident:
        """The voice, loaded where it is not in memory.

        Raises:
            SettingsError: the base is not here or another one; the adapter or the reference is damaged.
        """
        found = self.find(voice)
        if found is None:
            found = self._load(voice)
            with self._lock:
                self._voices[voice.voice, voice.version] = found
                self.loads += 1
            self._make_room()
        return found

    def base_of(self, voice: ServedVoice) -> SharedBase:
        """The base that a voice was trained on, loaded where it is not in memory. Raises SettingsError."""
        if voice.base_digest in self.bases:
            return self.bases[voice.base_digest]
        settings = self.settings
        try:
            base = find_base(voice.base, Path(settings.bases), settings.replaced_bases)
            if base.digest != voice.base_digest:
                raise SettingsError(
                    f"{voice.voice} {voice.version} was trained on another base {voice.base}"
                    f" ({voice.base_digest[:12]}, here {base.digest[:12]})"
                )
            self.bases[base.digest] = SharedBase(base, Path(settings.cache), self.device, settings.rows)
        except ModelsError as error:
            raise SettingsError(str(error), hint=f"voxline bases pull {voice.base}") from error
        return self.bases[voice.base_digest]

    def _load(self, voice: ServedVoice) -> Resident:
        base, folder = self.base_of(voice), Path(voice.folder)
        parts = (folder / ADAPTER_FOLDER / "text2semantic", folder / ADAPTER_FOLDER / "synthesizer")
        try:
            adapters = base.read(AdapterFolders(*(part if part.is_dir() else None for part in parts)))
            return Resident(base, adapters, self._prepared(base, adapters, folder))
        except ModelsError as error:
            raise SettingsError(f"{voice.voice} {voice.version}: {error}") from error

    def _prepared(self, base: SharedBase, adapters: Adapters, folder: Path) -> PreparedReference:
        """What the networks make of the reference clip, kept beside it: to hear it takes longer than all the rest."""
        kept = folder / f"{PREPARED}-{base.base.digest[:12]}.safetensors"
        if kept.is_file():
            try:
                return read_prepared(kept, self.device)
            except ModelsError:
                kept.unlink(missing_ok=True)
        reference = read_reference(folder / REFERENCE_FOLDER, base.base.text.symbols, base.bert)
        with base.carrying(adapters):
            prepared = base.voice.prepare(reference)
        partial = kept.with_name(f"{kept.name}.{os.getpid()}.partial")
        try:
            write_prepared(prepared, partial)
            partial.replace(kept)
        except OSError:  # a full or read-only disk: it is heard again next time
            partial.unlink(missing_ok=True)
        return prepared

    def _make_room(self) -> None:
        while self.count > 1 and self.size_bytes > self.settings.adapter_bytes:
            with self._lock:
                self._voices.popitem(last=False)
                self.evictions += 1
