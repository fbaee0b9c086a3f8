"""What operators know of people: kept, taken away, on record, and gone with the person."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from otn import importing, people, privacy
from otn.errors import InvalidInput
from otn.importing import Problem, Result
from otn.people import Wish
from otn.store import Store, audit, contact_facts, contacts


def known(store: Store, contact_id: int) -> tuple[dict[str, str], set[str]]:
    with store.read() as tx:
        attributes = contact_facts.attributes_of(tx, [contact_id]).get(contact_id, {})
        return attributes, contact_facts.tags_of(tx, [contact_id]).get(contact_id, set())


def changes(store: Store, contact_id: int) -> list[Any]:
    with store.read() as tx:
        return [(one.who, one.at, one.details) for one in audit.recent(tx, subject=f"contact {contact_id}")]


def change(store: Store, contact_id: int, wish: Wish, now: datetime) -> None:
    with store.begin() as tx:
        people.change(tx, contact_id, wish, who="ada", now=now)


def wish(tags: tuple[str, ...] = (), **values: str) -> Wish:
    read, problems = people.read(values, tags)
    assert problems == []
    return read


# --- one person ---


def test_tags_attributes_and_profile_are_kept_and_taken_away(store: Store, make: Any, now: datetime) -> None:
    one, other = make.contact("7007"), make.contact("8008")
    change(store, one.id, wish(("vip", "vip", "new"), size=" 42 ", colour="red", locale="de_DE"), now)
    change(store, other.id, wish(size="43"), now)
    assert known(store, one.id) == ({"size": "42", "colour": "red"}, {"vip", "new"})
    change(store, one.id, wish(("vip",), size="41", colour="", timezone="Europe/Berlin", locale=""), now)
    change(store, one.id, Wish(untags=("new", "never had")), now)
    assert known(store, one.id) == ({"size": "41"}, {"vip"})
    assert known(store, other.id) == ({"size": "43"}, set())
    with store.read() as tx:
        found = contacts.get(tx, one.id)
    assert (found.timezone, found.locale) == ("Europe/Berlin", None)


def test_every_change_is_on_record_without_what_was_said(store: Store, make: Any, now: datetime) -> None:
    contact = make.contact()
    change(store, contact.id, wish(("secret_tag",), size="secret value", first_name="Grace"), now)
    change(store, contact.id, Wish(untags=("secret_tag",)), now)
    change(store, contact.id, Wish(), now)
    assert changes(store, contact.id) == [
        ("ada", now, {"untags": 1}),
        ("ada", now, {"attributes": ["size"], "profile": ["first_name"], "tags": 1}),
    ]


@pytest.mark.parametrize(
    ("values", "tags", "says"),
    [
        ({"shoe size": "1"}, (), "'shoe size' can't be an attribute"),
        ({"1st": "1"}, (), "'1st' can't be an attribute"),
        ({"size": "x" * 501}, (), "size has 501 characters; 500 are allowed"),
        ({"timezone": "Mars/Olympus"}, (), "'Mars/Olympus' is no time zone"),
        ({"locale": "german"}, (), "'german' is no locale"),
        ({}, ("a,b",), "'a,b' can't be a tag"),
        ({}, ("",), "can't be a tag"),
        ({}, ("x" * 65,), "can't be a tag"),
    ],
)
def test_what_cannot_be_kept_is_told(values: dict[str, str], tags: tuple[str, ...], says: str) -> None:
    _wish, problems = people.read(values, tags)
    assert len(problems) == 1
    assert says in problems[0]


def test_characters_that_no_database_takes_are_left_out() -> None:
    assert people.read({"size": "4\x002\ud800"})[0].attributes == {"size": "42"}


def test_of_somebody_forgotten_nothing_is_kept_until_they_write_again(
    store: Store, make: Any, now: datetime
) -> None:
    contact = make.contact()
    change(store, contact.id, wish(("vip",), size="42"), now)
    with store.begin() as tx:
        privacy.request_erasure(tx, contact, who="ada", now=now)
    refused(store, contact.id, now)
    with store.begin() as tx:
        assert privacy.erase(tx, contact.id, now)
    assert known(store, contact.id) == ({}, set())
    refused(store, contact.id, now)
    later = now + timedelta(hours=1)
    make.says("hello again", at=later, arrives=later)
    change(store, contact.id, wish(("back",)), later)
    assert known(store, contact.id) == ({}, {"back"})


def refused(store: Store, contact_id: int, now: datetime) -> None:
    with pytest.raises(InvalidInput, match="asked to be forgotten"):
        change(store, contact_id, wish(("vip",), size="42"), now)


# --- from a file ---


def imported(store: Store, path: Path, text: str | bytes, now: datetime, **more: Any) -> Result:
    path = path / "people.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return importing.run(store, path, who="ada", clock=lambda: now, **more)


def test_a_file_sets_tags_attributes_and_profile(
    store: Store, make: Any, now: datetime, tmp_path: Path
) -> None:
    one, other = make.contact("7007"), make.contact("8008")
    change(store, one.id, wish(("old",), size="41", colour="red"), now)
    text = (
        '\ufeffpsid,tags,size,colour,first_name\r\n7007,vip  new,42,,Grace\r\n\r\n8008,,,"blue, or\nso",\r\n'
    )
    result = imported(store, tmp_path, text, now)
    assert (result.rows, result.changed, result.problems) == (2, 2, [])
    assert known(store, one.id) == ({"size": "42", "colour": "red"}, {"old", "vip", "new"})
    assert known(store, other.id) == ({"colour": "blue, or\nso"}, set())
    with store.read() as tx:
        assert contacts.get(tx, one.id).first_name == "Grace"
    assert changes(store, other.id) == [("ada", now, {"attributes": ["colour"]})]


def test_every_line_that_changes_nothing_is_told_with_its_number(
    store: Store, make: Any, now: datetime, tmp_path: Path
) -> None:
    make.contact("7007")
    gone = make.contact("9009")
    for page_id in ("1001", "2002"):
        make.contact("8008", page_id=page_id)
    with store.begin() as tx:
        privacy.request_erasure(tx, gone, who="ada", now=now)
    lines = [
        "psid;page;size;timezone",
        "7007;;42;",
        "1234;;42;",
        "8008;;42;",
        "8008;2002;42;",
        "7007;2002;42;",
        "7007;;42",
        ";;42;",
        "7007;;42;Nowhere",
        "9009;;42;",
        "7007;;\udcff;",
    ]
    text = "\n".join(lines).encode(errors="surrogateescape")
    result = imported(store, tmp_path, text, now)
    assert (result.rows, result.changed) == (10, 2)
    assert {problem.line: problem.why.partition(".")[0] for problem in result.problems} == {
        3: "Nobody with the psid 1234 has written to us",
        4: "Several Pages know 8008: a column 'page' has to say which",
        6: "Nobody with the psid 7007 has written to page 2002",
        7: "It has 3 cells where the first line has 4",
        8: "It names no psid",
        9: "'Nowhere' is no time zone: a name like Europe/Berlin, or hours from UTC like -3",
        10: "9009 asked to be forgotten: nothing is kept until they write again",
        11: "It is not written in UTF-8",
    }


def test_a_dry_run_says_the_same_and_changes_nothing(
    store: Store, make: Any, now: datetime, tmp_path: Path
) -> None:
    contact = make.contact("7007")
    text = "psid,tags\n7007,vip\n1234,vip\n"
    dry = imported(store, tmp_path, text, now, dry_run=True)
    assert known(store, contact.id) == ({}, set())
    assert dry == imported(store, tmp_path, text, now)
    assert known(store, contact.id) == ({}, {"vip"})


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("", "no column psid"),
        ("name,tags", "no column psid"),
        ("psid,psid", "'psid' is there twice"),
        ("psid,shoe size", "'shoe size' can't be an attribute"),
    ],
)
def test_columns_that_make_no_sense_stop_everything(
    sqlite_store: Store, now: datetime, tmp_path: Path, header: str, says: str
) -> None:
    with pytest.raises(InvalidInput, match=says):
        imported(sqlite_store, tmp_path, header, now)


def test_a_cell_too_long_to_be_read_is_a_problem_of_its_line(
    sqlite_store: Store, now: datetime, tmp_path: Path
) -> None:
    result = imported(sqlite_store, tmp_path, f"psid,size\n7007,{'x' * 200_000}\n7008,1\n", now)
    assert [problem.line for problem in result.problems] == [2, 3]
    assert isinstance(result.problems[0], Problem)
    assert "can't be read" in result.problems[0].why


def test_a_long_file_is_done_in_short_transactions(
    store: Store, make: Any, now: datetime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importing, "ROWS", 2)
    monkeypatch.setattr(importing, "PAUSE_SECONDS", 0)
    ids = [make.contact(f"p{number}").id for number in range(5)]
    told: list[int] = []
    text = "psid,size\n" + "".join(f"p{number},{number}\n" for number in range(5))
    imported(store, tmp_path, text, now, told=lambda result: told.append(result.rows))
    assert told == [2, 4, 5]
    assert [known(store, each)[0]["size"] for each in ids] == list("01234")


def test_who_is_locked_by_somebody_else_is_waited_for_without_holding_anybody(
    postgresql_store: Store, vault: Any, now: datetime, tmp_path: Path
) -> None:
    from conftest import Make

    make = Make(postgresql_store, vault, now)
    busy, free = make.contact("7007"), make.contact("8008")
    told: list[int] = []
    with postgresql_store.engine.connect() as other:
        holding = other.begin()
        contacts.lock(other, busy.id)

        def tell(result: Result) -> None:
            told.append(result.changed)
            if len(told) == 3:
                holding.rollback()

        imported(postgresql_store, tmp_path, "psid,size\n7007,42\n8008,43\n", now, told=tell)
    assert told[:3] == [1, 1, 1]
    assert told[-1] == 2
    assert (known(postgresql_store, busy.id)[0], known(postgresql_store, free.id)[0]) == (
        {"size": "42"},
        {"size": "43"},
    )


def test_the_last_line_about_a_person_counts(store: Store, make: Any, now: datetime, tmp_path: Path) -> None:
    contact = make.contact("7007")
    imported(store, tmp_path, "psid,size,tags,locale\n7007,1,a,de_DE\n7007,2,b,\n7007,,c,en_US\n", now)
    assert known(store, contact.id) == ({"size": "2"}, {"a", "b", "c"})
    with store.read() as tx:
        assert contacts.get(tx, contact.id).locale == "en_US"
    assert changes(store, contact.id) == [
        ("ada", now, {"attributes": ["size"], "profile": ["locale"], "tags": 3})
    ]
