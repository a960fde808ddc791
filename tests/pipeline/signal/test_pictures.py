"""Pictures of a report."""

from __future__ import annotations

import re

import numpy as np
import pytest

from pipeline.signal.pictures import waveform_path


@pytest.mark.parametrize("peak", [0.1, 1.0, 1.8])
def test_a_waveform_is_not_cut_at_the_top(peak):
    signal = peak * np.sin(np.linspace(0, 200, 4000)).astype(np.float32)
    heights = [float(height) for height in re.findall(r",(-?[\d.]+)", waveform_path(signal, 600, 60))]
    assert min(heights) > 0 and max(heights) < 60
    assert sum(height == min(heights) for height in heights) < 200  # peaks, not an edge along which it was cut
