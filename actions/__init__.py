"""Rasa's custom actions. The action server imports every module here: nothing but actions."""

import os

# Imported, its actions are registered: those that any bot with One-Time Notifications has.
import otn_actions  # noqa: F401

# The action server has no authentication: whoever reaches it can run any action for anybody. Unless told
# otherwise it would listen on every address; it reads this after it has imported the actions.
os.environ.setdefault("SANIC_HOST", "127.0.0.1")
