"""Pulls a base: its files from the hub or a folder, checked, and converted to safetensors once.

Result: ``<cache>/bases/<name>/<role>.safetensors``, a folder per pretrained encoder, and ``pulled.json`` that says
where each came from. Official pickles are opened by the restricted reader only, and nothing of them is kept.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from models.errors import ModelsError, WeightsError
from models.loading.bases import Base, WeightFile
from models.loading.networks import build_network
from models.upstream.files import read_upstream
from models.upstream.torch_archive import read_torch_archive
from models.weights import load_weights
from pipeline.errors import SettingsError
from pipeline.io.files import write_atomically
from pipeline.io.hub import HUB, From, Log, PulledFile, WantedFile, pull, read_lock, write_lock


def pull_base(
    base: Base,
    *,
    cache: Path,
    lock_path: Path,
    source: From = HUB,
    force: bool = False,
    log: Log = lambda line: None,
) -> list[str]:
    """Make every weights file of a base present in the cache.

    Args:
        lock_path: ``bases.lock`` of the repository; read, and completed after a download from the hub.
        force: pull also what is there already.

    Returns:
        the roles that were pulled; none if all were there.

    Raises:
        SettingsError, TransientError: see ``pipeline.io.hub.pull``; also for a file that is not this network's.
    """
    wanted = [
        want
        for role, file in base.weights.items()
        if (want := _wanted(role, file)) is not None and (force or not base.weight_path(role, cache).exists())
    ]
    if not wanted:
        place = "lies beside its base.yaml" if base.is_embedded else f"is here, {cache / 'bases' / base.name}"
        log(f"{base.name}: everything {place}")
        return []
    lock, downloads = read_lock(lock_path), cache / "downloads"
    files = pull(base.name, wanted, lock=lock, downloads=downloads, source=source, log=log)
    for want in wanted:
        log(f"{want.role}: converting to safetensors")
        _convert(base, want.role, [file for file in files if file.role == want.role], cache)
    write_lock(lock_path, lock, files)
    _note(cache / "bases" / base.name / "pulled.json", files)
    if source.folder is None:
        for file in files:
            file.local.unlink(missing_ok=True)
    return [want.role for want in wanted]


def _wanted(role: str, file: WeightFile) -> WantedFile | None:
    if file.repository is None:
        return None
    return WantedFile(
        role=role,
        repository=file.repository,
        path=file.path,
        revision=file.revision,
        is_folder=file.layout == "folder",
        sha256=file.sha256,
        files=file.files,
        md5_first_8192=file.md5_first_8192,
    )


def _note(path: Path, files: Sequence[PulledFile]) -> None:
    """Add the origin of every file to ``pulled.json``."""
    noted = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for role in {file.role for file in files}:
        noted[role] = [
            {"repository": file.repository, "commit": file.revision, "path": file.path, "sha256": file.sha256}
            for file in files
            if file.role == role
        ]
    write_atomically(path, (json.dumps(noted, indent=2, sort_keys=True) + "\n").encode())


def _convert(base: Base, role: str, files: Sequence[PulledFile], cache: Path) -> None:
    target = base.weight_path(role, cache)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        if base.weights[role].layout == "folder":
            _convert_folder(target, files)
        elif base.weights[role].layout == "upstream":
            _save(target, read_role(base, role, files[0].local))
        else:
            staging = _staging(target)
            shutil.copyfile(files[0].local, staging)
            staging.replace(target)
    except ModelsError as error:
        raise SettingsError(
            str(error), hint=f"see `voxline bases show {base.name}` for the file this should be"
        ) from error


def read_role(base: Base, role: str, path: Path) -> dict[str, Tensor]:
    """The weights of a GPT-SoVITS file, if they are exactly those of this base's network.

    Raises:
        WeightsError: naming the file with its missing and unexpected keys, or the wrong shape.
    """
    file = read_upstream(path)
    with torch.device("meta"):  # names and shapes only
        network = build_network(base, role)
    load_weights(network, file.weights, str(path))
    return file.weights


def _save(target: Path, weights: dict[str, Tensor]) -> None:
    """Write safetensors beside the target and move it there; tensors that shared memory are written apart."""
    staging = _staging(target)
    save_file({name: value.clone().contiguous() for name, value in weights.items()}, staging, metadata={"format": "pt"})
    staging.replace(target)


def _staging(target: Path) -> Path:
    """Where a file or folder is made before it takes its name; two pulls at once do not meet."""
    return target.with_name(f".{target.name}.{os.getpid()}.part")


def _convert_folder(target: Path, files: Sequence[PulledFile]) -> None:
    """A pretrained encoder's folder: its tables as they are, its weights as ``model.safetensors``."""
    staging = _staging(target)
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    for file in files:
        if file.local.suffix != ".bin":
            shutil.copyfile(file.local, staging / file.local.name)
            continue
        state = read_torch_archive(file.local)
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            raise WeightsError(f"{file.local}: holds no state dict")
        _save(staging / "model.safetensors", state)
    if not list(staging.glob("*.safetensors")):
        raise WeightsError(f"{target.name}: no weights among {', '.join(file.path for file in files)}")
    shutil.rmtree(target, ignore_errors=True)
    staging.replace(target)
