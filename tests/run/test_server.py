"""The address of a page, and whom it answers."""

import asyncio
import logging
import socket

import pytest

from saliency_entropy.errors import UserError
from saliency_entropy.run.server import guarded, listening


def test_a_port_or_host_that_cannot_be_used_is_named(caplog: pytest.LogCaptureFixture) -> None:
    with listening("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with pytest.raises(
            UserError, match=rf"^host=127.0.0.1 port={port} cannot be used \(Address already in use\); "
        ):
            listening("127.0.0.1", port)
    with pytest.raises(UserError, match=r"host=no\.such\.host\.invalid port=0 cannot be used"):
        listening("no.such.host.invalid", 0)
    with pytest.raises(UserError, match="port is 70000; give a whole number from 0 to 65535"):
        listening("127.0.0.1", 70000)
    assert caplog.text == ""


def test_only_an_address_that_others_reach_is_said_aloud(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), listening("localhost", 0) as listener:
        assert listener.family == socket.AF_INET
        assert caplog.text == ""
    with listening("0.0.0.0", 0):
        assert caplog.messages == [
            "host=0.0.0.0: whoever reaches this machine can use the page, without password or encryption"
        ]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "127.0.0.1:8765"}, 200),
        ({"host": "127.0.0.1:8765", "origin": "http://127.0.0.1:8765"}, 200),
        ({"host": "localhost:1", "origin": "http://localhost:1"}, 200),
        ({"host": "[::1]:1"}, 200),
        ({"host": "lab.example:8765"}, 200),
        ({"host": "127.0.0.1:8765", "origin": "http://evil.example"}, 403),
        ({"host": "127.0.0.1:8765", "origin": "null"}, 403),
        ({"host": "127.0.0.1:8765", "origin": "http://127.0.0.1:9"}, 403),
        ({"host": "evil.example:8765"}, 421),  # DNS rebinding
        ({"host": "evil.example:8765", "origin": "http://evil.example:8765"}, 421),
        ({"host": "["}, 421),
        ({}, 421),
    ],
)
def test_other_origins_and_names_that_are_not_this_machines_are_refused(headers: dict, status: int) -> None:
    sent = []

    async def send(message: dict) -> None:
        sent.append(message)

    async def page(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    scope = {"type": "http", "headers": [(name.encode(), value.encode()) for name, value in headers.items()]}
    asyncio.run(guarded(page, "Lab.example")(scope, None, send))
    assert sent[0]["status"] == status
