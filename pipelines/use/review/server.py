"""The page, its pictures and decisions over HTTP, on the loopback interface alone.

Who has the token of the address may look and decide: it becomes a cookie that no other site can send. Requests with
another Host (DNS rebinding) or Origin are refused. No path of a request reaches the file system: pictures are named by
image_id, found in dedupe's manifest, and sent as JPEG that is encoded here.
"""

import hmac
import io
import secrets
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from pathlib import Path
from threading import Lock
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from pipelines.core.errors import ImageError, MiwakeError
from pipelines.use.decisions import DecisionFiles, Judged, Rows
from pipelines.use.review.queues import TITLES, Item, Queues, per_class

HERE = Path(__file__).parent
COOKIE = "miwake-review"
POLICY = "default-src 'none'; img-src 'self'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"  # fmt: skip # noqa: E501
HEADERS = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
FILES = {"review.js": "text/javascript", "review.css": "text/css"}
MOST_ITEMS = 200
"""of one answer"""
LARGE, SMALL = 1600, 160
"""longer sides of pictures, pixels"""
HELD_PICTURES = 400


class Review:
    """What one server knows.

    Args:
        queues: what is to be looked at.
        decisions: where decisions go.
        max_pixels: larger pictures are not opened.
    """

    def __init__(self, queues: Queues, decisions: DecisionFiles, *, max_pixels: int) -> None:
        self.queues, self.decisions, self.max_pixels = queues, decisions, max_pixels
        self.token = secrets.token_urlsafe(24)
        self._undo: list[tuple[Item, Rows]] = []
        self._pictures: OrderedDict[tuple[str, int], bytes] = OrderedDict()
        self._lock = Lock()

    def overview(self) -> dict[str, Any]:
        """Every queue with its length, what is decided of it, and how many items each label has."""
        judged = Judged(self.decisions.read())
        queues = [
            {
                "name": name,
                "title": TITLES[name],
                "total": len(items),
                "decided": sum(is_decided(item, judged) for item in items),
                "labels": per_class(items),
            }
            for name, items in self.queues.items.items()
        ]
        whole = {"title": self.queues.title, "queues": queues, "labels": self.queues.labels}
        return whole | {"version": self.decisions.version(), "undo": len(self._undo)}

    def items(self, queue: str, label: str, start: int, count: int, *, is_open: bool) -> dict[str, Any]:
        """`count` items of a queue from `start`, of one label or all (""), all or those that are not decided."""
        judged = Judged(self.decisions.read())
        chosen = [one for one in self.queues.items.get(queue, []) if label in ("", one.label, one.other_label)]
        if is_open:
            chosen = [one for one in chosen if not is_decided(one, judged)]
        shown = chosen[start : start + min(count, MOST_ITEMS)]
        return {
            "total": len(chosen),
            "decided": sum(is_decided(one, judged) for one in chosen),
            "items": [one.as_json() | {"decided": state_of(one, judged)} for one in shown],
        }

    def decide(self, words: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Write a decision; status and answer. `seen` is the state that the page showed, another one is a conflict."""
        item = self._item(words)
        judged = Judged(self.decisions.read())
        now = state_of(item, judged)
        if words.get("seen", "") != now:
            return 409, {
                "error": f"decided meanwhile, in another window or file: {now or 'taken back'}",
                "decided": now,
            }
        crop = words.get("crop")
        label = str(words.get("label", ""))[:500]
        before = self.decisions.decide(
            item.image_id,
            str(words.get("action", "")),
            path=item.path,
            label=label,
            reason=self._reason(item, str(words.get("action", "")), label),
            other_id=item.other_id,
            crop=None if crop is None else tuple(float(side) for side in crop),
            is_new_class=label not in self.queues.labels,
        )
        self._undo.append((item, before))
        return 200, self._after(item)

    def undo(self) -> tuple[int, dict[str, Any]]:
        """Take back the last decision of this server."""
        if not self._undo:
            return 409, {"error": "nothing is left to undo"}
        item, before = self._undo.pop()
        self.decisions.restore(item.image_id, before)
        return 200, self._after(item)

    def picture(self, image_id: str, side: int) -> bytes | None:
        """JPEG of a picture, upright, at most `side` pixels; None where there is none."""
        with self._lock:
            if (image_id, side) in self._pictures:
                self._pictures.move_to_end((image_id, side))
                return self._pictures[image_id, side]
        found = self._encode(image_id, side)
        if found is not None:
            with self._lock:
                self._pictures[image_id, side] = found
                while len(self._pictures) > HELD_PICTURES:
                    self._pictures.popitem(last=False)
        return found

    def _encode(self, image_id: str, side: int) -> bytes | None:
        from PIL import Image

        from pipelines.images.decoding import decode
        from pipelines.images.shards import ShardReader

        place = self.queues.places.get(image_id)
        if place is None:
            return None
        try:
            with ShardReader(self.queues.layout.stage("ingest")) as reader:
                pixels = decode(reader.read(*place), max_pixels=self.max_pixels).pixels
        except ImageError:
            return None
        image = Image.fromarray(pixels)
        image.thumbnail((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=88)
        return buffer.getvalue()

    def _item(self, words: dict[str, Any]) -> Item:
        items = self.queues.items.get(str(words.get("queue", "")), [])
        number = words.get("number")
        if not isinstance(number, int) or not 0 <= number < len(items):
            raise MiwakeError(f"there is no item {number!r} in the queue {words.get('queue')!r}: reload the page")
        if not items[number].image_id:
            raise MiwakeError("a file that could not be read has no picture to decide on: mend it at its source")
        return items[number]

    def _reason(self, item: Item, action: str, label: str) -> str:
        if action == "relabel":
            return f"was {item.label}" if label != item.label else "label is right"
        return {"right": "label is right", "different": "two different pictures"}.get(action, "reviewed")

    def _after(self, item: Item) -> dict[str, Any]:
        judged = Judged(self.decisions.read())
        state = {"queue": item.queue, "number": item.number, "decided": state_of(item, judged)}
        return state | {"version": self.decisions.version(), "undo": len(self._undo)}


def state_of(item: Item, judged: Judged) -> str:
    """What was decided, as the page shows it: "right", "drop", "relabel:Jaguar", "crop", "different", or ""."""
    if not item.image_id:
        return ""
    own = judged.of(item.image_id, item.other_id)
    if not item.other_id:
        return own.label or ("crop" if own.crop else "")
    if own.is_different:
        return "different"
    labels = [own.label, judged.of(item.other_id).label]
    # of mere copies and look-alikes a label settles nothing
    counts = [label for label in labels if label and (item.queue == "conflicts" or label == "drop")]
    return counts[0] if counts else ""


def is_decided(item: Item, judged: Judged) -> bool:
    return bool(state_of(item, judged))


def make_app(review: Review, *, port: int) -> Starlette:
    """The application; it answers requests to 127.0.0.1 and localhost at `port`."""
    hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}

    async def guard(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        if request.headers.get("host") not in hosts:
            return PlainTextResponse("this page answers to 127.0.0.1 alone", 421, HEADERS)
        given = request.query_params.get("token")
        if request.url.path == "/" and given is not None and hmac.compare_digest(given, review.token):
            found: Response = RedirectResponse("/", 303, HEADERS)
            found.set_cookie(COOKIE, review.token, httponly=True, samesite="strict")
            return found
        if not hmac.compare_digest(request.cookies.get(COOKIE, ""), review.token):
            return PlainTextResponse(
                "the address lacks its token: open the one that `miwake review` printed", 403, HEADERS
            )
        origin = request.headers.get("origin")
        if request.method != "GET" and (origin is None or origin.removeprefix("http://") not in hosts):
            return PlainTextResponse("another site may not decide here", 403, HEADERS)
        try:
            found = await answer(request)
        except MiwakeError as error:
            found = JSONResponse({"error": str(error)}, 400)
        found.headers.update(HEADERS)
        return found

    async def page(_: Request) -> Response:
        return Response((HERE / "page.html").read_bytes(), media_type="text/html")

    async def file(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in FILES:
            return PlainTextResponse("no such file", 404)
        return Response((HERE / name).read_bytes(), media_type=FILES[name])

    async def overview(_: Request) -> Response:
        return JSONResponse(await run_in_threadpool(review.overview))

    async def items(request: Request) -> Response:
        asked = request.query_params
        try:
            start, count = (max(0, int(asked.get(name, "0"))) for name in ("start", "count"))
        except ValueError:
            return JSONResponse({"error": "start and count are whole numbers"}, 400)
        queue, label, is_open = asked.get("queue", ""), asked.get("label", ""), asked.get("open") == "1"
        found = await run_in_threadpool(lambda: review.items(queue, label, start, count, is_open=is_open))
        return JSONResponse(found)

    async def neighbours(request: Request) -> Response:
        image_id = request.path_params["image_id"]
        return JSONResponse(await run_in_threadpool(review.queues.neighbours, image_id))

    async def version(_: Request) -> Response:
        return JSONResponse({"version": review.decisions.version()})

    async def decide(request: Request) -> Response:
        try:
            words = await request.json()
            status, found = await run_in_threadpool(review.decide, words)
        except (ValueError, TypeError, AttributeError) as error:
            return JSONResponse({"error": f"a decision that cannot be read: {error}"}, 400)
        return JSONResponse(found, status)

    async def undo(_: Request) -> Response:
        status, found = await run_in_threadpool(review.undo)
        return JSONResponse(found, status)

    async def picture(request: Request) -> Response:
        side = SMALL if request.url.path.startswith("/small/") else LARGE
        found = await run_in_threadpool(review.picture, request.path_params["image_id"], side)
        if found is None:
            return PlainTextResponse("no such picture", 404)
        # an image_id is a digest: its picture never changes
        return Response(found, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=86400, immutable"})

    return Starlette(
        routes=[
            Route("/", page),
            Route("/static/{name}", file),
            Route("/favicon.ico", lambda _: Response(status_code=204)),
            Route("/api/overview", overview),
            Route("/api/items", items),
            Route("/api/neighbours/{image_id}", neighbours),
            Route("/api/version", version),
            Route("/api/decide", decide, methods=["POST"]),
            Route("/api/undo", undo, methods=["POST"]),
            Route("/small/{image_id}", picture),
            Route("/large/{image_id}", picture),
        ],
        middleware=[Middleware(BaseHTTPMiddleware, dispatch=guard)],
    )
