"""What production serves now of a voice, for a report that compares with it."""

from __future__ import annotations

from pydantic import ValidationError

from pipeline.errors import PipelineError
from pipeline.io.registry.registry import Registry
from pipeline.records.job import Reporter, Served
from pipeline.records.quality import DATA_FILE, REPORT_FILE, QualityReport


def find_served(voice: str, registry: Registry, reporter: Reporter) -> Served | None:
    """The quality report of the release on production; None where there is none, or none that can be read."""
    try:
        pointer = registry.pointer(voice, "production")
        if pointer is None or pointer.version is None:
            return None
        folder = registry.verified(voice, "production", below=("report",))[1]
        report = QualityReport.model_validate_json((folder / DATA_FILE).read_bytes())
        return Served(report, folder / REPORT_FILE)
    except (PipelineError, OSError, ValidationError) as error:
        told = error.message if isinstance(error, PipelineError) else type(error).__name__
        reporter.log(f"{voice}: warning: not compared with what production serves: {told}")
        return None


def compared_again(report: QualityReport, registry: Registry, reporter: Reporter) -> QualityReport:
    """A report of an earlier run, held against what production serves by now. Its key does not know production."""
    found = find_served(report.voice, registry, reporter)
    served = found.report if found else None
    nothing = report.not_comparable(served)
    if nothing and all(check.evidence != "last_release" for check in report.checks):
        return report.model_copy(update={"compared_with": nothing})
    from pipeline.signal.gate import with_comparison  # numpy: not where there is nothing to compare

    return with_comparison(report, served)
