"""What the pages name exists: files, links, commands with their options, settings."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from command_lines import unknown_words

from pipeline.records.metrics import floored

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = [
    REPOSITORY / "README.md",
    REPOSITORY / "CHANGELOG.md",
    REPOSITORY / "CONTRIBUTING.md",
    REPOSITORY / "SECURITY.md",
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]
FOLDERS = "docs|models|pipeline|tests|recipes|benchmarks|scripts|voices|schemas"
EXAMPLES = re.compile(r"voices/(?!sample|README)")  # voices that a reader is to make
NOT_SETTINGS = {"gate.waived", *(f"gate.{metric.floor}" for metric in floored())}  # of a base's card


@pytest.fixture(params=PAGES, ids=[page.name for page in PAGES])
def page(request) -> Path:
    return request.param


def code_of(text: str) -> list[str]:
    """What stands in backticks and in fenced blocks, line by line, a continued line as one."""
    fenced = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.M | re.S)
    inline = re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S))
    return [" ".join(span.split()) for span in inline] + [
        line.strip() for block in fenced for line in re.sub(r"\\\n\s*", "", block).splitlines()
    ]


def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_file_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(rf"(?<![\w/.<-])((?:{FOLDERS})/[\w./<>*-]*[\w>*])", text)
    real = {name for name in named if not re.search(r"[<>*]", name) and not EXAMPLES.match(name)}
    there = {name for name in real if (REPOSITORY / name).exists() or (REPOSITORY / f"{name}.py").exists()}
    assert sorted(real - there) == []


def test_every_command_line_of_a_page_is_one_that_voxline_takes(page: Path) -> None:
    wrong = {}
    for line in code_of(page.read_text(encoding="utf-8")):
        found = re.match(r"(?:\$ |[A-Z_]+=\S+ )*(voxline [^|#&]*)", line)
        if found and not re.search(r"COMMAND|\[|\.\.\.", found.group(1)):
            wrong[line] = unknown_words(found.group(1).replace("'", ""))
    assert {line: words for line, words in wrong.items() if words} == {}


def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    from pipeline.config import SECTIONS

    spans = code_of(page.read_text(encoding="utf-8"))
    named = {span.split(" ")[0] for span in spans if re.match(rf"(?:{'|'.join(SECTIONS)})\.[a-z_]+(?: =|$)", span)}
    known = {f"{section}.{key}" for section, model in SECTIONS.items() for key in model.model_fields}
    assert sorted(named - known - NOT_SETTINGS) == []


def test_tables_can_be_read_in_a_terminal_of_a_hundred_columns(page: Path) -> None:
    rows = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    assert [row for row in rows if len(row) > 100] == []


def test_every_finding_of_validation_is_explained() -> None:
    codes = json.loads((REPOSITORY / "pipeline" / "templates" / "advice.json").read_text(encoding="utf-8"))
    rows = re.findall(r"^\| (`.*`) \|", (REPOSITORY / "docs" / "validation.md").read_text(encoding="utf-8"), re.M)
    assert {code.strip("`") for row in rows for code in row.split(", ")} == set(codes)
