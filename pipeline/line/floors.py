"""The gate's minima in force for a voice."""

from __future__ import annotations

from models.loading.bases import Base
from pipeline.records.quality import BRIEF_PESQ_WB, BRIEF_STOI, Floor, Floors
from pipeline.records.settings import Settings


def gate_floors(settings: Settings, base: Base) -> Floors:
    """The minima in force: the strictest of the base's card and what the organisation or the voice ask for."""
    gate = settings.gate

    def floor(chosen: float | None, of_base: float, of_brief: float | None = None) -> Floor:
        brief = "" if of_brief is None else f"; the brief asks for {of_brief}"
        if chosen is None or chosen <= of_base:
            return Floor(value=of_base, source=f"floor of base {base.name}{brief}", measured=base.gate.measured)
        return Floor(value=chosen, source=f"settings, section gate{brief}")

    return Floors(
        pesq_wb=floor(gate.pesq_wb_min, base.gate.pesq_wb, BRIEF_PESQ_WB),
        stoi=floor(gate.stoi_min, base.gate.stoi, BRIEF_STOI),
        dnsmos_loss=floor(None, base.gate.dnsmos_loss),
        similarity_loss=floor(None, base.gate.similarity_loss),
        phone_errors_more=floor(None, base.gate.phone_errors_more),
        cer_more=floor(None, base.gate.cer_more),
        waived=base.gate.waived,
    )
