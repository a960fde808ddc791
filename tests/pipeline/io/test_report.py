"""The quality report: a verdict before anything else, one chart, the worst sentences; nothing is loaded from anywhere."""

import base64
import io
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile

from pipeline.io import report as report_page
from pipeline.io.report import Sound, render_html
from pipeline.io.report_sounds import sentences_of
from pipeline.io.report_summary import render_junit, render_markdown
from pipeline.io.report_words import differences, ranked, verdict_sentence
from pipeline.records.adapter import AdapterRecord, CurvePoint, TrainedGroup, TrainedPart
from pipeline.records.quality import AudioFile, Check, Floor, Floors, QualityReport, Sample

VOID = {"meta", "img", "br", "line", "rect", "circle", "path", "polyline"}
TEXTS = ("One train leaves.", "A small boat drifted.", "Bread and soup are waiting.", "He walks to work.")


def a_part(name: str, *, steps: int = 3, ended_by: str = "heldout", best_step: int = 1) -> TrainedPart:
    curve = [CurvePoint(step=0, training_loss=None, heldout_loss=2.0)]
    curve += [
        CurvePoint(step=step, training_loss=2.0 / step, heldout_loss=1.0 + 0.1 * step) for step in range(1, steps + 1)
    ]
    group = TrainedGroup(
        name="weights",
        loss="L1",
        best_step=best_step,
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
        steps=steps,
        ended_by=ended_by,
        groups=(group,),
    )


def an_adapter(*parts: TrainedPart) -> AdapterRecord:
    return AdapterRecord(
        base="nano",
        base_digest="0" * 64,
        seed=1,
        device="cpu",
        precision="float32",
        training_clips=("wavs/1.wav", "wavs/2.wav"),
        heldout_clips=("wavs/3.wav",),
        training_s=12.0,
        parts=parts or (a_part("text2semantic"), a_part("synthesizer")),
    )


@pytest.fixture
def adapter() -> AdapterRecord:
    return an_adapter()


def a_check(status: str = "passed", value: float | None = 3.7, **changes: object) -> Check:
    told = {
        "id": "copy_synthesis.pesq_wb",
        "evidence": "copy_synthesis",
        "title": "PESQ-WB",
        "unit": "MOS-LQO",
        "status": status,
        "required": True,
        "value": value,
        "low": value,
        "high": value,
        "limit": 3.5,
        "limit_source": "brief",
        "floor": 1.04,
        "ceiling": 4.64,
        "explanation": "likeness of the sound",
        "per_clip": {"wavs/3.wav": value},
        "advice": "record it again",
    }
    return Check.model_validate({**told, **changes})


def a_rate(*errors: float) -> Check:
    """Errors of the sentences, at most 0.3."""
    scores = {f"{number:02d}": error for number, error in enumerate(errors, 1)}
    told = {"id": "free_speech.cer", "evidence": "free_speech", "title": "Character error rate", "unit": ""}
    scale = {"limit": 0.3, "floor": 1.0, "ceiling": 0.0, "higher_is_better": False}
    return a_check("passed", sum(errors) / len(errors), **told, **scale, per_clip=scores)


def a_report(
    *checks: Check, text: str = "Hello.", sentences: tuple[Sample, ...] = (), **changes: object
) -> QualityReport:
    reasons = tuple(check.reason for check in checks if check.blocks)
    recorded = Sample(
        name="wavs/3.wav",
        evidence="copy_synthesis",
        text=text,
        sounds=(AudioFile(role="recording", title="Recording", path="sounds/0.wav"),),
    )
    told = {
        "voice": "ana",
        "version": "0123456789ab",
        "base": "nano",
        "base_digest": "0" * 64,
        "passed": not reasons,
        "reasons": reasons,
        "floors": Floors(pesq_wb=Floor(value=3.5, source="brief"), stoi=Floor(value=0.85, source="brief")),
        "checks": checks,
        "samples": (recorded, *sentences),
        "heldout_clips": ("wavs/3.wav",),
        "duration_s": 1.0,
    }
    return QualityReport.model_validate({**told, **changes})


