"""voxline say"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pipeline.cli.common import JsonOption, RegistryOption
from pipeline.cli.terminal import print_json, tell


def register(app: typer.Typer) -> None:
    app.command("say", rich_help_panel="Using voices")(say)


def say(
    voice: Annotated[str, typer.Argument(help="A published voice.", show_default=False)],
    text: Annotated[str, typer.Argument(help="What to say; `-` reads it from standard input.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", help=".wav, .flac or .ogg")] = Path("out.wav"),
    language: Annotated[str | None, typer.Option(help="zh, en, ja, ko or yue.", show_default="the voice's own")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same audio.")] = 0,
    speed: Annotated[float, typer.Option(min=0.5, max=2.0, help="1 is the voice's own pace, 2 twice as fast.")] = 1.0,
    reference: Annotated[
        list[Path] | None,
        typer.Option(help="Another recording of the speaker to sound like; may be given several times."),
    ] = None,
    channel: Annotated[str, typer.Option(help="production, candidate, or a version.")] = "production",
    registry: RegistryOption = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.", show_default=False)] = None,
    precision: Annotated[
        Literal["f32", "bf16", "int8"],
        typer.Option(help="bf16 and int8 are faster on a CPU and lose a little (docs/networks.md)."),
    ] = "f32",
    as_json: JsonOption = False,
) -> None:
    """Speak a sentence with a published voice. Reads the registry and nothing else.

    voxline say sample "Good morning, everyone." -o morning.wav
    echo "Platform two." | voxline say sample - --seed 3
    """
    import sys

    from pipeline.cli.common import ConsoleReporter, prepare_machine, repository_root, resolve_settings
    from pipeline.io.registry import open_registry

    general = resolve_settings({"voxline.registry": registry, "voxline.device": device}).settings.voxline
    root = repository_root()
    machine = prepare_machine(general)
    from pipeline.stages.speak import speak  # imports torch, which asks the processor

    spoken = speak(
        open_registry(general.registry, root=root),
        voice,
        sys.stdin.read() if text == "-" else text,
        channel=channel,
        language=language,
        seed=seed,
        speed=speed,
        references=reference or (),
        precision=precision,
        output=output,
        machine=machine,
        reporter=ConsoleReporter(quiet=as_json),
    )
    if as_json:
        print_json(spoken)
        return
    tell(f"{output}: {spoken.duration_s:.1f} s, {voice} {spoken.version}")
    heard = [part.phone_error_rate for part in spoken.sentences if part.phone_error_rate is not None]
    if heard:
        tell(f"  phones by the tokens: {max(heard):.0%} errors in the worst sentence")
    for note in spoken.notes:
        tell(f"  {note}", stderr=True)
