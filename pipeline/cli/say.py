"""voxline say"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from pipeline.cli.common import (
    ChannelOption,
    JsonOption,
    RegistryOption,
    check_voice_name,
    complete_speaking,
    complete_words,
)
from pipeline.cli.terminal import print_json, tell, write_sound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pipeline.io.registry.registry import Registry
    from pipeline.io.speakers import Speaker
    from pipeline.records.job import Machine, Reporter
    from pipeline.records.spoken import Spoken

DEFAULT_OUTPUT = "out.wav"
STDOUT = Path("-")


def register(app: typer.Typer) -> None:
    app.command("say", rich_help_panel="Using voices")(say)


def say(
    voice: Annotated[
        str,
        typer.Argument(
            help="A published voice.",
            show_default=False,
            callback=check_voice_name,
            autocompletion=complete_speaking,
        ),
    ],
    text: Annotated[
        str | None, typer.Argument(help="What to say; `-` reads it from standard input.", show_default=False)
    ] = None,
    text_file: Annotated[
        Path | None, typer.Option("--text-file", help="Say what is in this UTF-8 file.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help=".wav, .flac or .ogg; `-` is standard output.",
            show_default="a free out.wav",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over the file that --output names.")] = False,
    language: Annotated[
        str | None,
        typer.Option(
            help="zh, en, ja, ko or yue.",
            show_default="the voice's own",
            autocompletion=complete_words("zh", "en", "ja", "ko", "yue"),
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same audio.")] = 0,
    speed: Annotated[float, typer.Option(min=0.5, max=2.0, help="1 is the voice's own pace, 2 twice as fast.")] = 1.0,
    reference: Annotated[
        list[Path] | None,
        typer.Option(help="Another recording of the speaker to sound like; may be given several times."),
    ] = None,
    channel: ChannelOption = "production",
    candidate: Annotated[
        bool,
        typer.Option("--candidate", help="Speak what was trained here and is blocked, or waits for review."),
    ] = False,
    registry: RegistryOption = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda.", show_default=False)] = None,
    precision: Annotated[
        Literal["f32", "bf16", "int8"],
        typer.Option(help="bf16, int8: faster on a CPU, a little worse; docs/networks.md."),
    ] = "f32",
    lines: Annotated[
        Path | None,
        typer.Option(
            "--lines",
            help="Say each line of a text file, or each row of a .csv or .tsv.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for --lines.", show_default=False)] = None,
    audio_format: Annotated[Literal["wav", "flac", "ogg"], typer.Option("--format", help="Of --lines.")] = "wav",
    timings: Annotated[
        list[str] | None,
        typer.Option(help="When what is said, for --lines: json, srt, vtt; may be repeated."),
    ] = None,
    play: Annotated[bool, typer.Option("--play", help="Play it, too: aplay, paplay, afplay or ffplay.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Speak a text with a published voice. Reads the registry and nothing else, except with --candidate.

    A text may mix the languages of the voice's base; words in another one refuse it (exit 10).

        voxline say sample "Good morning, everyone." -o morning.wav
        voxline say sample --text-file lines.txt -o lines.flac
        echo "Platform two." | voxline say sample - --seed 3 -o - | aplay
        voxline say ana "Hear why I was blocked." --candidate
        voxline say sample --lines lines.csv --out spoken --format flac --timings srt
    """
    from pipeline.cli.common import ConsoleReporter, prepare_machine, registry_of, resolve_settings

    if lines is not None:
        given = {
            "TEXT": text,
            "--text-file": text_file,
            "-o": output,
            "--reference": reference,
            "--candidate": candidate,
        }
        given |= {"--play": play, "--precision": precision != "f32"}
        manner = {"seed": seed, "speed": speed, "language": language}
        flags = {"voxline.registry": registry, "voxline.device": device}
        _refuse_beside_lines(given)
        _say_lines(voice, lines, out, (audio_format, timings or []), manner, channel, flags, as_json=as_json)
        return
    if out is not None or timings:
        from pipeline.errors import UsageError

        raise UsageError("--out and --timings belong to --lines", hint="-o FILE names the file of one text")
    words = _read_text(text, text_file)
    if play:
        _find_player()  # before anything is computed
    target = _choose_output(output, force=force, as_json=as_json)
    flags = {"voxline.registry": registry, "voxline.device": device}
    settings = resolve_settings(flags).settings
    machine = prepare_machine(settings.voxline)
    opened = registry_of(settings, flag=registry)
    speaker, note = _find_speaker(voice, channel, flags, opened, candidate)
    if note:
        tell(f"{voice} {speaker.version}: {note}", style="yellow", stderr=True)
    options = {
        "language": language,
        "seed": seed,
        "speed": speed,
        "references": tuple(reference or ()),
        "precision": precision,
    }
    spoken = _speak(speaker, words, options, target, machine, ConsoleReporter(quiet=as_json))
    if as_json:
        print_json(spoken)
    else:
        _tell(spoken, to_stderr=target == STDOUT)
    if play and target != STDOUT:
        _play(target)


