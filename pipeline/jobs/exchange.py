"""Voices out to GPT-SoVITS and in from it: its own file formats on one side, releases and bases on the other.

Out: a release becomes the two files its web interface and its API load. In: somebody's fine-tuned files become a base
of this repository, because a full fine-tune is no low-rank adapter; every number stays exactly what the file holds.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path, PurePosixPath
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.adapters.lora import merge_adapter
from models.errors import ModelsError, WeightsError
from models.loading.bases import Base
from models.loading.family import family_of
from models.loading.networks import build_network, load_text2semantic
from models.upstream.files import (
    TRAINING_ONLY,
    UpstreamFile,
    read_upstream,
    synthesizer_config,
    text2semantic_config,
    write_synthesizer,
    write_text2semantic,
)
from models.upstream.lora import upstream_lora_merge, upstream_lora_split
from models.weights import load_weights, require_finite
from pipeline.errors import ConsentError, SettingsError, UsageError
from pipeline.io.files import open_regular
from pipeline.records.adapter import ADAPTER_FOLDER
from pipeline.records.release import Release

NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,62}")
ROLES = {"text2semantic": "text2semantic", "synthesizer": "synthesizer", "synthesizer-lora": "synthesizer"}
COPIED = ("card.md", "reference")
EXPORTED = (ADAPTER_FOLDER, *COPIED)  # what is read of a release

Log = Callable[[str], None]


# -- out ----------------------------------------------------------------------------------------------------------


def export_release(release: Release, folder: Path, base: Base, target: Path, *, cache: Path, today: date) -> list[Path]:
    """Write a release as files that GPT-SoVITS loads, with its card and reference recordings beside them.

    Args:
        folder: the release's files.
        target: folder to write into; made if it is not there.

    Returns:
        what was written: ``<voice>-<version>.ckpt`` and ``<voice>_<version>.pth`` (``..._l<rank>.pth`` for v3 and v4),
        each only if the release adapts that network, then the copies.

    Raises:
        ConsentError: the speaker's consent has expired.
        SettingsError: GPT-SoVITS has no files for this base, or its weights are not here.
    """
    if release.consent.has_expired(today):
        raise ConsentError(
            f"{release.voice}: consent expired on {release.consent.expires_on}",
            hint="ask for it again; until then the voice cannot be handed on",
        )
    if base.upstream_version is None or family_of(base).export is None:
        raise SettingsError(
            f"{release.voice}: base {base.name} is voxline's own; GPT-SoVITS has no network of this shape",
            hint="train the voice on one of the gpt-sovits bases, see `voxline bases list`",
        )
    target.mkdir(parents=True, exist_ok=True)
    try:
        written = _export_text2semantic(release, folder, base, target, cache)
        written += _export_synthesizer(release, folder, base, target, cache)
    except ModelsError as error:
        raise SettingsError(str(error), hint=f"voxline bases pull {base.name}") from error
    if not written:
        raise SettingsError(f"{release.voice} {release.version}: the release holds no adapter")
    for name in release.files:
        if PurePosixPath(name).parts[0] in COPIED:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, target / name)
    return [*written, *(target / name for name in COPIED if (target / name).exists())]


def _export_text2semantic(release: Release, folder: Path, base: Base, target: Path, cache: Path) -> list[Path]:
    adapter = folder / ADAPTER_FOLDER / "text2semantic"
    if not adapter.is_dir() or base.text2semantic is None:
        return []
    network = load_text2semantic(base, cache)
    merge_adapter(network, adapter)
    path = target / f"{release.voice}-{release.version}.ckpt"
    write_text2semantic(path, network.state_dict(), text2semantic_config(base.text2semantic), _info(release))
    return [path]


def _export_synthesizer(release: Release, folder: Path, base: Base, target: Path, cache: Path) -> list[Path]:
    adapter = folder / ADAPTER_FOLDER / "synthesizer"
    version, export = base.upstream_version, family_of(base).export
    if not adapter.is_dir() or version is None or export is None:
        return []
    exported = export(base, cache, adapter)
    rank = exported.lora_rank
    path = target / f"{release.voice}_{release.version}{'' if rank is None else f'_l{rank}'}.pth"
    numbers = synthesizer_config(exported.numbers, version)
    write_synthesizer(path, exported.weights, numbers, _info(release), version, lora_rank=rank)
    return [path]


def _info(release: Release) -> str:
    return f"voxline {release.voice} {release.version}"


# -- in -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FileReport:
    """What a GPT-SoVITS file is.

    Attributes:
        fits: names of the bases whose network has exactly these weights, or which the LoRA file adapts.
    """

    path: Path
    kind: str
    version: str | None
    info: str
    lora_rank: int | None
    tensors: int
    parameters: int
    sha256: str
    fits: tuple[str, ...]


def inspect_file(path: Path, bases: Sequence[Base]) -> FileReport:
    """Read a file, safely, and say what it is.

    Raises:
        SettingsError: it is none of GPT-SoVITS's, damaged, or not safe to read.
    """
    file = _read(path)
    with open_regular(path) as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    fits = tuple(base.name for base in bases if file.kind in ROLES and _mismatch(file, base) is None)
    return FileReport(
        path=path,
        kind=file.kind,
        version=file.version,
        info=file.info,
        lora_rank=file.lora_rank,
        tensors=len(file.weights),
        parameters=sum(value.numel() for value in file.weights.values()),
        sha256=digest,
        fits=fits,
    )


def import_files(
    paths: Sequence[Path], base: Base, name: str, *, own_bases: Path, cache: Path, log: Log = lambda line: None
) -> Path:
    """Make a base of this repository out of fine-tuned files: ``<own_bases>/<name>/`` with base.yaml and safetensors.

    Args:
        base: what the files were trained on; its other networks are taken over.

    Raises:
        UsageError: the name is taken or no name; two files for one network.
        SettingsError: a file does not fit the base, or the base's own weights are not here.
    """
    target = own_bases / name
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot name a base", hint="lower-case letters, digits, - and ., for example ana-v2pro"
        )
    if target.exists():
        raise UsageError(f"{target}: a base of this name already exists", hint="choose another --name")
    files: dict[str, UpstreamFile] = {}
    for path in paths:
        file = _read(path)
        role = ROLES.get(file.kind)
        if role is None or role in files:
            raise UsageError(f"{path}: {'another' if role else 'no'} file of a fine-tuned voice ({file.kind})")
        if (mismatch := _mismatch(file, base)) is not None:
            raise SettingsError(f"{mismatch}; base {base.name}", hint="name the base it was trained on with --base")
        files[role] = file
    staging = own_bases / f".{name}.{os.getpid()}.part"
    staging.mkdir(parents=True)
    try:
        for role, file in files.items():
            log(f"{role}: {file.path.name} ({file.kind}, {file.version or 'any version'}, {file.info})")
            save_file(_whole(file, base, role, cache), staging / f"{role}.safetensors", metadata={"format": "pt"})
        _write_description(staging / "base.yaml", base, name, files)
        _take_over(base, name, files, staging, cache)
        staging.replace(target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def _read(path: Path) -> UpstreamFile:
    try:
        open_regular(path).close()  # a pipe would be waited for
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror or error}", hint="give .ckpt and .pth files") from None
    try:
        file = read_upstream(path)
        require_finite(file.weights, str(path))
        return file
    except WeightsError as error:
        raise SettingsError(str(error), hint="import-adapter takes .ckpt and .pth files of GPT-SoVITS") from error


def _mismatch(file: UpstreamFile, base: Base) -> str | None:
    """Why a file is not one of this base's network, or None if it is."""
    try:
        with torch.device("meta"):
            network = build_network(base, ROLES[file.kind])
        if file.kind == "synthesizer-lora":
            if file.version != base.upstream_version:
                return f"{file.path}: adapts {file.version}"
            upstream_lora_merge(network.state_dict(), _on_meta(file))
        else:
            load_weights(network, file.weights, str(file.path), absent=(TRAINING_ONLY,))
    except ModelsError as error:
        return str(error)
    return None


