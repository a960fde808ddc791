"""finetune: two LoRA adapters on a frozen base, with some clips never trained on.

The loop is exact: order, noise and dropout follow from the seed and the step, and the checkpoint holds adapters, best
adapters and the optimizer. So a killed run that continues ends in the same weights, bit for bit, as one left alone.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypedDict

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from models.adapters.lora import (
    adapter_parameters,
    adapter_state,
    count_parameters,
    inject,
    save_adapter,
    scaled,
    set_adapter_state,
)
from models.clip_tensors import ClipTensors, unpack_clips
from models.learners.vits import Learner, Text2SemanticLearner
from models.loading.bases import Base, find_base
from models.loading.family import family_of
from models.loading.networks import load_text2semantic, prepare_device, training_precision
from pipeline.errors import OutOfMemoryError, TransientError
from pipeline.io.audio import read_at_rates
from pipeline.io.files import write_atomically
from pipeline.records.adapter import ADAPTER_FOLDER, PARTS, AdapterRecord, CurvePoint, Part, TrainedGroup, TrainedPart
from pipeline.records.clip_report import ClipReport
from pipeline.records.feature import FEATURES_FILE, ClipFeatures, FeatureRecord
from pipeline.records.job import Input, Job
from pipeline.records.settings import FinetuneSettings

CLIPS_PER_EPOCH = 32  # fewer clips are repeated: an epoch is a time to look at the held-out loss
PATIENCE_EPOCHS = 4  # without any group getting better
MIN_GAIN = 1e-3  # relative; a smaller one does not renew the patience
GRADIENT_NORM = 5.0
HELDOUT_MIN_S, HELDOUT_MAX_S = 1.5, 12.0


def choose_heldout(clips: Sequence[ClipFeatures], count: int, seed: int) -> list[int]:
    """Indices of the clips that are never trained on: those marked ``test``, and as many drawn by content and seed.

    By content, so that renaming files or adding clips moves as few as possible. At most a third is held out, and one
    clip always stays to train on. Where fewer are marked than the gate is to be measured on, the rest is drawn: a voice
    must not be judged by the one clip that it likes best.
    """
    marked = [index for index, clip in enumerate(clips) if clip.split == "test"]
    marked = marked if len(marked) < len(clips) else []
    others = [index for index in range(len(clips)) if index not in marked]
    fitting = [i for i in others if HELDOUT_MIN_S <= clips[i].duration_s <= HELDOUT_MAX_S]
    drawn = sorted(fitting or others, key=lambda index: _draw(seed, clips[index].content_sha256))
    wanted = max(1, min(count, len(clips) // 3))
    return sorted([*marked, *drawn[: max(0, wanted - len(marked))]])


def _draw(seed: int, digest: str) -> str:
    return hashlib.sha256(f"{seed}/{digest}".encode()).hexdigest()


def step_seed(*parts: int | str) -> int:
    """A seed that follows from what it is for."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:7], "big")


@dataclass
class Progress:
    """Where training of one part stands; everything but tensors. Written into the checkpoint as JSON."""

    step: int = 0
    micro_batch: int = 0
    epochs_without_gain: int = 0
    is_done: bool = False
    is_diverged: bool = False  # a learning rate far too high
    sums: dict[str, float] = field(default_factory=dict)  # training loss since the last look, by group
    curves: dict[str, list[tuple[int, float | None, float]]] = field(default_factory=dict)
    best_steps: dict[str, int] = field(default_factory=dict)

    def best(self, group: str) -> float:
        return min(loss for _, _, loss in self.curves[group])


@dataclass(frozen=True)
class Checkpoint:
    """Where the training of one part is saved, and for which job: another job's is not continued.

    Attributes:
        job: the key of the job.
        log: is told why what lies there is left.
    """

    path: Path
    job: str
    log: Callable[[str], None]


