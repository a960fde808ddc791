"""Tells people that a voice was refused: a signed webhook, an e-mail, a command. docs/notify.md has the payload.

A hook that fails is a line in the log and nothing else: it never changes a verdict, an exit code or a report.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import smtplib
import ssl
import subprocess
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime, make_msgid
from typing import Any

from pipeline.io.processes import child_environment
from pipeline.io.validation_report import advice_languages, headline, plain_words, render_markdown
from pipeline.io.webhook import post
from pipeline.records.clip_report import ClipReport
from pipeline.records.settings import NotifySettings

SECRET_VARIABLE = "VOXLINE_NOTIFY_SECRET"  # noqa: S105 - the variable's name
PASSWORD_VARIABLE = "VOXLINE_SMTP_PASSWORD"  # noqa: S105 - the variable's name
PAYLOAD_VERSION = 1
_TIMEOUT_S = 20.0
_SMTPS_PORT = 465
_MOST_CLIPS = 200

Log = Callable[[str], None]


def payload(report: ClipReport, now: datetime) -> dict[str, Any]:
    """What every hook is given, as JSON. Holds no audio, no transcript and no speaker's name."""
    flawed = [result for result in report.clips if result.findings]
    return {
        "event": "voice.refused",
        "payload_version": PAYLOAD_VERSION,
        "time": now.isoformat(timespec="seconds"),
        "voice": report.voice,
        "verdict": report.verdict,
        "reasons": list(report.reasons),
        "speech_usable_s": report.speech_usable_s,
        "speech_needed_s": report.speech_needed_s,
        "advice": {language: plain_words(report, language) for language in ("en", "zh")},
        "recordings": [
            {"file": result.clip.file_name, "verdict": result.verdict, "reasons": list(result.reasons)}
            for result in flawed[:_MOST_CLIPS]
        ],
    }


def sign(body: bytes, timestamp: str, secret: str) -> str:
    """`sha256=` and the HMAC of `timestamp.body`: a receiver that checks both takes no forgery and no replay."""
    return "sha256=" + hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()


def notify_refused(
    report: ClipReport, settings: NotifySettings, environment: Mapping[str, str], log: Log = lambda line: None
) -> list[str]:
    """Fire every configured hook for a refused voice; returns what failed, and raises nothing that a hook can cause."""
    if report.accepted:
        return []
    now = datetime.now(UTC)
    body = json.dumps(payload(report, now), ensure_ascii=False).encode()
    hooks: list[tuple[str, Callable[[], None]]] = []
    if settings.webhook_url:
        hooks.append(("webhook", lambda: _post(settings, body, str(int(now.timestamp())), environment)))
    if settings.email_to:
        hooks.append(("e-mail", lambda: _mail(report, settings, environment)))
    if settings.command:
        hooks.append(("command", lambda: _run(settings, body, environment)))
    failures = []
    for name, fire in hooks:
        try:
            fire()
        except (OSError, ValueError, smtplib.SMTPException, subprocess.SubprocessError) as error:
            failures.append(f"{name}: {type(error).__name__}: {str(error)[:200]}")
            log(f"the notification by {failures[-1]} failed; the verdict stands")
    return failures


def _post(settings: NotifySettings, body: bytes, timestamp: str, environment: Mapping[str, str]) -> None:
    headers = {"Content-Type": "application/json", "X-Voxline-Timestamp": timestamp}
    secret = environment.get(SECRET_VARIABLE)
    if secret:
        headers["X-Voxline-Signature"] = sign(body, timestamp, secret)
    post(settings.webhook_url, body, headers, allowed=settings.webhook_allowed)


def _mail(report: ClipReport, settings: NotifySettings, environment: Mapping[str, str]) -> None:
    message = EmailMessage()
    message["Subject"] = f"Voice {report.voice}: {headline(report)}".replace("\n", " ").replace("\r", " ")
    message["From"] = settings.email_from or settings.email_to[0]
    message["To"] = ", ".join(settings.email_to)
    message["Date"] = format_datetime(datetime.now(UTC))
    message["Message-ID"] = make_msgid(domain="voxline.invalid")  # not the name of this machine
    advice = "\n".join(f"- {line}" for language in advice_languages(report) for line in plain_words(report, language))
    message.set_content(f"{headline(report)}\n\n{advice}\n\n{render_markdown(report)}")
    password = environment.get(PASSWORD_VARIABLE)
    with _mail_server(settings) as server:
        if settings.smtp_starttls and settings.smtp_port != _SMTPS_PORT:
            server.starttls(context=ssl.create_default_context())
        if settings.smtp_user and password:
            if not isinstance(server.sock, ssl.SSLSocket):
                raise ValueError("a password is sent encrypted only: set notify.smtp_starttls, or port 465")
            server.login(settings.smtp_user, password)
        server.send_message(message)


def _mail_server(settings: NotifySettings) -> smtplib.SMTP:
    """A connection; encrypted from the first byte on the port that is meant for it."""
    where = settings.smtp_host, settings.smtp_port
    if settings.smtp_port == _SMTPS_PORT:
        return smtplib.SMTP_SSL(*where, timeout=_TIMEOUT_S, context=ssl.create_default_context())
    return smtplib.SMTP(*where, timeout=_TIMEOUT_S)


def _run(settings: NotifySettings, body: bytes, environment: Mapping[str, str]) -> None:
    """The command gets the payload on its standard input, and the variables that it is meant to have. No shell."""
    told = child_environment(environment, also=settings.command_variables)
    subprocess.run(list(settings.command), input=body, check=True, capture_output=True, timeout=_TIMEOUT_S, env=told)
