"""A page that a command serves to a browser, on this machine unless the user says otherwise."""

import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from saliency_entropy.errors import UserError, in_one_line, whole_number

log = logging.getLogger(__name__)

# What a browser may load for the page: nothing from elsewhere, whatever a library puts into it.
POLICY = (
    "default-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
    "script-src 'self' 'unsafe-inline' 'unsafe-eval'; object-src 'none'; frame-ancestors 'none'"
)


def listening(host: str, port: int) -> socket.socket:
    """A socket that takes connections; says so if they may come from other machines.

    Raises:
        UserError: the host or the port cannot be used.
    """
    whole_number("port", port, 0, 65535)
    try:
        listener = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        reason = (error.strerror or in_one_line(error)).partition(" (while")[0]  # the address, as Python adds it
        raise UserError(
            f"host={host} port={port} cannot be used ({reason}); give another port=, or 0 for any that is free, and an "
            "address of this machine as host="
        ) from None
    if not ipaddress.ip_address(listener.getsockname()[0]).is_loopback:
        log.warning("host=%s: whoever reaches this machine can use the page, without password or encryption", host)
    return listener


def serve(app: Any, listener: socket.socket, host: str) -> None:
    """Serve an ASGI application, :func:`guarded`, until Ctrl-C or SIGTERM, which then reach whoever handles them."""
    import uvicorn  # of the extra demo

    address, port = listener.getsockname()[:2]
    log.info("open http://%s:%d in a browser; Ctrl-C ends it", f"[{address}]" if ":" in address else address, port)
    headers = {
        "Content-Security-Policy": POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }
    # A browser holds connections open for as long as it shows the page.
    options = {"log_level": "critical", "headers": [*headers.items()], "timeout_graceful_shutdown": 1}
    uvicorn.Server(uvicorn.Config(guarded(app, host), **options)).run(sockets=[listener])


def guarded(app: Any, host: str) -> Callable[..., Awaitable[None]]:
    """The ASGI application for its own pages alone. Requests from pages of other origins, and to a host name that is
    not this machine's (DNS rebinding), are refused: the names are ``host``, localhost, the machine's own, and any IP
    address, since what an attacker's name leads here asks for that name."""
    names = {host.lower(), "localhost", socket.gethostname().lower()}

    async def answer(scope: dict[str, Any], receive: Any, send: Any) -> None:
        headers = {name: value.decode("latin-1") for name, value in scope.get("headers", ())}
        own, origin = headers.get(b"host", ""), headers.get(b"origin")
        if scope["type"] != "lifespan" and not _is_own(own, names):
            code, sentence = 421, b"this is no name of this server: give it with host=."
        elif origin is not None and origin.partition("://")[2] != own:
            code, sentence = 403, b"a page of another origin may not ask for this."
        else:
            return await app(scope, receive, send)
        await send({"type": "http.response.start", "status": code, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": sentence})

    return answer


def _is_own(host: str, names: set[str]) -> bool:
    """Whether a Host header has one of the names, or an IP address."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name in names or bool(ipaddress.ip_address(name))
    except ValueError:
        return False