def sentences(*heard: str, production: bool = False) -> tuple[Sample, ...]:
    roles = ("spoken", "production") if production else ("spoken",)
    return tuple(
        Sample(
            name=f"{number:02d}",
            evidence="free_speech",
            text=text,
            heard=heard[number - 1] if number <= len(heard) else "",
            sounds=tuple(AudioFile(role=role, title=role, path=f"sounds/{number}-{role}.flac") for role in roles),
        )
        for number, text in enumerate(TEXTS, 1)
    )


def tone(hz: float, seconds: float = 1.0) -> Sound:
    return Sound(np.sin(2 * np.pi * hz * np.arange(round(16000 * seconds)) / 16000).astype(np.float32) * 0.5, 16000)


SOUNDS = {"sounds/0.wav": tone(900.0)} | {
    f"sounds/{number}-{role}.flac": tone(100.0 * number + at)
    for number in range(1, 5)
    for at, role in enumerate(("spoken", "production"))
}


class Element:
    """One element of a page with what it holds, as a reader of the page finds it."""

    def __init__(self, tag: str, attributes: dict[str, str]) -> None:
        self.tag, self.attributes, self.children = tag, attributes, list[Element | str]()

    def all(self, *tags: str) -> "Iterator[Element]":
        for child in self.children:
            if isinstance(child, Element):
                if child.tag in tags:
                    yield child
                yield from child.all(*tags)

    @property
    def text(self) -> str:
        told = "".join(child if isinstance(child, str) else child.text for child in self.children)
        return " ".join(told.split())


