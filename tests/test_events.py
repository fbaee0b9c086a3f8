"""What a webhook body tells, and what it can never do to us."""

from __future__ import annotations

import hashlib
import hmac
import json
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otn.errors import InvalidSignature, MalformedPayload
from otn.events import (
    Attachment,
    Event,
    EventKind,
    WindowOpening,
    clean,
    opens_window,
    parse,
    restore,
    sign,
    verify_signature,
)

PAGE, PERSON = "1001", "7007"
NOW = datetime(2026, 10, 1, 12, 0, tzinfo=timezone.utc)
MS = 1_790_000_000_000
AT = datetime(2026, 9, 21, 14, 13, 20, tzinfo=timezone.utc)
TOKEN = "a-token-worth-a-message"


def body_of(*events: Any, where: str = "messaging", **entry: Any) -> bytes:
    return envelope({"id": PAGE, "time": MS, where: list(events), **entry})


def envelope(*entries: Any) -> bytes:
    return json.dumps({"object": "page", "entry": list(entries)}).encode()


def said(**message: Any) -> dict[str, Any]:
    return incoming(message={"mid": "m_1", "text": "hi", **message})


def incoming(**fields: Any) -> dict[str, Any]:
    return {"sender": {"id": PERSON}, "recipient": {"id": PAGE}, "timestamp": MS, **fields}


def tapped(**optin: Any) -> dict[str, Any]:
    value = {"type": "one_time_notif_req", "payload": "otn:restock", "one_time_notif_token": TOKEN}
    return incoming(optin={**value, **optin})


def one(event: Any, **entry: Any) -> Event:
    (found,) = parse(body_of(event, **entry), NOW)
    return found


# --- signatures ---


def test_a_body_signed_with_any_of_the_secrets_is_accepted() -> None:
    verify_signature(b"{}", sign(b"{}", "new"), ["old", "new"])


def test_the_signature_is_the_one_that_messenger_documents() -> None:
    assert sign(b"abc", "s") == "sha256=" + hmac.new(b"s", b"abc", hashlib.sha256).hexdigest()


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "sha256=",
        "sha256=" + "0" * 64,
        "sha1=" + hmac.new(b"secret", b"{}", hashlib.sha1).hexdigest(),
        "md5=" + hmac.new(b"secret", b"{}", hashlib.md5).hexdigest(),
        sign(b"{}", "secret").upper(),
        sign(b"{}", "secret").removeprefix("sha256="),
        sign(b"{}", "secret") + "=",
        sign(b"{} ", "secret"),
        sign(b"{}", ""),
        "sha256=\u00e9\ud800",
    ],
)
def test_anything_else_is_refused(header: str | None) -> None:
    with pytest.raises(InvalidSignature, match="MESSENGER_APP_SECRET"):
        verify_signature(b"{}", header, ["secret", ""])


def test_without_a_secret_nothing_is_accepted() -> None:
    with pytest.raises(InvalidSignature):
        verify_signature(b"{}", sign(b"{}", ""), [])


def test_one_secret_in_place_of_a_list_is_a_programming_error() -> None:
    with pytest.raises(TypeError, match="list of app secrets"):
        verify_signature(b"{}", sign(b"{}", "s"), "secret")


# --- kinds ---


def test_a_message_carries_all_that_the_person_sent() -> None:
    event = one(
        said(
            quick_reply={"payload": "YES"},
            reply_to={"mid": "m_0"},
            attachments=[
                {"type": "image", "payload": {"url": "https://x/y.png", "sticker_id": 369239263222822}},
                {"type": "fallback", "title": "A page", "url": "https://x", "payload": None},
                {"type": "location", "payload": {"coordinates": {"lat": 52.5, "long": 13}}},
            ],
        )
    )
    assert (event.kind, event.page_id, event.psid) == (EventKind.MESSAGE, PAGE, PERSON)
    assert (event.at, event.at_is_guessed, event.standby) == (AT, False, False)
    assert (event.key, event.mid, event.text, event.name) == ("message:m_1", "m_1", "hi", "message")
    assert (event.quick_reply_payload, event.reply_to_mid) == ("YES", "m_0")
    assert event.attachments == (
        Attachment(type="image", url="https://x/y.png", sticker_id="369239263222822"),
        Attachment(type="fallback", title="A page", url="https://x"),
        Attachment(type="location", latitude=52.5, longitude=13.0),
    )


