import csv

import pytest

from pipeline.io.audio import read_audio, resample
from pipeline.signal.dnsmos import measure_dnsmos


@pytest.mark.slow
def test_scores_are_those_of_the_reference_within_a_few_hundredths(shared):
    with (shared / "data" / "mos" / "reference_scores.csv").open() as stream:
        rows = [row for row in csv.DictReader(stream, delimiter="|") if row["segments"] == "1"][:6]
    assert rows
    for row in rows:
        audio = read_audio(shared / "data" / row["file"])
        opinion = measure_dnsmos(resample(audio.mono, audio.sample_rate_hz, 16000))
        for name in ("sig", "bak", "ovr"):
            assert getattr(opinion, name) == pytest.approx(float(row[name]), abs=0.1), row["file"]


def test_nothing_to_hear_is_said_to_be_so():
    import numpy as np

    with pytest.raises(ValueError, match="no samples"):
        measure_dnsmos(np.zeros(0, np.float32))
