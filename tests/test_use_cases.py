"""Every use of One-Time Notifications from the outside: the real programs, a simulated Messenger, simulated time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from at_work import Work, at_work

from otn.dev import demo
from otn.dev.train import fingerprint, is_trained

pytestmark = pytest.mark.rasa

ROOT = Path(__file__).resolve().parents[1]
THANKS = ("Thanks! You'll get one message", "Is there anything else")
TAP = "Tap Notify Me"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Work]:
    """Everything runs, once for all use cases."""
    home = tmp_path_factory.mktemp("home")
    names = [*demo.BOT, "Procfile", "endpoints.yml"]
    if not is_trained(ROOT, fingerprint(ROOT)):
        names.remove("models")
    for name in names:
        (home / name).symlink_to(ROOT / name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        subprocess.run([sys.executable, "-m", "otn.dev.train"], cwd=home, check=True)
        with at_work(home) as found:
            yield found


def test_back_in_stock_in_a_size_then_the_order_link(work: Work) -> None:
    ada, bob = work.person("Ada"), work.person("Bob")
    ada.says("do you have the trail shoe?")
    ada.hears("Which size of the trail shoe?")
    ada.says("42")
    ada.hears("The trail shoe is sold out", TAP, "[Notify Me] Back in stock: trail shoe 42")
    bob.says("is the trail shoe in 42 available?")
    bob.hears("The trail shoe is sold out", TAP, "[Notify Me] Back in stock: trail shoe 42")
    for person in (ada, bob):
        person.taps_notify_me()
        person.hears(*THANKS)
    ada.says("trail shoe size 42")
    ada.hears("The trail shoe is sold out", "You're already on the list")

    work.hours_pass(25)
    work.sends(ada, "restock-trail-shoe-42", "The trail shoe is back in 42. The order link?")
    assert ada.hears("The trail shoe is back in 42.")[0]["by_token"]
    ada.says("yes please")
    ada.hears("Here you go: https://shop.example/trail-shoe?size=42")
    # The reply opened the window again: more may follow, and no permission is needed.
    work.sends(ada, "restock-trail-shoe-42", "By the way: 43 is back, too.")
    assert not ada.hears("By the way")[0]["by_token"]
    ada.hears_nothing_else()

    work.tells(bob, "restock-trail-shoe-42", "42-is-back")
    work.tells(bob, "restock-trail-shoe-42", "42-is-back")
    assert bob.hears("Good news: what you asked about is back")[0]["by_token"]
    bob.taps("No longer")
    bob.hears("No problem.")
    work.hours_pass(25)
    work.sends(bob, "restock-trail-shoe-42", "And now in green.", refused="already used")
    bob.hears_nothing_else()


def test_a_price_is_told_only_below_the_one_at_sign_up(work: Work) -> None:
    ada = work.person("Ada")
    ada.says("how much is the rain jacket?")
    ada.hears("The rain jacket costs 89 € today.")
    ada.says("that's too expensive")
    ada.hears("The rain jacket costs 89 €", TAP, "[Notify Me] Price below: rain jacket 89 €")
    ada.taps_notify_me()
    ada.hears(*THANKS)

    work.hours_pass(25)
    for number, price in enumerate(("95", "89", "79", "79", "69")):
        changed = {"product": "rain jacket", "price": price, "otn_event_id": f"price-{number}"}
        work.triggers(ada, "EXTERNAL_price_changed", **changed)
    assert ada.hears("The rain jacket costs 79 € now")[0]["by_token"]
    ada.taps("Yes, please")
    ada.hears("Here you go: https://shop.example/rain-jacket")
    ada.hears_nothing_else()


def test_a_collection_is_launched_and_a_late_tap_disturbs_nothing(work: Work) -> None:
    ada, bob, eve = (work.person(name) for name in ("Ada", "Bob", "Eve"))
    for person in (ada, bob, eve):
        person.says("what's new?")
        person.hears(
            "Our spring collection", TAP, "[Notify Me] Spring collection news", "Meanwhile, would you like"
        )
        person.says("yes")
        person.hears("The rain jacket and the wool scarf")

    work.hours_pass(50)
    # In the middle of a form: kept in silence, and the form waits for its answer.
    ada.says("I have feedback")
    ada.hears("I'm all ears")
    ada.taps_notify_me()
    ada.says("the parcel came two days late")
    ada.hears("Thank you, I've passed it on.")
    # In the middle of another story: kept, and the story goes on.
    bob.says("forget me")
    bob.hears("I'd forget our conversation")
    bob.taps_notify_me()
    bob.hears(THANKS[0])
    bob.says("no")
    bob.hears("Fine, everything stays as it is.")
    # Before anything else, the window closed: kept, and nothing may be said.
    eve.taps_notify_me()

    work.hours_pass(30 * 24)
    for person in (ada, bob, eve):
        work.sends(person, "spring-collection", "It is out. Would you like to see it?")
        assert person.hears("It is out.")[0]["by_token"]
        person.says("show me")
        person.hears("Here it is: https://shop.example/spring")
        person.hears_nothing_else()


def test_tickets_go_on_sale_for_all_who_agreed_at_a_set_time(work: Work) -> None:
    ada, bob, eve = (work.person(name) for name in ("Ada", "Bob", "Eve"))
    for person in (ada, bob, eve):
        person.says("when do the concert tickets go on sale?")
        person.hears("Tickets for our summer concert", TAP, "[Notify Me] Summer concert tickets")
    for person in (ada, bob):
        person.taps_notify_me()
        person.hears(*THANKS)
    eve.says("yes")
    eve.hears("Just tap Notify Me")
    message = ("--response", "utter_otn_follow_up_tickets")
    broadcast = work.types("broadcasts", "create", "--topic", "summer-concert", *message, "--json")["id"]
    work.types("broadcasts", "schedule", str(broadcast), "--at", work.in_hours(100), "--yes")

    work.hours_pass(99)
    assert work.types("broadcasts", "show", str(broadcast), "--json")["state"] == "scheduled"
    work.hours_pass(2)
    for person in (ada, bob):
        assert person.hears("Tickets for the summer concert are on sale now.")[0]["by_token"]
    ada.taps("Yes, please")
    ada.hears("Here you go: https://shop.example/concert", "Each person can buy four")
    bob.taps("I can't come")
    bob.hears("No problem.")
    work.sends(eve, "summer-concert", "Tickets are on sale now.", refused="gave no permission")
    for person in (ada, bob, eve):
        person.hears_nothing_else()


def test_a_survey_days_after_a_purchase_and_a_person_for_whoever_is_not_happy(work: Work) -> None:
    ada, bob, eve = (work.person(name) for name in ("Ada", "Bob", "Eve"))
    ada.says("I've just ordered the wool scarf")
    work.triggers(bob, "EXTERNAL_order_placed")
    for person in (ada, bob):
        person.hears(
            "Thank you for your order!", "May I ask you once", "[Notify Me] A question about your order"
        )
        person.taps_notify_me()
        person.hears(*THANKS)
    work.hours_pass(72)
    work.triggers(eve, "EXTERNAL_order_placed")  # her window is closed: nothing may be said or asked

    work.tells(ada, "order-survey", "order-1")
    assert ada.hears("How happy are you with your order")[0]["by_token"]
    ada.taps("2")
    ada.hears("Thank you! Is there anything you'd like to add?")
    ada.says("it scratches")
    ada.hears("I'm sorry that it did not go well.", "I've called a colleague")
    work.types("send", ada.psid, "--human-agent", "--text", "I am Mia. …")
    ada.hears("I am Mia.")

    work.sends(bob, "order-survey", "How was your order? Do you have a minute?")
    assert bob.hears("How was your order?")[0]["by_token"]
    bob.says("yes")
    bob.hears("From 1 (not at all) to 5 (very)")
    bob.says("well, hm")
    bob.hears("I need a number", "From 1 (not at all) to 5 (very)")
    bob.says("5 stars")
    bob.hears("Thank you! Is there anything you'd like to add?")
    bob.taps("No")
    bob.hears("Thank you, that helps us.")
    for person in (ada, bob, eve):
        person.hears_nothing_else()
    of_ada, of_bob = (work.types("contacts", "export", each.psid) for each in (ada, bob))
    assert of_ada["attributes"] == {"survey_score": "2", "survey_comment": "it scratches"}
    assert (of_ada["tags"], of_bob["tags"]) == (["wants-a-person"], [])
    assert of_bob["attributes"] == {"survey_score": "5"}
    assert f"conversation {ada.psid} wants a person" in work.log("actions")
    assert "it scratches" not in work.log("actions") + work.log("rasa")


def test_a_guide_comes_as_a_card_and_its_button_opens_the_window(work: Work) -> None:
    ada = work.person("Ada")
    ada.says("tell me when the guide is out")
    ada.hears("Our winter hiking guide is being written.", TAP, "[Notify Me] Winter hiking guide")
    ada.taps_notify_me()
    ada.hears(*THANKS)

    work.hours_pass(40 * 24)
    work.tells(ada, "hiking-guide", "guide-is-out")
    (told,) = ada.hears("[card] The winter hiking guide is out")
    assert told["by_token"]
    assert told["message"]["attachment"]["payload"]["elements"][0]["image_url"]
    ada.taps("Read it")
    ada.hears("Here it is: https://shop.example/guide.pdf", "If a walk raises a question")
    ada.hears_nothing_else()


def test_a_course_asks_for_every_part_and_stops_with_the_answers(work: Work) -> None:
    ada, bob = work.person("Ada"), work.person("Bob")
    for person in (ada, bob):
        person.says("start the packing course")
        person.hears("Part 1 of 3", "The next part comes", "[Notify Me] Packing course: part 2")
        person.taps_notify_me()
        person.hears(*THANKS)
    work.hours_pass(48)
    for person in (ada, bob):
        work.tells(person, "course-2", "part-2")
        assert person.hears("Part 2 of 3")[0]["by_token"]
    ada.taps("Go on")
    ada.hears("The next part comes", "[Notify Me] Packing course: part 3")
    ada.taps_notify_me()
    ada.hears(*THANKS)

    work.hours_pass(48)
    for person in (ada, bob):
        work.tells(person, "course-3", "part-3")
    assert ada.hears("Part 3 of 3")[0]["by_token"]
    ada.taps("Yes")
    ada.hears("Happy to hear it.")
    ada.hears_nothing_else()
    bob.hears_nothing_else()  # he did not answer part 2, was not asked for part 3, and does not get it


def test_what_the_bot_keeps_is_said_and_forgotten_on_request(work: Work) -> None:
    ada = work.person("Ada")
    for words, answer, title in (
        (
            "do you have the canvas backpack?",
            "The canvas backpack is sold out",
            "Back in stock: canvas backpack",
        ),
        ("the wool scarf is too expensive", "The wool scarf costs 35 €", "Price below: wool scarf 35 €"),
        ("tell me when the guide is out", "Our winter hiking guide", "Winter hiking guide"),
    ):
        ada.says(words)
        ada.hears(answer, TAP, f"[Notify Me] {title}")
        ada.taps_notify_me()
        ada.hears(*THANKS)
    assert work.permissions(ada) == ["hiking-guide", "price-wool-scarf-35", "restock-canvas-backpack"]
    ada.says("Deutsch bitte")
    ada.hears("Gern!")
    ada.says("wofür bin ich angemeldet?")
    (status,) = ada.hears("Du hast mich gebeten")
    assert status["message"]["text"].count("• ") == 3
    assert "• Back in stock: canvas backpack: eine Nachricht, bis " in status["message"]["text"]
    ada.says("vergiss mich")
    ada.hears("Ich würde unser Gespräch")
    ada.says("ja")
    ada.hears("Erledigt:")
    ada.says("what am I signed up for?")  # in English again: the language is forgotten, too
    ada.hears("You're not signed up for anything.")
    assert work.permissions(ada) == []
    work.hours_pass(25)
    work.sends(ada, "hiking-guide", "The guide is out.", refused="gave no permission")
    ada.hears_nothing_else()
