"""What a fault does to a Graph call: to the deed, and to the answer."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable

from aiohttp import web

from simulator.faults import Fault, FaultKind, Target
from simulator.journal import Kind
from simulator.page_calls import Outcome
from simulator.refusal import Refusal
from simulator.world import World

_SILENT = frozenset({FaultKind.NO_ANSWER, FaultKind.LOST_ANSWER, FaultKind.RESET})
_PAGE = "<!DOCTYPE html><html><body><h1>Sorry, something went wrong.</h1></body></html>"


async def strike(
    world: World, request: web.Request, target: Target, fault: Fault, act: Callable[[], Outcome]
) -> Outcome | None:
    """Do the deed (`act`) before, after or not at all; the outcome to tell, or None for an answer that is none."""
    world.journal.add(
        Kind.FAULT,
        target.psid or "",
        fault=fault.kind.value,
        fault_id=fault.id,
        call=target.call,
        page_id=target.page_id,
    )
    if fault.kind is FaultKind.SLOW:
        await _pause(world, fault.seconds)
        return act()
    if fault.delivered:
        _note_lost_answer(world, act(), target, fault)
    if fault.kind is FaultKind.NO_ANSWER:
        await _pause(world, fault.seconds)
    if fault.kind in _SILENT:
        _reset_connection(request)
    if fault.code is None:
        return None
    rule = f"the fault {fault.kind.value} struck"
    return Outcome(refusal=Refusal(rule=rule, code=fault.code, status=fault.status))


def broken_answer(fault: Fault) -> web.Response:
    """An answer that does not come from Graph. After a reset it reaches nobody."""
    if fault.kind is FaultKind.HTML:
        return web.Response(status=fault.status or 503, text=_PAGE, content_type="text/html")
    return web.Response(status=fault.status or 502)


def _note_lost_answer(world: World, outcome: Outcome, target: Target, fault: Fault) -> None:
    if outcome.sent is None or outcome.sent.mid is None:
        return
    world.counts["lost_answer"] += 1
    world.journal.add(
        Kind.LOST_ANSWER,
        outcome.sent.psid,
        mid=outcome.sent.mid,
        page_id=target.page_id,
        by_token=target.by_token,
        fault=fault.kind.value,
    )


async def _pause(world: World, seconds: float) -> None:
    """Wait, but not past the end of the simulator."""
    stopped = asyncio.ensure_future(world.stopping.wait())
    await asyncio.wait((stopped,), timeout=seconds)
    stopped.cancel()


def _reset_connection(request: web.Request) -> None:
    """Break the connection with a TCP reset: close at once, without lingering for what is unsent."""
    transport = request.transport
    if transport is not None:
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
