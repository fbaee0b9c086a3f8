"""The Graph API: the door through which the bot comes. Paths and bodies are Meta's (SEND)."""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable

from aiohttp import web

from simulator import page_calls
from simulator.call import Call, parameters, read_call
from simulator.faults import Fault, Target
from simulator.journal import Kind
from simulator.law import Accepted, judge, person_of
from simulator.mishaps import broken_answer, strike
from simulator.page_calls import Outcome, Work
from simulator.people import Json
from simulator.rates import count_call, usage_headers
from simulator.refusal import BAD_ACCESS_TOKEN, NO_SUCH_OBJECT, Refusal
from simulator.sending import carry_out, note_refusal
from simulator.world import PageState, World

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

# 25 MB is the limit of an attachment (SEND); nothing longer is read.
LONGEST_BODY = 25 * 1024 * 1024


class Graph:
    """Handlers for the Graph API on top of one world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def routes(self) -> list[web.RouteDef]:
        """Every path the bot can call; the version may be any (`v2.12`, `v26.0`)."""
        node = "/{version:v[0-9.]+}/{node}"
        return [
            web.post(f"{node}/messages", self.send),
            web.get(f"{node}/subscribed_apps", self._door(page_calls.show_subscription)),
            web.post(f"{node}/subscribed_apps", self._door(page_calls.subscribe)),
            web.delete(f"{node}/subscribed_apps", self._door(page_calls.unsubscribe)),
            web.get(f"{node}/messenger_profile", self._door(page_calls.show_messenger_profile)),
            web.post(f"{node}/messenger_profile", self._door(page_calls.change_messenger_profile)),
            web.delete(f"{node}/messenger_profile", self._door(page_calls.delete_messenger_profile)),
            web.post(f"{node}/message_attachments", self._door(page_calls.save_attachment)),
            web.get(node, self.look_up),
            web.route("*", "/{version:v[0-9.]+}/{tail:.*}", self.unknown),
        ]

    async def send(self, request: web.Request) -> web.StreamResponse:
        """POST /{version}/{page-id or me}/messages: the Send API."""
        admitted = await self._admit(request, for_page=True)
        if isinstance(admitted, Refusal):
            return self._turned_away(request, admitted)
        state, found = admitted
        call = read_call(state.page.id, found)
        media = isinstance(call, Call) and call.is_media
        now = self._world.monotonic()
        over = count_call(state, self._world.settings, now, self._world.pulse.came(now), media=media)
        if isinstance(call, Refusal):
            return self._finish(request, state, Outcome(refusal=over or call))
        verdict = over or judge(self._world, call)
        fault = self._fault(call, verdict) if self._world.faults and over is None else None
        if fault is None:
            return self._respond(self._settle(call, verdict), state)
        return await self._suffer(
            request,
            state,
            call.target(self._psid(call)),
            fault,
            lambda: self._settle(call, judge(self._world, call)),
        )

    async def look_up(self, request: web.Request) -> web.StreamResponse:
        """GET /{version}/me or /{page-id}: the Page. GET /{version}/{psid}: the User Profile API."""
        node = request.match_info["node"]
        if node == "me" or node in self._world.pages:
            return await self._door(page_calls.show_page)(request)

        def work(state: PageState, found: Json) -> Outcome:
            return page_calls.show_person(self._world, state, found, node)

        return await self._door(work, psid=node)(request)

    async def unknown(self, request: web.Request) -> web.StreamResponse:
        """Everything else that Graph may have and this simulator has not."""
        rule = f"{request.method} {request.path} is not simulated"
        return self._turned_away(
            request, Refusal(rule=rule, code=NO_SUCH_OBJECT, message=f"Unsupported: {rule}")
        )

    # Who may come in

    async def _admit(self, request: web.Request, *, for_page: bool) -> tuple[PageState, Json] | Refusal:
        """The Page whose access token the call carries, and the parameters; or why it may not come in."""
        found = parameters(await request.read(), request.headers.get("Content-Type", ""), dict(request.query))
        if found is None:
            return Refusal(rule="the body is neither a JSON object nor a form (SEND)")
        state = self._world.pages_by_token.get(_access_token(request, found))
        if state is None:
            return Refusal(rule="the access token is missing or wrong (ERR)", code=BAD_ACCESS_TOKEN)
        if for_page and request.match_info["node"] not in ("me", state.page.id):
            text = "Object does not exist, or cannot be loaded due to missing permissions"
            return Refusal(rule="the access token belongs to another Page", code=NO_SUCH_OBJECT, message=text)
        return self._proof_refusal(state, found.get("appsecret_proof")) or (state, found)

    def _proof_refusal(self, state: PageState, proof: object) -> Refusal | None:
        """`appsecret_proof` is checked when it is sent, and may be demanded (SEND)."""
        if proof is None and not self._world.settings.require_appsecret_proof:
            return None
        if proof is None:
            text = "API calls from the server require an appsecret_proof argument"
            return Refusal(rule="setting require_appsecret_proof: there is no appsecret_proof", message=text)
        if isinstance(proof, str) and hmac.compare_digest(proof.encode(), state.proof.encode()):
            return None
        text = "Invalid appsecret_proof provided in the API argument"
        return Refusal(rule="appsecret_proof is not the HMAC of this access token (SEND)", message=text)

    def _door(self, work: Work, psid: str | None = None) -> Handler:
        """A handler that lets a call in, lets faults strike, and does `work` on a Page or, with `psid`, a person."""

        async def handle(request: web.Request) -> web.StreamResponse:
            admitted = await self._admit(request, for_page=psid is None)
            if isinstance(admitted, Refusal):
                return self._turned_away(request, admitted, psid)
            state, found = admitted
            target = Target(page_id=state.page.id, call="page" if psid is None else "profile", psid=psid)
            fault = self._world.faults.strike_call(target, acceptable=True)
            if fault is not None:
                return await self._suffer(request, state, target, fault, lambda: work(state, found))
            return self._finish(request, state, work(state, found), psid)

        return handle

    # What sends come to

    def _settle(self, call: Call, verdict: Accepted | Refusal) -> Outcome:
        """Carry out what was accepted, or write down why not."""
        if isinstance(verdict, Refusal):
            note_refusal(self._world, call, verdict, person_of(self._world, call))
            return Outcome(refusal=verdict)
        sent = carry_out(self._world, call, verdict)
        body = {"recipient_id": sent.psid}
        if call.token is not None and not self._world.settings.token_answer_has_recipient_id:
            body.clear()
        if sent.mid is not None:
            body["message_id"] = sent.mid
        return Outcome(body=body, sent=sent)

    def _psid(self, call: Call) -> str | None:
        person = person_of(self._world, call)
        return person.psid if person is not None else call.psid

    def _fault(self, call: Call, verdict: Accepted | Refusal) -> Fault | None:
        target = call.target(self._psid(call))
        return self._world.faults.strike_call(target, acceptable=isinstance(verdict, Accepted))

    async def _suffer(
        self, request: web.Request, state: PageState, target: Target, fault: Fault, act: Callable[[], Outcome]
    ) -> web.StreamResponse:
        """A fault strikes; what is left to say, if anything, is said."""
        outcome = await strike(self._world, request, target, fault, act)
        if outcome is None:
            return broken_answer(fault)
        return self._respond(outcome, state, fault.regain_minutes)

    # Answers

    def _respond(self, outcome: Outcome, state: PageState, regain_minutes: int = 1) -> web.Response:
        """The HTTP answer. `regain_minutes` is told only to a Page that made too many calls."""
        refusal = outcome.refusal
        throttled = refusal is not None and refusal.throttles
        headers = usage_headers(state, self._world.settings, regain_minutes if throttled else 0)
        if refusal is not None:
            return _json(refusal.body(), refusal.http_status, headers)
        return _json(json.dumps(outcome.body).encode(), 200, headers)

    def _finish(
        self, request: web.Request, state: PageState, outcome: Outcome, psid: str | None = None
    ) -> web.Response:
        """Answer a call that sends nothing, and write it down; `psid`: of the person it asks about."""
        call = f"{request.method} {request.path}"
        if outcome.refusal is not None:
            self._note(outcome.refusal, call, state.page.id, psid)
        else:
            self._world.journal.add(Kind.GRAPH, psid or "", page_id=state.page.id, call=call)
        return self._respond(outcome, state)

    def _turned_away(self, request: web.Request, refusal: Refusal, psid: str | None = None) -> web.Response:
        """Answer a call that did not come in."""
        self._note(refusal, f"{request.method} {request.path}", None, psid)
        return _json(refusal.body(), refusal.http_status, {})

    def _note(self, refusal: Refusal, call: str, page_id: str | None, psid: str | None) -> None:
        self._world.counts["refused"] += 1
        self._world.journal.add(
            Kind.REFUSED,
            psid or "",
            page_id=page_id,
            rule=refusal.rule,
            code=refusal.code.code,
            subcode=refusal.code.subcode,
            status=refusal.http_status,
            call=call,
        )


def _access_token(request: web.Request, found: Json) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    return str(found.get("access_token", ""))


def _json(body: bytes, status: int, headers: dict[str, str]) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)
