"""Low-rank adapters (LoRA, by peft) on the networks here: put in, collected, saved, loaded, merged.

Functions over modules: a network is not wrapped, so its methods and names stay. Weight norm has to be folded before
(`fold_weight_norm`). Files follow peft: `adapter_config.json` and `adapter_model.safetensors`.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from models.blocks.weight_norm import NORMED
from models.compat import prepare_torchaudio
from models.errors import WeightsError, shorten
from models.weights import require_finite

ADAPTER = "default"  # peft's name for the only adapter of a module
FILE_PREFIX = "base_model.model."  # peft's files carry it, in front of the names of the network
CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
MAX_CONFIG_BYTES = 1 << 20


def inject(
    network: nn.Module, targets: Sequence[str], rank: int, alpha: float | None = None, dropout: float = 0.0
) -> list[str]:
    """Put fresh adapters (no effect yet) on the modules named in `targets`; everything else stops training.

    alpha None means rank, that is a scale of 1. Returns the names of the adapted modules. Raises `WeightsError` for
    names that are not in the network, and for modules whose weight norm is not folded.
    """
    _adaptable(network, targets)
    _inject(network, _config(targets, rank, rank if alpha is None else alpha, dropout))
    return adapted_modules(network)


def _adaptable(network: nn.Module, targets: Sequence[str]) -> dict[str, nn.Module]:
    """The modules of these names; raises `WeightsError` where one cannot carry an adapter."""
    named = dict(network.named_modules())
    absent = [name for name in targets if name not in named]
    if absent or not targets:
        raise WeightsError.keys_differ("adapter targets", absent or ["(no target given)"], [])
    normed = [name for name in targets if isinstance(named[name], NORMED)]
    if normed:
        raise WeightsError(f"fold the weight norm of {normed[0]} and {len(normed) - 1} others before adapting them")
    other = [name for name in targets if not isinstance(named[name], nn.Linear | nn.Conv1d)]
    if other:
        raise WeightsError(f"adapters go on linear layers and plain convolutions: {shorten(other[0])} is neither")
    return {name: named[name] for name in targets}


def _peft() -> Any:
    prepare_torchaudio()  # peft imports torchaudio, which does not import beside a CPU torch without this
    import peft

    return peft


def _config(targets: Sequence[str], rank: int, alpha: float, dropout: float) -> Any:
    return _peft().LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=sorted(targets), bias="none"
    )


def _inject(network: nn.Module, config: Any) -> None:
    _peft().inject_adapter_in_model(config, network, ADAPTER)


def is_adapted(module: nn.Module) -> bool:
    return hasattr(module, "lora_A") and hasattr(module, "get_base_layer")


def _layers(network: nn.Module) -> Iterator[tuple[str, Any]]:
    for name, module in network.named_modules():
        if is_adapted(module):
            yield name, module


def adapted_modules(network: nn.Module) -> list[str]:
    """Names of the modules that carry an adapter."""
    return [name for name, _ in _layers(network)]


def adapter_parameters(network: nn.Module) -> list[nn.Parameter]:
    """The parameters that belong to adapters, for an optimizer."""
    return [parameter for name, parameter in network.named_parameters() if "lora_" in name]


def adapter_state(network: nn.Module) -> dict[str, Tensor]:
    """Adapter weights by name, without the rest of the network: `<module>.lora_A.weight`, `<module>.lora_B.weight`."""
    return {_short(name): value.clone() for name, value in network.state_dict().items() if "lora_" in name}


def _short(name: str) -> str:
    """A name without peft's name of the adapter in it."""
    return name.replace(f".{ADAPTER}.", ".")


