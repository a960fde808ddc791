"""What a family's bases do, one record of functions for each. `models/configs/families.py` is the table of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from models.configs.families import FAMILIES, load
from models.configs.synthesizer import SynthesizerConfig
from models.errors import ConfigError
from models.learners.vits import Learner
from models.loading.bases import Base
from models.loading.listening import Listener
from models.loading.recordings import Recordings
from models.speaking.options import VoiceOptions
from models.speaking.rendering import Renderer
from models.speaking.resynthesis import Resynthesizer

Network = TypeVar("Network", bound=nn.Module)
Numbers = TypeVar("Numbers")


@dataclass(frozen=True)
class Exported:
    """A synthesizer with its adapter as a file of GPT-SoVITS holds it.

    Attributes:
        weights: by the file's own names.
        numbers: of the text encoder and all before it.
        lora_rank: the weights are those of a LoRA of this rank; None: they are whole.
    """

    weights: dict[str, Tensor]
    numbers: SynthesizerConfig
    lora_rank: int | None = None


@dataclass(frozen=True)
class Loaded(Generic[Network]):
    """The network of a base that turns tokens into sound, and where its other networks are found.

    Attributes:
        network: frozen and in eval mode, on `device`; it carries the adapter called ``synthesizer``.
        cache: folder of pulled weights.
    """

    base: Base
    network: Network
    cache: Path
    device: torch.device


@dataclass(frozen=True)
class Family(Generic[Network]):
    """What a base of this family does. Phones to tokens is the same network in all of them.

    Attributes:
        network: the synthesizer of a base, whatever it consists of: what turns tokens into sound and carries the
            adapter. Weight norm folded, in eval mode, frozen, on the CPU.
        bare: networks by role with the names of their files, and no weights yet.
        recordings: what a recording itself says to the learner and the resynthesizer.
        listener: what extraction and reference clips are heard by.
        learner: what fine-tuning of the synthesizer minimises.
        resynthesizer: copies, and recordings from their own tokens, for the gate; the adapter may be in place.
        renderer: speech; the adapter is merged.
        export: base, cache and folder of the adapter to what GPT-SoVITS loads; None where it has no such network.
        takes_several: a voice can speak like the mean of several reference clips.
    """

    network: Callable[[Base, Path], Network]
    bare: Mapping[str, Callable[[Base], nn.Module]]
    recordings: Callable[[Base, torch.device], Recordings]
    listener: Callable[[Loaded[Network]], Listener]
    learner: Callable[[Loaded[Network]], Learner]
    resynthesizer: Callable[[Loaded[Network]], Resynthesizer]
    renderer: Callable[[Loaded[Network], VoiceOptions], Renderer]
    takes_several: bool
    export: Callable[[Base, Path, Path], Exported] | None = None

    def load(self, base: Base, cache: Path, device: torch.device) -> Loaded[Network]:
        """Raises `models.errors.ModelsError` where weights are missing or do not fit."""
        return Loaded(base, self.network(base, cache).to(device), cache, device)


def needed(numbers: Numbers | None, base: Base, key: str) -> Numbers:
    """The numbers of a network that a family cannot do without. Raises `ConfigError` where base.yaml has none."""
    if numbers is None:
        raise ConfigError(f"base {base.name} is of family {base.family}: its base.yaml needs {key}")
    return numbers


def family_of(base: Base) -> Family[Any]:
    """The description of a base's family."""
    found: Family[Any] = load(FAMILIES[base.family].does)
    return found
