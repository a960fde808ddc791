"""The stage on folders made here from the sample voice: repairs, seconds, files, denoising, the command."""

import base64
import csv
import io
import json
import re
import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import soundfile

from pipeline.cli.common import ConsoleReporter
from pipeline.cli.main import run_command
from pipeline.io import validation_report
from pipeline.io.answers import remembered
from pipeline.io.audio import encode_audio, read_audio, write_audio
from pipeline.io.recordings import list_recordings
from pipeline.io.validation_report import ReportWriter, plain_words, render_junit, render_markdown
from pipeline.records.clip_report import ClipReport
from pipeline.records.settings import ValidateSettings
from pipeline.signal.dnsmos import Opinion
from pipeline.signal.levels import rms_dbfs
from pipeline.stages.validate.digests import tool_digests
from pipeline.stages.validate.stage import in_parallel, validate_folder
from pipeline.stages.validate.tools import Terms, Tools, load_tools

QUICK = ValidateSettings(dnsmos=False, speakers=False, acoustic=False, denoise="off", speech_min_s=4.0)
SAMPLE = Path(__file__).resolve().parents[3] / "voices" / "sample"


def sample_lines(count):
    lines = (SAMPLE / "metadata.csv").read_text(encoding="utf-8").splitlines()
    return lines[0], lines[1 : count + 1]