def test_a_postback_carries_title_payload_and_the_referral_within() -> None:
    event = one(
        incoming(
            postback={
                "mid": "m_2",
                "title": "Get Started",
                "payload": "START",
                "referral": {"ref": "flyer", "source": "SHORTLINK", "type": "OPEN_THREAD"},
            }
        )
    )
    assert (event.kind, event.key) == (EventKind.POSTBACK, "postback:m_2")
    assert (event.title, event.payload, event.ref) == ("Get Started", "START", "flyer")
    assert (event.referral_source, event.referral_type) == ("SHORTLINK", "OPEN_THREAD")


def test_an_opt_in_carries_its_token_and_is_known_by_the_tokens_hash() -> None:
    event = one(tapped())
    assert (event.kind, event.psid, event.at) == (EventKind.OPTIN_OTN, PERSON, AT)
    assert (event.optin_type, event.payload, event.token) == ("one_time_notif_req", "otn:restock", TOKEN)
    assert event.key == "optin_otn:" + hashlib.sha256(TOKEN.encode()).hexdigest()


def test_a_token_shows_neither_in_the_repr_nor_in_the_raw_event() -> None:
    event = one(tapped())
    marketing = one(incoming(optin={"type": "notification_messages", "notification_messages_token": TOKEN}))
    for each in (event, marketing):
        assert each.token == TOKEN
        assert TOKEN not in repr(each)
        assert TOKEN.encode() not in each.raw
    assert json.loads(event.raw)["optin"]["payload"] == "otn:restock"


def test_what_a_person_wrote_stays_out_of_the_repr() -> None:
    assert "secret" not in repr(one(said(text="secret", quick_reply={"payload": "secret"})))


def test_an_opt_in_without_a_time_is_kept_with_the_time_of_arrival() -> None:
    optin = tapped()
    del optin["timestamp"]
    event = one(optin, time=None)
    assert (event.kind, event.at, event.at_is_guessed) == (EventKind.OPTIN_OTN, NOW, True)


@pytest.mark.parametrize(
    ("optin", "expected"),
    [
        ({"type": "notification_messages", "payload": "p"}, EventKind.OPTIN_OTHER),
        ({"ref": "button-7"}, EventKind.OPTIN_OTHER),
        ({"type": "something_new", "one_time_notif_token": TOKEN}, EventKind.OPTIN_OTHER),
        ({"type": "one_time_notif_req"}, EventKind.BROKEN),
        ({"type": "one_time_notif_req", "one_time_notif_token": 5}, EventKind.BROKEN),
        ({"type": "one_time_notif_req", "one_time_notif_token": ""}, EventKind.BROKEN),
        ({"type": "one_time_notif_req", "one_time_notif_token": "a\ud83d"}, EventKind.BROKEN),
        ({"type": "one_time_notif_req", "one_time_notif_token": "t" * 4097}, EventKind.BROKEN),
        ({"type": "one_time_notif_req", "one_time_notif_token": "t" * 4096}, EventKind.OPTIN_OTN),
    ],
)
def test_opt_ins_are_told_apart_by_their_type(optin: dict[str, Any], expected: EventKind) -> None:
    assert one(incoming(optin=optin)).kind is expected


def test_an_echo_names_the_recipient_as_the_person() -> None:
    echo = {
        "sender": {"id": PAGE},
        "recipient": {"id": PERSON},
        "timestamp": MS,
        "message": {"mid": "m_1", "text": "hi", "is_echo": True, "app_id": 42, "metadata": "otn:abc"},
    }
    event = one(echo)
    assert (event.kind, event.page_id, event.psid) == (EventKind.ECHO, PAGE, PERSON)
    assert (event.app_id, event.metadata, event.key) == ("42", "otn:abc", "echo:m_1")
    assert event.key != one(said()).key


def test_an_echo_without_a_recipient_still_settles_its_attempt() -> None:
    event = one(
        {"sender": {"id": PAGE}, "timestamp": MS, "message": {"is_echo": True, "metadata": "otn:abc"}}
    )
    assert (event.kind, event.psid, event.metadata) == (EventKind.ECHO, None, "otn:abc")


def test_what_the_page_itself_did_is_never_the_persons_doing() -> None:
    by_the_page = {"sender": {"id": PAGE}, "recipient": {"id": PERSON}, "timestamp": MS}
    unflagged = one({**by_the_page, "message": {"mid": "m_1", "text": "hi"}})
    reaction = one({**by_the_page, "reaction": {"action": "react", "mid": "m_1"}})
    assert (unflagged.kind, unflagged.psid) == (EventKind.ECHO, PERSON)
    assert (reaction.kind, reaction.psid) == (EventKind.UNKNOWN, PERSON)
    assert opens_window(unflagged) is opens_window(reaction) is None