class Page(HTMLParser):
    """A page as a tree; an element that is never closed, or closed by another one, is a mistake."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open = [Element("", {})]
        self.feed(source)
        assert [element.tag for element in self.open] == [""], "not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, {name: value or "" for name, value in attrs})
        self.open[-1].children.append(element)
        if tag not in VOID:
            self.open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open[-1].children.append(Element(tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop().tag == tag, f"</{tag}>"

    def handle_data(self, data: str) -> None:
        self.open[-1].children.append(data)

    @property
    def top(self) -> Element:
        return self.open[0]


def test_the_page_says_blocked_and_why_and_what_helps_before_anything_else(adapter: AdapterRecord) -> None:
    page = Page(render_html(a_report(a_check("failed", 1.2)), adapter, SOUNDS, "0.1.0")).top
    verdict = next(section for section in page.all("section") if "verdict" in section.attributes.get("class", ""))
    assert next(verdict.all("h2")).text == "Blocked by PESQ-WB: 1.20, at least 3.5 is asked for."
    assert "1.2 is below 3.5 (brief). What helps: record it again." in verdict.text
    assert page.text.index("Blocked by") < page.text.index("The recording") < page.text.index("All checks")


def test_the_verdict_is_one_sentence() -> None:
    def told(*checks: Check, **changes: object) -> str:
        return verdict_sentence(a_report(*checks, sentences=sentences(), **changes))

    heard = "1 recording that training never saw and 4 new sentences"
    assert told(a_check(), a_check()) == f"Passed: all 2 required checks hold, on {heard}."
    waits = "Passed, but waits on channel candidate for a person to listen"
    assert told(a_check(), review=("odd",)) == f"{waits}: 1 required check hold, on {heard}."
    assert told(a_check("failed", 1.0), a_check("failed", 2.0), a_check("not_measured", None)) == (
        "Blocked by PESQ-WB: 1.00, at least 3.5 is asked for, and 2 more checks."
    )
    assert told(a_check("not_measured", None)) == "Blocked by PESQ-WB, which could not be measured."
    assert told(passed=False, reasons=("nothing required was checked",)) == "Blocked: nothing required was checked."


def test_three_players_come_first_each_with_its_text(adapter: AdapterRecord) -> None:
    report = a_report(a_check(), a_rate(0.1, 0.2, 0.0, 0.25), sentences=sentences(production=True))
    cards = list(Page(render_html(report, adapter, SOUNDS, "0.1.0")).top.all("section"))[1:4]
    assert [next(card.all("h3")).text.rsplit(" ", 2)[0] for card in cards] == [
        "The recording", "The voice now", "In production",
    ]  # fmt: skip
    players = [next(card.all("audio")).attributes for card in cards]
    assert [player["aria-label"] for player in players] == ["The recording", "The voice now", "In production"]
    assert len({player["src"] for player in players}) == 3
    texts = [next(one for one in card.all("p") if "lang" in one.attributes).text for card in cards]
    assert texts[0] == "Hello." and texts[1] == texts[2] == TEXTS[0], "of the same sentence, neither best nor worst"


@pytest.mark.parametrize(
    ("told", "shown"),
    [
        ("", "This version was not compared with what production serves."),
        ("not applicable: production serves no release with a report", "Production serves no release with a report."),
        ("abcdefabcdef", "Production serves version abcdefabcdef, whose report holds no sound of this sentence."),
    ],
)
def test_without_a_sound_of_production_the_page_says_why(told: str, shown: str, adapter: AdapterRecord) -> None:
    report = a_report(a_check(), sentences=sentences(), compared_with=told)
    card = list(Page(render_html(report, adapter, SOUNDS, "0.1.0")).top.all("section"))[3]
    assert card.text == f"In production {shown}"


def test_what_a_page_plays_can_be_taken_out_of_it_for_the_next_version(tmp_path, adapter: AdapterRecord) -> None:
    report = a_report(a_check(), a_rate(0.1, 0.2, 0.0, 0.25), sentences=sentences(production=True))
    page = tmp_path / "index.html"
    page.write_text(render_html(report, adapter, SOUNDS, "0.1.0"), encoding="utf-8")
    found = sentences_of(page)
    assert sorted(found) == ["01", "02", "03", "04"]
    for number, data in enumerate(map(found.get, sorted(found)), 1):
        samples, rate_hz = soundfile.read(io.BytesIO(data))
        heard_hz = np.argmax(np.abs(np.fft.rfft(samples))) * rate_hz / len(samples)
        assert heard_hz == pytest.approx(100.0 * number, abs=3), "the version's own sentence, not production's"
    page.write_bytes(b"\xff\xfe no page")
    assert sentences_of(page) == {} == sentences_of(tmp_path / "absent")


def test_the_chart_has_a_row_for_every_check_that_decides(adapter: AdapterRecord) -> None:
    shown = a_check("shown", 2.0, id="resynthesis.pesq_wb", evidence="resynthesis", limit=None, required=False)
    waived = a_check("not_measured", None, required=False)
    noted = a_check("noted", 3.0, required=False, title="Noted")
    report = a_report(a_check(low=3.2, high=4.0), a_check("failed", 1.0, title="Other"), waived, noted, shown)
    charts = list(Page(render_html(report, adapter, SOUNDS, "0.1.0")).top.all("table"))
    rows = [[row for row in chart.all("tr") if row.attributes.get("class") == "check"] for chart in charts]
    assert [len(found) for found in rows] == [4, 1]
    words = [next(row.all("th")).text for row in rows[0]]
    assert [word[0] for word in words] == ["✓", "✗", "–", "!"]
    assert "passed" in words[0] and "failed" in words[1] and "not measured, not required" in words[2]
    assert ["What helps: record it again" in word for word in words] == [False, False, False, True], "see the verdict"
    picture = next(rows[0][0].all("svg"))
    assert picture.attributes["aria-label"] == "3.70 between useless 1.04 and perfect 4.64, at least 3.5 is asked for"
    places = [mark.attributes for mark in picture.all("circle", "rect", "line")]
    share = {
        name: f"{100 * (number - 1.04) / 3.6:.1f}%" for name, number in (("mean", 3.7), ("limit", 3.5), ("low", 3.2))
    }
    assert places[-1]["cx"] == share["mean"] and places[-2]["x1"] == share["limit"] and places[2]["x"] == share["low"]
    assert not list(rows[0][2].all("svg"))


def test_a_lower_error_is_drawn_to_the_right(adapter: AdapterRecord) -> None:
    picture = next(Page(render_html(a_report(a_rate(0.1, 0.1)), adapter, SOUNDS, "0.1.0")).top.all("circle"))
    assert picture.attributes["cx"] == "90.0%"


def test_the_worst_sentences_come_first_with_what_was_heard_and_a_spectrogram(adapter: AdapterRecord) -> None:
    heard = ("One rain leaves.", "A small boat drifted.", "Bread and and soup waiting.", "He walks to work.")
    report = a_report(a_check(), a_rate(0.2, 0.0, 0.4, 0.1), sentences=sentences(*heard))
    assert [one.sample.name for one in ranked(report)] == ["03", "01", "04", "02"]
    articles = list(Page(render_html(report, adapter, SOUNDS, "0.1.0")).top.all("article"))
    worst = [one for one in articles if "worst" in one.attributes["class"]]
    assert [next(one.all("h3")).text for one in worst] == ["Sentence 03 beyond a limit", "Sentence 01", "Sentence 04"]
    assert [one.text for one in worst[0].all("ins", "del")] == ["added:and", "missed:are"]
    assert [one.text for one in worst[1].all("ins", "del")] == ["missed:train", "added:rain"]
    assert "1 of 5 missed, 1 added" in worst[0].text and "heard as written" in worst[2].text
    assert "Character error rate 0.400, at most 0.3" in worst[0].text
    assert (
        next(worst[0].all("img")).attributes["alt"].startswith("spectrogram of sentence 03: 1.0 s to the right, 0 to 8")
    )


def test_differences_are_told_in_words_as_they_are_read_and_in_letters_of_a_script_without_blanks() -> None:
    sample = Sample(name="1", evidence="free_speech", text="第一班火车出发。", heard="第一班货车出发", sounds=())
    found = differences(sample, "zh")
    assert "".join(token for change, token in found if change == "missed") == "火"
    assert "".join(token for change, token in found if change == "added") == "货"
    same = Sample(
        name="1", evidence="free_speech", text="She paid 42 dollars.", heard="she paid forty-two dollars", sounds=()
    )
    assert {change for change, _ in differences(same, "en")} == {"same"}, "read alike is heard as written"
    strange = same.model_copy(update={"language": "eo", "text": "Ĉu vi aŭdas?", "heard": "Ĉu ni aŭdas?"})
    assert [word for change, word in differences(strange, "en") if change != "same"] == ["vi", "ni"]


def test_a_recogniser_that_cannot_stop_does_not_fill_the_page(adapter: AdapterRecord) -> None:
    report = a_report(a_check(), a_rate(0.2, 0.0), sentences=sentences("again " * 20_000, *TEXTS[1:]))
    assert len(render_html(report, adapter, {}, "0.1.0")) < 50_000


def test_texts_are_in_the_voice_s_language_and_the_rest_in_english(adapter: AdapterRecord) -> None:
    report = a_report(a_check(), a_rate(0.5), sentences=sentences("一"), language="zh")
    mixed = report.samples[0].model_copy(update={"language": "en"})
    report = report.model_copy(update={"samples": (mixed, *report.samples[1:])})
    page = Page(render_html(report, adapter, SOUNDS, "0.1.0")).top
    assert next(page.all("html")).attributes["lang"] == "en"
    told = {(one.text, one.attributes["lang"]) for one in page.all("p") if "lang" in one.attributes}
    assert told == {("Hello.", "en"), *((text, "zh") for text in TEXTS)}


def test_the_page_can_be_walked_by_ear_and_by_keyboard(adapter: AdapterRecord) -> None:
    report = a_report(a_check(), a_rate(0.1, 0.2, 0.0, 0.25), sentences=sentences(*TEXTS, production=True))
    source = render_html(report, adapter, SOUNDS, "0.1.0")
    page = Page(source).top
    levels = [int(heading.tag[1]) for heading in page.all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert [len(list(page.all(tag))) for tag in ("header", "nav", "main", "footer")] == [1, 1, 1, 1]
    names = [one.attributes.get("aria-label") for one in page.all("audio", "svg")]
    assert all(names)
    players = [one.attributes["aria-label"] for one in page.all("audio")]
    assert len(set(players)) == len(players), "each player says what it plays"
    assert all(one.attributes.get("alt") for one in page.all("img"))
    ids = {one.attributes["id"] for one in page.all("h2", "section", "details") if "id" in one.attributes}
    assert {one.attributes["href"].removeprefix("#") for one in page.all("a")} <= ids
    assert all(next(one.all("summary")) for one in page.all("details"))
    assert all("scope" in one.attributes for one in page.all("th"))
    assert ":focus-visible { outline: 3px" in source and "@media print" in source
    assert "tabindex" not in source


def test_the_prose_about_limits_is_closed_and_begins_a_page_of_its_own_in_print(adapter: AdapterRecord) -> None:
    floors = Floors(pesq_wb=Floor(value=3.5, source="brief", measured="on nine voices"), waived={"a.b": "no ear"})
    source = render_html(a_report(a_check(), floors=floors, base_speech="as good as it gets"), adapter, SOUNDS, "0.1.0")
    prose = next(one for one in Page(source).top.all("details") if one.attributes.get("id") == "limits")
    assert "open" not in prose.attributes and prose.attributes["class"] == "second"
    assert all(told in prose.text for told in ("on nine voices", "no ear", "as good as it gets"))
    assert ".second { break-before: page; }" in source


def test_a_curve_that_cannot_be_drawn_says_what_happened_instead() -> None:
    parts = (
        (
            a_part("text2semantic", steps=0, ended_by="fixed", best_step=0),
            "this base speaks with this network as it is",
        ),
        (a_part("text2semantic", steps=0, ended_by="epochs", best_step=0), "No step was made"),
        (a_part("synthesizer", steps=3, best_step=0), "None of 3 steps lowered the held-out loss of 2.00"),
        (a_part("synthesizer"), "2.00 → 1.10, best at step 1 of 3; no held-out loss fell any more"),
    )
    for part, told in parts:
        page = Page(render_html(a_report(a_check()), an_adapter(part), SOUNDS, "0.1.0")).top
        figure = next(one for one in page.all("figure") if list(one.all("figcaption")) and "weights" in one.text)
        assert told in figure.text
        assert len(list(figure.all("polyline"))) == (2 if part.steps else 0)
        assert "step 0 of 0" not in page.text


def test_the_page_loads_nothing_from_anywhere(adapter: AdapterRecord) -> None:
    page = render_html(a_report(a_check(), sentences=sentences()), adapter, SOUNDS, "0.1.0")
    assert not re.findall(r"""(?:src|href|action|poster|srcset|xlink:href)\s*=\s*["']?(?!["']?(?:data:|#))""", page)
    assert "url(" not in page and "@import" not in page and "<script" not in page and 'http-equiv="refresh' not in page
    assert "default-src 'none'" in page
    sound = base64.b64decode(page.split("data:audio/ogg;base64,")[1].split('"')[0])
    assert soundfile.info(io.BytesIO(sound)).subtype == "OPUS"
    assert "data:image/png;base64,iVBORw0KGgo" in page


EVIL = """</p><script>alert(1)</script><img src=x onerror=alert(1)>"'{{ 7*7 }}&lt;"""


def test_nothing_that_a_stranger_wrote_becomes_markup(adapter: AdapterRecord) -> None:
    said = sentences()[0].model_copy(update={"text": EVIL, "heard": EVIL + " b", "notes": (EVIL,), "language": EVIL})
    checks = (a_check("failed", 1.0, title=EVIL, explanation=EVIL, advice=EVIL, limit_source=EVIL), a_rate(0.4))
    report = a_report(*checks, text=EVIL, sentences=(said,), compared_with=EVIL, base_speech=EVIL, base=EVIL)
    heldout = an_adapter().model_copy(update={"heldout_clips": (EVIL,)})
    source = render_html(report, heldout, SOUNDS, EVIL)
    page = Page(source).top
    assert not list(page.all("script"))
    assert all(set(one.attributes) <= {"src", "alt"} for one in page.all("img"))
    assert "49" not in page.text.replace("{{ 7*7 }}", "")
    assert EVIL.split("'")[0].split('"')[0] in " ".join(one.text for one in page.all("p"))
    told = render_markdown(report)
    assert "<script" not in told and "<img" not in told and "](" not in told


def test_every_sound_lies_on_the_page_once_and_all_of_them_find_a_bounded_room(
    monkeypatch, adapter: AdapterRecord
) -> None:
    report = a_report(a_check(), a_rate(0.1, 0.2, 0.0, 0.25), sentences=sentences(production=True))
    sources = re.findall(r'data:audio/ogg;base64,([^"]+)"', render_html(report, adapter, SOUNDS, "0.1.0"))
    assert len(sources) == len(set(sources)) >= 6
    monkeypatch.setattr(report_page, "PAGE_BYTES", 50_000)
    noise = np.random.default_rng(0).standard_normal(16000).astype(np.float32) * 0.3
    many = {f"sounds/{number}-spoken.flac": Sound(noise, 16000) for number in range(60)}
    spoken = tuple(
        Sample(
            name=f"{number:03d}",
            evidence="free_speech",
            text="Noise.",
            sounds=(AudioFile(role="spoken", title="Spoken", path=f"sounds/{number}-spoken.flac"),),
        )
        for number in range(60)
    )
    page = render_html(a_report(a_check(), sentences=spoken), adapter, many, "0.1.0")
    assert 50_000 < len(page.encode()) < 150_000, "players and texts are there without their sounds, too"
    assert "No room on this page: sounds/" in page


def test_the_summary_for_a_merge_request_has_the_verdict_the_table_and_the_worst_sentences() -> None:
    heard = ("One rain leaves.", *TEXTS[1:])
    failed = a_check("failed", 1.2, low=1.0, high=1.4)
    report = a_report(
        failed, a_check("shown", 2.0, limit=None, required=False), a_rate(0.4, 0.0), sentences=sentences(*heard)
    )
    told = render_markdown(report)
    lines = told.splitlines()
    assert lines[0] == "## Voice ana 0123456789ab: blocked"
    assert lines[2].startswith("Blocked by PESQ-WB: 1.20, at least 3.5 is asked for")
    assert "- PESQ-WB: 1.2 is below 3.5 (brief): record it again" in lines
    rows = [line for line in lines if line.startswith("| ") and not line.startswith("| |")]
    assert rows[0] == "| ✗ | PESQ-WB | 1.20 MOS-LQO | 1.00 to 1.40 | at least 3.5, brief |"
    assert len(rows) == 2, "what decides nothing is left to the page"
    assert all(row.count("|") == 6 for row in rows)
    assert "  - 1 of 3 missed, 1 added: One ~~train~~ **rain** leaves" in lines


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


def test_a_voice_that_waits_for_a_person_does_not_look_like_one_that_passed(adapter: AdapterRecord) -> None:
    pages = [render_html(a_report(a_check(), **changes), adapter, {}, "1.0") for changes in ({}, {"review": ("odd",)})]
    assert ['class="verdict review"' in page for page in pages] == [False, True]
    assert ['class="verdict passed"' in page for page in pages] == [True, False]
