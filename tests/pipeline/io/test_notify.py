import base64
import email
import email.policy
import json
import os
import ssl
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from shutil import which
from socketserver import StreamRequestHandler, ThreadingTCPServer

import pytest

from pipeline.io.notify import PASSWORD_VARIABLE, SECRET_VARIABLE, notify_refused, sign
from pipeline.records.clip import Clip
from pipeline.records.clip_report import ClipReport, ClipResult, Finding
from pipeline.records.settings import NotifySettings

LOOPBACK = ("127.0.0.1",)


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
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook", received
    server.shutdown()


def test_the_webhook_gets_a_payload_whose_signature_holds(webhook):
    url, received = webhook
    assert (
        notify_refused(report(), NotifySettings(webhook_url=url, webhook_allowed=LOOPBACK), {SECRET_VARIABLE: "s3cret"})
        == []
    )
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
    assert notify_refused(report(accepted=True), NotifySettings(webhook_url=url, webhook_allowed=LOOPBACK), {}) == []
    assert received == []


class MailServer(ThreadingTCPServer):
    """Speaks SMTP (RFC 5321) with STARTTLS and AUTH PLAIN; `said` holds every line of the client after decryption."""

    def __init__(self, certificate=None):
        super().__init__(("127.0.0.1", 0), MailConversation)
        self.said, self.certificate = [], certificate
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def port(self):
        return self.server_address[1]


class MailConversation(StreamRequestHandler):
    def handle(self):
        self.answer("220 test")
        while line := self.rfile.readline():
            told = line.decode().rstrip()
            self.server.said.append(told)
            verb = told[:4].upper()
            if verb == "EHLO":
                is_plain = not isinstance(self.connection, ssl.SSLSocket)
                self.answer("250-test", "250 STARTTLS" if is_plain and self.server.certificate else "250 AUTH PLAIN")
            elif verb == "STAR":
                self.answer("220 go")
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(*self.server.certificate)
                self.connection = context.wrap_socket(self.connection, server_side=True)
                self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", buffering=0)
            elif verb == "DATA":
                self.answer("354 go")
                while (line := self.rfile.readline()) != b".\r\n":
                    self.server.said.append(line.decode().rstrip())
                self.answer("250 ok")
            elif verb == "QUIT":
                return self.answer("221 bye")
            else:
                self.answer("235 ok" if verb == "AUTH" else "250 ok")

    def answer(self, *lines):
        self.wfile.write("".join(line + "\r\n" for line in lines).encode())


def mail_settings(port, **more):
    return NotifySettings(email_to=("actor@example.org",), smtp_host="127.0.0.1", smtp_port=port, **more)


def message_in(said):
    start = next(number for number, line in enumerate(said) if line == "data") + 1
    return email.message_from_string("\n".join(said[start:]), policy=email.policy.default)