def _on_meta(file: UpstreamFile) -> Any:
    """The LoRA file's parts without their numbers, for comparing shapes only."""
    shapes = {name: value.to("meta") for name, value in file.weights.items()}
    return upstream_lora_split(
        UpstreamFile(file.path, file.kind, shapes, file.version, file.config, file.info, file.lora_rank)
    )


def _whole(file: UpstreamFile, base: Base, role: str, cache: Path) -> dict[str, Tensor]:
    """All weights of the network: the file's, and the base's where the file holds none (enc_q, or under a LoRA)."""
    with torch.device("meta"):
        names = build_network(base, role).state_dict().keys()
    if file.kind != "synthesizer-lora" and names == file.weights.keys():
        return {name: value.clone().contiguous() for name, value in file.weights.items()}
    path = base.weight_path(role, cache) if role in base.weights else None
    if path is None or not path.is_file():
        raise SettingsError(
            f"{file.path}: needs the weights of base {base.name} for what it leaves out",
            hint=f"voxline bases pull {base.name}",
        )
    own = load_file(path)
    if file.kind == "synthesizer-lora":
        whole = upstream_lora_merge({name: value.float() for name, value in own.items()}, upstream_lora_split(file))
    else:
        whole = {**own, **file.weights}
    return {name: value.clone().contiguous() for name, value in whole.items()}


def _write_description(path: Path, base: Base, name: str, files: Mapping[str, UpstreamFile]) -> None:
    content = yaml.safe_load((base.folder / "base.yaml").read_text(encoding="utf-8"))
    told = ", ".join(f"{file.path.name} ({file.info or file.kind})" for file in files.values())
    content |= {"name": name, "description": f"{told}, fine-tuned with GPT-SoVITS on {base.name}"}
    for role in files:
        content["weights"][role] = {"path": f"{role}.safetensors"}
    content["license"]["notice"] = (
        f"Fine-tuned by others: ask whoever trained {told} for the terms and for the speaker's consent. "
        + content["license"].get("notice", "")
    ).strip()
    path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")


def _take_over(base: Base, name: str, files: Mapping[str, UpstreamFile], staging: Path, cache: Path) -> None:
    """The base's other networks, so that nothing is downloaded twice: linked in the cache, copied beside base.yaml."""
    for role, described in base.weights.items():
        source = base.weight_path(role, cache)
        if role in files or not source.exists():
            continue
        if described.repository is None:
            shutil.copyfile(source, staging / described.path)
            continue
        target = cache / "bases" / name / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, copy_function=_link, dirs_exist_ok=True)
        elif not target.exists():
            _link(source, target)


def _link(source: str | Path, target: str | Path) -> None:
    """A hard link, or a copy where the file system has none."""
    try:
        os.link(source, target)
    except FileExistsError:
        return
    except OSError:
        shutil.copyfile(source, target)
