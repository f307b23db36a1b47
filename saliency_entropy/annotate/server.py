"""The page on which people annotate, and what it asks for.

A page of another origin can neither read nor write here: every address but that of the page itself and of signing in
wants a token in a header, which only a page of this origin can send; requests from other origins, and requests to a
host name that is not this machine's (DNS rebinding), are refused before that.
"""

import json
import logging
import re
import secrets
import socket
import time
import unicodedata
import zlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from typing import Annotated, TypeVar
from urllib.parse import urlsplit

import numpy as np
from pydantic import BaseModel, Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from saliency_entropy.annotate.annotations import Annotations, Refused, shown_image
from saliency_entropy.annotate.drawing import Drawing
from saliency_entropy.errors import UserError
from saliency_entropy.page.web_page import render

log = logging.getLogger(__name__)

NAME = re.compile(r"\w[\w-]{0,39}")  # of a folder
LARGEST_BODY = 8_000_000  # bytes: some 300,000 points of strokes
# Seconds without a sign of life after which somebody else may take the name. A page gives one every 20 seconds, and a
# browser lets a page in the background speak once a minute.
PRESENT = 90.0
HEADERS = {
    "Content-Security-Policy": "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
Model = TypeVar("Model", bound=BaseModel)


class SignIn(BaseModel):
    name: Annotated[str, Field(max_length=200)]
    token: Annotated[str, Field(max_length=100)] = ""  # of this browser, from when it signed in last


@dataclass
class Session:
    token: str
    seen: float  # the last sign of life, in seconds of the monotonic clock


class Server:
    """What the requests share; see :func:`application`."""

    def __init__(self, annotations: Annotations, shown: Sequence[str], seed: int | None) -> None:
        self.annotations = annotations
        self.shown = shown
        self.seed = seed
        self.sessions: dict[str, Session] = {}
        self.page = render(__package__, "annotate", {}, {}, "connect-src 'self'")

    async def show_page(self, request: Request) -> Response:
        return HTMLResponse(self.page)

    async def sign_in(self, request: Request) -> Response:
        given = await _parsed(request, SignIn)
        name = unicodedata.normalize("NFC", given.name.strip()).lower()
        if not NAME.fullmatch(name):
            raise HTTPException(422, "a name has up to 40 letters, digits, - and _, and begins with a letter or digit")
        session, now = self.sessions.get(name), time.monotonic()
        if session and session.token != given.token and now - session.seen < PRESENT:
            raise HTTPException(
                409,
                f"{name} is signed in elsewhere: sign out there, or wait {PRESENT:.0f} seconds after that page was "
                "closed, or take another name",
            )
        # A new token each time: of two windows of one browser, the last to be opened is the one that paints.
        self.sessions[name] = Session(secrets.token_urlsafe(), now)
        own = self.annotations.drawings[name]
        images = [{"id": image, "status": own[image].status if image in own else "open"} for image in self.order(name)]
        return JSONResponse({"name": name, "token": self.sessions[name].token, "images": images})

    def order(self, name: str) -> list[str]:
        """The images in the order of an annotator, the same each time."""
        if self.seed is None:
            return list(self.shown)
        random = np.random.default_rng([self.seed, zlib.crc32(name.encode())])
        return [self.shown[position] for position in random.permutation(len(self.shown))]

    async def sign_out(self, request: Request) -> Response:
        del self.sessions[self._annotator(request)]
        return JSONResponse({})

    async def stay(self, request: Request) -> Response:
        self._annotator(request)
        return JSONResponse({})

    async def show_image(self, request: Request) -> Response:
        self._annotator(request)
        path = self.annotations.paths[self._image(request)]
        try:
            png = await run_in_threadpool(shown_image, self.annotations.manifest, path)
        except UserError as error:
            log.warning("%s", error)  # not to the annotator, to whom a path could tell the label
            raise HTTPException(422, "this image cannot be read, and the server's log says why: skip it") from None
        return Response(png, media_type="image/png")

    async def show_drawing(self, request: Request) -> Response:
        drawing = await run_in_threadpool(self.annotations.drawing, self._annotator(request), self._image(request))
        return JSONResponse(drawing and drawing.model_dump())

    async def save(self, request: Request) -> Response:
        annotator, image = self._annotator(request), self._image(request)
        drawing = await _parsed(request, Drawing)
        try:
            await run_in_threadpool(self.annotations.save, annotator, image, drawing)
        except Refused as refusal:
            raise HTTPException(409, str(refusal)) from None
        return JSONResponse({})

    async def summary(self, request: Request) -> Response:
        self._annotator(request)
        pairs = await run_in_threadpool(self.annotations.agreement)
        shown = {*self.shown}
        counts = []
        for annotator, own in sorted(self.annotations.drawings.items()):
            states = [drawing.status for image, drawing in [*own.items()] if image in shown]
            done, skipped = states.count("done"), states.count("skipped")
            counts.append(
                {"annotator": annotator, "done": done, "skipped": skipped, "left": len(shown) - done - skipped}
            )
        return JSONResponse({"annotators": counts, "pairs": json.loads(pairs.to_json(orient="records"))})

    def _annotator(self, request: Request) -> str:
        """Who asks; a sign of life."""
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        for name, session in self.sessions.items():
            if session.token == token:
                session.seen = time.monotonic()
                return name
        raise HTTPException(401, "sign in first")

    def _image(self, request: Request) -> str:
        image = request.path_params["image"]
        if image not in self.annotations.paths:
            raise HTTPException(404, "there is no such image")
        return image


def application(annotations: Annotations, shown: Sequence[str], seed: int | None, host: str) -> Starlette:
    """The web application.

    Args:
        annotations: where all that is painted is kept.
        shown: the images to be annotated, by their names in the browser.
        seed: of each annotator's order; None: the order of ``shown``.
        host: a name by which browsers reach this machine, besides its IP addresses, its host name and localhost.
    """
    server = Server(annotations, shown, seed)
    routes = [
        Route("/", server.show_page),
        Route("/sign-in", server.sign_in, methods=["POST"]),
        Route("/sign-out", server.sign_out, methods=["POST"]),
        Route("/stay", server.stay, methods=["POST"]),
        Route("/images/{image}", server.show_image),
        Route("/drawings/{image}", server.show_drawing),
        Route("/drawings/{image}", server.save, methods=["PUT"]),
        Route("/summary", server.summary),
    ]
    guard = partial(_guard, {host.lower(), "localhost", socket.gethostname().lower()})
    return Starlette(
        routes=routes,
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=guard)],
        exception_handlers={HTTPException: _refuse, UserError: _fail, ClientDisconnect: _forget},
    )


