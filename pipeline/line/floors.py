"""The gate's limits in force for a voice."""

from __future__ import annotations

from models.loading.bases import Base
from pipeline.errors import SettingsError
from pipeline.records.metrics import Metric, floored
from pipeline.records.quality import Floor, Floors
from pipeline.records.settings import Settings


def gate_floors(settings: Settings, base: Base) -> Floors:
    """The limits in force: the strictest of the base's card and what the organisation or the voice ask for.

    Raises:
        SettingsError: the card states a limit that no metric has, or one that its metric cannot have.
    """
    _refuse_strange(base)
    limits = {metric.floor: _floor(metric, settings, base) for metric in floored()}
    return Floors.model_validate({**limits, "waived": base.gate.waived})


def _floor(metric: Metric, settings: Settings, base: Base) -> Floor:
    card, chosen = base.gate.floors.get(metric.floor, metric.limit), settings.gate.minimum(metric)
    official = "" if metric.official is None else f"; official bases: {metric.official}"
    if chosen is None or chosen <= card:
        measured = base.gate.evidence.get(metric.floor, base.gate.measured)
        return Floor(value=card, source=f"floor of base {base.name}{official}", measured=measured)
    return Floor(value=chosen, source=f"settings, section gate{official}")


def _refuse_strange(base: Base) -> None:
    known = {metric.floor: metric for metric in floored()}
    for name, value in base.gate.floors.items():
        where = f"{base.folder}/base.yaml: gate.{name}"
        if name not in known:
            raise SettingsError(f"{where}: unknown key", hint=f"known limits: {', '.join(known)}")
        if not known[name].admits(value):
            low, high = known[name].bounds
            raise SettingsError(f"{where}: {value:g} lies outside {low} to {'any' if high is None else high}")