def set_adapter_state(network: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Copy adapter weights into an injected network; raises `WeightsError` unless names and shapes are the same."""
    own = {_short(name): value for name, value in network.state_dict().items() if "lora_" in name}
    _check_shapes(state, {name: value.shape for name, value in own.items()}, source)
    with torch.no_grad():
        for name, value in state.items():
            own[name].copy_(value)


def _check_shapes(state: Mapping[str, Tensor], expected: Mapping[str, Sequence[int]], source: str) -> None:
    missing, unexpected = expected.keys() - state.keys(), state.keys() - expected.keys()
    if missing or unexpected:
        raise WeightsError.keys_differ(source, missing, unexpected)
    for name, value in state.items():
        if list(value.shape) != list(expected[name]):
            raise WeightsError(f"{source}: {name} has shape {list(value.shape)}, not {list(expected[name])}")


def scaled(state: dict[str, Tensor], share: float) -> dict[str, Tensor]:
    """Adapter weights that change the network by `share` of what `state` does."""
    return {name: value * share if ".lora_B." in name else value for name, value in state.items()}


def save_adapter(network: nn.Module, folder: Path, base: str) -> None:
    """Write the adapter of `network` into `folder`, in float16; `base` names what it was trained on.

    Raises `WeightsError` where there is no adapter, or a weight that float16 cannot hold.
    """
    folder.mkdir(parents=True, exist_ok=True)
    layers = dict(_layers(network))
    if not layers:
        raise WeightsError(f"{folder}: the network carries no adapter to save")
    first = next(iter(layers.values()))
    config = _config(list(layers), first.r[ADAPTER], first.lora_alpha[ADAPTER], 0.0)
    config.base_model_name_or_path, config.inference_mode = base, True
    config.save_pretrained(folder)
    _sort_targets(folder / CONFIG_FILE)
    kept = {name: value.to("cpu", torch.float16).contiguous() for name, value in adapter_state(network).items()}
    require_finite(kept, str(folder / WEIGHTS_FILE))
    for name, value in kept.items():
        if ".lora_B." in name and not value.any():  # without effect: its random half need not be kept
            kept[name.replace(".lora_B.", ".lora_A.")].zero_()
    state = {FILE_PREFIX + name: value for name, value in kept.items()}
    save_file(state, folder / WEIGHTS_FILE, metadata={"format": "pt"})


def _sort_targets(path: Path) -> None:
    """peft writes a set in the order of this process; the same adapter has to be the same bytes."""
    content = json.loads(path.read_text(encoding="utf-8"))
    content["target_modules"].sort()
    path.write_text(json.dumps(content, indent=2, sort_keys=True), encoding="utf-8")


def load_adapter(network: nn.Module, folder: Path) -> str:
    """Inject and fill the adapter that `save_adapter` wrote; returns the name of its base.

    Raises `WeightsError` when files are missing, damaged, or made for another network.
    """
    config, state = read_adapter(folder)
    inject(network, config["target_modules"], config["r"], config["lora_alpha"])
    set_adapter_state(network, state, str(folder / WEIGHTS_FILE))
    return config["base_model_name_or_path"] or ""


def merge_adapter(network: nn.Module, folder: Path) -> nn.Module:
    """What `load_adapter` and `merge` give, to the bit, without peft: to import it takes longer than to load a voice.

    Raises `WeightsError` as `load_adapter` does, before anything is changed.
    """
    targets, state, scale = fitting_adapter(network, folder)
    for name, module in targets.items():
        a, b = state[f"{name}.lora_A.weight"], state[f"{name}.lora_B.weight"]
        change = b @ a if a.dim() == 2 else F.conv1d(a.transpose(0, 1), b).transpose(0, 1)
        module.weight.data = module.weight.data + change * scale
    return network


def fitting_adapter(network: nn.Module, folder: Path) -> tuple[dict[str, Any], dict[str, Tensor], float]:
    """The modules that the adapter in a folder changes, its weights, and their scale alpha / rank.

    Raises `WeightsError` as `load_adapter` does.
    """
    config, state = read_adapter(folder)
    targets: dict[str, Any] = _adaptable(network, config["target_modules"])
    expected: dict[str, list[int]] = {}
    for name, module in targets.items():
        (n_out, *n_in), rank = module.weight.shape, config["r"]
        expected[f"{name}.lora_A.weight"] = [rank, *n_in]
        expected[f"{name}.lora_B.weight"] = [n_out, rank, *(1 for _ in n_in[1:])]
    _check_shapes(state, expected, str(folder / WEIGHTS_FILE))
    return targets, state, config["lora_alpha"] / config["r"]


def read_adapter(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Config and weights (names of the network) of an adapter folder.

    Raises `WeightsError` for files that are missing, damaged or contradict each other. What passes costs no more memory
    than the weights have bytes: the rank is theirs, not only the config's word.
    """
    config = _read_config(folder / CONFIG_FILE)
    if not (folder / WEIGHTS_FILE).is_file():  # a pipe would be waited for
        raise WeightsError(f"{folder}: not a readable adapter: {WEIGHTS_FILE} is missing or no file")
    try:
        loaded = load_file(folder / WEIGHTS_FILE)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{folder}: not a readable adapter: {error}") from error
    state = {name.removeprefix(FILE_PREFIX): value.float() for name, value in loaded.items()}
    require_finite(state, str(folder / WEIGHTS_FILE))
    _check_rank(config, state, folder)
    return config, state


def _read_config(path: Path) -> dict[str, Any]:
    """adapter_config.json of a plain LoRA adapter, its few values of the right kind."""
    if not path.is_file():  # a pipe would be waited for
        raise WeightsError(f"{path.parent}: not a readable adapter: {path.name} is missing or no file")
    try:
        with path.open("rb") as stream:
            config = json.loads(stream.read(MAX_CONFIG_BYTES))
    except (OSError, ValueError, RecursionError) as error:  # so deep that the parser gives up
        raise WeightsError(f"{path.parent}: not a readable adapter: {path.name}: {shorten(str(error))}") from error
    if not isinstance(config, dict):
        raise WeightsError(f"{path.parent}: not a readable adapter: {path.name} holds no table of keys")
    if config.get("peft_type") != "LORA" or config.get("use_dora") or config.get("use_rslora"):
        raise WeightsError(f"{path}: not a plain LoRA adapter")
    rank, alpha, targets = config.get("r"), config.get("lora_alpha"), config.get("target_modules")
    if type(rank) is not int or rank < 1:
        raise WeightsError(f"{path}: r: {_quoted(rank)} is no rank; a whole number from 1")
    if not isinstance(alpha, int | float) or isinstance(alpha, bool) or not 0 < alpha < math.inf:
        raise WeightsError(f"{path}: lora_alpha: {_quoted(alpha)} is no scale; a number above 0")
    if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
        raise WeightsError(f"{path}: target_modules: {_quoted(targets)} is no list of names")
    if not isinstance(config.get("base_model_name_or_path"), str | None):
        raise WeightsError(f"{path}: base_model_name_or_path: {_quoted(config['base_model_name_or_path'])} is no name")
    return config


def _check_rank(config: dict[str, Any], state: dict[str, Tensor], folder: Path) -> None:
    """A and B of every target, of the rank that the config names: else its word alone would size the network."""
    rank = config["r"]
    for target in config["target_modules"]:
        for half, axis in (("A", 0), ("B", 1)):
            value = state.get(f"{target}.lora_{half}.weight")
            if value is None:
                raise WeightsError.keys_differ(str(folder / WEIGHTS_FILE), [f"{target}.lora_{half}.weight"], [])
            if value.dim() <= axis or value.shape[axis] != rank:
                raise WeightsError(
                    f"{folder}: {CONFIG_FILE} says rank {_quoted(rank)}, but {shorten(target)}.lora_{half} has shape "
                    f"{list(value.shape)}"
                )


def _quoted(value: object) -> str:
    try:
        return shorten(json.dumps(value))
    except ValueError:  # an integer of five thousand digits
        return "a huge number"


def merge(network: nn.Module) -> nn.Module:
    """Add every adapter to the weights beneath it and take it out; returns the network."""
    for name, layer in list(_layers(network)):
        layer.merge(safe_merge=True)
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, layer.get_base_layer())
    return network


@contextmanager
def adapters_off(network: nn.Module) -> Iterator[None]:
    """The bare base inside the block."""
    layers = [layer for _, layer in _layers(network)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


def effective_linear(module: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weight (out, in) and bias of a linear layer as it acts now, an active adapter included."""
    base: Any = module
    weight_change: Tensor | None = None
    if is_adapted(module):
        layer: Any = module
        base = layer.get_base_layer()
        if not layer.disable_adapters and not layer.merged:
            weight_change = layer.get_delta_weight(ADAPTER).detach()
    weight = base.weight.detach()
    bias = None if base.bias is None else base.bias.detach()
    return weight if weight_change is None else weight + weight_change, bias


def count_parameters(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)
