"""voxline doctor"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import typer

from pipeline.cli.common import JsonOption

# What each extra brings, by the module that proves it is there.
EXTRAS = {
    "audio": (
        "numpy",
        "scipy",
        "soundfile",
        "soxr",
        "pyloudnorm",
        "webrtcvad",
        "onnxruntime",
        "pesq",
        "pystoi",
        "jinja2",
    ),
    "train": ("torch", "torchaudio", "peft", "transformers", "safetensors", "resemblyzer", "df"),
    "hub": ("huggingface_hub",),
}


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
    """Say what is installed, which GPU and caches there are, which bases are usable, and what to do about the rest.

    Exit 0 when a voice can be trained with the default base, else 3.

        voxline doctor
        voxline doctor --json
    """
    from pipeline.cli.common import console, print_json
    from pipeline.errors import SettingsError

    findings = [*_python(), *_packages(), *_gpu(), *_caches(), *_programs(), *_bases()]
    needed = [one for one in findings if one.state == "missing" and one.topic in ("python", "packages", "default base")]
    if as_json:
        print_json({"ready": not needed, "findings": [asdict(one) for one in findings]})
    else:
        from rich.table import Table

        marks = {"ok": "[green]ok[/green]", "missing": "[red]missing[/red]", "note": "[yellow]note[/yellow]"}
        table = Table("", "what", "", "found", "to do", box=None, header_style="bold")
        for one in findings:
            table.add_row(marks[one.state], one.topic, one.name, one.detail, one.advice)
        console().print(table)
    if needed:
        raise SettingsError(f"{len(needed)} things are missing: {', '.join(one.name for one in needed)}")


def _python() -> list[Finding]:
    import platform

    return [Finding("python", "python", "ok", f"{platform.python_version()} on {platform.platform(terse=True)}")]


def _packages() -> list[Finding]:
    """Looked up without importing, so that a broken one cannot take the doctor down."""
    from importlib import metadata
    from importlib.util import find_spec

    owners = metadata.packages_distributions()
    findings = []
    for extra, modules in EXTRAS.items():
        for module in modules:
            if find_spec(module) is None:
                state: Literal["missing", "note"] = "note" if extra == "hub" else "missing"
                findings.append(Finding("packages", module, state, f"extra {extra}", f"pip install 'voxline[{extra}]'"))
                continue
            owner = owners.get(module, [module])[0]
            findings.append(Finding("packages", module, "ok", f"{owner} {metadata.version(owner)}"))
    return findings


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
    for name, path in (("work", repository_root() / general.work), ("cache", Path(general.cache).expanduser())):
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
