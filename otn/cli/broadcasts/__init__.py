"""`otn broadcasts …`: one message to everyone who agreed."""

from __future__ import annotations

from otn.cli.broadcasts import create, moves, plans, report, watch
from otn.cli.session import commands

app = commands("One message to everyone who agreed.")
app.command("create")(create.create)
app.command("list")(plans.list_broadcasts)
app.command("show")(plans.show)
app.command("estimate")(plans.estimate)
app.command("explain")(plans.explain)
app.command("schedule")(moves.schedule)
app.command("pause")(moves.pause)
app.command("resume")(moves.resume)
app.command("cancel")(moves.cancel)
app.command("watch")(watch.watch)
app.command("report")(report.report)
app.command("export")(report.export)
app.command("retry")(moves.retry)
