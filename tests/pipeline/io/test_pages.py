"""Both reports can be read on a telephone and on a screen, light and dark, whatever the recordings are called."""

from __future__ import annotations

import re
from itertools import product

import pytest

from pipeline.io.report import TEMPLATES

PAGES = ("quality.html.j2", "validation.html.j2")
READABLE = 4.5  # contrast of text, WCAG 2.2 level AA
ON_GROUND = [("ink", "ground"), ("ink", "raised"), ("soft", "ground"), ("soft", "raised")]
VERDICTS = [("good", "good-ground"), ("bad", "bad-ground"), ("ink", "good-ground"), ("ink", "bad-ground")]


def source(page: str) -> str:
    return (TEMPLATES / page).read_text(encoding="utf-8")


def colours(page: str, theme: str) -> dict[str, str]:
    """Name -> #rrggbb; the dark theme says what differs from the light one."""
    light, dark = re.findall(r":root \{(.*?)\}", source(page), re.S)
    told = re.findall(r"--([\w-]+): (#\w+)", light if theme == "light" else light + dark)
    return {name: value if len(value) == 7 else "#" + "".join(2 * digit for digit in value[1:]) for name, value in told}


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("page", "theme"), product(PAGES, ("light", "dark")))
def test_every_text_stands_out_from_its_ground(page: str, theme: str) -> None:
    found = colours(page, theme)
    pairs = [*ON_GROUND, *VERDICTS, ("some", "some-ground" if "some-ground" in found else "raised")]
    ratios = {pair: contrast(found[pair[0]], found[pair[1]]) for pair in pairs}
    assert {pair: ratio for pair, ratio in ratios.items() if ratio < READABLE} == {}


@pytest.mark.parametrize("page", PAGES)
def test_on_a_narrow_screen_a_table_becomes_a_list(page: str) -> None:
    style = source(page)
    narrow = re.search(r"@media \(max-width: \d+rem\) \{ thead \{ display: none; \} tr.*?\} \}\n", style, re.S)
    assert narrow is not None and re.search(r"\btd \{ display: (?:inline-)?block", style[narrow.start() :])
    assert style.index("th, td {") < narrow.start()  # of two rules for the same the later one counts


@pytest.mark.parametrize("page", PAGES)
def test_no_name_and_no_column_is_wider_than_the_screen(page: str) -> None:
    style = source(page)
    assert re.search(r"\nbody \{[^}]*overflow-wrap: break-word;", style)
    columns = re.findall(r"minmax\((.*?), 1fr\)", style)
    assert columns and all(re.fullmatch(r"min\(\d+rem, 100%\)", least) for least in columns)


def test_in_a_list_every_number_of_a_recording_says_what_it_is() -> None:
    table = source("validation.html.j2").split("<table>")[1].split("</table>")[0]
    titles = re.findall(r"<th>(.*?)</th>", table)
    cells = re.findall(r"<td(.*?)>", table)
    labels = [label[1] if (label := re.search(r'data-label="(.*?)"', cell)) else "" for cell in cells]
    assert labels == ["", "", "", *titles[3:-1], ""]
