"""One training loop for every network: seeded by step, checkpointed, resumed exactly, logged to CSV and TensorBoard.

Everything random in a step is drawn from seeds made of the recipe's seed and the step's number, so a killed run that
continues gives the numbers of one that was never killed (on the same machine and thread count).
"""

import csv
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.pretrain.recipe import Stage

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

CHECKPOINT = "checkpoint.safetensors"
CSV, BOARD = "log.csv", "tensorboard"
FINAL_LR = 0.05  # of the peak, at the last step

Losses = dict[str, Tensor]
Step = Callable[[int, np.random.Generator], Losses]
"""One forward pass: the step's number and its random numbers to named losses; "loss" is the one that is minimised."""


def lr_factor(step: int, stage: Stage) -> float:
    """Linear warm-up, then a cosine down to FINAL_LR."""
    if step < stage.warmup_steps:
        return (step + 1) / stage.warmup_steps
    progress = (step - stage.warmup_steps) / max(stage.steps - stage.warmup_steps, 1)
    return FINAL_LR + (1 - FINAL_LR) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


@dataclass(frozen=True)
class Run:
    """How long and how fast a stage trains, where its checkpoint and its log lie, from which seed and on what."""

    stage: Stage
    folder: Path
    seed: int
    device: torch.device


def train(
    network: nn.Module,
    forward: Step,
    run: Run,
    parameters: list[nn.Parameter] | None = None,
    evaluate: Callable[[int], dict[str, float]] | None = None,
    evaluate_every: int = 500,
) -> None:
    """Train `parameters` (all that need gradients) of `network` to the stage's last step, from the last checkpoint."""
    stage, folder, seed = run.stage, run.folder, run.seed
    folder.mkdir(parents=True, exist_ok=True)
    parameters = parameters or [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, stage.lr, betas=(0.9, 0.98), weight_decay=stage.weight_decay)
    first = resume(network, optimizer, parameters, folder / CHECKPOINT)
    saved_at = time.monotonic()
    with _log(folder, first) as log:
        for step in range(first, stage.steps):
            torch.manual_seed(seed * 1_000_003 + step)
            for group in optimizer.param_groups:
                group["lr"] = stage.lr * lr_factor(step, stage)
            network.train()
            with torch.autocast(run.device.type, dtype=torch.bfloat16):
                losses = forward(step, np.random.default_rng([seed, step]))
            optimizer.zero_grad(set_to_none=True)
            losses["loss"].backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(parameters, stage.clip_norm)
            if torch.isfinite(norm):
                optimizer.step()
            if step % 20 == 0:
                log(step, {name: float(value.detach()) for name, value in losses.items()} | {"norm": float(norm)})
            if evaluate and (step == 0 or (step + 1) % evaluate_every == 0):
                network.eval()
                with torch.no_grad():
                    log(step, {f"held_out/{name}": value for name, value in evaluate(step).items()})
            if time.monotonic() - saved_at > stage.checkpoint_every_s:
                save(network, optimizer, parameters, step + 1, folder / CHECKPOINT)
                saved_at = time.monotonic()
    save(network, optimizer, parameters, stage.steps, folder / CHECKPOINT)


def save(
    network: nn.Module, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], step: int, path: Path
) -> None:
    """Weights and the optimizer's moments in one file, moved in when complete."""
    tensors = {f"network.{name}": value.detach().contiguous() for name, value in network.state_dict().items()}
    names = _names(network)
    for parameter in parameters:
        for moment, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer.{moment}.{names[parameter]}"] = value.detach().contiguous()
    partial = path.with_suffix(".partial")
    save_file({name: value.clone() for name, value in tensors.items()}, partial, {"step": str(step)})
    partial.replace(path)


def resume(network: nn.Module, optimizer: torch.optim.Optimizer, parameters: list[nn.Parameter], path: Path) -> int:
    """Load a checkpoint if there is one; the step to continue with."""
    if not path.exists():
        return 0
    state: dict[str, Tensor] = {}
    names = _names(network)
    trained = {names[parameter]: parameter for parameter in parameters}
    with safe_open(path, framework="pt") as file:
        step = int(file.metadata()["step"])
        for name in file.keys():  # noqa: SIM118 - not a dictionary
            tensor = file.get_tensor(name)
            kind, rest = name.split(".", 1)
            if kind == "network":
                state[rest] = tensor
            else:
                moment, parameter = rest.split(".", 1)
                if parameter in trained:
                    optimizer.state[trained[parameter]][moment] = tensor
    network.load_state_dict(state)
    return step


def _names(network: nn.Module) -> dict[nn.Parameter, str]:
    """Moments are stored by name: code that lists its parameters in another order can still continue."""
    return {parameter: name for name, parameter in network.named_parameters()}


def load_network(network: nn.Module, folder: Path, part: str = "") -> int:
    """Put the weights of a stage's checkpoint into `network`; how many steps they were trained.

    `part`: name of the network inside the one that was trained, with a dot behind it.
    """
    with safe_open(folder / CHECKPOINT, framework="pt") as file:
        prefix = "network." + part
        names = [name for name in file.keys() if name.startswith(prefix)]  # noqa: SIM118 - not a dictionary
        network.load_state_dict({name[len(prefix) :]: file.get_tensor(name) for name in names})
        return int(file.metadata()["step"])


@contextmanager
def _log(folder: Path, first: int) -> Iterator[Callable[[int, dict[str, float]], None]]:
    """Append rows `step,seconds,name,value` to log.csv, and to TensorBoard where it is installed.

    `first`: the step that the run continues with. What a killed run told of later steps is told again, so it goes.
    """
    _forget(folder / CSV, first)
    board = _board(folder / BOARD, first)
    begun = time.monotonic()
    with (folder / CSV).open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)

        def write(step: int, values: dict[str, float]) -> None:
            for name, value in values.items():
                writer.writerow([step, f"{time.monotonic() - begun:.1f}", name, f"{value:.5g}"])
                if board:
                    board.add_scalar(name, value, step)
            file.flush()
            if board:
                board.flush()  # a killed run must not have told one of the two more

        yield write
    if board:
        board.close()


def _forget(path: Path, first: int) -> None:
    """Drop rows of the step `first` and later ones, and a row that a kill cut short."""
    if not path.exists():
        return
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n") and int(line.split(",", 1)[0]) < first]
    if kept != lines:
        partial = path.with_suffix(".partial")
        partial.write_text("".join(kept), encoding="utf-8", newline="")
        partial.replace(path)


def _board(folder: Path, first: int) -> "SummaryWriter | None":
    """TensorBoard hides what earlier event files tell of the step `first` and later ones."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(folder, purge_step=first)
