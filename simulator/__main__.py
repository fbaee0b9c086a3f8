"""`python -m simulator`: serve until SIGINT or SIGTERM. Everything comes from the environment or `.env`."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from urllib.parse import urlsplit

from simulator.config import Config, ConfigProblems, from_environment
from simulator.server import create_app, start

log = logging.getLogger("simulator")

DONE = 0
FAILED = 1
BAD_CONFIGURATION = 2


async def serve(config: Config) -> None:
    """Serve until a signal says stop. Raises OSError when the port is taken."""
    stop = asyncio.Event()
    for signum in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    runner, url = await start(create_app(config), config.port)
    bot = urlsplit(config.webhook_url)
    log.info(
        "the simulator answers at %s (open it in a browser), webhooks go to %s",
        url,
        f"{bot.hostname}:{bot.port or 80}{bot.path}",
    )
    try:
        await stop.wait()
    finally:
        await runner.cleanup()
    log.info("the simulator has stopped")


def main() -> int:
    """Run it; the exit code says how it ended."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    try:
        config = from_environment()
    except ConfigProblems as found:
        print("The simulator cannot start:", *found.problems, sep="\n  ", file=sys.stderr)
        return BAD_CONFIGURATION
    try:
        asyncio.run(serve(config))
    except OSError as problem:
        print(f"The simulator cannot listen on port {config.port}: {problem.strerror}", file=sys.stderr)
        return FAILED
    return DONE


if __name__ == "__main__":
    sys.exit(main())
