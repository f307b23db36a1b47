"""A page that a command serves to a browser, on this machine unless the user says otherwise."""

import ipaddress
import logging
import socket
from typing import Any

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


def serve(app: Any, listener: socket.socket) -> None:
    """Serve an ASGI application until Ctrl-C or SIGTERM, which then reach whoever handles them."""
    import uvicorn  # of the extra demo

    host, port = listener.getsockname()[:2]
    log.info("open http://%s:%d in a browser; Ctrl-C ends it", f"[{host}]" if ":" in host else host, port)
    # A browser holds connections open for as long as it shows the page.
    headers = [("Content-Security-Policy", POLICY), ("X-Content-Type-Options", "nosniff")]
    options = {"log_level": "critical", "headers": headers, "timeout_graceful_shutdown": 1}
    uvicorn.Server(uvicorn.Config(app, **options)).run(sockets=[listener])