@pytest.fixture
def folder(tmp_path):
    """Four sentences of the sample voice."""
    header, lines = sample_lines(4)
    (tmp_path / "in" / "wavs").mkdir(parents=True)
    (tmp_path / "in" / "metadata.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    for source in sorted((SAMPLE / "wavs").glob("*"))[:4]:
        (tmp_path / "in" / "wavs" / source.name).write_bytes(source.read_bytes())
    return tmp_path / "in"


def run(folder, settings=QUICK, tools=None, target=None):
    target = target or folder.parent / "out"
    target.mkdir(exist_ok=True)
    return validate_folder(
        list_recordings(folder, "en"),
        Terms(settings, tools or Tools(), "test", "en"),
        ReportWriter(target),
        reporter=ConsoleReporter(quiet=True),
    )


def test_good_recordings_become_levelled_clips_and_the_originals_stay(folder):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    report = run(folder)
    assert report.accepted, report.reasons
    assert len(report.prepared) == 4
    for clip in report.prepared:
        audio = read_audio(folder.parent / "out" / clip.file)
        assert audio.sample_rate_hz == clip.sample_rate_hz == read_audio(folder / clip.source).sample_rate_hz
        assert audio.duration_s == pytest.approx(clip.duration_s, abs=1e-3)
        assert -19 < rms_dbfs(audio.mono) < -14.5
        assert np.abs(audio.mono).max() <= 10 ** (-0.95 / 20)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_the_same_folder_gives_the_same_report_and_the_same_bytes(folder):
    first = run(folder, target=folder.parent / "one")
    second = run(folder, target=folder.parent / "two")
    assert first == second
    for clip in first.prepared:
        assert (folder.parent / "one" / clip.file).read_bytes() == (folder.parent / "two" / clip.file).read_bytes()


def test_too_little_speech_is_refused_with_what_was_found_and_what_is_needed(folder):
    report = run(folder, QUICK.model_copy(update={"speech_min_s": 300.0}))
    assert not report.accepted
    assert report.verdict != "reject"
    (finding,) = [finding for finding in report.findings if finding.code == "not_enough_speech"]
    assert finding.limit == 300.0
    assert finding.value == report.speech_usable_s > 5
    missing = int(np.ceil(300 - report.speech_usable_s))
    assert plain_words(report)[0] == f"Record {missing} s more speech."
    assert plain_words(report, "zh")[0] == f"请再录 {missing} 秒语音。"


def test_a_copy_is_left_out_and_its_clip_removed(folder):
    first = sorted((folder / "wavs").glob("*"))[0]
    audio = read_audio(first)
    write_audio(folder / "wavs" / "copy.wav", 0.5 * audio.mono, audio.sample_rate_hz)
    with (folder / "metadata.csv").open("a", encoding="utf-8") as stream:
        stream.write(
            (folder / "metadata.csv").read_text(encoding="utf-8").splitlines()[1].replace(first.name, "copy.wav") + "\n"
        )
    report = run(folder)
    assert "duplicate" in report.reasons
    assert [result.prepared for result in report.clips if result.clip.file_name.endswith("copy.wav")] == [()]
    assert len(list((folder.parent / "out" / "clips").iterdir())) == len(report.prepared) == 4


def test_a_file_that_no_line_names_is_left_out_with_a_remark(folder):
    lines = (folder / "metadata.csv").read_text(encoding="utf-8").splitlines()
    (folder / "metadata.csv").write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
    report = run(folder)
    assert [result.reasons for result in report.clips] == [(), (), (), ("no_transcript",)]
    assert len(report.prepared) == 3


def test_links_out_of_the_folder_are_not_followed(folder, tmp_path):
    victim = sorted((folder / "wavs").glob("*"))[0]
    (tmp_path / "outside.flac").write_bytes(victim.read_bytes())
    victim.unlink()
    victim.symlink_to(tmp_path / "outside.flac")
    report = run(folder)
    assert report.clips[0].reasons == ("bad_metadata",)
    assert report.clips[0].prepared == ()


def test_a_long_recording_is_sliced_and_told_that_texts_are_missing(folder):
    files = sorted((folder / "wavs").glob("*"))
    rate = read_audio(files[0]).sample_rate_hz
    gap = np.zeros(rate // 2, np.float32)
    long = np.concatenate([part for path in files for part in (read_audio(path).mono, gap)] * 3)
    for path in files:
        path.unlink()
    write_audio(folder / "wavs" / "long.flac", long, rate)
    (folder / "metadata.csv").unlink()
    report = run(folder)
    (result,) = report.clips
    assert "needs_slicing" in result.reasons
    assert len(result.prepared) > 2
    assert all(2 <= clip.duration_s <= 12.5 for clip in result.prepared)
    assert sum(clip.speech_s for clip in result.prepared) > 0.9 * result.measures.speech_s


def test_a_long_recording_is_cut_between_its_sentences_and_each_slice_keeps_its_own(folder, tmp_path):
    """The gaps are shorter than a pause that would count as one; the acoustic model tells which words are where."""
    files = sorted((folder / "wavs").glob("*"))
    rate = read_audio(files[0]).sample_rate_hz
    texts = [line.split(",", 1)[1].strip('"') for line in (folder / "metadata.csv").read_text().splitlines()[1:]]
    parts, borders = [], [0.0]
    for number, path in enumerate([*files, *files]):
        wave = read_audio(path).mono
        parts += [wave, 1e-5 * np.random.default_rng(number).standard_normal(int(0.3 * rate)).astype(np.float32)]
        borders.append(borders[-1] + len(wave) / rate + 0.3)
        path.unlink(missing_ok=True) if number >= len(files) else None
    write_audio(folder / "wavs" / "long.flac", np.concatenate(parts), rate)
    whole = " ".join([*texts, *texts]).replace('"', "")
    (folder / "metadata.csv").write_text(f"file_name|text\nwavs/long.flac|{whole}\n", encoding="utf-8")
    settings = QUICK.model_copy(update={"acoustic": True})
    report = run(folder, settings, load_tools(settings, tmp_path))
    (result,) = report.clips
    assert result.prepared
    assert " ".join(clip.text for clip in result.prepared) == whole
    for before, after in pairwise(result.prepared):
        assert before.end_s <= after.start_s
        assert min(abs(before.end_s - border) for border in borders) < 0.5


def test_the_report_has_four_forms_and_no_stranger_writes_markup_into_them(folder):
    evil = folder / "wavs" / "<img src=x onerror=alert(1)>.flac"
    sorted((folder / "wavs").glob("*"))[0].rename(evil)
    (folder / "metadata.csv").unlink()
    report = run(folder)
    out = folder.parent / "out"
    assert ClipReport.model_validate_json((out / "clip_report.json").read_bytes()) == report
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page
    assert (
        page.count("<audio") == 3 + 2
    )  # the good ones as they are trained on, the one with a bad name before and after
    assert page.count("data:image/png") == 1
    assert page.count(", the first 3<") == 3
    assert "Accepted" in page
    assert "<img src=x" not in (out / "report.md").read_text(encoding="utf-8")
    suite = ElementTree.parse(out / "junit.xml").getroot()
    assert suite.get("tests") == "5"
    assert next(case.get("name") for case in suite.iter("testcase")) == "voice"


def test_the_page_is_bounded_and_keeps_room_for_what_is_rejected_last(folder, monkeypatch):
    monkeypatch.setattr(validation_report, "_PAGE_BYTES", 80_000)
    monkeypatch.setitem(validation_report._PAGE_SHARES, "pass", 0.1)  # the first good recording takes that
    monkeypatch.setattr(validation_report, "_ROWS_MOST", 3)
    last = sorted((folder / "wavs").glob("*"))[-1]
    audio = read_audio(last)
    last.write_bytes(encode_audio(np.clip(30 * audio.samples, -1, 1), audio.sample_rate_hz, "FLAC"))
    report = run(folder)
    assert [result.verdict for result in report.clips] == ["pass", "pass", "pass", "reject"]
    page = (folder.parent / "out" / "report.html").read_text(encoding="utf-8")
    assert page.count("<article>") == 2
    assert page.index("<article>") < page.index(f"4. wavs/{last.name}") < page.index("1. wavs/")
    assert page.count('<td class="file">wavs/') == 3
    assert "3 of 4 are listed" in page
    assert len(page) < 150_000


def test_of_a_long_recording_the_page_plays_the_beginning(folder):
    files = sorted((folder / "wavs").glob("*"))
    rate = read_audio(files[0]).sample_rate_hz
    long = np.concatenate([read_audio(path).mono for path in files] * 3)
    for path in files:
        path.unlink()
    write_audio(folder / "wavs" / "long.flac", long, rate)
    (folder / "metadata.csv").unlink()
    run(folder)
    page = (folder.parent / "out" / "report.html").read_text(encoding="utf-8")
    assert "the first 30" in page
    before = base64.b64decode(page.split("data:audio/ogg;base64,")[1].split('"')[0])
    assert len(long) > 35 * rate
    assert soundfile.info(io.BytesIO(before)).subtype == "OPUS"
    assert soundfile.info(io.BytesIO(before)).duration == pytest.approx(30.0, abs=0.2)


def test_junit_and_markdown_name_the_clips_that_failed(folder):
    path = sorted((folder / "wavs").glob("*"))[1]
    path.write_bytes(b"not audio at all")
    report = run(folder)
    suite = ElementTree.fromstring(render_junit(report))
    failed = [case.get("name") for case in suite.iter("testcase") if case.find("failure") is not None]
    assert failed == [f"wavs/{path.name}"]
    assert "corrupt" in render_markdown(report)
    assert plain_words(report)[0] == "Sentence 2: the file is damaged. Export or upload it again."


def opinion(_samples):
    return Opinion(3.0, 3.0, 3.0)


def noisy_folder(folder):
    random = np.random.default_rng(0)
    for path in sorted((folder / "wavs").glob("*")):
        audio = read_audio(path)
        noise = random.standard_normal(audio.samples.shape[1]).astype(np.float32)
        level = rms_dbfs(audio.mono) - 14 - rms_dbfs(noise)
        path.write_bytes(
            encode_audio(audio.mono + noise * np.float32(10 ** (level / 20)), audio.sample_rate_hz, "FLAC")
        )


def test_denoising_is_asked_for_noisy_clips_only_and_kept_only_if_nothing_gets_worse(folder):
    asked = []

    def gate(samples, rate):
        asked.append(rate)
        envelope = np.convolve(np.abs(samples), np.ones(rate // 20) / (rate // 20), mode="same")
        return np.where(envelope > 0.3 * envelope.max(), samples, 0.3 * samples).astype(np.float32)

    settings = QUICK.model_copy(update={"denoise": "auto"})
    run(folder, settings, Tools(opinion=opinion, denoise=gate))
    clean = len(asked)
    noisy_folder(folder)
    report = run(folder, settings, Tools(opinion=opinion, denoise=gate))
    assert len(asked) > clean
    assert any(clip.noise_reduced for clip in report.prepared)
    assert any(repair.code == "denoise" for result in report.clips for repair in result.repairs)
    opinions = iter(np.linspace(4.0, 2.5, 100))  # every next one is worse
    worse = run(folder, settings, Tools(opinion=lambda _: Opinion(3.0, 3.0, next(opinions)), denoise=gate))
    assert not any(clip.noise_reduced for clip in worse.prepared)


@pytest.mark.slow
def test_deepfilternet_takes_noise_off_and_says_what_it_brought_and_cost(folder, artifacts, tmp_path):
    artifacts("ecapa-voxceleb")
    cache = artifacts("deepfilternet3").parent.parent
    noisy_folder(folder)
    settings = QUICK.model_copy(update={"denoise": "auto", "dnsmos": True})
    tools = load_tools(settings, cache)
    assert {"deepfilternet", "ecapa"} <= set(tools.digests)
    repairs = [repair for clip in run(folder, settings, tools).clips for repair in clip.repairs]
    cleaned = [repair for repair in repairs if repair.code == "denoise"]
    assert cleaned
    for repair in cleaned:
        before, after = (re.findall(r"[\d.]+", told) for told in (repair.before, repair.after))
        assert float(after[0]) > float(before[0]) + 3, "dB"
        assert float(after[1]) > float(before[1]), "DNSMOS"
        assert 0.7 <= float(after[2]) <= 1.0, "likeness"


def test_a_recording_that_is_rejected_is_not_rescued_by_cleaning(folder):
    noisy_folder(folder)
    asked = []
    settings = QUICK.model_copy(update={"denoise": "auto", "dnsmos": True})
    unbearable = Tools(
        opinion=lambda _: Opinion(3.0, 1.0, 2.0), denoise=lambda samples, rate: asked.append(rate) or samples
    )
    report = run(folder, settings, unbearable)
    assert not asked
    assert "low_snr" in report.reasons


def test_a_voice_that_cleaning_would_change_stays_as_it_was_recorded(folder):
    noisy_folder(folder)

    def gate(samples, rate):
        envelope = np.convolve(np.abs(samples), np.ones(rate // 20) / (rate // 20), mode="same")
        return np.where(envelope > 0.3 * envelope.max(), samples, 0.3 * samples).astype(np.float32)

    settings = QUICK.model_copy(update={"denoise": "auto"})
    for likeness, is_kept in ((0.69, False), (0.71, True)):
        report = run(folder, settings, Tools(denoise=gate, likeness=lambda one, other, rate, told=likeness: told))
        assert any(clip.noise_reduced for clip in report.prepared) == is_kept


def test_strict_settings_refuse_what_could_not_be_measured_and_others_say_so(folder, tmp_path):
    settings = QUICK.model_copy(update={"denoise": "auto"})
    tools = load_tools(settings, tmp_path / "empty")
    report = run(folder, settings, tools)
    assert report.accepted
    assert "voxline artifacts pull deepfilternet3" in report.not_measured["denoise"]
    strict = run(folder, settings.model_copy(update={"strict": True}), tools)
    assert not strict.accepted
    assert "not_measured" in strict.reasons


@pytest.mark.slow
def test_deepfilternet_of_random_weights_runs_through_the_stage(folder, tmp_path, deepfilternet):
    noisy_folder(folder)
    settings = QUICK.model_copy(update={"denoise": "on", "denoise_weights": str(deepfilternet)})
    tools = load_tools(settings, tmp_path)
    assert len(tools.digests["deepfilternet"]) == 64
    report = run(folder, settings, tools)
    assert report.tools == tools.digests
    assert len(report.clips) == 4


@pytest.fixture(scope="module")
def deepfilternet(tmp_path_factory):
    import importlib.util

    path = Path(__file__).resolve().parents[2] / "models" / "judges" / "test_deepfilter.py"
    specification = importlib.util.spec_from_file_location("deepfilter_weights", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.write_random_weights(tmp_path_factory.mktemp("weights") / "DeepFilterNet3")


def test_weights_that_are_named_and_missing_are_a_wrong_setting(folder, capsys):
    arguments = ["validate", str(folder) + "/", "--language", "en", "--denoise-weights", str(folder / "nowhere")]
    assert run_command(arguments) == 3
    assert "config.ini" in capsys.readouterr().err


def test_the_command_refuses_with_exit_code_10_and_prints_json(folder, capsys, tmp_path):
    settings = "[validate]\ndnsmos = false\nspeakers = false\nacoustic = false\n"
    (tmp_path / "pipeline.toml").write_text(settings)
    import os

    here = Path.cwd()
    os.chdir(tmp_path)
    try:
        code = run_command(
            ["validate", str(folder) + "/", "--language", "en", "--json", "--report", str(tmp_path / "r")]
        )
    finally:
        os.chdir(here)
    out, err = capsys.readouterr()
    report = json.loads(out)
    assert code == 10
    assert report["verdict"] in ("pass", "warn", "repair")
    assert report["speech_needed_s"] == 60.0
    assert report["clips"][0]["measures"]["snr_db"] > 10
    assert "60 s needed" in err
    assert (tmp_path / "r" / "report.html").exists()


def test_two_swapped_texts_of_like_length_are_heard_by_the_acoustic_model(shared, tmp_path):
    voice = shared / "data" / "voices" / "en_vctk_p226"
    (tmp_path / "in" / "wavs").mkdir(parents=True)
    lines = (voice / "metadata.csv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("|") for line in lines[1:4]]
    rows[0][2], rows[1][2] = rows[1][2], rows[0][2]
    (tmp_path / "in" / "metadata.csv").write_text("\n".join([lines[0], *("|".join(row) for row in rows)]) + "\n")
    for row in rows:
        (tmp_path / "in" / row[0]).write_bytes((voice / row[0]).read_bytes())
    settings = QUICK.model_copy(update={"acoustic": True})
    report = run(tmp_path / "in", settings, load_tools(settings, tmp_path))
    assert [result.verdict for result in report.clips] == ["reject", "reject", "pass"]
    assert report.clips[0].measures.phone_error > 0.75 > report.clips[2].measures.phone_error
    assert report.clips[0].reasons == ("text_audio_mismatch",)


def test_other_weights_of_a_tool_judge_a_voice_again(deepfilternet, tmp_path):
    settings = ValidateSettings()
    before = tool_digests(settings, tmp_path)
    assert set(before) == {"silero", "dnsmos", "ge2e", "phones"}
    assert tool_digests(settings, tmp_path) == before
    pulled = tmp_path / "artifacts" / "deepfilternet3"
    shutil.copytree(deepfilternet, pulled)
    with_denoiser = tool_digests(settings, tmp_path)
    assert set(with_denoiser) - set(before) == {"deepfilternet"}
    (pulled / "config.ini").write_text((pulled / "config.ini").read_text() + "\n")
    assert tool_digests(settings, tmp_path)["deepfilternet"] != with_denoiser["deepfilternet"]
    assert "dnsmos" not in tool_digests(settings.model_copy(update={"dnsmos": False}), tmp_path)


def test_only_a_few_recordings_are_in_flight_at_a_time():
    drawn = []

    def items():
        for number in range(50):
            drawn.append(number)
            yield number

    results = in_parallel(lambda number: number * 2, items(), workers=2)
    assert next(results) == 0
    assert len(drawn) <= 4
    assert list(results) == [2 * number for number in range(1, 50)]


def empty_texts(folder):
    """The table of a folder with every text taken out, as `--write-metadata` and an import leave it."""
    header, *lines = (folder / "metadata.csv").read_text(encoding="utf-8").splitlines()
    names = [line.partition(",")[0] for line in lines]
    rest = "," * (header.count(",") - 1)
    (folder / "metadata.csv").write_text("\n".join([header, *(f"{name},{rest}" for name in names)]) + "\n")


def test_good_recordings_without_texts_are_told_to_be_fine_and_nothing_is_recorded_again(folder):
    empty_texts(folder)
    report = run(folder)
    assert (report.accepted, report.reasons[0]) == (False, "texts_missing")
    assert "not_enough_speech" not in report.reasons
    (finding,) = report.findings
    assert finding.detail.startswith("4 recordings are good, ")
    assert [result.reasons for result in report.clips] == [("no_transcript",)] * 4
    assert len(plain_words(report)) == 1
    assert "nothing has to be recorded again" in plain_words(report)[0]
    assert "Record" not in render_markdown(report)


def test_with_some_texts_too_few_seconds_the_texts_are_still_what_is_missing(folder):
    lines = (folder / "metadata.csv").read_text(encoding="utf-8").splitlines()
    kept = lines[1]
    empty_texts(folder)
    emptied = (folder / "metadata.csv").read_text().splitlines()
    (folder / "metadata.csv").write_text("\n".join([emptied[0], kept, *emptied[2:]]) + "\n")
    report = run(folder, QUICK.model_copy(update={"speech_min_s": 8.0}))
    assert report.speech_usable_s < 8.0
    assert report.lacks_texts_only


def test_recordings_that_would_not_suffice_with_texts_either_are_told_so(folder):
    empty_texts(folder)
    report = run(folder, QUICK.model_copy(update={"speech_min_s": 60.0}))
    assert not report.lacks_texts_only
    assert plain_words(report)[0].startswith("Record ")


@pytest.fixture
def bare(folder, tmp_path, monkeypatch):
    """The folder, not written down yet, and settings that judge it quickly."""
    (folder / "metadata.csv").unlink()
    settings = "dnsmos = false\nspeakers = false\nacoustic = false\nspeech_min_s = 4.0\n"
    (tmp_path / "pipeline.toml").write_text(f"[validate]\n{settings}")
    monkeypatch.chdir(tmp_path)
    return folder


def test_a_table_to_fill_in_is_written_on_request_and_never_over_another(bare, capsys):
    arguments = ["validate", str(bare), "--language", "en", "--write-metadata"]
    assert run_command(arguments) == 0
    written = (bare / "metadata.csv").read_text(encoding="utf-8").splitlines()
    names = sorted(path.name for path in (bare / "wavs").iterdir())
    assert written == ["file_name,text,language", *(f"wavs/{name},,en" for name in names)]
    assert run_command(["validate", str(bare), "--language", "en"]) == 10
    told = " ".join(capsys.readouterr().err.split())
    assert "4 recordings are good" in told
    assert "record again" not in told
    assert run_command(arguments) == 2
    assert (bare / "metadata.csv").read_text(encoding="utf-8").splitlines() == written


def test_a_voice_without_a_table_is_not_accepted_to_fail_later(bare, tmp_path, capsys):
    voice = tmp_path / "voices" / "ana"
    shutil.copytree(bare, voice)
    consent = "consent: {speaker: Ana, granted_on: 2026-01-09}"
    (voice / "voice.yaml").write_text(f"language: en\nlicense: CC0-1.0\nbase: nano\n{consent}\n")
    assert run_command(["validate", "ana"]) == 10
    assert "nobody wrote down what is said" in " ".join(capsys.readouterr().err.split())
    assert run_command(["run", "ana", "--until", "extract"]) == 10
    assert run_command(["validate", "ana", "--write-metadata"]) == 0
    assert len((voice / "metadata.csv").read_text().splitlines()) == 5


def test_what_was_found_in_many_recordings_is_one_line_with_three_names(bare, capsys):
    for path in (bare / "wavs").iterdir():
        samples = read_audio(path)
        write_audio(path.with_suffix(".ogg"), samples.mono * 0.02, samples.sample_rate_hz)
        path.unlink()
    assert run_command(["validate", str(bare), "--language", "en"]) == 0
    out = capsys.readouterr().out.splitlines()
    (told,) = [line for line in out if " low_level " in f" {line.replace(':', ' ')} "]
    assert "low_level in 4 recordings: " in told and told.endswith(" and 1 more")
    assert len(out) < 12


@pytest.mark.parametrize(("language", "has_chinese"), [("en", False), ("zh", True), ("yue", True)])
def test_advice_is_in_the_language_of_the_voice_and_english(folder, language, has_chinese):
    report = run(folder, QUICK.model_copy(update={"speech_min_s": 60.0})).model_copy(update={"language": language})
    page = "".join(validation_report.render_html(report, {}))
    assert ('lang="zh"' in page, "请补录" in page) == (has_chinese, has_chinese)
    assert "Please record again" in page


def test_a_limiter_that_did_nothing_is_not_told(folder):
    repairs = [repair for clip in run(folder).clips for repair in clip.repairs if repair.code == "gain"]
    assert repairs
    limited = [match for repair in repairs if (match := re.search(r"limited by (-?[\d.]+) dB", repair.after))]
    assert all(float(match[1]) > 0 for match in limited)
    assert len(limited) < len(repairs)


@pytest.mark.slow
def test_whisper_names_what_is_said_where_texts_lack_words_or_are_of_another_recording(folder, artifacts, monkeypatch):
    pytest.importorskip("ctranslate2")
    cache = artifacts("whisper-base").parent.parent
    header, *rows = csv.reader((folder / "metadata.csv").read_text(encoding="utf-8").splitlines())
    rows[0][1], rows[1][1] = rows[1][1], rows[0][1]
    rows[2][1] = " ".join(rows[2][1].split()[:6])
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as table:
        csv.writer(table).writerows([header, *rows])
    settings = QUICK.model_copy(update={"acoustic": True, "dnsmos": True, "speech_min_s": 2.0})

    def judged() -> ClipReport:
        answers = remembered(folder.parent / "answers.json")
        tools = load_tools(settings, cache, answers)
        assert "whisper" in tools.digests
        report = run(folder, settings, replace(tools, recognise=None, spell=None))  # no phones: the words alone
        answers.save()
        return report

    cold = judged()
    monkeypatch.setattr("models.judges.whisper.Whisper", lambda *_: pytest.fail("heard again"))
    monkeypatch.setattr("models.judges.dnsmos.load_dnsmos", lambda *_: lambda _: pytest.fail("judged again"))
    assert judged() == cold
    clips = cold.clips
    found = {clip.clip.file_name: {one.code: one for one in clip.findings} for clip in clips}
    names = sorted(found)
    assert "heard: Good morning" in found[names[0]]["text_audio_mismatch"].detail
    assert "heard: Please open your books" in found[names[1]]["text_audio_mismatch"].detail
    assert found[names[0]]["text_audio_mismatch"].severity == "reject"
    assert "words are said that the text lacks; heard: " in found[names[2]]["text_differs"].detail
    assert not {"text_differs", "text_audio_mismatch"} & set(found[names[3]])
    assert clips[3].measures.word_error < 0.1
