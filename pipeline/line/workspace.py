"""A voice with everything its stages need, resolved once, and what each stage is handed of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from models.loading.bases import Base
from pipeline.errors import TransientError
from pipeline.io.checkouts import refuse_committed_results, refuse_converted
from pipeline.io.memory import cached
from pipeline.io.provenance import find_provenance
from pipeline.io.registry.registry import Registry
from pipeline.io.store import Store
from pipeline.io.voices import Voice, content_digest
from pipeline.line.run_stage import AnyJob, Outcome, Place, Task, find_stage, run_stage
from pipeline.line.served import find_served
from pipeline.line.table import Stage
from pipeline.records.base import Record
from pipeline.records.job import Destination, Machine, Reporter, Served
from pipeline.records.release import Channel, recipe_digest, release_version
from pipeline.records.settings import Settings
from pipeline.stages.evaluate.floors import gate_floors


@dataclass(frozen=True)
class Workspace:
    """One voice, ready for its stages. Nothing in here has imported torch.

    Attributes:
        is_untrusted: the files are a stranger's.
    """

    voice: Voice
    settings: Settings
    base: Base
    content_digest: str
    root: Path
    registry: Registry
    machine: Machine
    reporter: Reporter
    is_untrusted: bool = False

    @cached_property
    def recipe_digest(self) -> str:
        return recipe_digest(self.settings)

    @cached_property
    def version(self) -> str:
        return release_version(self.content_digest, self.base.digest, self.recipe_digest)

    @property
    def store(self) -> Store:
        return Store(self.root / self.settings.voxline.work)

    @property
    def channel(self) -> Channel:
        """Where a passed version goes: to production, unless a person wants to hear it first."""
        return "candidate" if self.voice.manifest.review == "required" else self.settings.publish.channel

    def find(self, stage: Stage, earlier: Mapping[str, Outcome]) -> Outcome | None:
        """What an earlier run of the present version left of this stage."""
        return find_stage(self.task(stage, earlier), self.store)

    def run(self, stage: Stage, earlier: Mapping[str, Outcome]) -> Outcome:
        """Run a stage, or find that it was run before."""
        return run_stage(self.task(stage, earlier), self._place(stage))

    def task(self, stage: Stage, earlier: Mapping[str, Outcome]) -> Task:
        """A stage of this voice, by what its row names."""
        return Task(
            stage=stage,
            voice=self.voice.name,
            settings=getattr(self.settings, stage.section) if stage.section else Record(),
            digests={name: digest for kind in stage.digests for name, digest in DIGESTS[kind](self).items()},
            inputs={name: earlier[name] for name in stage.reads},
            parameters={name: PARAMETERS[name](self) for name in stage.parameters},
        )

    def _place(self, stage: Stage) -> Place:
        return Place(
            store=self.store,
            voice_folder=self.voice.folder,
            reporter=self.reporter,
            machine=self.machine,
            destination=self._destination() if stage.writes else None,
            find_served=self._served if stage.is_verdict else lambda: None,
            check=self._check_unchanged if "content" in stage.digests else lambda: None,
        )

    def measuring(self, stage: Stage, earlier: Mapping[str, Outcome]) -> AnyJob:
        """A stage's job for who wants to measure with it and keeps no result: nothing may be written."""
        place = Place(self.store, self.voice.folder, self.reporter, self.machine)
        return self.task(stage, earlier).job(place, self.store.root, is_stopping=lambda: False)

    def _served(self) -> Served | None:
        return find_served(self.voice.name, self.registry, self.reporter)

    def _destination(self) -> Destination:
        return Destination(self.registry, find_provenance(self.voice.folder, os.environ))

    def _check_unchanged(self) -> None:
        """A file saved while the voice was read would be trained on under the version of the old one."""
        if content_digest(self.voice.folder) != self.content_digest:
            raise TransientError(f"{self.voice.folder}: changed while it was read", hint="run again")


def _tools(workspace: Workspace) -> dict[str, str]:
    """The networks that judge recordings: with other weights they are judged again."""
    from pipeline.stages.validate.digests import tool_digests

    tools = tool_digests(workspace.settings.validate_, workspace.machine.cache)
    return {f"tool:{name}": digest for name, digest in tools.items()}


def _ears(workspace: Workspace) -> dict[str, str]:
    """The networks that judge speech: where another one listens, it is judged again."""
    from pipeline.io.artifacts.ears import ear_digests

    return {f"ear:{name}": digest for name, digest in ear_digests(workspace.machine.cache).items()}


# What a row of the table may name besides earlier stages.
DIGESTS: dict[str, Callable[[Workspace], dict[str, str]]] = {
    "content": lambda workspace: {"content": workspace.content_digest},
    "tools": _tools,
    "ears": _ears,
    "base": lambda workspace: {"base": workspace.base.digest},
}
PARAMETERS: dict[str, Callable[[Workspace], Any]] = {
    "base": lambda workspace: workspace.base.name,
    "version": lambda workspace: workspace.version,
    "content": lambda workspace: workspace.content_digest,
    "recipe": lambda workspace: workspace.recipe_digest,
    "manifest": lambda workspace: workspace.voice.manifest.model_dump(mode="json"),
    "channel": lambda workspace: workspace.channel,
    "language": lambda workspace: workspace.voice.manifest.language,
    "statement": lambda workspace: workspace.voice.manifest.consent.statement,
    "floors": lambda workspace: gate_floors(workspace.settings, workspace.base),
    "waived": lambda workspace: sorted(workspace.base.gate.waived),
}


def digest_of(voice: Voice, settings: Settings, root: Path) -> str:
    """The digest of the voice's files, which its version follows from.

    Raises:
        SettingsError: Git holds files of the work folder, or keeps other bytes of the voice than lie on disk.
    """
    work = root / settings.voxline.work
    refuse_committed_results(root, work)
    digest = content_digest(voice.folder, cache=work / voice.name / ".digests.json")
    refuse_converted(voice.folder, digest, cached("trees", os.environ))
    return digest
