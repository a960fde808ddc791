"""Makes a CUDA-linked torchaudio importable beside a CPU build of torch.

There is no CPU build of torchaudio 2.11: its extension is linked to CUDA and raises ``OSError`` at import on a CPU
torch. peft imports it through transformers, so peft would break with it. Nothing here uses the extension, so its
loader is replaced, without touching any file. This module is the bottom of both packages: standard library only.
"""

from __future__ import annotations

import importlib.machinery
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any


def prepare_torchaudio() -> bool:
    """Replace torchaudio's extension loader if it cannot be loaded here. Costs a millisecond; call it before
    importing peft.

    Returns:
        True if the replacement is in place, False where none is needed (CUDA torch, no torchaudio).
    """
    torch_folder, torchaudio_folder = _package_folder("torch"), _package_folder("torchaudio")
    if "torchaudio" in sys.modules or torch_folder is None or torchaudio_folder is None:
        return "torchaudio._extension" in sys.modules
    has_extension = (torchaudio_folder / "lib" / "_torchaudio.abi3.so").exists()
    has_cuda_torch = (torch_folder / "lib" / "libc10_cuda.so").exists()
    if not has_extension or has_cuda_torch:
        return False
    sys.modules["torchaudio._extension"] = _extension_without_library()
    return True


def _package_folder(name: str) -> Path | None:
    spec = importlib.machinery.PathFinder.find_spec(name)
    return Path(spec.origin).parent if spec and spec.origin else None


def _extension_without_library() -> types.ModuleType:
    module: Any = types.ModuleType("torchaudio._extension")
    module._IS_TORCHAUDIO_EXT_AVAILABLE = False
    module._IS_ALIGN_AVAILABLE = False
    module._check_cuda_version = lambda: None

    def fail_if_no_align(function: Callable[..., Any]) -> Callable[..., Any]:
        def unavailable(*_: Any, **__: Any) -> Any:
            raise RuntimeError(
                f"{function.__name__} needs torchaudio's compiled extension, which this torch build cannot load"
            )

        return unavailable

    module.fail_if_no_align = fail_if_no_align
    loader: types.ModuleType = module
    return loader


def prepare_deepfilternet() -> None:
    """Give deepfilternet 0.5.6 what it imports from torchaudio and torchaudio 2.11 no longer has: an unused type."""
    prepare_torchaudio()
    if "torchaudio.backend.common" in sys.modules:
        return
    backend: Any = types.ModuleType("torchaudio.backend")
    backend.__path__ = []
    common: Any = types.ModuleType("torchaudio.backend.common")
    common.AudioMetaData = type("AudioMetaData", (), {})
    backend.common = common
    sys.modules["torchaudio.backend"] = backend
    sys.modules["torchaudio.backend.common"] = common
