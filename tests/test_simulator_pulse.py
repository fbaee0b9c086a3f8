"""A judge that stood still cannot tell when the calls came that it finds afterwards."""

from __future__ import annotations

from simulator.pulse import BEAT, STANDSTILL, Pulse


async def test_what_is_read_after_a_standstill_may_have_come_at_any_time_since() -> None:
    now = [100.0]
    pulse = Pulse(lambda: now[0])
    assert pulse.came(100.0) == 100.0, "not started"
    pulse.start()
    assert pulse.came(100.0 + STANDSTILL / 2) == 100.0 + STANDSTILL / 2
    assert pulse.came(100.5) == 100.0
    now[0] = 100.5
    for _ in range(3):
        pulse.stop()
        pulse.start()
        now[0] += BEAT
    assert pulse.came(now[0]) == now[0], "it moves again"
    pulse.stop()