def test_reactions_are_told_apart_from_taking_them_back() -> None:
    reaction = {"reaction": "love", "emoji": "\u2764", "mid": "m_9"}
    event = one(incoming(reaction={**reaction, "action": "react"}))
    back = one(incoming(reaction={**reaction, "action": "unreact"}))
    assert (event.kind, event.emoji, event.reaction, event.mid) == (
        EventKind.REACTION,
        "\u2764",
        "love",
        "m_9",
    )
    assert back.kind is EventKind.UNREACT
    assert one(incoming(reaction={**reaction, "action": "stare"})).kind is EventKind.BROKEN


def test_reactions_to_one_message_at_different_times_have_different_keys() -> None:
    def key(action: str, mid: str, timestamp: int) -> str:
        return one({**incoming(reaction={"action": action, "mid": mid}), "timestamp": timestamp}).key

    keys = [
        key("react", "m_1", MS),
        key("react", "m_1", MS + 1),
        key("unreact", "m_1", MS),
        key("react", "m_2", MS),
    ]
    assert len(set(keys)) == 4
    assert keys[0] == key("react", "m_1", MS)


def test_edits_of_one_message_have_different_keys() -> None:
    first = one(incoming(message_edit={"mid": "m_1", "text": "a", "num_edit": 1}))
    second = one(incoming(message_edit={"mid": "m_1", "text": "a", "num_edit": 2}))
    assert (first.kind, first.mid, first.text) == (EventKind.MESSAGE_EDIT, "m_1", "a")
    assert first.key != second.key


def test_reads_and_deliveries_carry_their_watermark() -> None:
    read = one(incoming(read={"watermark": MS}))
    delivery = one(incoming(delivery={"watermark": MS, "mids": ["m_1", 5, "m_2"]}))
    assert (read.kind, read.watermark) == (EventKind.READ, AT)
    assert (delivery.kind, delivery.watermark, delivery.mids) == (EventKind.DELIVERY, AT, ("m_1", "m_2"))


@pytest.mark.parametrize("name", ["policy_enforcement", "policy-enforcement"])
def test_a_policy_enforcement_names_nobody(name: str) -> None:
    event = one({"recipient": {"id": PAGE}, "timestamp": MS, name: {"action": "block", "reason": "spam"}})
    assert (event.kind, event.psid, event.action, event.reason) == (
        EventKind.POLICY_ENFORCEMENT,
        None,
        "block",
        "spam",
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("pass_thread_control", EventKind.HANDOVER),
        ("take_thread_control", EventKind.HANDOVER),
        ("request_thread_control", EventKind.HANDOVER),
        ("app_roles", EventKind.HANDOVER),
        ("account_linking", EventKind.ACCOUNT_LINKING),
        ("referral", EventKind.REFERRAL),
        ("game_play", EventKind.UNKNOWN),
    ],
)
def test_other_events_keep_messengers_name(name: str, kind: EventKind) -> None:
    event = one(incoming(**{name: {"ref": "r", "source": "SHORTLINK"}}))
    assert (event.kind, event.name, event.psid) == (kind, name, PERSON)


# --- the envelope ---


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"\xff",
        b"\xef\xbb\xbf{}",
        b'{"object": "page"}',
        b'{"object": "page", "entry": {}}',
        b'{"object": "instagram", "entry": []}',
        b'{"object": ["page"], "entry": []}',
        b'{"object": "page", "entry": [',
        b'{"object": "page", "entry": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_a_body_that_is_no_pages_envelope_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedPayload):
        parse(body, NOW)


def test_every_event_of_every_entry_is_returned_in_order() -> None:
    body = envelope(
        {"id": "1", "time": MS, "messaging": [said(mid="a"), said(mid="b")], "standby": [said(mid="c")]},
        {"id": "2", "time": MS, "changes": [{"field": "feed", "value": {"item": "like"}}]},
        {"id": "3", "time": MS, "messaging": []},
        {"id": "4", "time": MS},
        {"id": "5", "time": MS, "messaging": [said(mid="d")]},
    )
    events = parse(body, NOW)
    assert [(event.page_id, event.key.split(":")[0], event.mid, event.standby) for event in events] == [
        ("1", "message", "a", False),
        ("1", "message", "b", False),
        ("1", "message", "c", True),
        ("2", "changes", None, False),
        ("4", "unknown", None, False),
        ("5", "message", "d", False),
    ]
    assert events[3].name == "changes.feed"