async def _guard(hosts: set[str], request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
    own = request.headers.get("host", "")
    origin = request.headers.get("origin")
    if not _is_own(own, hosts):
        response: Response = JSONResponse({"error": "this server is not known by that name: give it with host="}, 421)
    elif origin is not None and origin.partition("://")[2] != own:
        response = JSONResponse({"error": "a page of another origin may not ask for this"}, 403)
    else:
        response = await answer(request)
    response.headers.update(HEADERS)
    return response


def _is_own(host: str, known: set[str]) -> bool:
    """Whether a Host header names this machine: any IP address does, since a page that an attacker's name leads to is
    asked for by that name."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name in known or bool(ip_address(name))
    except ValueError:
        return False


async def _parsed(request: Request, model: type[Model]) -> Model:
    """The body of a request; refused if it is too large or not of this form."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > LARGEST_BODY:
            raise HTTPException(413, f"more than {LARGEST_BODY // 1_000_000} MB of strokes on one image: undo some")
    try:
        return model.model_validate_json(bytes(body))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise HTTPException(422, f"the browser sent what is no {model.__name__} ({where}: {first['msg']})") from None


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code)


async def _fail(request: Request, error: Exception) -> Response:
    log.error("%s", error)  # not to the annotator, to whom a path could tell the label
    return JSONResponse({"error": "The server can neither read nor write at the moment; its log says why."}, 503)


async def _forget(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # nobody is there to read it
