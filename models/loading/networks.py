"""A base's networks with their weights, ready to compute. Device and precision are chosen here and nowhere else.

A role that base.yaml gives no weights for gets random ones, always the same: the line can be tried with such a base,
and the quality gate says what it is (`Base.random_roles`).
"""

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from models.blocks.weight_norm import fold_weight_norm
from models.configs.content import ContentConfig, HubertConfig
from models.configs.speaker import SpeakerEncoderConfig
from models.encoders.bert import BertFeatures
from models.encoders.content import HubertEncoder, PhoneEncoder, build_content_encoder
from models.encoders.eres2net import SpeakerEncoder
from models.errors import ConfigError, WeightsError
from models.loading.bases import Base
from models.loading.family import family_of
from models.text2semantic.network import Text2Semantic
from models.weights import load_weights

Network = TypeVar("Network", bound=nn.Module)


def prepare_device(wanted: str, threads: int) -> torch.device:
    """`choose_device`, and so many threads on the CPU; 0: as many as torch takes by itself."""
    if threads:
        torch.set_num_threads(threads)
    return choose_device(wanted)


def choose_device(wanted: str) -> torch.device:
    """`auto` takes CUDA where there is one; a device that is asked for and absent raises `ConfigError`."""
    if wanted == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device cuda was asked for and torch sees none; use auto or cpu")
    return torch.device(wanted)


def training_precision(device: torch.device) -> torch.dtype:
    """bfloat16 on a GPU that computes in it, float32 elsewhere. Weights, losses and updates stay float32."""
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32


def build_network(base: Base, role: str) -> nn.Module:
    """The bare network of a role with upstream's names; `content` and `bert` are folders of their own kind."""
    build = {**_SHARED, **family_of(base).bare}.get(role)
    if build is None:
        raise ConfigError(f"base {base.name} has no network for the role {role}")
    return build(base)


def _bare_text2semantic(base: Base) -> nn.Module:
    if base.text2semantic is None:
        raise ConfigError(f"base {base.name} has no network for the role text2semantic")
    return Text2Semantic(base.text2semantic)


def _bare_speaker(base: Base) -> nn.Module:
    return SpeakerEncoder(base.speaker or SpeakerEncoderConfig())


_SHARED: dict[str, Callable[[Base], nn.Module]] = {"text2semantic": _bare_text2semantic, "speaker": _bare_speaker}


def load_text2semantic(base: Base, cache: Path) -> Text2Semantic:
    """The text-to-semantic network, in eval mode, frozen, on the CPU."""
    if base.text2semantic is None:
        raise ConfigError(f"base {base.name} has no text-to-semantic network")
    return load_network(base, "text2semantic", cache, partial(Text2Semantic, base.text2semantic))


def load_content_encoder(base: Base, cache: Path) -> PhoneEncoder | HubertEncoder:
    """What turns 16 kHz speech into the features that semantic tokens are made of."""
    config: ContentConfig = TypeAdapter(ContentConfig).validate_python(base.content or HubertConfig().model_dump())
    folder = base.weight_path("content", cache) if "content" in base.weights else None
    with _constructing(base, "content"):
        network = build_content_encoder(config, folder)
    if isinstance(network, PhoneEncoder):
        _fill(network, base, "content", cache)
    return _frozen(network)


def load_phone_recogniser(base: Base, cache: Path) -> PhoneEncoder | None:
    """The base's content encoder, where that is one that recognises phones and was trained."""
    if "content" not in base.weights or base.content is None:
        return None
    encoder = load_content_encoder(base, cache)
    return encoder if isinstance(encoder, PhoneEncoder) else None


def load_speaker_encoder(base: Base, cache: Path) -> SpeakerEncoder | None:
    """ERes2NetV2, where the base is conditioned on its vectors; None where GE2E's serve, or none do."""
    if "speaker" not in base.weights:
        return None
    return load_network(base, "speaker", cache, partial(SpeakerEncoder, base.speaker or SpeakerEncoderConfig()))


def load_bert(base: Base, cache: Path, device: torch.device) -> BertFeatures | None:
    """BERT features for Chinese text; None for a base without them, whose network then hears zeros."""
    width = base.text2semantic.bert_dim if base.text2semantic else 0
    if "bert" not in base.weights or not width:
        return None
    return BertFeatures(base.weight_path("bert", cache), device, width)


def read_weights(base: Base, role: str, cache: Path) -> tuple[dict[str, Tensor], Path]:
    """State dict of a role in float32, and its file. Raises `WeightsError` where it is not here or is damaged."""
    path = base.weight_path(role, cache)
    if not path.is_file():
        raise WeightsError(f"{path}: weights of base {base.name} are not here: voxline bases pull {base.name}")
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path}: damaged: {error}") from error
    return {name: value.float() if value.is_floating_point() else value for name, value in state.items()}, path


def load_network(base: Base, role: str, cache: Path, build: Callable[[], Network], *, fold: bool = False) -> Network:
    """The network of a role with its weights, in eval mode, frozen, on the CPU. ``fold``: weight norm, for good."""
    network = _filled(base, role, cache, build)
    if fold:
        fold_weight_norm(network)
    return _frozen(network)


def _filled(base: Base, role: str, cache: Path, build: Callable[[], Network]) -> Network:
    """A new network with the weights of its role, or with its fixed random ones."""
    with _constructing(base, role):
        network = build()
    _fill(network, base, role, cache)
    return network


def _fill(network: nn.Module, base: Base, role: str, cache: Path) -> None:
    if role in base.weights:
        state, path = read_weights(base, role, cache)
        load_weights(network, state, str(path))


@contextmanager
def _constructing(base: Base, role: str) -> Iterator[None]:
    """Random weights of a role depend on the base's name and the role alone; the caller's random state is kept.

    Weights that are loaded in a moment are not drawn at all.
    """
    state = torch.get_rng_state()
    torch.manual_seed(zlib.crc32(f"{base.name}/{role}".encode()))
    try:
        with _Undrawn() if role in base.weights else nullcontext():
            yield
    finally:
        torch.set_rng_state(state)


class _Undrawn(TorchFunctionMode):
    """Inside, the functions of `torch.nn.init` leave a tensor as it is."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def _frozen(network: Network) -> Network:
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    return network.eval()