HOSTILE = [
    pytest.param("null", id="null"),
    pytest.param('"text"', id="a string"),
    pytest.param("[[]]", id="a list"),
    pytest.param('{"message": []}', id="message a list"),
    pytest.param('{"message": {"mid": "m", "text": "hi"}}', id="no sender"),
    pytest.param('{"sender": {"id": true}, "message": {}}', id="boolean sender"),
    pytest.param('{"sender": {"id": "7\\u0000"}, "message": {}}', id="NUL in the sender"),
    pytest.param('{"sender": {"id": "7\\ud83d"}, "message": {}}', id="lone surrogate in the sender"),
    pytest.param('{"sender": {"id": "' + "7" * 256 + '"}, "message": {}}', id="endless sender"),
    pytest.param('{"sender": {"id": "7"}, "message": {"mid": "\\ud83d"}}', id="lone surrogate in the mid"),
    pytest.param('{"sender": {"id": "7"}, "message": {"mid": {}}}', id="mid an object"),
    pytest.param('{"sender": {"id": ' + "9" * 5000 + '}, "message": {}}', id="huge sender"),
    pytest.param(
        '{"sender": {"id": "1001"}, "optin": ' + json.dumps(tapped()["optin"]) + "}",
        id="the Page's own opt-in",
    ),
]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_a_broken_event_says_why_and_costs_its_neighbours_nothing(hostile: str) -> None:
    template = body_of(said(mid="before"), "HERE", said(mid="after"))
    before, broken, after = parse(template.replace(b'"HERE"', hostile.encode()), NOW)
    assert (before.mid, after.mid) == ("before", "after")
    assert (broken.kind, broken.page_id, broken.psid) == (EventKind.BROKEN, PAGE, None)
    assert broken.broken
    assert broken.key.startswith("broken:")
    assert broken.raw.isascii()


@pytest.mark.parametrize(
    "strange",
    [
        '"text": "a\\u0000b\\ud83dc"',
        '"text": "abc", "app_id": ' + "1" * 10_000,
        '"text": "abc", "n": NaN, "i": -Infinity, "f": 1e999',
        '"text": "abc", "attachments": [null, {"type": null}, {"payload": []}]',
        '"text": "abc", "attachments": {}, "quick_reply": 7, "reply_to": "x", "referral": []',
    ],
)
def test_a_strange_message_is_a_message_all_the_same(strange: str) -> None:
    body = body_of("HERE").replace(
        b'"HERE"',
        f'{{"sender": {{"id": "7"}}, "timestamp": {MS}, "message": {{"mid": "m_1", {strange}}}}}'.encode(),
    )
    (event,) = parse(body, NOW)
    assert (event.kind, event.text, event.mid) == (EventKind.MESSAGE, "abc", "m_1")


def test_the_raw_event_is_strict_json_and_keeps_lone_surrogates_as_escapes() -> None:
    body = body_of("HERE").replace(
        b'"HERE"', b'{"sender": {"id": "7"}, "message": {"text": "\\ud83d", "n": NaN, "big": 1e999}}'
    )
    (event,) = parse(body, NOW)

    def no_constants(literal: str) -> None:
        raise AssertionError(literal)

    assert b'"text":"\\ud83d"' in event.raw
    assert json.loads(event.raw, parse_constant=no_constants)["message"]["big"] == "1e999"


def test_an_event_too_deep_to_encode_is_broken_or_the_body_is_malformed() -> None:
    for depth in range(50, 1100, 25):
        nested = b"[" * depth + b"]" * depth
        body = body_of(said(mid="good"), "HERE").replace(b'"HERE"', b'{"message": ' + nested + b"}")
        try:
            good, broken = parse(body, NOW)
        except MalformedPayload:
            continue
        assert (good.mid, broken.kind) == ("good", EventKind.BROKEN)


def test_an_entry_that_is_no_object_is_one_broken_event() -> None:
    first, second = parse(envelope(7, {"id": PAGE, "messaging": [said()]}), NOW)
    assert (first.kind, first.page_id, first.at, first.at_is_guessed) == (EventKind.BROKEN, "", NOW, True)
    assert second.kind is EventKind.MESSAGE


