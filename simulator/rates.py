"""How many calls a Page may make in a second of real time, and what the headers say about it (RATE)."""

from __future__ import annotations

import json
from collections import deque
from functools import lru_cache

from simulator.refusal import RATE_LIMIT, Refusal
from simulator.settings import Settings
from simulator.world import PageState

SECOND = 1.0


def count_call(
    state: PageState, settings: Settings, now: float, came: float, *, media: bool
) -> Refusal | None:
    """Count a call, and refuse it when it is one too many. Refused calls count too: they lengthen the block (RATE).

    `came`: when it came at the earliest. Only calls that surely came within a second are too many.
    """
    over = _hit(state.calls, settings.calls_per_second, now, came)
    rule = f"more than {settings.calls_per_second} calls in a second for one Page (RATE)"
    if media and _hit(state.media_calls, settings.media_calls_per_second, now, came):
        over, rule = True, f"more than {settings.media_calls_per_second} audio or video in a second (RATE)"
    return Refusal(rule=rule, code=RATE_LIMIT) if over else None


def usage_headers(state: PageState, settings: Settings, regain_minutes: int = 0) -> dict[str, str]:
    """The headers of every answer: per cent used, and minutes until calls are accepted again (RATE)."""
    limit = settings.calls_per_second
    used = 100 if regain_minutes else min(100, len(state.calls) * 100 // limit) if limit else 0
    return _usage(state.page.id, used, regain_minutes)


@lru_cache(maxsize=1024)
def _usage(page_id: str, used: int, regain_minutes: int) -> dict[str, str]:
    share = {"call_count": used, "total_cputime": 0, "total_time": 0}
    case = {"type": "messenger", **share, "estimated_time_to_regain_access": regain_minutes}
    return {"X-Business-Use-Case-Usage": json.dumps({page_id: [case]}), "X-App-Usage": json.dumps(share)}


def _hit(calls: deque[float], limit: int, now: float, came: float) -> bool:
    if limit == 0:
        return False
    while calls and calls[0] <= now - SECOND:
        calls.popleft()
    calls.append(came)
    return len(calls) > limit