def _refuse_beside_lines(given: Mapping[str, object]) -> None:
    from pipeline.errors import UsageError

    if names := [name for name, value in given.items() if value]:
        raise UsageError(f"--lines takes no {' and no '.join(names)}", hint="voxline say VOICE --lines FILE --out DIR")


def _say_lines(
    voice: str,
    path: Path,
    out: Path | None,
    written: tuple[Literal["wav", "flac", "ogg"], list[str]],
    manner: Mapping[str, Any],
    channel: str,
    flags: Mapping[str, Any],
    *,
    as_json: bool,
) -> None:
    from dataclasses import asdict

    from pipeline.cli.common import ConsoleReporter, prepare_machine, registry_of, resolve_settings
    from pipeline.cli.serve import COPIES, worker_settings
    from pipeline.errors import TextRefused, UsageError
    from pipeline.serve.batch_files import TIMING_KINDS, Manner, Written, read_lines
    from pipeline.serve.local_copies import verified_voice

    if out is None:
        raise UsageError("--lines needs a folder to write to", hint="--out DIR")
    if unknown := [kind for kind in written[1] if kind not in TIMING_KINDS]:
        raise UsageError(f"--timings {unknown[0]}", hint=f"one of {', '.join(TIMING_KINDS)}")
    found = read_lines(path, Manner(voice, **manner))
    settings = resolve_settings(flags).settings
    machine = prepare_machine(settings.voxline)
    registry = registry_of(settings, flag=flags["voxline.registry"])
    names = dict.fromkeys(line.voice for line in found)
    voices = {name: verified_voice(registry, name, channel, machine.cache / COPIES) for name in names}
    from pipeline.serve.lines import speak_lines  # torch

    target = Written(out, written[0], tuple(dict.fromkeys(written[1])))  # type: ignore[arg-type]
    outcome = speak_lines(found, voices, target, worker_settings(settings, machine), ConsoleReporter(quiet=as_json))
    if as_json:
        print_json(asdict(outcome))
    else:
        told = f"{out}: {len(outcome.spoken)} spoken ({outcome.seconds:.1f} s), {len(outcome.known)} there already"
        tell(told)
        for name, problem in outcome.refused.items():
            tell(f"  {name}: {problem}", style="red", stderr=True)
    if outcome.refused:
        raise TextRefused(
            f"{len(outcome.refused)} of {len(found)} lines were not spoken", hint="mend them and run it again"
        )


PLAYERS = (("aplay", "-q"), ("paplay",), ("afplay",), ("ffplay", "-nodisp", "-autoexit", "-loglevel", "error"))


def _find_player() -> list[str]:
    import shutil

    from pipeline.errors import UsageError

    for name, *options in PLAYERS:
        if program := shutil.which(name):
            return [program, *options]
    raise UsageError("--play: no player here", hint=f"install one of {', '.join(name for name, *_ in PLAYERS)}")


def _play(path: Path) -> None:
    import os
    import subprocess

    from pipeline.io.processes import child_environment

    subprocess.run([*_find_player(), str(path)], check=False, env=child_environment(os.environ))