def test_a_missing_entry_id_is_taken_from_the_event() -> None:
    body = envelope({"time": MS, "messaging": [said()]}, {"id": "1\x00", "time": MS, "messaging": [said()]})
    first, second = parse(body, NOW)
    assert (first.kind, first.page_id) == (EventKind.MESSAGE, PAGE)
    assert (second.kind, second.page_id) == (EventKind.BROKEN, "1")


def test_numeric_ids_are_read_as_text() -> None:
    event = one({**said(), "sender": {"id": 7007}}, id=1001)
    assert (event.page_id, event.psid) == (PAGE, PERSON)


def test_a_kept_event_is_restored_with_its_own_key_and_time_but_without_its_token() -> None:
    wordless = {"sender": {"id": PERSON}, "message": {"text": "hi"}}
    for kept in (
        one(tapped()),
        one(said()),
        one(wordless, time=MS),
        *parse(body_of(said(), where="standby"), NOW),
    ):
        later = NOW + timedelta(days=1)
        again = restore(
            kept.raw, page_id=PAGE, key=kept.key, at=kept.at, received_at=later, standby=kept.standby
        )
        assert replace(again, raw=kept.raw, at_is_guessed=False) == replace(kept, token=None)


# --- times ---

NOW_MS = int(NOW.timestamp() * 1000)


@pytest.mark.parametrize(
    ("timestamp", "expected", "guessed"),
    [
        (MS, AT, False),
        (MS + 0.0, AT, False),
        (NOW_MS, NOW, False),
        (NOW_MS + 300_000, NOW + timedelta(minutes=5), False),
        (NOW_MS + 300_001, NOW, True),
        (10**39, NOW, True),
        (1_451_606_400_000, datetime(2016, 1, 1, tzinfo=timezone.utc), False),
        (1_451_606_399_999, NOW, True),
        (MS // 1000, NOW, True),
        (0, NOW, True),
        (-MS, NOW, True),
        (True, NOW, True),
        (None, NOW, True),
        (str(MS), NOW, True),
        ([MS], NOW, True),
    ],
)
def test_the_time_is_the_events_own_and_never_in_the_future(
    timestamp: object, expected: datetime, guessed: bool
) -> None:
    event = one({**tapped(), "timestamp": timestamp}, time=None)
    assert (event.kind, event.at, event.at_is_guessed) == (EventKind.OPTIN_OTN, expected, guessed)
    assert event.at.tzinfo is timezone.utc


def test_the_entrys_time_stands_in_for_a_missing_one() -> None:
    event = one({**said(), "timestamp": None}, time=MS)
    assert (event.at, event.at_is_guessed) == (AT, False)


# --- keys ---


def test_a_key_does_not_depend_on_arrival_or_on_the_order_of_fields() -> None:
    read = incoming(read={"watermark": MS})
    backwards = dict(reversed(read.items()))
    (late,) = parse(body_of(backwards, time=MS + 5), NOW + timedelta(hours=1))
    assert one(read).key == late.key


def test_two_wordless_events_without_mid_or_time_differ_by_their_entrys_time() -> None:
    event = {"sender": {"id": PERSON}, "message": {"text": "hi"}}
    assert one(event, time=MS).key != one(event, time=MS + 1).key


@pytest.mark.parametrize("length", [1, 200, 223, 224, 512])
def test_a_key_is_bounded_and_unique(length: int) -> None:
    first, second = one(said(mid="m" * (length - 1) + "a")), one(said(mid="m" * (length - 1) + "b"))
    assert first.kind is EventKind.MESSAGE
    assert first.key != second.key
    assert max(len(first.key), len(second.key)) <= 255


def test_a_mid_above_the_bound_makes_the_event_broken() -> None:
    assert one(said(mid="m" * 513)).kind is EventKind.BROKEN


# --- the window ---


@pytest.mark.parametrize(
    ("event", "opening"),
    [
        (said(), WindowOpening.MESSAGE),
        (incoming(message={"attachments": [{"type": "like"}]}), WindowOpening.MESSAGE),
        (said(referral={"source": "ADS", "ref": "x"}), WindowOpening.AD),
        (said(referral={"source": "SHORTLINK"}), WindowOpening.MESSAGE),
        (incoming(postback={"payload": "p"}), WindowOpening.POSTBACK),
        (incoming(postback={"payload": "p", "referral": {"source": "ADS"}}), WindowOpening.POSTBACK),
        (incoming(referral={"source": "SHORTLINK"}), WindowOpening.REFERRAL),
        (incoming(referral={"source": "ADS"}), WindowOpening.REFERRAL),
        (incoming(reaction={"action": "react", "mid": "m"}), WindowOpening.REACTION),
        (incoming(optin={"ref": "button-7"}), WindowOpening.PLUGIN),
        ({"recipient": {"id": PAGE}, "optin": {"ref": "b", "user_ref": "u"}}, None),
        (tapped(), None),
        (incoming(optin={"type": "notification_messages"}), None),
        (incoming(reaction={"action": "unreact", "mid": "m"}), None),
        (incoming(read={"watermark": MS}), None),
        (incoming(delivery={"watermark": MS}), None),
        (incoming(message_edit={"mid": "m", "text": "x"}), None),
        (incoming(pass_thread_control={}), None),
        (incoming(account_linking={"status": "linked"}), None),
        (said(is_echo=True), None),
        (incoming(strange={}), None),
        ({"message": {}}, None),
    ],
)
def test_the_window_opens_for_what_messenger_lists_and_nothing_else(
    event: dict[str, Any], opening: WindowOpening | None
) -> None:
    assert opens_window(one(event)) is opening


def test_an_event_in_standby_opens_the_window_too() -> None:
    (event,) = parse(body_of(said(), where="standby"), NOW)
    assert event.standby
    assert opens_window(event) is WindowOpening.MESSAGE


# --- whatever comes ---

FIELDS = st.sampled_from(
    [
        *(
            "id",
            "time",
            "messaging",
            "standby",
            "changes",
            "sender",
            "recipient",
            "timestamp",
            "message",
            "mid",
        ),
        *(
            "text",
            "attachments",
            "payload",
            "url",
            "postback",
            "optin",
            "type",
            "one_time_notif_token",
            "action",
        ),
        *(
            "reaction",
            "referral",
            "ref",
            "source",
            "read",
            "watermark",
            "delivery",
            "mids",
            "is_echo",
            "app_id",
        ),
    ]
) | st.text(max_size=3)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=[])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(FIELDS, inner, max_size=6),
    max_leaves=20,
)
EVENTS = st.fixed_dictionaries(
    {},
    optional={
        "sender": st.just({"id": PERSON}) | st.just({"id": PAGE}) | JSON,
        "recipient": st.just({"id": PAGE}) | JSON,
        "timestamp": st.integers() | JSON,
        "message": JSON,
        "postback": JSON,
        "optin": st.just(tapped()["optin"]) | JSON,
        "reaction": st.just({"action": "react"}) | JSON,
        "delivery": JSON,
        "anything": JSON,
    },
)


