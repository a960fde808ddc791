"""One voice that walked the line once, for every test that looks at what a stage left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.records.job import Input, Job, Machine
from pipeline.records.settings import FinetuneSettings


class Silent:
    """A reporter that shows nothing."""

    def track(self, items, *, description, total=None):
        return items

    def log(self, message):
        pass


@dataclass(frozen=True)
class Walked:
    """A repository whose voice ``ana`` was validated, extracted, trained and evaluated on the tiny base."""

    root: Path
    outcomes: dict[str, Any]

    def input(self, stage: str) -> Input:
        return self.outcomes[stage].as_input()

    def job(self, folder: Path, reads: tuple[str, ...], settings: Any, **parameters: Any) -> Job:
        """A job as ``run_stage`` makes it, in a folder of its own."""
        (folder / "checkpoint").mkdir(parents=True, exist_ok=True)
        return Job(
            voice="ana",
            key="0" * 32,
            voice_folder=self.root / "voices" / "ana",
            settings=settings,
            inputs={stage: self.input(stage) for stage in reads},
            parameters={"base": "tiny", **parameters},
            folder=folder,
            checkpoint=folder / "checkpoint",
            reporter=Silent(),
            is_stopping=lambda: False,
            machine=Machine(device="cpu", threads=1, bases=self.root / "bases"),
        )

    def finetune_job(self, folder: Path, is_stopping: Callable[[], bool] = lambda: False, **settings: Any) -> Job:
        chosen = {"epochs": 2, "rank": 2, "batch_size": 4, "heldout_clips": 2, "checkpoint_every_s": 0.001, **settings}
        job = self.job(folder, ("validate", "extract"), FinetuneSettings(**chosen))
        return replace(job, is_stopping=is_stopping)


@pytest.fixture(scope="session")
def walked(repository_with_voice: Path) -> Walked:
    """What the walk left in each stage; the gate blocked, as it must on random numbers."""
    from pipeline.cli.line import open_workspace
    from pipeline.line import table

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(repository_with_voice)
        workspace = open_workspace("ana", {}, Silent())
        outcomes: dict[str, Any] = {}
        for stage in table.stored():
            outcomes[stage.name] = workspace.run(stage, outcomes)
            assert outcomes[stage.name].was_cached
    return Walked(repository_with_voice, outcomes)
