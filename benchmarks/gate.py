"""The gate before good and broken voices: every trial of `voxline gate selftest --whole`, on several voices.

    python benchmarks/gate.py --kept FOLDER [--base BASE] [--sentences N] [--seed N ...] [--write] VOICE VOICE VOICE...

To be run where the voices' folder lies. What a trial measures is kept in FOLDER by everything that it depends on (the
adapter's bytes, the base, the ears, the sentences, the seed), and trained voices in `work/`: a run that was stopped
goes on, one with other weights measures them alone, and one with other limits judges again without a sound. Every voice
stands in turn beside the next one, whose speech, adapter and reference must not pass for its own.

Limits are those of the base's card, and, for each voice, those that the other voices alone would have set.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from models.judges.whisper import ASKED
from pipeline.cli.common import ConsoleReporter
from pipeline.cli.gate import trained
from pipeline.cli.line import open_workspace
from pipeline.io.artifacts.ears import ear_digests
from pipeline.io.files import write_atomically
from pipeline.io.store import digest_of_marks
from pipeline.jobs.calibrate import LEAST_SHARE
from pipeline.jobs.selftest import AS_IT_IS, Numbers, Offer, Stand, judged, offers, variant_flags
from pipeline.line import table
from pipeline.records.calibration import suggest
from pipeline.records.metrics import METRICS, Metric, floored
from pipeline.records.quality import Floor, Floors
from pipeline.records.selftest import Trial
from pipeline.signal.gate import Measured

DOCS = Path(__file__).resolve().parent.parent / "docs" / "evaluation.md"
BEGIN, END = "<!-- gate -->", "<!-- /gate -->"
SHOWN = {
    "CER": "free_speech.cer",
    "ECAPA": "free_speech.likeness",
    "DistillMOS": "free_speech.naturalness",
    "DNSMOS": "free_speech.dnsmos_ovr",
}
SOMEBODY_ELSE = "speech of another"
NEW = {"free_speech.tempo"}  # rows that the gate before this benchmark had not

Kept = dict[tuple[str, int, str], tuple[bool, Numbers]]  # voice, seed and trial -> whether it should pass, its numbers


def measured(names: list[str], arguments: argparse.Namespace) -> tuple[Kept, dict[str, Stand]]:
    """All trials of all voices, of which only the missing ones are heard now."""
    reporter = ConsoleReporter(quiet=True)
    flags = {"voxline.base": arguments.base, "evaluate.sentences": arguments.sentences}
    jobs = {name: trained(name, flags, reporter) for name in names}
    kept: Kept = {}
    for number, name in enumerate(names):
        job, other = jobs[name], jobs[names[(number + 1) % len(names)]]
        settings = trained_settings(name, flags, reporter)
        variants = {
            told: partial(trained, name, {**flags, **changed}, reporter)
            for told, changed in variant_flags(settings).items()
            if not arguments.no_training
        }
        for seed in arguments.seed:
            stand, stranger = Stand(job, seed), Stand(other, seed)
            rests_on = [digest_of_marks(one.inputs["finetune"].files) for one in (job, other)]
            for offer in offers(stand, [stranger], variants, whole=True):
                numbers = kept_or_heard(offer, stand, rests_on, arguments)
                if numbers is not None:
                    kept[name, seed, offer.name.replace(f"of {other.voice}", "of another")] = offer.is_good, numbers
    return kept, {name: Stand(job) for name, job in jobs.items()}


def trained_settings(name: str, flags: Mapping[str, object], reporter: ConsoleReporter):
    return open_workspace(name, flags, reporter).settings.finetune


def kept_or_heard(offer: Offer, stand: Stand, rests_on: list[str], arguments: argparse.Namespace) -> Numbers | None:
    """What a trial measured; None where that is not known and nothing is to be heard now."""
    told = [
        stand.base.digest,
        table.STAGES["evaluate"].version,
        ASKED,
        ear_digests(stand.job.machine.cache),
        rests_on,
        arguments.sentences,
        stand.seed,
        offer.name,
    ]
    key = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:24]
    path = arguments.kept / stand.base.name / stand.job.voice / f"{key}.json"
    if path.is_file():
        stored = json.loads(path.read_text())["numbers"]
        return {id_: Measured(**one) for id_, one in stored.items() if id_ in METRICS}
    if arguments.no_listening:
        return None
    numbers = offer.measure()
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"trial": offer.name, "seed": stand.seed, "numbers": {id_: asdict(one) for id_, one in numbers.items()}}
    write_atomically(path, json.dumps(content, default=float).encode())
    trial = judged(offer.name, numbers, stand.floors, is_good=offer.is_good)
    print(f"{stand.job.voice} seed {stand.seed} {offer.name}: {' '.join(trial.blocked_by) or 'passes'}", flush=True)
    return numbers


def behind(metric: Metric, numbers: Numbers) -> float | None:
    """How far the mean is from a perfect system, or from the recordings where the limit is relative to them."""
    one = numbers[metric.id]
    spoken, recorded = mean(one.new), mean(one.old)
    ideal = metric.perfect if metric.against == "limit" else recorded
    if spoken is None or ideal is None:
        return None
    return ideal - spoken if metric.higher_is_better else spoken - ideal


def mean(scores: Mapping[str, float | None]) -> float | None:
    known = [score for score in scores.values() if score is not None]
    return float(np.mean(known)) if known else None


def floors_without(left_out: str, kept: Kept, floors: Floors) -> Floors:
    """The limits that the other voices alone would have set."""
    changed = {}
    for metric in floored():
        if metric.against == "base":
            continue
        good, wrong = distances(metric, {key: one for key, one in kept.items() if key[0] != left_out})
        if good:
            allowed = suggest(good, wrong, LEAST_SHARE * abs(metric.perfect - metric.useless))
            value = metric.perfect - allowed if metric.against == "limit" else allowed
            changed[metric.floor] = Floor(value=value, source="the other voices")
    return Floors.model_validate({**floors.limits, **changed})


def distances(metric: Metric, kept: Kept) -> tuple[list[float], list[float]]:
    """How far good voices stay behind, and how far somebody else's speech does."""
    good = [behind(metric, numbers) for (_, _, trial), (_, numbers) in kept.items() if trial == AS_IT_IS]
    strange = [behind(metric, numbers) for (_, _, trial), (_, numbers) in kept.items() if trial == SOMEBODY_ELSE]
    return [one for one in good if one is not None], [
        one for one in strange if one is not None and metric.knows_speaker
    ]


