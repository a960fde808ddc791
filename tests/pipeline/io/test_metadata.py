import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.io.metadata import is_outside, parse_metadata, read_metadata

HEADER = "file_name,text,language\n"


def test_the_convention_is_read_without_a_word():
    metadata = parse_metadata((HEADER + 'wavs/1.wav,"Yes, ""he"" said.",en\nwavs/2.wav,No.,\n').encode())
    assert metadata.problems == ()
    assert [(row.file_name, row.text, row.language) for row in metadata.rows] == [
        ("wavs/1.wav", 'Yes, "he" said.', "en"),
        ("wavs/2.wav", "No.", ""),
    ]


def test_a_pipe_file_keeps_its_quotes():
    metadata = parse_metadata(b'file|language|text\nwavs/1.wav|en|the "lower-case" being\n')
    assert metadata.rows[0].text == 'the "lower-case" being'
    assert not metadata.problems


@pytest.mark.parametrize(
    ("encoding", "language", "text"),
    [
        ("gb18030", "zh", "其中有两个是内因的指标"),
        ("big5hkscs", "yue", "今日天氣好好我哋去行山"),
        ("cp932", "ja", "真っ昼間なのに電球がともっていた"),
        ("cp949", "ko", "안녕하세요 반갑습니다"),
        ("utf-16", "zh", "其中有两个是内因的指标"),
    ],
)
def test_a_legacy_encoding_is_converted_and_said(encoding, language, text):
    metadata = parse_metadata(f"file,language,text\r\na.wav,{language},{text}\r\n".encode(encoding))
    assert [row.text for row in metadata.rows] == [text]
    assert [(problem.code, problem.severity) for problem in metadata.problems] == [("encoding", "repair")]


def test_one_damaged_line_does_not_change_how_the_others_are_read():
    data = "file|text\na.wav|café\n".encode() + b"b.wav|caf\xe9\n"
    metadata = parse_metadata(data)
    assert [row.text for row in metadata.rows] == ["café"]
    assert [(problem.line, problem.severity) for problem in metadata.problems] == [(3, "reject")]


def test_typographic_quotes_from_windows_are_mended():
    metadata = parse_metadata(b"file|text\na.wav|don\x92t\n")
    assert metadata.rows[0].text == "don\N{RIGHT SINGLE QUOTATION MARK}t"
    assert metadata.problems[0].code == "encoding"


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("a.wav", "fields"),
        ("a.wav,", "no text"),
        (",hello", "no file name"),
        ("a.wav,=cmd()", "formula"),
        ("a.wav,bell\x07", "control"),
        ('a.wav,"open', "quote"),
        ("a.wav,lost \N{REPLACEMENT CHARACTER}", "lost"),
    ],
)
def test_a_bad_line_is_refused_with_its_number_and_the_rest_is_kept(line, part):
    metadata = parse_metadata(f"file_name,text\n{line}\nb.wav,good\n".encode())
    assert [row.file_name for row in metadata.rows] == ["b.wav"]
    (problem,) = metadata.problems
    assert (problem.severity, problem.line) == ("reject", 2)
    assert part in problem.detail
    assert not metadata.is_hostile


@pytest.mark.parametrize("name", ["../x.wav", "/etc/passwd", "a/../../x", "C:\\x.wav", "..\\x", "~/x", "a\0b"])
def test_paths_that_leave_the_folder_make_the_file_hostile(name):
    assert is_outside(name)
    if "\0" not in name:
        assert parse_metadata(f"file|text\n{name}|hello\n".encode()).is_hostile


def test_names_with_dots_inside_are_harmless():
    assert not is_outside("wavs/a..b.wav")
    assert not is_outside("-rf.flac")


def test_repeated_lines_are_dropped_and_contradicting_ones_refused():
    same = parse_metadata(b"file|text\na.wav|one\na.wav|one\n")
    assert [row.text for row in same.rows] == ["one"]
    assert same.problems[0].code == "duplicate_line"
    other = parse_metadata(b"file|text\na.wav|one\na.wav|two\nb.wav|three\n")
    assert [row.file_name for row in other.rows] == ["b.wav"]


def test_a_quoted_text_may_run_over_lines():
    metadata = parse_metadata(b'file_name,text\na.wav,"two\nlines"\nb.wav,x\n')
    assert [row.text for row in metadata.rows] == ["two lines", "x"]


@pytest.mark.parametrize("data", [b"", b"\n\n", b"hello", b"a,b,c\n1,2,3\n", b"\x00\x01\x02", b"\xff\xfe\x00"])
def test_what_is_no_metadata_is_one_clear_problem(data):
    metadata = parse_metadata(data)
    assert metadata.rows == ()
    assert metadata.problems[-1].severity == "reject"


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_no_bytes_raise(data):
    parse_metadata(b"file|language|text\n" + data, "zh")
    parse_metadata(data)


def test_the_shared_folders_are_read(shared):
    for path in sorted((shared / "data" / "voices").glob("*/metadata.csv")):
        metadata = read_metadata(path)
        expected = [line.split("|") for line in path.read_text(encoding="utf-8").splitlines()[1:]]
        assert [row.file_name for row in metadata.rows] == [fields[0] for fields in expected if fields[2]], path
