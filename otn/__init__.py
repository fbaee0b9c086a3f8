"""One-Time Notifications for Messenger bots: the engine."""
