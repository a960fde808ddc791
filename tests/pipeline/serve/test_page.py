"""The page at `/`, in a real browser."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from browser import Page, browser
from serve_running import wait_for

pytestmark = pytest.mark.slow
# "Hello." is enough: the point is that it is heard, drawn and lit.
SPEAK = """(() => { document.getElementById("text").value = "Hello to all of you.";
document.getElementById("speak").click(); return true; })()"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory):
    with browser(tmp_path_factory.mktemp("chromium")) as found:
        yield found


def shown(page: Page, identity: str) -> str:
    return page.run(f"document.getElementById('{identity}').textContent")


def test_a_voice_is_picked_heard_drawn_and_its_words_light_up(server, page, tmp_path):
    page.open(f"{server.url}/")
    page.wait("document.querySelectorAll('#voice option').length >= 2")
    assert page.run("document.getElementById('voice').value") == "ana"
    page.wait("document.querySelectorAll('#passport dt').length > 5")
    assert server.registry.resolve("ana").version in shown(page, "passport")
    page.run("window.lit = 0; setInterval(() => { window.lit += document.querySelectorAll('.lit').length }, 5)")
    page.run(SPEAK)
    page.wait("document.getElementById('status').textContent.includes('of speech')")
    assert shown(page, "words").split() == ["Hello", "to", "all", "of", "you."]
    painted = """document.getElementById('spectrogram').getContext('2d').getImageData(0, 0, 1024, 128).data
        .some((value, place) => place % 4 === 0 && value > 0)"""
    assert page.run(painted)
    page.wait("window.lit > 0")
    assert page.problems == []
    assert {url.split("/")[2] for url in page.asked if "//" in url} == {server.url.split("/")[2]}
    if folder := os.environ.get("PAGE_PICTURES"):  # to be looked at
        page.picture(Path(folder) / "page.png")


def test_what_went_wrong_is_told(server, page):
    page.open(f"{server.url}/")
    page.wait("document.querySelectorAll('#voice option').length >= 2")
    page.run("document.getElementById('text').value = '🎉'; document.getElementById('speak').click()")
    page.wait("document.getElementById('status').textContent.includes('nothing to pronounce')")


def test_two_versions_are_compared_blind(server, page):
    first, second = server.publish("gina", 21), server.publish("gina", 22)
    wait_for(lambda: server.say("gina").headers.get("x-voxline-version") == second.version)
    page.open(f"{server.url}/")
    page.wait("[...document.querySelectorAll('#voice option')].some((one) => one.value === 'gina')")
    page.run(
        "{ const voice = document.getElementById('voice'); voice.value = 'gina'; voice.dispatchEvent(new Event('change')) }"
    )
    page.wait("document.querySelectorAll('#first option').length === 2")
    page.run("document.getElementById('text').value = 'Hello.'; document.querySelector('#compare button').click()")
    page.wait("!document.getElementById('blind').hidden")
    page.wait("document.getElementById('a').duration > 0 && document.getElementById('b').duration > 0")
    page.run("document.getElementById('choose-a').click()")
    told = shown(page, "verdict")
    assert first.version in told
    assert second.version in told


@pytest.mark.parametrize("dark", [False, True])
def test_a_telephone_shows_all_of_it(server, page, dark):
    page.open(f"{server.url}/", width=390, dark=dark)
    page.wait("document.querySelectorAll('#passport dt').length > 5")
    assert page.run("document.documentElement.scrollWidth") <= 390
    contrast = """(() => { const light = (color) => { const [r, g, b] = color.match(/[0-9.]+/g).map((one) => {
        const share = one / 255; return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4; });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
        const ground = light(getComputedStyle(document.body).backgroundColor);
        return Math.min(...[...document.querySelectorAll('h1, h2, p, label, dt, dd, a')].map((one) => {
            const ink = light(getComputedStyle(one).color);
            return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05); })); })()"""
    assert page.run(contrast) >= 4.5
    if folder := os.environ.get("PAGE_PICTURES"):
        page.picture(Path(folder) / f"page-390-{'dark' if dark else 'light'}.png")


def test_the_keyboard_and_a_screen_reader_find_everything(server, page):
    page.open(f"{server.url}/")
    page.wait("document.querySelectorAll('#voice option').length >= 2")
    unnamed = """[...document.querySelectorAll('input, select, textarea, button, audio, canvas')].filter((one) =>
        !(one.labels?.length || one.textContent.trim() || one.getAttribute('aria-label') || one.getAttribute('aria-labelledby')))
        .map((one) => one.id)"""
    assert page.run(unnamed) == []
    page.run("document.getElementById('voice').focus()")
    reached = []
    for _ in range(8):
        reached.append(page.run("document.activeElement.id"))
        page.press("Tab")
    assert reached == ["voice", "text", "speed", "seed", "key", "speak", "copy", "first"]


def test_the_description_and_the_report_ask_nobody_else(server, page):
    page.asked.clear()
    page.open(f"{server.url}/docs")
    assert "/v1/audio/speech/timestamps" in page.run("document.body.textContent")
    assert {url.split("/")[2] for url in page.asked if url.startswith("http")} == {server.url.split("/")[2]}
    assert server.get("/v1/voices/ana/report").json()["error"]["code"] == "report_not_found"
    assert server.get("/page/../app.py").status_code == 404
    assert "frame-ancestors 'none'" in server.get("/").headers["content-security-policy"]
