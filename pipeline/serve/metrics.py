"""What Prometheus reads at `/metrics`. No label holds a text or who asked."""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from pipeline.serve.catalog import Catalog
from pipeline.serve.workers import Worker

FIRST_SOUND_S = (0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30)


class Metrics:
    """Counters of this server."""

    def __init__(self) -> None:
        disable_created_metrics()
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "Answers by route and status", "route", "status")
        self.characters = self._counter("characters", "Characters that were said", "voice")
        self.seconds = self._counter("speech_seconds", "Seconds of speech that were made", "voice")
        self.damaged = self._counter("damaged_sentences", "Sentences that no try said wholly", "voice")
        self.first_sound = Histogram(
            "voxline_first_sound_seconds",
            "From a request to the first sound of its answer",
            buckets=FIRST_SOUND_S,
            registry=self.registry,
        )
        self._gauges = {
            name: Gauge(f"voxline_{name}", told, registry=self.registry)
            for name, told in (
                ("under_way", "Requests that the worker has"),
                ("worker_ready", "1 while the worker answers"),
                ("worker_starts", "Worker processes that were started"),
                ("registry_reachable", "1 while the registry answers"),
                ("registry_age_seconds", "Since the registry last answered"),
                ("voices", "Voices on production"),
                ("refused_releases", "Voices whose newest release is not what was published"),
                ("resident_voices", "Voices in the worker's memory"),
                ("resident_bytes", "Their size"),
                ("rows", "Candidates of sentences in the batch"),
                ("voice_loads", "Voices that were loaded into memory"),
                ("voice_evictions", "Voices that left it"),
            )
        }

    def _counter(self, name: str, told: str, *labels: str) -> Counter:
        return Counter(f"voxline_{name}", told, labels, registry=self.registry)

    def text(self, worker: Worker, catalog: Catalog, now: float) -> bytes:
        """The page, with what is so at this moment."""
        state, health = worker.state, catalog.health
        present = {
            "under_way": worker.under_way,
            "worker_ready": worker.is_ready.is_set(),
            "worker_starts": worker.starts,
            "registry_reachable": health.is_reachable,
            "registry_age_seconds": now - health.answered_at,
            "voices": len(catalog.serving()),
            "refused_releases": len(catalog.problems),
            "resident_voices": state.resident_voices,
            "resident_bytes": state.resident_bytes,
            "rows": state.rows,
            "voice_loads": state.loads,
            "voice_evictions": state.evictions,
        }
        for name, value in present.items():
            self._gauges[name].set(float(value))
        page: bytes = generate_latest(self.registry)
        return page
