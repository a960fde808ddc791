"""voxline export, voxline import-adapter"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.common import ChannelOption, JsonOption, NameArgument, RegistryOption
from pipeline.cli.terminal import print_json, tell


def register(app: typer.Typer) -> None:
    app.command("export", rich_help_panel="Using voices")(export)
    app.command("import-adapter", rich_help_panel="Using voices")(import_adapter)


def export(
    voice: NameArgument,
    format_: Annotated[str, typer.Option("--format", help="gpt-sovits")] = "gpt-sovits",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder to write into.", show_default="VOICE-VERSION")
    ] = None,
    channel: ChannelOption = "production",
    registry: RegistryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write a published voice as files that GPT-SoVITS itself loads.

    A voice on a v2 base becomes merged weights, one on v3 or v4 a LoRA file; half precision, as GPT-SoVITS saves them.

        voxline export ana --format gpt-sovits -o ana-files
    """
    from datetime import UTC, datetime

    from pipeline.cli.common import registry_of, resolve_settings
    from pipeline.cli.line import open_base
    from pipeline.errors import UsageError
    from pipeline.jobs.exchange import EXPORTED, export_release

    if format_ != "gpt-sovits":
        raise UsageError(f"--format {format_}: only gpt-sovits can be written", hint="leave --format out")
    settings = resolve_settings({"voxline.registry": registry}).settings
    general = settings.voxline
    release, folder = registry_of(settings, flag=registry).verified(voice, channel, below=EXPORTED)
    written = export_release(
        release,
        folder,
        open_base(release.base, general),
        output or Path(f"{voice}-{release.version}"),
        cache=general.cache_folder,
        today=datetime.now(UTC).date(),
    )
    if as_json:
        print_json({"voice": voice, "version": release.version, "files": [str(path) for path in written]})
        return
    for path in written:
        tell(str(path))


def import_adapter(
    files: Annotated[list[Path], typer.Argument(help=".ckpt and .pth files of GPT-SoVITS.", show_default=False)],
    base: Annotated[
        str | None, typer.Option("--base", help="What they were trained on.", show_default="the one that fits")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Make them a base of this repository.", show_default=False)
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Read files that GPT-SoVITS wrote, without trusting them; with --name, make them a base voices can be built on.

    Without --name it only says what they are and which bases they fit. Pickles are never executed: a file that asks for
    anything but tensors and settings is refused by name.

        voxline import-adapter ana-e15.ckpt ana_e8_s64.pth
        voxline import-adapter ana-e15.ckpt ana_e8_s64.pth --base gpt-sovits-v2pro --name ana-v2pro
    """
    from dataclasses import asdict

    from models.loading.bases import find_base, find_bases
    from pipeline.cli.common import ConsoleReporter, repository_root, resolve_settings
    from pipeline.errors import UsageError
    from pipeline.jobs.exchange import import_files, inspect_file

    general = resolve_settings().settings.voxline
    own = repository_root() / general.bases
    known = [find_base(each, own, general.replaced_bases) for each in ([base] if base else find_bases(own))]
    reports = [inspect_file(path, known) for path in files]
    if as_json:
        print_json([{**asdict(report), "path": str(report.path)} for report in reports])
    else:
        for report in reports:
            rank = f", rank {report.lora_rank}" if report.lora_rank else ""
            fits = ", ".join(report.fits) or "no base here"
            described = f"{report.kind}{rank}, {report.version or 'any version'}, {report.parameters / 1e6:.1f} M"
            tell(f"{report.path}: {described}; fits {fits}")
    if name is None:
        return
    common = [each for each in known if all(each.name in report.fits for report in reports)]
    if not common or (base is None and len(common) > 1):
        options = ", ".join(each.name for each in common) or "none"
        raise UsageError(f"bases that all files fit: {options}", hint="name the one they were trained on with --base")
    made = import_files(
        files,
        common[0],
        name,
        own_bases=own,
        cache=general.cache_folder,
        log=ConsoleReporter(quiet=as_json).log,
    )
    if not as_json:
        tell(f"{made}: a base like any other; `base: {name}` in voice.yaml, or voxline bases show {name}")
