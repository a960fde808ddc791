"""A POST to an address from the settings that cannot be turned against the network it is sent from.

https only, no redirects, no proxies. The name is resolved once, every address it stands for is checked, and the
connection goes to a checked one: a name server that answers differently the second time is never asked. Of the answer
only the head is read, in bounded time.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Sequence[str]]

_CONNECT_S = 10.0
_TOTAL_S = 20.0
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052: the last four bytes are an IPv4 address


class WebhookError(OSError):
    """The address breaks a rule, or its server did not take the message. The message says which."""


@dataclass(frozen=True)
class _Target:
    scheme: str
    host: str
    port: int
    path: str


def resolve_name(host: str, port: int) -> list[str]:
    """All addresses of a name, as the system knows them."""
    return list(dict.fromkeys(str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)))


def post(
    url: str,
    body: bytes,
    headers: Mapping[str, str],
    *,
    allowed: Iterable[str] = (),
    resolve: Resolve = resolve_name,
    total_s: float = _TOTAL_S,
) -> None:
    """Send ``body``; the server has to answer with 2xx.

    Args:
        allowed: addresses and networks that may be reached although they are not public; http only to loopback ones.

    Raises:
        WebhookError, OSError: naming the rule, or what failed on the way.
    """
    target = _parse(url)
    addresses = _checked(target, resolve, [ipaddress.ip_network(network, strict=False) for network in allowed])
    with _connect(addresses, target.port) as plain, _encrypted(plain, target) as connected:
        # Ends a server that sends its answer byte by byte: timeouts of sockets begin anew with every byte.
        is_cut = threading.Event()
        watch = threading.Timer(total_s, _cut, [connected, is_cut])
        watch.daemon = True
        watch.start()
        status, failure = 0, None
        try:
            status = _exchange(target, connected, body, headers)
        except (http.client.HTTPException, OSError) as error:
            failure = error
        if is_cut.is_set():  # what was cut off may look like an answer
            raise WebhookError(f"{target.host}: no answer within {total_s:g} s") from failure
        watch.cancel()
    if isinstance(failure, OSError):
        raise failure
    if failure is not None:
        raise WebhookError(f"{target.host}: the answer is not HTTP: {type(failure).__name__}")
    if 300 <= status < 400:
        raise WebhookError(f"{target.host} answered {status}: redirects are not followed")
    if not 200 <= status < 300:
        raise WebhookError(f"{target.host} answered {status}")


def _parse(url: str) -> _Target:
    if not url.isascii() or not url.isprintable() or " " in url:
        raise WebhookError("the webhook's address holds characters that no address has")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise WebhookError("the webhook's address cannot be read") from None
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise WebhookError("the webhook's address must begin with https://")
    if parts.username is not None or parts.password is not None:
        raise WebhookError("the webhook's address must not hold a user or a password")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return _Target(parts.scheme, parts.hostname, port or (443 if parts.scheme == "https" else 80), path)


def _checked(target: _Target, resolve: Resolve, allowed: Sequence[Network]) -> list[Address]:
    addresses = [ipaddress.ip_address(told.partition("%")[0]) for told in resolve(target.host, target.port)]
    if not addresses:
        raise WebhookError(f"{target.host} has no address")
    for address in addresses:
        inner = _inner(address)
        is_listed = any(inner in network for network in allowed if network.version == inner.version)
        if not is_listed and not _is_public(inner):
            raise WebhookError(
                f"{target.host} is {address}, which is not public; list it in notify.webhook_allowed to reach it"
            )
        if target.scheme == "http" and not (is_listed and inner.is_loopback):
            raise WebhookError(
                "the webhook's address must begin with https://; http:// reaches only loopback addresses that"
                " notify.webhook_allowed lists"
            )
    return addresses


def _inner(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, where it does."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None) or address


def _is_public(address: Address) -> bool:
    return address.is_global and not address.is_multicast


def _connect(addresses: Sequence[Address], port: int) -> socket.socket:
    failure: OSError | None = None
    for address in addresses:
        try:
            return socket.create_connection((str(address), port), timeout=_CONNECT_S)
        except OSError as error:
            failure = error
    assert failure is not None
    raise failure


def _encrypted(plain: socket.socket, target: _Target) -> socket.socket:
    """The certificate has to be of the name in the address, whatever address that was resolved to."""
    if target.scheme == "http":
        return plain
    context = ssl.create_default_context()
    return context.wrap_socket(plain, server_hostname=target.host, do_handshake_on_connect=False)


def _exchange(target: _Target, connected: socket.socket, body: bytes, headers: Mapping[str, str]) -> int:
    """The status of the answer."""
    if isinstance(connected, ssl.SSLSocket):
        connected.do_handshake()
    kind = http.client.HTTPSConnection if target.scheme == "https" else http.client.HTTPConnection
    connection = kind(target.host, target.port)
    connection.sock = connected  # connected already, so it resolves and connects to nothing by itself
    try:
        connection.request("POST", target.path, body=body, headers={**headers, "Connection": "close"})
        with connection.getresponse() as answer:
            return answer.status  # whatever else it says is not read
    finally:
        connection.close()


def _cut(connected: socket.socket, is_cut: threading.Event) -> None:
    is_cut.set()  # first: whoever waits for the answer wakes at once
    with suppress(OSError):
        socket.socket.shutdown(connected, socket.SHUT_RDWR)  # an SSLSocket's own would pull the rug from its reader