class Training:
    """One network's adapters on their way: optimizer, curves, best weights so far."""

    def __init__(self, part: Part, learner: Learner, settings: FinetuneSettings, precision: torch.dtype) -> None:
        self.part, self.learner, self.settings, self.precision = part, learner, settings, precision
        self.rate = getattr(settings, f"{part}_learning_rate") * learner.rate_factor
        torch.manual_seed(step_seed(settings.seed, part, "adapter"))
        inject(learner.network, learner.targets(), settings.rank, settings.alpha, settings.dropout)
        self.parameters = adapter_parameters(learner.network)
        self.optimizer = torch.optim.AdamW(self.parameters, lr=self.rate, betas=(0.9, 0.98), weight_decay=0.01)
        self.progress = Progress(micro_batch=settings.batch_size)
        self._save_every_s = settings.checkpoint_every_s
        self.best: dict[str, Tensor] = adapter_state(learner.network)

    # -- the loop -------------------------------------------------------------------------------------------------

    def run(
        self,
        clips: Sequence[ClipTensors],
        heldout: Sequence[ClipTensors],
        checkpoint: Checkpoint,
        is_stopping: Callable[[], bool],
    ) -> Iterator[int]:
        """Train until the epochs are over or nothing gets better; yields after each step. Saves now and then.

        Raises:
            TransientError: asked to stop; the checkpoint is complete.
            OutOfMemoryError: even one clip at a time is too much.
        """
        self._load(checkpoint)
        if not self.progress.curves:
            self._look(heldout, training=False)
        self.progress.is_done = self.progress.is_done or self.rate == 0
        saved_at = time.monotonic()
        while not self.progress.is_done:
            self._step(clips)
            if self.progress.step % self.steps_per_epoch(len(clips)) == 0:
                self._look(heldout, training=True)
                self.progress.is_done = self._has_ended(len(clips))
            stopping = is_stopping()
            if stopping or self.progress.is_done or time.monotonic() - saved_at > self._save_every_s:
                self._save(checkpoint)
                saved_at = time.monotonic()
            if stopping and not self.progress.is_done:
                raise TransientError(
                    f"stopped at step {self.progress.step} of {self.part}", hint="run again: it continues there"
                )
            yield self.progress.step
        self.keep_best()

    def steps_per_epoch(self, clips: int) -> int:
        return math.ceil(max(clips, CLIPS_PER_EPOCH) / self.settings.batch_size)

    def total_steps(self, clips: int) -> int:
        return self.steps_per_epoch(clips) * self.settings.epochs

    def _has_ended(self, clips: int) -> bool:
        progress = self.progress
        is_over = progress.step >= self.total_steps(clips)
        return is_over or progress.is_diverged or progress.epochs_without_gain >= PATIENCE_EPOCHS

    def _batch(self, clips: int) -> list[int]:
        """Indices of the next step's clips: a shuffled round through all of them after the other."""
        size, first = self.settings.batch_size, self.progress.step * self.settings.batch_size
        return [self._order(place // clips, clips)[place % clips] for place in range(first, first + size)]

    def _order(self, round_: int, clips: int) -> list[int]:
        generator = torch.Generator().manual_seed(step_seed(self.settings.seed, self.part, "order", round_))
        return torch.randperm(clips, generator=generator).tolist()

    def _step(self, clips: Sequence[ClipTensors]) -> None:
        """One optimizer step; repeated with half the micro-batch when memory runs out."""
        while True:
            try:
                shown = self._accumulate(clips)
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(error)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, GRADIENT_NORM)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * self._schedule(self.total_steps(len(clips)))
        if torch.isfinite(norm):  # one bad batch must not spoil the weights for good
            self.optimizer.step()
        if self.learner.critic is not None:
            self.learner.critic.end_step()
        self.progress.step += 1
        for group_name, loss in shown.items():
            self.progress.sums[group_name] = self.progress.sums.get(group_name, 0.0) + loss

    def _accumulate(self, clips: Sequence[ClipTensors]) -> dict[str, float]:
        self.learner.network.train()
        self.optimizer.zero_grad(set_to_none=True)
        if self.learner.critic is not None:
            self.learner.critic.begin_step()
        indices, step = self._batch(len(clips)), self.progress.step
        weight = sum(self.learner.weight_of(clips[index]) for index in indices)
        shown: dict[str, float] = {}
        for first in range(0, len(indices), self.progress.micro_batch):
            rows = range(first, min(first + self.progress.micro_batch, len(indices)))
            seeds = [step_seed(self.settings.seed, self.part, step, row) for row in rows]
            chosen = [clips[indices[row]] for row in rows]
            with self._autocast():
                loss = self.learner.step_loss(chosen, seeds, weight)
            loss.total.backward()  # type: ignore[no-untyped-call]
            for name, value in loss.shown.items():
                shown[name] = shown.get(name, 0.0) + value * len(chosen) / len(indices)
        return shown

    def _autocast(self) -> Any:
        if self.precision == torch.float32:
            return nullcontext()
        return torch.autocast(self.parameters[0].device.type, self.precision)

    def _schedule(self, total: int) -> float:
        """A short warm-up, then a cosine down to a tenth."""
        warm = min(1.0, (self.progress.step + 1) / max(1, min(10, total // 10)))
        return warm * (0.55 + 0.45 * math.cos(math.pi * self.progress.step / max(1, total)))

    def _halve(self, error: BaseException) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self.progress.micro_batch == 1:
            raise OutOfMemoryError(
                f"{self.part}: out of memory with one clip at a time",
                hint="use a machine with more memory, or cut the longest clips",
            ) from error
        self.progress.micro_batch = math.ceil(self.progress.micro_batch / 2)

    # -- the held-out clips ---------------------------------------------------------------------------------------

    def _look(self, heldout: Sequence[ClipTensors], *, training: bool) -> None:
        """Held-out loss of every group; a group that got better keeps its weights of now."""
        self.learner.network.eval()
        losses = self.learner.heldout_losses(heldout)
        progress, steps = self.progress, self._steps_since_look()
        if not all(map(math.isfinite, losses.values())):
            progress.is_diverged = True  # the best weights so far are kept
            return
        has_gain = False
        for name, loss in losses.items():
            curve = progress.curves.setdefault(name, [])
            best = progress.best(name) if curve else math.inf
            mean = progress.sums.get(name, math.nan) / steps
            trained = mean if training and math.isfinite(mean) else None
            curve.append((progress.step, trained, loss))
            if loss < best:
                progress.best_steps[name] = progress.step
                has_gain = has_gain or loss < best * (1 - MIN_GAIN)
                self._remember(self.learner.groups[name])
        progress.sums = {}
        progress.epochs_without_gain = 0 if has_gain or not training else progress.epochs_without_gain + 1

    def _steps_since_look(self) -> int:
        last = max((curve[-1][0] for curve in self.progress.curves.values()), default=0)
        return max(1, self.progress.step - last)

    def _remember(self, prefixes: tuple[str, ...]) -> None:
        now = adapter_state(self.learner.network)
        self.best.update({name: value for name, value in now.items() if name.startswith(prefixes)})

    def keep_best(self) -> None:
        """Put every group's best weights into the network, as much of them as the learner keeps."""
        kept = scaled(self.best, self.learner.kept_share)
        set_adapter_state(self.learner.network, kept, "best adapter")
        self.learner.network.eval()

    # -- the checkpoint -------------------------------------------------------------------------------------------

    def _save(self, checkpoint: Checkpoint) -> None:
        tensors = {f"adapter/{name}": value for name, value in adapter_state(self.learner.network).items()}
        tensors |= {f"best/{name}": value for name, value in self.best.items()}
        for index, parameter in enumerate(self.parameters):
            for name, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer/{index}/{name}"] = value.detach()
        if self.learner.critic is not None:
            tensors |= {f"critic/{name}": value for name, value in self.learner.critic.state().items()}
        cpu = {name: value.cpu().contiguous() for name, value in tensors.items()}
        started = time.monotonic()
        told = {"job": checkpoint.job, "progress": json.dumps(self.progress.__dict__)}
        write_atomically(checkpoint.path, save(cpu, told))
        # a discriminator's state is hundreds of megabytes: a twentieth of the time at most goes into saving
        self._save_every_s = max(self.settings.checkpoint_every_s, 20 * (time.monotonic() - started))

    def _load(self, checkpoint: Checkpoint) -> None:
        """Continue from a checkpoint of this very job, if there is a whole one."""
        path = checkpoint.path
        if not path.exists():
            return
        try:
            tensors = load_file(path)
            with safe_open(path, "pt") as file:
                told = file.metadata() or {}
        except (OSError, SafetensorError):
            return checkpoint.log(f"{path.name}: warning: the checkpoint is damaged; training begins anew")
        if told.get("job") != checkpoint.job:
            return checkpoint.log(f"{path.name}: warning: the checkpoint is of another job; training begins anew")
        self.progress = Progress(**json.loads(told["progress"]))
        set_adapter_state(self.learner.network, _under("adapter/", tensors), str(path))
        device = self.parameters[0].device
        self.best = {name: value.to(device) for name, value in _under("best/", tensors).items()}
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in _under("optimizer/", tensors).items():
            index, _, field_name = name.partition("/")
            state.setdefault(int(index), {})[field_name] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        if self.learner.critic is not None:
            self.learner.critic.set_state(_under("critic/", tensors))

    # -- the record -----------------------------------------------------------------------------------------------

    def describe(self, clips: int) -> TrainedPart:
        progress = self.progress
        trainable = count_parameters(self.parameters)
        return TrainedPart(
            part=self.part,
            folder=f"{ADAPTER_FOLDER}/{self.part}",
            rank=self.settings.rank,
            alpha=self.settings.alpha,
            trainable_parameters=trainable,
            frozen_parameters=count_parameters(self.learner.network.parameters()) - trainable,
            batch_size=self.settings.batch_size,
            micro_batch=progress.micro_batch,
            steps=progress.step,
            ended_by=self._reason(clips),
            groups=tuple(self._group(name) for name in progress.curves),
        )

    def _reason(self, clips: int) -> Literal["epochs", "heldout", "fixed"]:
        if self.rate == 0:
            return "fixed"
        return "epochs" if self.progress.step >= self.total_steps(clips) else "heldout"

    def _group(self, name: str) -> TrainedGroup:
        points = self.progress.curves[name]
        best_step = self.progress.best_steps[name]
        return TrainedGroup(
            name=name,
            loss=self.learner.losses[name],
            best_step=best_step,
            heldout_loss_before=points[0][2],
            heldout_loss=next(loss for step, _, loss in points if step == best_step),
            curve=tuple(CurvePoint(step=s, training_loss=t, heldout_loss=h) for s, t, h in points),
        )


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def is_out_of_memory(error: BaseException) -> bool:
    """CUDA has a class of its own for it; the CPU allocator only says so in words."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


class Inputs(TypedDict):
    """The recordings, and what was extracted of them."""

    validate: Input[ClipReport]
    extract: Input[FeatureRecord]


class Parameters(TypedDict):
    """``base``: its name."""

    base: str


FinetuneJob = Job[FinetuneSettings, Inputs, Parameters]


def load_clips(inputs: Inputs, base: Base, device: torch.device) -> list[ClipTensors]:
    """The tensors of every clip: what extraction stored, and what the recording itself says."""
    recordings, folder = family_of(base).recordings(base, device), inputs["validate"].folder
    extracted, _ = unpack_clips(inputs["extract"].folder / FEATURES_FILE)
    return [
        recordings.complete(stored, read_at_rates(folder / clip.file), clip.frames)
        for stored, clip in zip(extracted, inputs["extract"].record.clips, strict=True)
    ]


def work(job: FinetuneJob) -> AdapterRecord:
    """Train both parts and write ``adapter/<part>/``.

    Raises:
        TransientError: stopped; the next run continues. OutOfMemoryError: with one clip at a time.
    """
    settings, features = job.settings, job.inputs["extract"].record
    clock = time.perf_counter()
    base = find_base(job.parameters["base"], job.machine.bases, job.machine.replaced_bases)
    device = prepare_device(job.machine.device, job.machine.threads)
    precision = training_precision(device)
    clips = load_clips(job.inputs, base, device)
    heldout = choose_heldout(features.clips, settings.heldout_clips, settings.seed)
    kept = [index for index in range(len(clips)) if index not in heldout]
    trained = []
    for part in PARTS:
        training = Training(part, _learner(part, base, job, device), settings, precision)
        steps = training.run(
            [clips[index] for index in kept],
            [clips[index] for index in heldout],
            Checkpoint(job.checkpoint / f"{part}.safetensors", job.key, job.reporter.log),
            job.is_stopping,
        )
        total = training.total_steps(len(kept))
        for _ in job.reporter.track(steps, description=f"{job.voice}: {part}", total=total):
            pass
        trained.append(training.describe(len(kept)))
        save_adapter(training.learner.network, job.folder / ADAPTER_FOLDER / part, base.name)
        _log(job, trained[-1])
    return AdapterRecord(
        base=base.name,
        base_digest=base.digest,
        seed=settings.seed,
        device=device.type,
        precision="float32" if precision == torch.float32 else "bfloat16",
        training_clips=tuple(features.clips[index].clip for index in kept),
        heldout_clips=tuple(features.clips[index].clip for index in heldout),
        training_s=round(time.perf_counter() - clock, 2),
        parts=tuple(trained),
    )


def _learner(part: Part, base: Base, job: FinetuneJob, device: torch.device) -> Learner:
    cache = job.machine.cache
    if part == "text2semantic":
        return Text2SemanticLearner(load_text2semantic(base, cache).to(device), device)
    family = family_of(base)
    return family.learner(family.load(base, cache, device))


def _log(job: FinetuneJob, part: TrainedPart) -> None:
    for group in part.groups:
        job.reporter.log(f"{job.voice}: {part.summary(group)}")
