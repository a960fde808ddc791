"""Where a webhook goes: a public https address, and nowhere else by any trick of its name or its server."""

from __future__ import annotations

import socket
import ssl
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from shutil import which

import pytest

from pipeline.io import webhook
from pipeline.io.webhook import WebhookError, post

LOOPBACK = ["127.0.0.0/8"]


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        self.server.received.append(
            (self.path, self.headers["Host"], self.rfile.read(int(self.headers["Content-Length"])))
        )
        self.server.answer(self)

    def do_GET(self):
        self.server.received.append((self.path, "GET", b""))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *arguments):
        pass


def no_content(handler):
    handler.send_response(204)
    handler.end_headers()


@pytest.fixture
def serve():
    """Start a receiver; its `received` holds (path, Host, body), `answer` is how it answers."""
    servers = []

    def start(answer=no_content, certificate=None):
        server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
        server.received, server.answer = [], answer
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """Of hooks.example.org, signed by itself."""
    if which("openssl") is None:
        pytest.skip("openssl makes the certificate and is not installed")
    folder = tmp_path_factory.mktemp("certificate")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=hooks.example.org"
    command += " -addext subjectAltName=DNS:hooks.example.org"
    files = [str(folder / "certificate.pem"), str(folder / "key.pem")]
    subprocess.run([*command.split(), "-out", files[0], "-keyout", files[1]], check=True, capture_output=True)
    return files


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::1",
        "::",
        "fe80::1%eth0",
        "fc00::1",
        "fd00:ec2::254",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
    ],
)
def test_an_address_that_is_not_public_is_never_connected_to(address, monkeypatch):
    monkeypatch.setattr(socket, "create_connection", lambda *arguments, **more: pytest.fail("connected"))
    with pytest.raises(WebhookError, match="is not public; list it in notify"):
        post("https://hooks.example.org/r", b"{}", {}, resolve=lambda host, port: [address])


def test_one_private_address_among_public_ones_is_enough_to_refuse(monkeypatch):
    monkeypatch.setattr(socket, "create_connection", lambda *arguments, **more: pytest.fail("connected"))
    with pytest.raises(WebhookError, match="1, which is not public"):
        post("https://hooks.example.org/", b"{}", {}, resolve=lambda host, port: ["93.184.216.34", "127.0.0.1"])


@pytest.mark.parametrize("name", ["localhost", "127.1", "0x7f000001", "2130706433", "[::1]"])
def test_the_systems_own_resolver_is_checked_the_same_way(name):
    with pytest.raises(WebhookError, match="is not public"):
        post(f"https://{name}:9/", b"{}", {})


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("http://hooks.example.org/", "must begin with https://"),
        ("ftp://hooks.example.org/", "must begin with https://"),
        ("file:///etc/passwd", "must begin with https://"),
        ("//hooks.example.org/", "must begin with https://"),
        ("https://user:word@hooks.example.org/", "must not hold a user"),
        ("https://hooks.example.org/a\r\nX-Evil: 1", "characters that no address has"),
        ("https://hooks.example.org/a b", "characters that no address has"),
        ("https://hooks.example.org:99999/", "cannot be read"),
        ("https://[::1/", "cannot be read"),
    ],
)
def test_an_address_that_breaks_a_rule_is_told_which(url, rule):
    with pytest.raises(WebhookError, match=rule):
        post(url, b"{}", {}, resolve=lambda host, port: ["93.184.216.34"])


def test_http_is_for_listed_loopback_addresses_alone(serve):
    server = serve()
    url = f"http://127.0.0.1:{server.server_port}/hook?to=a"
    with pytest.raises(WebhookError, match="not public"):
        post(url, b"{}", {})
    assert server.received == []
    post(url, b"{}", {}, allowed=LOOPBACK)
    assert server.received == [("/hook?to=a", f"127.0.0.1:{server.server_port}", b"{}")]
    with pytest.raises(WebhookError, match="must begin with https://"):
        post("http://inside.example.org/", b"{}", {}, allowed=["10.0.0.0/8"], resolve=lambda host, port: ["10.0.0.1"])


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(serve, status):
    inner = serve()

    def redirect(handler):
        handler.send_response(status)
        handler.send_header("Location", f"http://127.0.0.1:{inner.server_port}/metadata")
        handler.end_headers()

    outer = serve(redirect)
    with pytest.raises(WebhookError, match=f"answered {status}: redirects are not followed"):
        post(f"http://127.0.0.1:{outer.server_port}/", b"{}", {}, allowed=LOOPBACK)
    assert inner.received == []


