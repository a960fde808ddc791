"""What is told of a training run."""

from __future__ import annotations

import pytest

from pipeline.records.adapter import TrainedGroup, TrainedPart


def a_part(best_step: int, steps: int, ended_by: str, after: float) -> TrainedPart:
    group = TrainedGroup(
        name="prior", loss="KL", best_step=best_step, heldout_loss_before=2.309, heldout_loss=after, curve=()
    )
    return TrainedPart(
        part="synthesizer", folder="adapter/synthesizer", rank=8, alpha=8, trainable_parameters=1,
        frozen_parameters=1, batch_size=4, micro_batch=4, steps=steps, ended_by=ended_by, groups=(group,),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("part", "told"),
    [
        (a_part(0, 0, "fixed", 2.309), "synthesizer, prior: as in the base, which does not fine-tune it"),
        (
            a_part(0, 40, "heldout", 2.309),
            "synthesizer, prior: held-out KL stays 2.309; none of 40 steps made it better",
        ),
        (a_part(16, 40, "epochs", 2.1), "synthesizer, prior: held-out KL 2.309 -> 2.1 at step 16 of 40"),
    ],
)
def test_a_summary_says_what_training_did(part, told):
    assert part.summary(part.groups[0]) == told
