"""The control API under /simulator: the door for tests, scripts and the chat page."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from simulator import acts
from simulator.acts import Act
from simulator.events import redacted
from simulator.faults import BadFault
from simulator.journal import Filter, Kind
from simulator.people import PROFILE_FIELDS, Json, Person, ThreadOwner
from simulator.settings import BadSettings, Settings
from simulator.world import Mistake, World

LONGEST_WAIT_SECONDS = 30.0
LOOPBACK = ("127.0.0.1", "localhost", "::1")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Do = Callable[[World, Person, Json], Act]


class Control:
    """Handlers for everything that is not Messenger's own."""

    def __init__(self, world: World) -> None:
        self._world = world

    def routes(self) -> list[web.RouteDef]:
        """Every path of the control API, below /simulator."""
        person = "/people/{psid}"
        table: list[tuple[str, str, Handler]] = [
            ("GET", "/health", self.health),
            ("GET", "/stats", self.stats),
            ("POST", "/people", self.add_people),
            ("GET", "/people", self.list_people),
            ("GET", person, self.show_person),
            ("PATCH", person, self.change_person),
            ("GET", f"{person}/thread", self.thread),
            ("POST", f"{person}/message", self._act(acts.write)),
            ("POST", f"{person}/tap", self._act(acts.tap)),
            ("POST", f"{person}/postback", self._act(acts.tap_menu)),
            ("POST", f"{person}/notify-me", self._act(acts.notify_me)),
            ("POST", f"{person}/reaction", self._act(acts.react)),
            ("POST", f"{person}/referral", self._act(acts.refer)),
            ("POST", f"{person}/read", self._act(acts.read)),
            ("POST", "/webhook", self.webhook),
            ("POST", "/handshake", self.handshake),
            ("GET", "/journal", self.journal),
            ("GET", "/settings", self.show_settings),
            ("PATCH", "/settings", self.change_settings),
            ("GET", "/settings/defaults", self.show_default_settings),
            ("GET", "/faults", self.list_faults),
            ("POST", "/faults", self.add_fault),
            ("DELETE", "/faults", self.remove_faults),
            ("DELETE", "/faults/{id:[0-9]+}", self.remove_fault),
            ("GET", "/clock", self.show_clock),
            ("POST", "/clock", self.move_clock),
            ("POST", "/reset", self.reset),
        ]
        return [web.route(method, f"/simulator{path}", guarded(handler)) for method, path, handler in table]

    # The simulator

    async def health(self, request: web.Request) -> web.Response:
        """Whether it runs, and for which Pages."""
        pages = [{"page_id": state.page.id, "name": state.page.name} for state in self._world.pages.values()]
        return web.json_response({"status": "ok", "pages": pages, "now": self._world.clock.now()})

    async def stats(self, request: web.Request) -> web.Response:
        """Sums since the start or the last reset."""
        return web.json_response(self._world.stats())

    async def reset(self, request: web.Request) -> web.Response:
        """Forget people, tokens, faults, settings and journal. The time stays: others share it."""
        self._world.reset()
        return web.json_response({"reset": True})

    # People

    async def add_people(self, request: web.Request) -> web.Response:
        """Make one person from an object, or many from a list of objects.

        `wrote`: they have just written. `tokens`: the texts of permissions that they have just given. One object
        with `only_first`: nobody is made where somebody is already, who is the answer then, with status 200.
        """
        wish = await _body(request, list_too=True)
        if isinstance(wish, dict) and wish.get("only_first") is True and self._world.people:
            return web.json_response(self._show(next(iter(self._world.people.values()))))
        people = [
            self._world.add_person(_object(one)) for one in (wish if isinstance(wish, list) else [wish])
        ]
        shown = [self._show(person) for person in people]
        return web.json_response(shown if isinstance(wish, list) else shown[0], status=201)

    async def list_people(self, request: web.Request) -> web.Response:
        """Everybody, in the order in which they were made."""
        return web.json_response([self._show(person) for person in self._world.people.values()])

    async def show_person(self, request: web.Request) -> web.Response:
        """One person."""
        return web.json_response(self._show(self._person(request)))

    async def change_person(self, request: web.Request) -> web.Response:
        """Change the profile (null: the field is unknown to Graph), `blocked`, `unreachable`, `thread_owner`."""
        person, changes = self._person(request), _object(await _body(request))
        _check_person(changes)
        for name, value in changes.items():
            if name in PROFILE_FIELDS:
                person.profile[name] = value
            else:
                setattr(person, name, ThreadOwner(value) if name == "thread_owner" else value)
        person.profile = {name: value for name, value in person.profile.items() if value is not None}
        self._world.journal.add(Kind.CONTROL, person.psid, page_id=person.page_id, changed=changes)
        return web.json_response(self._show(person))

    async def thread(self, request: web.Request) -> web.Response:
        """The messages both ways, in order."""
        return web.json_response([message.as_json() for message in self._person(request).thread.values()])

    def _act(self, do: Do) -> Handler:
        """A handler that lets a person do something and waits for the webhook's first attempt."""

        async def handle(request: web.Request) -> web.StreamResponse:
            person, wish = self._person(request), _object(await _body(request))
            if person.blocked:
                raise Mistake(409, "this person blocked the Page and can do nothing there")
            act = do(self._world, person, wish)
            answer: Json = {"webhook": (await act.webhook).as_json()}
            answer.update({"mid": act.mid} if act.mid else {})
            answer.update({"token_id": act.token_id} if act.token_id else {})
            return web.json_response(answer)

        return handle

    # Webhooks by hand

    async def webhook(self, request: web.Request) -> web.Response:
        """Send any body to the bot, once: `body` as JSON or `raw` as text; signed well, badly or not at all."""
        wish = _object(await _body(request))
        signature = wish.get("signature", "good")
        if signature not in ("good", "bad", "none") or ("body" in wish) == ("raw" in wish):
            raise Mistake(400, "give either body or raw, and as signature good, bad or none")
        text = wish["raw"] if "raw" in wish else json.dumps(wish["body"])
        if not isinstance(text, str):
            raise Mistake(400, "raw must be text")
        status, answer = await self._world.outbox.send_raw(text.encode("utf-8", "surrogatepass"), signature)
        sent = _redact(wish["body"]) if "body" in wish else f"{len(text)} characters"
        self._world.journal.add(
            Kind.WEBHOOK,
            by_hand=True,
            signature=signature,
            status=status,
            note=answer if status is None else None,
            body=sent,
            attempt=1,
        )
        return web.json_response({"status": status, "text": answer})

    async def handshake(self, request: web.Request) -> web.Response:
        """Verify the bot's webhook as Meta does; `token` may be good, bad or none."""
        wish = _object(await _body(request))
        tokens = {"good": self._world.config.verify_token, "bad": "not the verify token", "none": None}
        if wish.get("token", "good") not in tokens:
            raise Mistake(400, "token must be good, bad or none")
        challenge = str(wish.get("challenge", "1158201444"))
        status, text = await self._world.outbox.handshake(tokens[wish.get("token", "good")], challenge)
        verified = status == 200 and text == challenge
        return web.json_response({"status": status, "text": text, "verified": verified})

    # The journal

    async def journal(self, request: web.Request) -> web.Response:
        """Entries after a number, by kinds (with commas) and psid; `wait` seconds for one to appear."""
        query = request.query
        kinds = frozenset(kind for kind in query.get("kind", "").split(",") if kind)
        unknown = kinds - {kind.value for kind in Kind}
        if unknown:
            raise Mistake(400, f"kind must be among {', '.join(kind.value for kind in Kind)}")
        wanted = Filter(after=int(_number(query, "after")), kinds=kinds, psid=query.get("psid", ""))
        limit = int(_number(query, "limit")) if "limit" in query else None
        wait = min(_number(query, "wait"), LONGEST_WAIT_SECONDS)
        if wait > 0:
            await self._world.journal.wait(wanted, wait)
        entries, last = self._world.journal.read(wanted, limit)
        text = f'{{"entries":[{",".join(entries)}],"last":{last}}}'
        return web.Response(text=text, content_type="application/json")

    # Settings, faults, time

    async def show_settings(self, request: web.Request) -> web.Response:
        """Every setting."""
        return web.json_response(self._world.settings.as_json())

    async def show_default_settings(self, request: web.Request) -> web.Response:
        """Every setting as it is at the start and after a reset."""
        return web.json_response(Settings().as_json())

    async def change_settings(self, request: web.Request) -> web.Response:
        """Change some settings; all or none."""
        changes = _object(await _body(request))
        self._world.settings = self._world.settings.changed(changes)
        self._world.journal.add(Kind.CONTROL, changed=changes)
        return web.json_response(self._world.settings.as_json())

    async def list_faults(self, request: web.Request) -> web.Response:
        """The faults that still wait to strike."""
        return web.json_response([fault.as_json() for fault in self._world.faults])

    async def add_fault(self, request: web.Request) -> web.Response:
        """Ask for something to go wrong."""
        fault = self._world.faults.add(_object(await _body(request)))
        return web.json_response(fault.as_json(), status=201)

    async def remove_faults(self, request: web.Request) -> web.Response:
        """Let nothing go wrong any more."""
        self._world.faults.clear()
        return web.json_response([])

    async def remove_fault(self, request: web.Request) -> web.Response:
        """Take one fault back."""
        if not self._world.faults.remove(int(request.match_info["id"])):
            raise Mistake(404, "no fault has that id: it may have struck already")
        return web.json_response([fault.as_json() for fault in self._world.faults])

    async def show_clock(self, request: web.Request) -> web.Response:
        """The offset and the simulated time."""
        clock = self._world.clock
        return web.json_response({"offset": clock.offset(), "now": clock.now()})

    async def move_clock(self, request: web.Request) -> web.Response:
        """Move simulated time: `advance` by seconds, or set the `offset`."""
        wish, clock = _object(await _body(request)), self._world.clock
        if len(wish) != 1 or not wish.keys() <= {"advance", "offset"}:
            raise Mistake(400, "give either advance or offset, in seconds")
        value = next(iter(wish.values()))
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise Mistake(400, "advance and offset are numbers of seconds")
        before = clock.offset()
        try:
            clock.move_to(before + value if "advance" in wish else value)
        except (ValueError, OverflowError) as problem:
            raise Mistake(400, str(problem)) from problem
        self._world.journal.add(Kind.CLOCK, offset=clock.offset(), moved=clock.offset() - before)
        return await self.show_clock(request)

    def _person(self, request: web.Request) -> Person:
        return self._world.person(request.match_info["psid"], request.query.get("page_id"))

    def _show(self, person: Person) -> Json:
        return person.as_json(self._world.clock.now_ms())