def _read_text(text: str | None, text_file: Path | None) -> str:
    """What is to be said, checked before anything is loaded."""
    import sys

    from pipeline.errors import UsageError
    from pipeline.text.speakable import check_text

    if (text is None) == (text_file is None):
        raise UsageError("give the text, or --text-file, not both", hint='voxline say VOICE "Good morning."')
    if text_file is not None:
        words = _read_file(text_file)
    elif text == "-":
        words = sys.stdin.read()
    else:
        words = text or ""
        _refuse_file_name(words)
    check_text(words)
    return words


def _read_file(path: Path) -> str:
    from pipeline.errors import UsageError
    from pipeline.io.files import read_regular
    from pipeline.text.speakable import MAX_CHARACTERS

    try:
        return read_regular(path, 4 * MAX_CHARACTERS).decode("utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"--text-file: no file at {path}", hint="check the path") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8 (byte {error.start})", hint="save it as UTF-8") from None


def _refuse_file_name(words: str) -> None:
    """``say sample lines.txt`` would speak the file's name, which nobody means."""
    from pipeline.errors import UsageError

    is_name = len(words) < 256 and not any(letter.isspace() or letter == "\0" for letter in words) and "." in words
    if is_name and Path(words).is_file():
        raise UsageError(f"{words} is a file; its name would be spoken", hint=f"voxline say VOICE --text-file {words}")


def _choose_output(output: Path | None, *, force: bool, as_json: bool) -> Path:
    """Where the sound goes. A file that is there is never lost unless --force says so."""
    import sys
    from itertools import chain, count

    from pipeline.errors import UsageError

    if output is None:
        numbered = (Path(DEFAULT_OUTPUT.replace(".", f"-{number}.")) for number in count(2))
        return next(path for path in chain([Path(DEFAULT_OUTPUT)], numbered) if not path.exists())
    if output == STDOUT:
        if as_json:
            raise UsageError("--json and -o - both write to standard output", hint="-o FILE")
        if sys.stdout.isatty():
            raise UsageError("-o -: standard output is a terminal", hint="pipe it: ... -o - | aplay")
    elif output.exists() and not force:
        raise UsageError(f"{output}: already exists", hint="--force writes over it")
    return output


def _find_speaker(
    voice: str, channel: str, flags: Mapping[str, Any], registry: Registry, candidate: bool
) -> tuple[Speaker, str]:
    """Who speaks, and what the listener has to know about it."""
    from pipeline.cli.candidate import find_candidate, why_silent
    from pipeline.errors import UsageError
    from pipeline.io.speakers import published_speaker

    if candidate:
        return find_candidate(voice, flags, registry)
    try:
        return published_speaker(registry, voice, channel), ""
    except UsageError as error:
        if channel == "production" and registry.pointer(voice, "production") is None:
            raise why_silent(error, voice, flags, registry) from None
        raise


def _speak(
    speaker: Speaker, words: str, options: Mapping[str, Any], target: Path, machine: Machine, reporter: Reporter
) -> Spoken:
    import tempfile

    from pipeline.jobs.speak import Saying, speak

    saying = Saying(words, **options)
    if target != STDOUT:
        return speak(speaker, saying, output=target, machine=machine, reporter=reporter)
    with tempfile.TemporaryDirectory(prefix="voxline-") as folder:
        path = Path(folder) / DEFAULT_OUTPUT
        spoken = speak(speaker, saying, output=path, machine=machine, reporter=reporter)
        write_sound(path.read_bytes())
    return spoken.model_copy(update={"path": "standard output"})


def _tell(spoken: Spoken, *, to_stderr: bool) -> None:
    tell(f"{spoken.path}: {spoken.duration_s:.1f} s, {spoken.voice} {spoken.version}", stderr=to_stderr)
    heard = [part.phone_error_rate for part in spoken.sentences if part.phone_error_rate is not None]
    if heard:
        tell(f"  phones by the tokens: {max(heard):.0%} errors in the worst sentence", stderr=to_stderr)
    for note in spoken.notes:
        tell(f"  {note}", stderr=True)
