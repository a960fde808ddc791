"""The gate's limits in force for a voice: the numbers, which decide and are part of the stage's key, and the words."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from models.loading.bases import Base
from pipeline.errors import SettingsError
from pipeline.records.metrics import Metric, floored
from pipeline.records.quality import Floor, Floors
from pipeline.records.settings import Settings


def gate_floors(settings: Settings, base: Base) -> dict[str, float]:
    """Limit by its name in a base's card: the strictest of the card and what the organisation or the voice ask for.

    Raises:
        SettingsError: the card states a limit that no metric has, or one that its metric cannot have.
    """
    _refuse_strange(base)
    return {metric.floor: _strictest(metric, settings, base) for metric in floored()}


def explain(floors: Mapping[str, float], waived: Collection[str], base: Base) -> Floors:
    """The same limits for a report: whose each is, and how the base's card found it."""
    told = {
        metric.floor: _explained(metric, floors[metric.floor], base) for metric in floored() if metric.floor in floors
    }
    return Floors.model_validate({**told, "waived": {check_id: base.gate.waived[check_id] for check_id in waived}})


def _strictest(metric: Metric, settings: Settings, base: Base) -> float:
    stated, chosen = _stated(metric, base), settings.gate.minimum(metric)
    return stated if chosen is None else max(stated, chosen)


def _explained(metric: Metric, value: float, base: Base) -> Floor:
    official = "" if metric.official is None else f"; official bases: {metric.official}"
    if value != _stated(metric, base):
        return Floor(value=value, source=f"settings, section gate{official}")
    measured = base.gate.evidence.get(metric.floor, base.gate.measured)
    return Floor(value=value, source=f"floor of base {base.name}{official}", measured=measured)


def _stated(metric: Metric, base: Base) -> float:
    return base.gate.floors.get(metric.floor, metric.limit)


def _refuse_strange(base: Base) -> None:
    known = {metric.floor: metric for metric in floored()}
    for name, value in base.gate.floors.items():
        where = f"{base.folder}/base.yaml: gate.{name}"
        if name not in known:
            raise SettingsError(f"{where}: unknown key", hint=f"known limits: {', '.join(known)}")
        if not known[name].admits(value):
            low, high = known[name].bounds
            raise SettingsError(f"{where}: {value:g} lies outside {low} to {'any' if high is None else high}")
