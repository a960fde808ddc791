"""voxline gate calibrate|selftest"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.common import BaseOption, JsonOption, VoiceArgument, complete_base, complete_voice
from pipeline.cli.terminal import print_json, print_table, table, tell, write_document

if TYPE_CHECKING:
    from pipeline.records.calibration import Calibration
    from pipeline.records.job import Reporter
    from pipeline.records.selftest import Selftest
    from pipeline.stages.evaluate.studio import EvaluateJob

group = typer.Typer(
    no_args_is_help=True, help="What voices have to reach: find the limits of a base, and try the gate itself."
)


def register(app: typer.Typer) -> None:
    app.add_typer(group, name="gate", rich_help_panel="Setting up")


@group.command()
def calibrate(
    voices: Annotated[
        list[str], typer.Argument(help="Voices of this repository; five or more.", autocompletion=complete_voice)
    ],
    base: Annotated[str, typer.Option("--base", help="The base to find limits for.", autocompletion=complete_base)],
    as_json: JsonOption = False,
) -> None:
    """Find the limits of a base's card: train voices on it, and hear each in its own place and in every other's.

    Prints what to write under `gate` in base.yaml, with the evidence for each limit. Changes nothing.

        voxline gate calibrate --base nano ana ben cleo dora emil
    """
    from pipeline.cli.common import ConsoleReporter
    from pipeline.jobs.calibrate import calibrate as find_limits

    reporter = ConsoleReporter(quiet=as_json)
    found = find_limits([trained(voice, {"voxline.base": base}, reporter) for voice in voices])
    if as_json:
        print_json(found.model_dump(mode="json"))
        return
    _show(found)


@group.command()
def selftest(
    voice: VoiceArgument,
    other: Annotated[
        list[str] | None,
        typer.Option(
            "--other",
            help="Another person's voice, which must not pass; again for more.",
            autocompletion=complete_voice,
        ),
    ] = None,
    whole: Annotated[
        bool,
        typer.Option("--whole", help="Break the adapter, too, and train good variants; a minute or more for each."),
    ] = False,
    base: BaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Break a good voice in many ways, and see whether the gate stops each (exit 11 where one gets through).

    voxline gate selftest sample
    voxline gate selftest ana --other ben --whole
    """
    from pipeline.cli.common import ConsoleReporter
    from pipeline.errors import GateBlocked
    from pipeline.jobs.selftest import selftest as try_gate

    reporter = ConsoleReporter(quiet=as_json)
    others = [trained(name, {"voxline.base": base}, reporter) for name in other or ()]
    variants = trained_variants(voice, base, reporter) if whole else {}
    found = try_gate(trained(voice, {"voxline.base": base}, reporter), others, variants, whole=whole)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        _show_trials(found)
    if found.wrong:
        told = "; ".join(f"{one.name}: {'passes' if one.passed else 'is blocked'}" for one in found.wrong)
        raise GateBlocked(f"{len(found.wrong)} of {len(found.trials)} verdicts are wrong: {told}")


def trained(voice: str, flags: Mapping[str, Any], reporter: Reporter) -> EvaluateJob:
    """A voice ready to be measured; trained where that was not done before."""
    from pipeline.cli.line import open_workspace
    from pipeline.line.table import STAGES
    from pipeline.line.walk import run_until

    workspace = open_workspace(voice, flags, reporter)
    return workspace.measuring(STAGES["evaluate"], run_until(workspace, "finetune"))


def trained_variants(voice: str, base: str | None, reporter: Reporter) -> dict[str, Callable[[], EvaluateJob]]:
    """The same voice, by what is different in its training; trained when it is asked for."""
    from pipeline.cli.line import open_workspace
    from pipeline.jobs.selftest import variant_flags

    settings = open_workspace(voice, {"voxline.base": base}, reporter).settings.finetune
    return {
        name: partial(trained, voice, {"voxline.base": base, **flags}, reporter)
        for name, flags in variant_flags(settings).items()
    }


def _show_trials(found: Selftest) -> None:
    rows = table("", "should", "verdict", "blocked by", "asks for review", header_style="bold")
    for one in found.trials:
        verdict = "passes" if one.passed else "blocked"
        should = "pass" if one.is_good else "be blocked"
        style = "" if one.is_right else "red"
        rows.add_row(one.name, should, verdict, _names(one.blocked_by), _names(one.review), style=style)
    print_table(rows)
    tell(f"ears: {', '.join(found.ears) or 'none but those that come with voxline'}", style="dim")


def _names(checks: Sequence[str]) -> str:
    """The checks without their evidence, for a narrow column."""
    return " ".join(check.partition(".")[2] for check in checks)


def _show(found: Calibration) -> None:
    rows = table(
        "limit", "now", "suggested", "good voices behind", "wrong speakers from", "apart by", header_style="bold"
    )
    for limit in found.limits:
        good = [one.behind for one in limit.good]
        wrong = min((one.behind for one in limit.wrong), default=None)
        rows.add_row(
            limit.floor,
            f"{limit.present:g}",
            f"{limit.suggested:g}",
            f"{min(good):.3f} to {max(good):.3f}",
            "-" if wrong is None else f"{wrong:.3f}",
            "-" if limit.distance is None else f"{limit.distance:.3f}",
        )
    print_table(rows)
    for floor, why in found.not_measured.items():
        tell(f"{floor}: not measured: {why}", style="dim")
    write_document(card_of(found))


def card_of(found: Calibration) -> str:
    """The section for base.yaml."""
    import yaml

    evidence = {limit.floor: limit.told for limit in found.limits}
    for copy in found.copies:
        evidence[copy.floor] = (
            f"{copy.clips} copies by the bare base, drawn as speech is drawn: mean {copy.mean:.2f}, 5th percentile"
            f" {copy.low:.2f}, lowest {copy.worst:.2f}; official bases: {copy.official:g}"
        )
    limits = {limit.floor: limit.suggested for limit in found.limits}
    copies = {copy.floor: round(copy.low, 2) for copy in found.copies}
    return yaml.safe_dump(
        {"gate": {**copies, **limits, "speech": found.speech, "evidence": evidence}}, sort_keys=False, width=118
    )
