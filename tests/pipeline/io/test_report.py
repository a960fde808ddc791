"""The quality report: one look tells pass or fail and why; nothing is loaded from anywhere."""

import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile

from pipeline.io.report import Sound, render_html, render_junit
from pipeline.records.adapter import AdapterRecord, CurvePoint, TrainedGroup, TrainedPart
from pipeline.records.quality import AudioFile, Check, Floor, Floors, QualityReport, Sample


def a_part(name: str) -> TrainedPart:
    curve = [CurvePoint(step=0, training_loss=None, heldout_loss=2.0)]
    curve += [CurvePoint(step=step, training_loss=2.0 / step, heldout_loss=1.0 + 0.1 * step) for step in (1, 2, 3)]
    group = TrainedGroup(
        name="weights",
        loss="L1",
        best_step=1,
        heldout_loss_before=2.0,
        heldout_loss=1.1,
        curve=tuple(curve),
    )
    return TrainedPart(
        part=name,
        folder=f"adapter/{name}",
        rank=8,
        alpha=16.0,
        trainable_parameters=1000,
        frozen_parameters=9000,
        batch_size=8,
        micro_batch=4,
        steps=3,
        ended_by="heldout",
        groups=(group,),
    )


@pytest.fixture
def adapter() -> AdapterRecord:
    return AdapterRecord(
        base="nano",
        base_digest="0" * 64,
        seed=1,
        device="cpu",
        precision="float32",
        training_clips=("wavs/1.wav", "wavs/2.wav"),
        heldout_clips=("wavs/3.wav",),
        training_s=12.0,
        parts=(a_part("text2semantic"), a_part("synthesizer")),
    )


def a_check(status: str = "passed", value: float | None = 3.7, *, required: bool = True) -> Check:
    return Check(
        id="copy_synthesis.pesq_wb",
        evidence="copy_synthesis",
        title="PESQ-WB",
        unit="MOS-LQO",
        status=status,
        required=required,
        value=value,
        low=value,
        high=value,
        limit=3.5,
        limit_source="brief",
        floor=1.04,
        ceiling=4.64,
        explanation="likeness of the sound",
        per_clip={"wavs/3.wav": value},
    )


def a_report(*checks: Check, text: str = "Hello.") -> QualityReport:
    reasons = tuple(check.reason for check in checks if check.blocks)
    return QualityReport(
        voice="ana",
        version="0123456789ab",
        base="nano",
        base_digest="0" * 64,
        passed=not reasons,
        reasons=reasons,
        floors=Floors(pesq_wb=Floor(value=3.5, source="brief"), stoi=Floor(value=0.85, source="brief")),
        checks=checks,
        samples=(
            Sample(
                name="wavs/3.wav",
                evidence="copy_synthesis",
                text=text,
                sounds=(AudioFile(role="recording", title="Recording", path="sounds/0.wav"),),
            ),
        ),
        heldout_clips=("wavs/3.wav",),
        duration_s=1.0,
    )


SOUNDS = {"sounds/0.wav": Sound(np.sin(np.arange(16000) / 8).astype(np.float32) * 0.5, 16000)}


def test_the_page_says_blocked_and_why_before_anything_else(adapter: AdapterRecord) -> None:
    page = render_html(a_report(a_check("failed", 1.2)), adapter, SOUNDS, "0.1.0")
    verdict = page[page.index("<section") : page.index("</section>")]
    assert "Blocked" in verdict
    assert "1.2 is below 3.5 (brief)" in verdict
    assert page.index("<section") < page.index("<table")


def test_the_page_says_passed(adapter: AdapterRecord) -> None:
    page = render_html(a_report(a_check()), adapter, SOUNDS, "0.1.0")
    assert "<strong>Passed</strong>" in page
    assert "not published" not in page


def test_the_page_loads_nothing_from_anywhere(adapter: AdapterRecord) -> None:
    page = render_html(a_report(a_check()), adapter, SOUNDS, "0.1.0")
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page)
    assert "url(" not in page and "@import" not in page and "<script" not in page
    sound = base64.b64decode(page.split("data:audio/ogg;base64,")[1].split('"')[0])
    assert soundfile.info(io.BytesIO(sound)).subtype == "OPUS"
    assert "data:image/png;base64,iVBORw0KGgo" in page


def test_a_transcript_cannot_write_into_the_page(adapter: AdapterRecord) -> None:
    page = render_html(a_report(a_check(), text="<script>alert(1)</script>"), adapter, SOUNDS, "0.1.0")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_what_was_not_measured_blocks_where_it_is_required_and_is_skipped_where_not() -> None:
    required = a_check("not_measured", None)
    optional = a_check("not_measured", None, required=False)
    suite = ElementTree.fromstring(render_junit(a_report(required, optional, a_check())))
    assert required.blocks and not optional.blocks
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("3", "1", "1")
    assert [case[0].tag for case in suite] == ["failure", "skipped", "system-out"]


def test_control_characters_of_a_file_name_do_not_break_the_xml() -> None:
    check = a_check("failed", 1.0).model_copy(update={"per_clip": {"wavs/\x07bell\x00.wav": 1.0}})
    suite = ElementTree.fromstring(render_junit(a_report(check)))
    assert "bell" in (suite.find("testcase/failure").text or "")
