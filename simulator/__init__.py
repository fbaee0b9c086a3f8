"""A stand-in for Messenger on this machine: a Graph API, signed webhooks, people, and a journal of what happened.

It is written from Meta's documentation alone and imports nothing of the bot, so that it can judge the bot.
Comments cite Meta's pages by short names:

OTN     /docs/messenger-platform/send-messages/one-time-notification
FAQ     /docs/messenger-platform/faq
SEND    /documentation/business-messaging/messenger-platform/send-messages
HOOKS   …/messenger-platform/webhooks
ERR     …/messenger-platform/error-codes
RATE    …/messenger-platform/overview/rate-limiting
POLICY  …/messenger-platform/policy
ECHO    …/webhooks/webhook-events/message-echoes

Reading order: `config` and `clock`; the state (`people`, `world`); what a person can do (`acts`); what a Page may
send (`call`, `content`, `law`, `sending`); the two doors (`graph` for the bot, `control` for tests and people);
what goes to the bot (`events`, `outbox`); `journal`; the page for people (`chat`, `stream`, and `page/main.js`).
"""