def before(numbers: Numbers) -> Numbers:
    return {id_: one for id_, one in numbers.items() if id_ not in NEW}


def tables(kept: Kept, stands: Mapping[str, Stand]) -> str:
    """Every trial over all voices, the limits, and what each voice measures."""
    by_card = {key: verdict(key, kept, stands[key[0]].floors) for key in kept}
    by_others = {key: verdict(key, kept, floors_without(key[0], kept, stands[key[0]].floors)) for key in kept}
    earlier = {
        key: judged(key[2], before(numbers), stands[key[0]].floors, is_good=is_good)
        for key, (is_good, numbers) in kept.items()
    }
    trials = list(dict.fromkeys(trial for _, _, trial in kept))
    head = ["trial", *SHOWN, "before", "card", "others"]
    rows = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    why = ["| trial | blocked by, by the card |", "|---|---|"]
    for trial in trials:
        keys = [key for key in kept if key[2] == trial]
        is_good = kept[keys[0]][0]
        scores = [shown(over(keys, kept, id_)) for id_ in SHOWN.values()]
        counts = [told(keys, found) for found in (earlier, by_card, by_others)]
        reasons = sorted({check.partition(".")[2] for key in keys for check in by_card[key].blocked_by})
        name = f"**{trial}**" if is_good else trial
        rows.append(f"| {name} | {' | '.join([*scores, *counts])} |")
        if reasons:
            first, more = reasons[:4], len(reasons[4:])
            why.append(f"| {name} | {', '.join(first)}{f' and {more} more' if more else ''} |")
    good = [key for key in kept if kept[key][0]]
    bad = [key for key in kept if not kept[key][0]]
    voices, seeds = sorted({key[0] for key in kept}), sorted({key[1] for key in kept})
    base = next(iter(stands.values())).base.name
    right = [
        (sum(not found[key].passed for key in bad), sum(found[key].passed for key in good))
        for found in (by_card, by_others)
    ]
    (stopped, passing), (stopped_too, passing_too) = right
    summary = (
        f"{len(voices)} voices ({', '.join(voices)}) on {base}, seeds {seeds}: by the card {stopped} of {len(bad)}"
        f" broken ones are stopped and {passing} of {len(good)} good ones pass; by limits that the other voices alone"
        f" set, {stopped_too} and {passing_too}. Scores are means over voices and sentences; then how many pass:"
        " before, by the card's limits, by the others'."
    )
    lines = [
        summary,
        "",
        *rows,
        "",
        *why,
        "",
        *limits(kept, stands),
        "",
        *voices_table(kept),
    ]
    return "\n".join(lines)