def guarded(handler: Handler) -> Handler:
    """Let in only who is on this machine on purpose, and say in words what was wrong with a call."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if not _from_here(request):
            return _complain(403, "the simulator only answers pages and programs of this machine")
        try:
            return await handler(request)
        except Mistake as mistake:
            return _complain(mistake.status, str(mistake))
        except (BadFault, BadSettings) as mistake:
            return _complain(400, str(mistake))

    return handle


def _from_here(request: web.Request) -> bool:
    """Whether host and origin are loopback: a foreign web page open in somebody's browser must not get in."""
    origin = request.headers.get("Origin")
    try:
        hosts = [urlsplit(f"//{request.host}").hostname]
        hosts += [urlsplit(origin).hostname] if origin is not None else []
    except ValueError:
        return False
    return all(host in LOOPBACK for host in hosts)


def _complain(status: int, text: str) -> web.Response:
    return web.json_response({"error": text}, status=status)


async def _body(request: web.Request, list_too: bool = False) -> Any:
    """The JSON of the request; nothing at all counts as an empty object."""
    raw = await request.read()
    try:
        return json.loads(raw) if raw.strip() else {}
    except (ValueError, RecursionError) as problem:
        raise Mistake(400, "the body is not JSON") from problem


def _object(value: Any) -> Json:
    if not isinstance(value, dict):
        raise Mistake(400, "a JSON object is needed")
    return value


def _check_person(changes: Json) -> None:
    for name, value in changes.items():
        if name in ("blocked", "unreachable"):
            good = isinstance(value, bool)
        elif name == "thread_owner":
            good = value in [owner.value for owner in ThreadOwner]
        else:
            good = name in PROFILE_FIELDS
        if not good:
            raise Mistake(400, f"{name}: cannot be changed to that; people have blocked, unreachable, thread_owner "
                               f"(app or other), {', '.join(PROFILE_FIELDS)}")  # fmt: skip


def _number(query: Any, name: str) -> float:
    try:
        value = float(query.get(name, "0"))
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e15:
        raise Mistake(400, f"{name} must be a number, 0 or more")
    return value


def _redact(value: Any) -> Any:
    """Any JSON with One-Time Notification tokens replaced by their SHA-256."""
    if isinstance(value, dict):
        return {name: _redact(item) for name, item in redacted(value).items()}
    return [_redact(item) for item in value] if isinstance(value, list) else value
