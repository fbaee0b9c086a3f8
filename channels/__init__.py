"""THE RASA DOOR: Messenger as an input and output channel of Rasa (`channels.messenger.MessengerInput`)."""