def verdict(key: tuple[str, int, str], kept: Kept, floors: Floors) -> Trial:
    is_good, numbers = kept[key]
    return judged(key[2], numbers, floors, is_good=is_good)


def over(keys: list, kept: Kept, id_: str) -> float | None:
    return mean({str(key): mean(kept[key][1][id_].new) for key in keys})


def told(keys: list, found: Mapping) -> str:
    """How many pass; `?`: of them one waits for a person."""
    passed = sum(found[key].passed for key in keys)
    reviewed = any(found[key].passed and found[key].review for key in keys)
    return f"{passed} of {len(keys)}{' ?' if reviewed else ''}"


def limits(kept: Kept, stands: Mapping[str, Stand]) -> list[str]:
    """Where each limit of the card stands between the good voices and the wrong speakers."""
    floors = next(iter(stands.values())).floors
    rows = ["| limit | now | good voices behind | somebody else from | apart by |", "|---|---|---|---|---|"]
    for metric in floored():
        good, wrong = distances(metric, kept)
        if metric.against == "base" or not good:
            continue
        now = floors.of(metric).value
        away = f"{min(wrong):.2f} | {min(wrong) - max(good):.2f}" if wrong else "- | -"
        allowed = metric.perfect - now if metric.against == "limit" else now
        rows.append(f"| `{metric.floor}` | {allowed:.3g} behind | {min(good):.2f} to {max(good):.2f} | {away} |")
    return rows


def voices_table(kept: Kept) -> list[str]:
    """What each good voice scores, its recordings in brackets, and somebody else in its place."""
    rows = [f"| voice | {' | '.join(SHOWN)} | somebody else's ECAPA |", "|---" * (len(SHOWN) + 2) + "|"]
    for voice in dict.fromkeys(voice for voice, _, trial in kept if trial == AS_IT_IS):
        good = next(numbers for (name, _, trial), (_, numbers) in kept.items() if (name, trial) == (voice, AS_IT_IS))
        strange = [
            mean(numbers["free_speech.likeness"].new)
            for (name, _, trial), (_, numbers) in kept.items()
            if (name, trial) == (voice, SOMEBODY_ELSE)
        ]
        scores = [f"{shown(mean(good[id_].new))} ({shown(mean(good[id_].old))})" for id_ in SHOWN.values()]
        rows.append(f"| {voice} | {' | '.join(scores)} | {shown(strange[0] if strange else None)} |")
    return rows


def shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def write(text: str) -> None:
    page = DOCS.read_text(encoding="utf-8")
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    DOCS.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("voices", nargs="+")
    parser.add_argument("--kept", type=Path, required=True)
    parser.add_argument("--base", help="as the voices name it, else")
    parser.add_argument("--sentences", type=int, default=12)
    parser.add_argument("--seed", type=int, nargs="+", default=[0])
    parser.add_argument("--no-training", action="store_true", help="leave out variants that have to be trained")
    parser.add_argument("--no-listening", action="store_true", help="judge what is kept, and leave out the rest")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/evaluation.md")
    arguments = parser.parse_args()
    if len(arguments.voices) < 2:
        parser.error("two voices or more: each has to be told from another")
    text = tables(*measured(arguments.voices, arguments))
    print(text)
    if arguments.write:
        write(text)


if __name__ == "__main__":
    main()