def strings_of(event: Event) -> list[str]:
    values = [getattr(event, name) for name in Event.__slots__]
    parts = [getattr(part, name) for part in event.attachments for name in Attachment.__slots__]
    return [value for value in [*values, *parts, *event.mids] if isinstance(value, str)]


@given(JSON)
def test_no_body_raises_anything_but_malformed(value: Any) -> None:
    for body in (json.dumps(value).encode(), json.dumps({"object": "page", "entry": value}).encode()):
        with suppress(MalformedPayload):
            parse(body, NOW)


@given(st.binary())
def test_no_bytes_raise_anything_but_malformed(body: bytes) -> None:
    with pytest.raises(MalformedPayload):
        parse(body, NOW)


@given(st.lists(EVENTS | JSON, max_size=3), st.lists(EVENTS | JSON, max_size=3), st.lists(JSON, max_size=2))
def test_no_neighbour_costs_a_good_event_anything(
    before: list[Any], after: list[Any], entries: list[Any]
) -> None:
    good = [said(mid="the good one"), tapped(one_time_notif_token="the good one")]
    body = envelope(*entries, {"id": PAGE, "time": MS, "messaging": [*before, *good, *after]}, *entries)
    events = parse(body, NOW)
    expected = {one(event).key: one(event) for event in good}
    assert {event.key: event for event in events if event.key in expected} == expected
    assert len(events) >= len(before) + len(good) + len(after)


@given(EVENTS)
def test_every_string_can_be_stored_and_every_time_is_sane(value: dict[str, Any]) -> None:
    event = one(value)
    assert all(text == clean(text) for text in strings_of(event))
    assert len(event.key) <= 255
    assert event.raw.isascii()
    assert event.at <= NOW + timedelta(minutes=5)
    assert event == one(json.loads(body_of(value))["entry"][0]["messaging"][0])
