"""What the page on which people annotate asks for.

A page of another origin can neither read nor write here: :func:`~saliency_entropy.run.server.guarded` refuses it, and
whatever is asked for, but the page itself and signing in, needs a token in a header.
"""

import logging
import re
import secrets
import time
import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from saliency_entropy.annotate.annotations import Annotations, Refused
from saliency_entropy.annotate.drawing import Drawing
from saliency_entropy.errors import UserError
from saliency_entropy.page.web_page import render
from saliency_entropy.page.wording import number

log = logging.getLogger(__name__)

NAME = re.compile(r"\w[\w-]{0,39}")  # of a folder
LARGEST_BODY = 4_000_000  # bytes: 150,000 points of strokes, and what a browser keeps
# Seconds without a sign of life after which another may take the name. A page gives one every 20 seconds, and browsers
# let a page in the background speak once a minute.
PRESENT = 90.0


@dataclass
class _Server:
    annotations: Annotations
    images: Sequence[str]
    seed: int | None
    tokens: dict[str, str] = field(default_factory=dict)  # of the annotators
    seen: dict[str, float] = field(default_factory=dict)  # their last signs of life, by the monotonic clock, in seconds

    async def sign_in(self, request: Request) -> Response:
        name = unicodedata.normalize("NFC", request.query_params.get("name", "").strip()).lower()
        if not NAME.fullmatch(name):
            raise HTTPException(
                422, "A name has up to 40 letters, digits, - and _, no space, and no - at its beginning."
            )
        present = name in self.tokens and time.monotonic() - self.seen[name] < PRESENT
        if present and self.tokens[name] != _token(request):
            raise HTTPException(
                409,
                f"{name} is signed in elsewhere: sign out there, wait {PRESENT:.0f} seconds after that page was "
                "closed, or take another name.",
            )
        # A new token each time: of two windows of a browser, the one that was opened last paints.
        self.tokens[name], self.seen[name] = secrets.token_urlsafe(), time.monotonic()
        own, order = self.annotations.drawings.get(name, {}), self.images
        if self.seed is not None:  # the same order each time that this annotator comes
            order = np.random.default_rng([self.seed, zlib.crc32(name.encode())]).permutation(self.images).tolist()
        images = [{"id": image, "status": own[image].status if image in own else "open"} for image in order]
        return JSONResponse({"name": name, "token": self.tokens[name], "images": images})

    async def sign_out(self, request: Request) -> Response:
        del self.tokens[self.annotator(request)]
        return Response()

    async def show_image(self, request: Request) -> Response:
        self.annotator(request)
        png = await run_in_threadpool(self.annotations.shown, self.image(request))
        return Response(png, media_type="image/png")

    async def show_drawing(self, request: Request) -> Response:
        drawing = await run_in_threadpool(self.annotations.drawing, self.annotator(request), self.image(request))
        return JSONResponse(drawing and drawing.model_dump())

    async def save(self, request: Request) -> Response:
        annotator, image, body = self.annotator(request), self.image(request), bytearray()
        async for part in request.stream():
            body += part
            if len(body) > LARGEST_BODY:
                raise HTTPException(413, f"more than {LARGEST_BODY // 1_000_000} MB of strokes are too many.")
        try:
            drawing = Drawing.model_validate_json(bytes(body))
        except ValidationError as error:
            wrong = error.errors()[0]
            where = ".".join(map(str, wrong["loc"])) or "all of it"
            raise HTTPException(422, f"the browser sent no drawing ({where}: {wrong['msg']}).") from None
        await run_in_threadpool(self.annotations.save, annotator, image, drawing)
        return Response()

    async def summary(self, request: Request) -> Response:
        """The cells of the page's two tables."""
        self.annotator(request)
        annotators = []
        for name, own in sorted(self.annotations.drawings.items()):
            states = [own[image].status for image in self.images if image in own]
            done, skipped = states.count("done"), states.count("skipped")
            annotators.append([name, done, skipped, len(self.images) - done - skipped])
        table = await run_in_threadpool(self.annotations.agreement)
        pairs = [
            [f"{a}, {b}", images, number(same), number(kappa), maps, number(iou)]
            for a, b, images, same, kappa, maps, iou in table.itertuples(index=False)
        ]
        return JSONResponse({"annotators": annotators, "pairs": pairs})

    def annotator(self, request: Request) -> str:
        """Who asks; a sign of life."""
        for name, token in self.tokens.items():
            if token == _token(request):
                self.seen[name] = time.monotonic()
                return name
        raise HTTPException(401, "sign in first.")

    def image(self, request: Request) -> str:
        image = request.path_params["image"]
        if image not in self.annotations.paths:
            raise HTTPException(404, "there is no such image.")
        return image


def application(annotations: Annotations, images: Sequence[str], seed: int | None) -> Starlette:
    """The web application.

    Args:
        annotations: where what is painted is kept.
        images: the names of those to be annotated.
        seed: of each annotator's order; None: that of ``images``.
    """
    server = _Server(annotations, images, seed)
    routes = [
        Route("/", HTMLResponse(render(__package__, "annotate", {}, {}, "connect-src 'self'"))),
        Route("/sign-in", server.sign_in, methods=["POST"]),
        Route("/sign-out", server.sign_out, methods=["POST"]),
        Route("/images/{image}", server.show_image),
        Route("/drawings/{image}", server.show_drawing),
        Route("/drawings/{image}", server.save, methods=["PUT"]),
        Route("/summary", server.summary),
    ]
    return Starlette(
        routes=routes,
        exception_handlers={Refused: _refuse, UserError: _fail, ClientDisconnect: _forget, Exception: _fail},
    )


def _token(request: Request) -> str:
    return request.headers.get("authorization", "").removeprefix("Bearer ")


async def _refuse(request: Request, error: Exception) -> Response:
    return PlainTextResponse(f"{error}.", 409)


async def _fail(request: Request, error: Exception) -> Response:
    # Not to the annotator, to whom a path may tell the label.
    log.error("%s", error, exc_info=not isinstance(error, UserError))
    return PlainTextResponse("the server cannot read or write at the moment, and its log says why.", 503)


async def _forget(request: Request, error: Exception) -> Response:
    return Response(status_code=400)  # the browser is gone
