"""voxline doctor"""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Literal

import typer

from pipeline.cli.common import JsonOption
from pipeline.cli.terminal import print_json, tell

if TYPE_CHECKING:
    from models.machine.processor import Part

# Extras without which no voice is trained; the others are worth a remark.
NEEDED_EXTRAS = ("core", "audio", "train")
EXTRAS = (*NEEDED_EXTRAS, "hub", "s3", "ears", "serve", "lang-en", "lang-zh", "lang-ja", "lang-ko", "lang-yue")
REQUIREMENT = re.compile(r"([\w.-]+)(?:==([^\s;]+))?\s*(?:;.*extra == ['\"]([\w-]+)['\"])?")


@dataclass(frozen=True)
class Finding:
    """One thing looked at. ``advice``: what to type, where something is missing."""

    topic: str
    name: str
    state: Literal["ok", "missing", "note"]
    detail: str
    advice: str = ""


def register(app: typer.Typer) -> None:
    app.command("doctor", rich_help_panel="Setting up")(doctor)


def doctor(as_json: JsonOption = False) -> None:
    """Say what is installed, what processor, GPU, caches and bases there are, and what to do about the rest.

    Asks the configured registry whether it can be used.

    Exit 0 when a voice can be trained with the default base, else 3.

        voxline doctor
        voxline doctor --json
    """
    from pipeline.cli.common import prepare_machine, resolve_settings
    from pipeline.errors import SettingsError

    prepare_machine(resolve_settings().settings.voxline)
    parts = (_python, _packages, _processor, _gpu, _caches, _programs, _bases, _artifacts, _registry)
    findings = [finding for part in parts for finding in part()]
    needed = [one for one in findings if one.state == "missing" and one.topic in ("python", "packages", "default base")]
    if as_json:
        print_json({"ready": not needed, "findings": [asdict(one) for one in findings]})
    else:
        from rich.text import Text

        styles = {"ok": "green", "missing": "red", "note": "yellow"}
        for one in findings:
            start = Text.assemble((f"{one.state:8}", styles[one.state]), f"{one.topic:13} {one.name}: {one.detail}")
            tell(start)  # whole lines, so that they can be copied
            if one.advice:
                tell(f"{'':22} -> {one.advice}")
    if needed:
        raise SettingsError(f"missing: {', '.join(one.name for one in needed)}", hint=needed[0].advice)


def _python() -> list[Finding]:
    import platform

    return [Finding("python", "python", "ok", f"{platform.python_version()} on {platform.platform(terse=True)}")]


def _packages() -> list[Finding]:
    """Each extra against its own metadata, without importing, so that a broken package cannot take the doctor down."""
    from importlib import metadata

    wanted: dict[str, list[tuple[str, str]]] = {extra: [] for extra in EXTRAS}
    try:
        requirements = metadata.requires("voxline") or []
    except metadata.PackageNotFoundError:
        return [Finding("packages", "voxline", "missing", "not installed, run from its folder", "make install")]
    for line in requirements:
        match = REQUIREMENT.match(line)
        if match and (match[3] or "core") in wanted and match[1] != "voxline":
            wanted[match[3] or "core"].append((match[1], match[2] or ""))
    wanted["train"] = [package for package in wanted["train"] if package not in wanted["audio"]]
    return [finding for extra, packages in wanted.items() for finding in _extra(extra, packages)]


def _extra(extra: str, packages: list[tuple[str, str]]) -> list[Finding]:
    """One line for an extra that is complete, else one for each package that is missing or another version."""
    found = {name: _installed_version(name) for name, _ in packages}
    advice = f"pip install 'voxline[{extra}]'"
    findings = []
    for name, version in packages:
        here = found[name]
        if here is None:
            state: Literal["missing", "note"] = "missing" if extra in NEEDED_EXTRAS else "note"
            findings.append(Finding("packages", name, state, f"extra {extra}", _how_to_get(name, advice)))
        elif version and here.partition("+")[0] != version:
            findings.append(Finding("packages", name, "note", f"{here}, tested with {version}", advice))
    count = f"{sum(version is not None for version in found.values())} of {len(packages)} packages"
    if not any(found.values()) and packages:
        state = "missing" if extra in NEEDED_EXTRAS else "note"
        return [Finding("packages", extra, state, count, advice)]
    return findings or [Finding("packages", extra, "ok", count)]