def test_a_name_that_changes_its_address_is_asked_once(serve, certificate, monkeypatch):
    """DNS rebinding: the first answer passes the check, the second would lead elsewhere."""
    monkeypatch.setenv("SSL_CERT_FILE", certificate[0])
    good = serve(certificate=certificate)
    answers = iter([["127.0.0.1"], ["127.0.0.2"]])
    asked = []

    def changing(host, port):
        asked.append(host)
        return next(answers)

    monkeypatch.setattr(socket, "getaddrinfo", resolving_numbers_only(socket.getaddrinfo))
    url = f"https://hooks.example.org:{good.server_port}/r"
    post(url, b"{}", {}, allowed=["127.0.0.1"], resolve=changing)
    assert asked == ["hooks.example.org"]
    assert good.received == [("/r", f"hooks.example.org:{good.server_port}", b"{}")]


def resolving_numbers_only(real):
    """A second question to the name server would not come through here unnoticed."""

    def resolve(host, *arguments, **more):
        assert host[0].isdigit(), f"{host} was resolved again"
        return real(host, *arguments, **more)

    return resolve


def test_the_certificate_has_to_be_of_the_name_in_the_address(serve, certificate, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", certificate[0])
    server = serve(certificate=certificate)
    with pytest.raises(ssl.SSLCertVerificationError):
        post(
            f"https://other.example.org:{server.server_port}/",
            b"{}",
            {},
            allowed=LOOPBACK,
            resolve=lambda host, port: ["127.0.0.1"],
        )
    assert server.received == []


def test_a_certificate_nobody_vouches_for_gets_nothing(serve, certificate, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    server = serve(certificate=certificate)
    with pytest.raises(ssl.SSLCertVerificationError):
        post(
            f"https://hooks.example.org:{server.server_port}/",
            b"{}",
            {},
            allowed=LOOPBACK,
            resolve=lambda host, port: ["127.0.0.1"],
        )
    assert server.received == []


def test_a_proxy_of_the_environment_is_not_asked(serve, monkeypatch):
    proxy, server = serve(), serve()
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.server_port}")
    post(f"http://127.0.0.1:{server.server_port}/", b"{}", {}, allowed=LOOPBACK)
    assert proxy.received == [] and len(server.received) == 1


def test_an_endless_answer_is_read_in_part_and_a_trickling_one_is_cut(serve):
    def endless(handler):
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"x" * 65536)
        except OSError:  # the sender has hung up
            pass

    def trickling(handler):
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")
        try:
            for number in range(100):
                handler.wfile.write(b"X-%d: y\r\n" % number)
                time.sleep(0.1)
        except OSError:
            pass

    post(f"http://127.0.0.1:{serve(endless).server_port}/", b"{}", {}, allowed=LOOPBACK)
    begin = time.monotonic()
    with pytest.raises(WebhookError, match=r"no answer within 0\.5 s"):
        post(f"http://127.0.0.1:{serve(trickling).server_port}/", b"{}", {}, allowed=LOOPBACK, total_s=0.5)
    assert time.monotonic() - begin < 5


def test_what_is_no_http_and_an_error_are_told(serve):
    def rude(handler):
        handler.wfile.write(b"220 mail.example.org ESMTP\r\n")
        handler.close_connection = True

    def refusing(handler):
        handler.send_response(500)
        handler.end_headers()

    with pytest.raises(WebhookError, match="the answer is not HTTP"):
        post(f"http://127.0.0.1:{serve(rude).server_port}/", b"{}", {}, allowed=LOOPBACK)
    with pytest.raises(WebhookError, match="answered 500"):
        post(f"http://127.0.0.1:{serve(refusing).server_port}/", b"{}", {}, allowed=LOOPBACK)


def test_every_address_of_a_name_is_tried(serve):
    server = serve()
    found = ["::1", "127.0.0.1"]
    post(
        f"http://inner.example.org:{server.server_port}/",
        b"{}",
        {},
        allowed=[*LOOPBACK, "::1"],
        resolve=lambda host, port: found,
    )
    assert len(server.received) == 1


def test_the_systems_resolver_tells_each_address_once():
    assert webhook.resolve_name("127.0.0.1", 80) == ["127.0.0.1"]
