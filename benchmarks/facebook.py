"""`rasa`, with the Graph address of its own facebook channel pointed at this machine; nothing else is changed.

    BENCHMARK_GRAPH_URL=http://127.0.0.1:5001 python -m benchmarks.facebook run …

The address is written into the library `fbmessenger`, of which the channel makes a client for every webhook.
"""

from __future__ import annotations

import os
import sys
from typing import Any


def main() -> None:
    """Run Rasa's command line."""
    import fbmessenger
    from rasa.__main__ import main as rasa

    as_shipped = fbmessenger.MessengerClient.__init__

    def on_this_machine(self: fbmessenger.MessengerClient, *args: Any, **kwargs: Any) -> None:
        as_shipped(self, *args, **kwargs)
        self.graph_url = f"{os.environ['BENCHMARK_GRAPH_URL']}/v{self.api_version}"

    fbmessenger.MessengerClient.__init__ = on_this_machine
    sys.argv[0] = "rasa"
    rasa()


if __name__ == "__main__":
    main()