def _installed_version(name: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _how_to_get(name: str, advice: str) -> str:
    if name == "pesq":  # the only one without a wheel
        return f"apt-get install gcc python3-dev, then {advice}; or make install, which needs neither"
    return advice


def _processor() -> list[Finding]:
    """What the kernels say when they are tried, and what follows for the precision of networks."""
    import platform
    from importlib.util import find_spec

    cores = f"{os.cpu_count()} cores"
    if find_spec("torch") is None:
        return [Finding("processor", "architecture", "ok", f"{platform.machine()}, {cores}")]
    from models.machine.processor import architecture, instructions, works

    parts = [_part("onednn", "quick matrix products"), _part("bf16", "multiplied in hardware"), _part("int8", "works")]
    offered = " or ".join(part.name for part in parts[1:] if part.state == "ok")
    chosen = "float32" + (", bfloat16 in networks that only listen" if works("bf16") else "")
    chosen += f"; say --precision {offered} on request" if offered else ""
    return [
        Finding("processor", "architecture", "ok", f"{architecture()}, {cores}"),
        Finding("processor", "instructions", "ok", f"{instructions()}, as torch uses them"),
        *parts,
        Finding("processor", "precision", "ok", chosen),
    ]


def _part(part: Part, good: str) -> Finding:
    from models.machine.processor import claims_bfloat16, fault, lack
    from models.machine.switches import is_off

    reason = lack(part)
    if reason and not is_off(part) and (part != "bf16" or claims_bfloat16()):
        reason += f": {fault(part)}"
    advice = "voxline settings --explain says where voxline.processor comes from" if is_off(part) else ""
    return Finding("processor", part, "note" if reason else "ok", reason or good, advice)


def _gpu() -> list[Finding]:
    from importlib.util import find_spec

    if find_spec("torch") is None:
        return []
    import torch

    if not torch.cuda.is_available():
        detail = (
            "none; networks run on the CPU"
            if torch.version.cuda is None
            else "torch was built for CUDA, no GPU is visible"
        )
        return [Finding("gpu", "cuda", "note", detail, "nano needs none; the GPT-SoVITS bases want one")]
    properties = torch.cuda.get_device_properties(0)
    return [Finding("gpu", "cuda", "ok", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")]


def _caches() -> list[Finding]:
    import shutil

    from pipeline.cli.common import repository_root, resolve_settings

    general = resolve_settings().settings.voxline
    findings = []
    for name, path in (("work", repository_root() / general.work), ("cache", general.cache_folder)):
        held = next(folder for folder in (path, *path.parents) if folder.exists())
        free_gib = shutil.disk_usage(held).free / 2**30
        advice = "" if free_gib > 2 else "free some space"
        findings.append(
            Finding("disk", name, "ok" if not advice else "note", f"{path}, {free_gib:.0f} GiB free", advice)
        )
    return findings


def _programs() -> list[Finding]:
    import shutil

    needs = {
        "git": ("plans are made from Git revisions", "apt-get install git"),
        "ffmpeg": ("only for .m4a recordings", "apt-get install ffmpeg"),
    }
    findings = []
    for name, (purpose, advice) in needs.items():
        found = shutil.which(name)
        findings.append(Finding("programs", name, "ok" if found else "note", found or purpose, "" if found else advice))
    return findings


def _bases() -> list[Finding]:
    from pipeline.cli.bases import all_bases, describe
    from pipeline.cli.common import resolve_settings

    default = resolve_settings().settings.voxline.base
    findings = []
    for base in all_bases():
        told = describe(base)
        topic = "default base" if base.name == default else "bases"
        state: Literal["ok", "missing", "note"] = (
            "ok" if told["usable"] else "missing" if base.name == default else "note"
        )
        state = "note" if told["weights"] == "random" else state
        findings.append(Finding(topic, base.name, state, told["weights"], told["advice"]))
    if not any(one.topic == "default base" for one in findings):
        findings.append(
            Finding("default base", default, "missing", "no such base", "choose another in pipeline.toml: voxline.base")
        )
    return findings


def _artifacts() -> list[Finding]:
    from pipeline.cli.common import resolve_settings
    from pipeline.io.artifacts.cache import artifact_table, is_pulled

    cache = resolve_settings().settings.voxline.cache_folder
    findings = []
    for artifact in artifact_table().values():
        here = is_pulled(artifact, cache)
        detail = artifact.title if here else f"{artifact.purpose}; {artifact.download_bytes / 1e6:.0f} MB"
        advice = "" if here else f"voxline artifacts pull {artifact.name}"
        findings.append(Finding("artifacts", artifact.name, "ok" if here else "note", detail, advice))
    return findings


def _registry() -> list[Finding]:
    """Whether the configured registry can be reached, and whether it keeps publishers from overwriting each other."""
    from pipeline.cli.common import registry_of, resolve_settings
    from pipeline.errors import PipelineError

    settings = resolve_settings().settings
    try:
        opened = registry_of(settings)
        opened.backend.check()
        detail = f"{len(opened.voices())} voices"
    except PipelineError as error:
        return [Finding("registry", "registry", "missing", error.message, error.hint)]
    if not opened.backend.is_local or not os.environ.get("CI"):
        return [Finding("registry", opened.url, "ok", detail)]
    advice = "a folder of the job's machine goes with it unless it is mounted: docs/ci.md, git:"
    return [Finding("registry", opened.url, "note", detail, advice)]
