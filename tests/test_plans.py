"""What an operator writes, in options or in a file, becomes a plan; everything that is wrong is said at once."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from conftest import NOW, Make

from otn import broadcasts, messages, plans
from otn.audience import Audience, Conditions
from otn.broadcasts import Timetable
from otn.errors import InvalidInput, InvalidMove
from otn.models import Broadcast
from otn.plans import Draft
from otn.store import Store
from otn.store import broadcasts as stored
from otn.store.schema import broadcast_psid

SAID = {"topic": "restock", "text": "It is back."}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "domain.yml").write_text(
        "responses: {utter_back: [{text: One}, {text: Two}], utter_bad: [{text: 'The {product}'}]}"
    )
    return tmp_path


def draft(root: Path, **wishes: Any) -> Draft:
    written = {key.replace("_", "-"): value for key, value in wishes.items()}
    return plans.draft(root, {**SAID, **written}, who="ada", now=NOW)


def made_of(store: Store, found: Draft) -> Broadcast:
    return plans.create(store, found, NOW, lambda: None)


def in_file(root: Path, content: str) -> Draft:
    (root / "plan.yml").write_text(content)
    return plans.draft(root, plans.read_file(root / "plan.yml"), who="ada", now=NOW)


def test_everything_can_be_said_in_a_file(root: Path) -> None:
    (root / "vip.txt").write_text("7007\n\n7008\n")
    made = in_file(
        root,
        """
