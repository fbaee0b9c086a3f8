"""THE SQL DOOR: nothing else of the project imports SQLAlchemy.

`Store` opens transactions; the modules beside it hold the statements, one module a table group.
"""

from __future__ import annotations

from otn.store.engine import Source, Store, Tx

__all__ = ["Source", "Store", "Tx"]
