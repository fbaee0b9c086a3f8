"""The door to Meta's Graph API: `protocol` (pure), `aio` for the channel and the worker, `sync` for the CLI."""