topic: restock-*
response: utter_back
variation: 2
name: Spring
notification-type: silent_push
id: spring-2026
window-too: true
page: 101
locale: [en_US, en_GB]
time-zone: Europe/Berlin
tag: vip
attribute: {city: Berlin, size: 42}
active-since: 2026-09-01
opted-in-before: 2026-09-01T09:00:00
not-messaged-since: 7d
psids: vip.txt
exclude-tag: [staff]
exclude_active_before: 30d
exclude-not-messaged-since: 90d
""",
    )
    assert made.problems == []
    plan = made.plan
    assert (plan.topic, plan.response, plan.message) == ("restock-*", "utter_back", messages.text("Two"))
    assert (plan.name, plan.notification_type, plan.dedupe_key) == ("Spring", "SILENT_PUSH", "id:spring-2026")
    assert (plan.included_psids, plan.excluded_psids, plan.created_by) == (["7007", "7008"], [], "ada")
    assert plan.audience == Audience(
        include=Conditions(
            pages=("101",),
            locales=("en_US", "en_GB"),
            time_zones=("Europe/Berlin",),
            tags=("vip",),
            attributes=(("city", "Berlin"), ("size", "42")),
            active_since=datetime(2026, 9, 1, tzinfo=timezone.utc),
            opted_in_before=datetime(2026, 9, 1, 9, tzinfo=timezone.utc),
            messaged_since=NOW - timedelta(days=90),
            listed=True,
        ),
        exclude=Conditions(
            tags=("staff",),
            active_before=NOW - timedelta(days=30),
            messaged_since=NOW - timedelta(days=7),
        ),
        window_too=True,
    )


def test_options_say_the_same(root: Path) -> None:
    made = draft(root, attribute=["city=Berlin", "size = 42"], tag=["vip"], locale=None)
    assert made.problems == []
    assert made.plan.audience.include == Conditions(
        tags=("vip",), attributes=(("city", "Berlin"), ("size", "42"))
    )


def test_a_variation_that_was_not_picked_is_told(root: Path) -> None:
    [note] = draft(root, text=None, response="utter_back").notes
    assert "2 variations" in note
    assert draft(root, text=None, response="utter_back", variation=2).notes == []


@pytest.mark.parametrize(
    ("wishes", "problem"),
    [
        ({"text": None}, "Say what is to be sent"),
        ({"response": "utter_back"}, "Say what is to be sent"),
        ({"text": ["a"]}, "text: write words"),
        ({"text": None, "response": "utter_bad"}, "write {product|there}"),
        ({"text": None, "response": "utter_back", "variation": "two"}, "variation: it is a number"),
        ({"nonsense": 1}, "'nonsense' means nothing here"),
        ({"id": "x" * 201}, "id: it has 1 to 200"),
        ({"window_too": "perhaps"}, "window-too: it is true or false"),
        ({"active_since": "yesterday"}, "active-since: write a day"),
        ({"attribute": ["city"]}, "attribute: write NAME=VALUE"),
        ({"tag": []}, "tag: name at least one"),
        ({"exclude_tag": ["staff,test"]}, "exclude-tag: 'staff,test' is nobody's"),
        ({"tag": {"vip": "yes"}}, "tag: write words"),
        ({"exclude_tag": ""}, "exclude-tag: '' is nobody's"),
        ({"exclude_page": "101,102"}, "exclude-page: '101,102' is nobody's"),
        ({"attribute": {}}, "attribute: name at least one"),
        ({"attribute": {"city": ["Berlin", "Hamburg"]}}, "attribute: write one value behind city"),
        ({"exclude_attribute": {"city": None}}, "exclude-attribute: write one value behind city"),
        ({"exclude_attribute": ["city="]}, "exclude-attribute: write NAME=VALUE"),
        ({"exclude_attribute": ["home town=Berlin"]}, "exclude-attribute: 'home town' is no attribute"),
        ({"attribute": ["first_name=Ada"]}, "attribute: 'first_name' is no attribute"),
        ({"psids": "nowhere.txt"}, "psids: nowhere.txt cannot be read"),
    ],
)
def test_what_is_wrong_is_said_with_its_name(root: Path, wishes: dict[str, Any], problem: str) -> None:
    [found] = draft(root, **wishes).problems
    assert problem in found


@pytest.mark.parametrize(
    ("content", "problem"), [("", "there is none in it"), ("7007\n\nnot a psid\n", "line 3 is none")]
)
def test_a_list_of_psids_holds_psids(root: Path, content: str, problem: str) -> None:
    (root / "list.txt").write_text(content)
    [found] = draft(root, psids=str(root / "list.txt")).problems
    assert problem in found


def test_a_condition_with_nothing_behind_it_is_not_one_that_everybody_meets(root: Path) -> None:
    with pytest.raises(InvalidInput) as wrong:
        in_file(root, "topic: restock\ntext: It is back.\nname:\nexclude-tag:\npsids:\n")
    assert wrong.value.problems == tuple(
        f"{key}: there is nothing behind it; say what, or leave it out." for key in ("exclude-tag", "psids")
    )


def test_true_in_a_file_is_the_word_that_an_import_keeps(root: Path) -> None:
    made = in_file(
        root, "topic: restock\ntext: It is back.\nexclude-attribute: {opted_out: true, vip: False}"
    )
    assert made.problems == []
    assert made.plan.audience.exclude.attributes == (("opted_out", "true"), ("vip", "false"))


def test_a_file_that_is_no_yaml_is_refused(root: Path) -> None:
    with pytest.raises(InvalidInput, match=r"plan\.yml cannot be read \(line 2\)"):
        in_file(root, "topic: [")


def test_every_problem_is_said_at_once(root: Path, store: Store, make: Make) -> None:
    made = draft(root, text="x" * 2000, topic="nonsense", notification_type="loud", active_since="?", tag=[])
    with pytest.raises(InvalidInput) as wrong:
        made_of(store, made)
    assert len(wrong.value.problems) == 5
    made = draft(root, topic=None, text=None)
    with pytest.raises(InvalidInput) as wrong:
        made_of(store, made)
    assert [problem.split(" ")[0] for problem in wrong.value.problems] == ["Say", "Name"]


def test_the_same_id_is_the_same_broadcast(root: Path, store: Store, make: Make) -> None:
    make.topic()
    first, again = (made_of(store, draft(root, id="one")) for _ in range(2))
    assert first.id == again.id
    with pytest.raises(InvalidInput, match="topic or message is another"):
        made_of(store, draft(root, id="one", text="Another."))


@pytest.mark.parametrize(
    ("changed", "another"),
    [
        ({"exclude_tag": "staff"}, "whose audience is another"),
        ({"exclude_tag": None}, "whose audience is another"),
        ({"opted_in_since": "7d"}, "whose audience is another"),
        ({"window_too": True}, "whose audience is another"),
        ({"notification_type": "NO_PUSH"}, "whose notification type is another"),
        ({"text": "Another.", "window_too": True}, "whose topic or message and audience are others"),
        ({"psids": "7009\n"}, "whose list of psids is another"),
    ],
)
def test_the_same_id_for_other_people_is_refused(
    root: Path, store: Store, make: Make, changed: dict[str, Any], another: str
) -> None:
    """Whoever leaves out somebody on second thoughts must not be told that all is well."""
    make.topic()

    def wish(**more: Any) -> Draft:
        given = {"id": "one", "exclude_tag": "vip", "active_since": "30d", "psids": "7007\n7008\n", **more}
        (root / "list.txt").write_text(given["psids"])
        return draft(root, **{**given, "psids": str(root / "list.txt")})

    first = made_of(store, wish())
    with pytest.raises(InvalidInput, match=another):
        made_of(store, wish(**changed))
    same_later = plans.create(store, wish(psids="7008\n\n7007\n"), NOW + timedelta(days=1), lambda: None)
    assert same_later == first


class Died(Exception):
    """The process ends here."""


def test_a_long_list_is_kept_in_parts_and_sent_to_only_as_a_whole(
    root: Path, store: Store, make: Make
) -> None:
    make.topic()
    (root / "long.txt").write_text("\n".join(str(psid) for psid in range(3 * broadcasts.ROWS)))
    wish = {"id": "long", "exclude_psids": root / "long.txt"}

    def die() -> None:
        raise Died

    with pytest.raises(Died):
        plans.create(store, draft(root, **wish), NOW, die)
    with store.read() as tx:
        [begun] = stored.every(tx)
    with store.begin() as tx, pytest.raises(InvalidMove, match="not kept to the end: create it again"):
        broadcasts.schedule(tx, begun.id, Timetable(), who="ada", now=NOW)
    pauses: list[int] = []
    other = root / "other.txt"
    other.write_text("7007")
    with pytest.raises(InvalidInput, match="whose list of psids is another"):
        made_of(store, draft(root, **{**wish, "exclude_psids": other}))
    assert plans.create(store, draft(root, **wish), NOW, lambda: pauses.append(1)).id == begun.id
    assert len(pauses) == 3
    with store.begin() as tx:
        kept = tx.execute(sa.select(sa.func.count()).select_from(broadcast_psid)).scalar_one()
        assert kept == 3 * broadcasts.ROWS
        assert broadcasts.schedule(tx, begun.id, Timetable(), who="ada", now=NOW).state_reason is None