@pytest.mark.parametrize(("language", "has_chinese"), [("en", False), ("zh", True)])
def test_the_mail_is_delivered_with_the_advice_in_the_language_of_the_voice(language, has_chinese):
    told = report().model_copy(update={"language": language})
    with MailServer() as server:
        assert notify_refused(told, mail_settings(server.port), {}) == []
        server.shutdown()
    message = message_in(server.said)
    assert message["Subject"].startswith("Voice ana: refused")
    assert message["To"] == "actor@example.org"
    assert message["Date"] is not None
    assert "Record 12 s more speech." in message.get_content()
    assert ("请再录 12 秒语音。" in message.get_content()) == has_chinese
    assert any("RCPT TO:<ACTOR@EXAMPLE.ORG>" in line.upper() for line in server.said)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Of 127.0.0.1, signed by itself."""
    if which("openssl") is None:
        pytest.skip("openssl makes the certificate and is not installed")
    folder = tmp_path_factory.mktemp("certificate")
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    )
    files = [str(folder / "certificate.pem"), str(folder / "key.pem")]
    subprocess.run([*command.split(), "-out", files[0], "-keyout", files[1]], check=True, capture_output=True)
    return files


def test_the_mail_goes_encrypted_and_with_the_password_of_the_environment(certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", certificate[0])
    with MailServer(certificate) as server:
        settings = mail_settings(server.port, smtp_starttls=True, smtp_user="robot")
        assert notify_refused(report(), settings, {PASSWORD_VARIABLE: "s3cret"}) == []
        server.shutdown()
    said = [line for line in server.said if line.startswith("AUTH PLAIN ")]
    assert base64.b64decode(said[0].split()[-1]) == b"\0robot\0s3cret"
    assert server.said.index("STARTTLS") < server.said.index(said[0])
    assert "Record 12 s more speech." in message_in(server.said).get_content()


def test_a_mail_server_that_nobody_vouches_for_gets_neither_password_nor_mail(certificate, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    with MailServer(certificate) as server:
        settings = mail_settings(server.port, smtp_starttls=True, smtp_user="robot")
        (failure,) = notify_refused(report(), settings, {PASSWORD_VARIABLE: "s3cret"})
        server.shutdown()
    assert failure.startswith("e-mail: SSLCertVerificationError")
    assert not [line for line in server.said if line.startswith(("AUTH", "MAIL", "data"))]


def test_a_password_is_never_sent_in_the_clear():
    with MailServer() as server:
        (failure,) = notify_refused(report(), mail_settings(server.port, smtp_user="robot"), {PASSWORD_VARIABLE: "x"})
        server.shutdown()
    assert "encrypted only" in failure
    assert not [line for line in server.said if line.startswith(("AUTH", "MAIL"))]


def documented_receiver():
    """The function in docs/notify.md that a receiver may copy."""
    text = (Path(__file__).resolve().parents[3] / "docs" / "notify.md").read_text(encoding="utf-8")
    scope = {}
    exec(text.split("```python\n")[1].split("```")[0], scope)
    return scope["is_genuine"]


def test_the_receiver_in_the_documentation_takes_the_message_once_and_no_forgery(webhook):
    url, received = webhook
    assert (
        notify_refused(report(), NotifySettings(webhook_url=url, webhook_allowed=LOOPBACK), {SECRET_VARIABLE: "s3cret"})
        == []
    )
    ((headers, body),) = received
    is_genuine, now = documented_receiver(), float(headers["X-Voxline-Timestamp"])
    assert is_genuine(headers, body, "s3cret", now)
    assert not is_genuine(headers, body + b" ", "s3cret", now)
    assert not is_genuine(headers, body, "other", now)
    assert not is_genuine(headers, body, "s3cret", now + 3600)
    assert not is_genuine({}, body, "s3cret", now)


def test_a_receiver_that_answers_with_an_error_or_sends_elsewhere_is_told():
    class Rude(BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(500 if self.path == "/error" else 302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()

        def log_message(self, *arguments):
            pass

    server = HTTPServer(("127.0.0.1", 0), Rude)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    for path in ("error", "elsewhere"):
        url = f"http://127.0.0.1:{server.server_port}/{path}"
        (failure,) = notify_refused(report(), NotifySettings(webhook_url=url, webhook_allowed=LOOPBACK), {})
        assert failure.startswith("webhook: WebhookError: 127.0.0.1 answered")
    server.shutdown()


def test_the_command_gets_the_payload_on_standard_input(tmp_path):
    target = tmp_path / "seen.json"
    code = f"import sys, pathlib; pathlib.Path({str(target)!r}).write_bytes(sys.stdin.buffer.read())"
    assert notify_refused(report(), NotifySettings(command=(sys.executable, "-c", code)), {}) == []
    assert json.loads(target.read_bytes())["event"] == "voice.refused"


def test_the_command_sees_the_variables_it_is_meant_to_have_and_no_secret(tmp_path):
    target = tmp_path / "seen.json"
    code = f"import json, os, pathlib; pathlib.Path({str(target)!r}).write_text(json.dumps(dict(os.environ)))"
    environment = {
        **os.environ,
        SECRET_VARIABLE: "s3cret",
        PASSWORD_VARIABLE: "s3cret",
        "VOXLINE_SIGNING_KEY": "s3cret",
        "CI_JOB_TOKEN": "s3cret",
        "AWS_SECRET_ACCESS_KEY": "s3cret",
        "HF_TOKEN": "s3cret",
        "ANYTHING_NOBODY_THOUGHT_OF": "s3cret",
        "CHAT_TOKEN": "for the command",
    }
    settings = NotifySettings(command=(sys.executable, "-c", code), command_variables=("CHAT_TOKEN",))
    assert notify_refused(report(), settings, environment) == []
    seen = json.loads(target.read_text())
    assert seen["CHAT_TOKEN"] == "for the command"
    assert seen["PATH"] == os.environ["PATH"]
    assert "s3cret" not in seen.values()


def test_a_webhook_may_reach_what_the_settings_list_and_nothing_else(webhook):
    url, received = webhook
    (failure,) = notify_refused(report(), NotifySettings(webhook_url=url), {SECRET_VARIABLE: "s3cret"})
    assert "is not public; list it in notify.webhook_allowed" in failure
    assert received == []
    with pytest.raises(ValueError, match="webhook_allowed"):
        NotifySettings(webhook_allowed=("inside",))


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
        "webhook: WebhookError: the webhook's address must begin with https://"
    )
