"""Another program at work in the same database: rows by the hundred (`python -m benchmarks.writer ROWS`, in a project).

As everybody is to do it: at most 500 rows a transaction, a pause after each. Prints the seconds that it took.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Final

from otn.app import open_app
from otn.settings import READING
from otn.store import pages
from otn.store.schema import contact

PAGE_ID: Final = "2002"
ROWS_AT_ONCE: Final = 500
PAUSE_SECONDS: Final = 0.02


def main() -> None:
    """Write contacts of a page that nobody writes to."""
    app = open_app(Path.cwd(), need=READING)
    rows = int(sys.argv[1])
    with app.store.begin() as tx:
        pages.ensure(tx, PAGE_ID, app.clock())
    started = time.monotonic()
    for first in range(0, rows, ROWS_AT_ONCE):
        now = app.clock()
        several = range(first, min(first + ROWS_AT_ONCE, rows))
        with app.store.begin() as tx:
            values = [{"page_id": PAGE_ID, "psid": str(number), "created_at": now} for number in several]
            tx.execute(contact.insert(), values)
        time.sleep(PAUSE_SECONDS)
    print(time.monotonic() - started)


if __name__ == "__main__":
    main()
