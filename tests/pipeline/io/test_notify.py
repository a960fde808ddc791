import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import StreamRequestHandler, ThreadingTCPServer

import pytest

from pipeline.io.notify import SECRET_VARIABLE, notify_refused, sign
from pipeline.records.clip import Clip
from pipeline.records.clip_report import ClipReport, ClipResult, Finding
from pipeline.records.settings import NotifySettings


def report(accepted=False):
    finding = Finding(code="clipping", severity="reject", value=0.1, limit=0.002, unit="share", detail="too loud")
    clips = (ClipResult(clip=Clip(file_name="wavs/1.wav", language="en"), verdict="reject", findings=(finding,)),)
    return ClipReport(
        voice="ana",
        language="en",
        accepted=accepted,
        verdict="reject",
        reasons=("clipping", "not_enough_speech"),
        speech_found_s=50.0,
        speech_usable_s=48.0,
        speech_needed_s=60.0,
        clips=clips,
    )


@pytest.fixture
def webhook():
    """A receiver on this machine; `received` holds what it was sent."""
    received = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            received.append((dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook", received
    server.shutdown()


def test_the_webhook_gets_a_payload_whose_signature_holds(webhook):
    url, received = webhook
    assert notify_refused(report(), NotifySettings(webhook_url=url), {SECRET_VARIABLE: "s3cret"}) == []
    ((headers, body),) = received
    assert headers["X-Voxline-Signature"] == sign(body, headers["X-Voxline-Timestamp"], "s3cret")
    assert headers["X-Voxline-Signature"] != sign(body, headers["X-Voxline-Timestamp"], "other")
    content = json.loads(body)
    assert content["voice"] == "ana"
    assert content["reasons"] == ["clipping", "not_enough_speech"]
    assert content["advice"]["en"][0] == "Record 12 s more speech."
    assert content["advice"]["zh"][0] == "请再录 12 秒语音。"
    assert content["recordings"] == [{"file": "wavs/1.wav", "verdict": "reject", "reasons": ["clipping"]}]


def test_an_accepted_voice_fires_nothing(webhook):
    url, received = webhook
    assert notify_refused(report(accepted=True), NotifySettings(webhook_url=url), {}) == []
    assert received == []


def test_the_mail_is_delivered_with_the_advice():
    lines = []

    class Server(StreamRequestHandler):
        def handle(self):
            self.wfile.write(b"220 test\r\n")
            in_data = False
            for line in self.rfile:
                lines.append(line.decode().rstrip())
                if in_data and line == b".\r\n":
                    in_data = False
                    self.wfile.write(b"250 ok\r\n")
                elif not in_data:
                    verb = line[:4].upper()
                    in_data = verb == b"DATA"
                    answer = {b"DATA": b"354 go\r\n", b"QUIT": b"221 bye\r\n"}.get(verb, b"250 ok\r\n")
                    self.wfile.write(answer)
                    if verb == b"QUIT":
                        return

    with ThreadingTCPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        settings = NotifySettings(
            email_to=("actor@example.org",), smtp_host="127.0.0.1", smtp_port=server.server_address[1]
        )
        assert notify_refused(report(), settings, {}) == []
        server.shutdown()
    assert any(line.startswith("Subject: Voice ana: refused") for line in lines)
    assert any("RCPT TO:<ACTOR@EXAMPLE.ORG>" in line.upper() for line in lines)


def test_the_command_gets_the_payload_on_standard_input(tmp_path):
    target = tmp_path / "seen.json"
    code = f"import sys, pathlib; pathlib.Path({str(target)!r}).write_bytes(sys.stdin.buffer.read())"
    assert notify_refused(report(), NotifySettings(command=(sys.executable, "-c", code)), {}) == []
    assert json.loads(target.read_bytes())["event"] == "voice.refused"


def test_hooks_that_fail_are_told_and_change_nothing():
    told = []
    settings = NotifySettings(
        webhook_url="http://127.0.0.1:9/nobody",
        email_to=("a@example.org",),
        smtp_host="127.0.0.1",
        smtp_port=9,
        command=("/nonexistent",),
    )
    failures = notify_refused(report(), settings, {}, told.append)
    assert [failure.split(":")[0] for failure in failures] == ["webhook", "e-mail", "command"]
    assert len(told) == 3
    assert notify_refused(report(), NotifySettings(webhook_url="file:///etc/passwd"), {})[0].startswith(
        "webhook: Value"
    )
