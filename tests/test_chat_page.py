"""The chat page as a person meets it: in a real browser, before a real simulator and a bot that follows a script."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timezone

import pytest
import pytest_asyncio
from chatting import NARROW, WIDE, Chat, launch, open_chat
from playwright.async_api import Browser, Error, Route, async_playwright, expect
from playwright.async_api import Page as Tab
from shop import FOLLOW_UP, HTML, open_shop

from otn.dev import browser as chromium
from otn.settings import SIMULATOR_URL
from simulator.config import DEFAULT_PORT, REFUSED_BY_BROWSERS, Page
from simulator.server import WORLD, create_app, start
from simulator.testing import PAGE_TOKEN, made_up_config, permission_request, running

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(chromium.unwanted(), reason="OTN_WITHOUT_BROWSER=1: nobody looked at the chat page"),
]

VIEWS = ("Chat", "People", "Wire", "Faults", "Unknowns")
# Contrast by WCAG 2: AA asks for 4.5, and for 3 where text is large. Gives what falls short.
CONTRAST = """() => {
  const parse = (text) => (text.match(/[\\d.]+/g) ?? []).map(Number);
  const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const light = (rgb) => rgb.slice(0, 3).map((c) => linear(c / 255))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const backs = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const style = getComputedStyle(at);
      const stops = style.backgroundImage.match(/rgba?\\([^)]*\\)/g);
      if (stops) return stops.map(parse);
      const colour = parse(style.backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return [colour];
    }
    return [[255, 255, 255]];
  };
  const found = [];
  for (const element of document.querySelectorAll('body *')) {
    const words = [...element.childNodes].filter((node) => node.nodeType === 3 && node.data.trim());
    const box = element.getBoundingClientRect();
    if (!words.length || box.width < 2 || !element.checkVisibility({ opacityProperty: true })) continue;
    const style = getComputedStyle(element);
    const [text, large] = [light(parse(style.color)), parseFloat(style.fontSize) >= 24];
    for (const back of backs(element).map(light)) {
      const ratio = (Math.max(text, back) + 0.05) / (Math.min(text, back) + 0.05);
      if (ratio < (large ? 3 : 4.5)) found.push(`${words[0].data.trim()}: ${ratio.toFixed(2)}`);
    }
  }
  return found;
}"""
# How many pixels of a list are below what is seen, once the page has come to rest.
BELOW_AFTER_FRAMES = """async (id) => {
  for (let i = 0; i < 10; i++) await new Promise(requestAnimationFrame);
  const box = document.getElementById(id);
  return box.scrollHeight - box.scrollTop - box.clientHeight;
}"""
# Whatever can be operated and has no name that a screen reader could say.
NAMELESS = """() => [...document.querySelectorAll('button, a, input, select, textarea, summary, img, [role]')]
  .filter((e) => e.checkVisibility() && !e.closest('[aria-hidden="true"]'))
  .filter((e) => !['status', 'alert'].includes(e.getAttribute('role')))
  .filter((e) => !['aria-label', 'aria-labelledby', 'alt'].some((name) => e.hasAttribute(name)))
  .filter((e) => !e.labels?.length && !e.textContent.trim())
  .map((e) => e.outerHTML)"""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        browser = await launch(playwright)
        yield browser
        await browser.close()


@pytest_asyncio.fixture(loop_scope="module")
async def chat(browser: Browser) -> AsyncIterator[Chat]:
    """The page, fresh. Whatever a test does, nothing is complained of and nothing wanted from elsewhere."""
    async with open_chat(browser) as chat:
        yield chat
        assert chat.complaints == []
        assert chat.foreign == []


# The path


async def test_a_newcomer_is_somebody_and_learns_what_to_type(chat: Chat) -> None:
    page = chat.page
    await expect(page.get_by_role("heading", name="Demo Shop")).to_be_visible()
    await expect(page.get_by_text("Demo Shop may not write before Ada does")).to_be_visible()
    await expect(page.get_by_text("Nothing yet. Each webhook")).to_be_visible()

    await page.get_by_role("button", name="do you have the canvas backpack?").click()

    await chat.hear("sold out")
    await expect(page.get_by_text("You are Ada, and Demo Shop has not heard")).to_be_hidden()
    await expect(
        page.get_by_text(re.compile("Window open, closes in (24 hours|23 hours 59 minutes)"))
    ).to_be_visible()


async def test_a_browser_opens_pages_at_the_port_that_is_the_default(browser: Browser) -> None:
    page = await browser.new_page()

    async def is_refused(port: int) -> bool:
        try:
            await page.goto(f"http://127.0.0.1:{port}")
        except Error as error:
            return "ERR_UNSAFE_PORT" in error.message
        return False  # somebody's own simulator

    assert await is_refused(5060)
    assert not await is_refused(DEFAULT_PORT)
    assert DEFAULT_PORT not in REFUSED_BY_BROWSERS  # of any kind
    assert SIMULATOR_URL.endswith(f":{DEFAULT_PORT}")
    await page.context.close()


async def test_notify_me_can_be_tapped_once(chat: Chat) -> None:
    await chat.write("do you have the canvas backpack?")
    card = chat.page.get_by_role("group", name="Get Notified: When the canvas backpack is back")
    await expect(card.get_by_text("Get Notified", exact=True)).to_be_visible()
    await card.get_by_role("button", name="Notify Me").dblclick()

    await chat.hear("I will write once")
    button = card.get_by_role("button", name="You will be notified")
    await expect(button).to_be_disabled()
    await expect(chat.page.locator("#window")).to_contain_text("1 permission for one message")
    told = chat.wire("opt-in by Notify Me")
    await expect(told).to_contain_text("payload otn:restock-canvas-backpack")
    await expect(told).to_contain_text("not on the list of actions that open the window (FAQ)")
    assert len(chat.world.tokens) == 1


async def test_after_25_hours_only_the_permission_pays_for_a_message(chat: Chat) -> None:
    page = chat.page
    await chat.agree()
    await page.get_by_role("banner").get_by_role("button", name="Skip 25 hours").click()

    await expect(page.get_by_text("25 hours later", exact=True)).to_be_visible()
    await expect(page.locator("#window")).to_contain_text(
        re.compile("Window closed since .* 1 permission for one message")
    )
    await expect(page.get_by_role("button", name="Simulated time")).to_contain_text("+25 h")
    tip = page.get_by_role("complementary", name="What to try next")
    await expect(tip).to_contain_text(f"otn send {chat.psid} --topic restock-canvas-backpack")

    await chat.shop.send({"id": chat.psid}, {"text": "without it"}, messaging_type="UPDATE")
    refused = chat.wire("without it")
    await expect(refused).to_contain_text(
        "the 24 h window is closed, and the send carries no permission (SEND)"
    )
    await expect(refused).to_contain_text("403, error 10/2018278")

    await chat.shop.follow_up()
    await expect(await chat.hear(FOLLOW_UP)).to_contain_text("Paid for with the permission")
    await expect(chat.wire("a One-Time Notification token is spent (OTN)")).to_contain_text("delivered")

    await chat.shop.follow_up("And one more")
    await expect(chat.wire("And one more")).to_contain_text(
        "the token was used: one token, one message (OTN)"
    )
    await expect(page.locator(".message", has_text="And one more")).to_have_count(0)
    await expect(page.locator("#window")).to_contain_text("Demo Shop may not write")
    await expect(tip).to_contain_text("The permission is used")


async def test_a_permission_that_lapsed_is_shown_no_more(chat: Chat) -> None:
    page = chat.page
    await chat.agree()
    await page.get_by_label("Name of somebody new").fill("Grace")
    await page.get_by_label("Name of somebody new").press("Enter")
    await expect(page.get_by_text("You are Grace", exact=True)).to_be_visible()
    ada = page.get_by_role("button", name=re.compile("^Ada"))
    await expect(ada).to_contain_text("1 permission")
    await _skip(page, "Skip a year")

    await expect(ada).not_to_contain_text("1 permission")
    await ada.click()
    await expect(page.locator("#window")).to_contain_text("Demo Shop may not write")
    tip = page.get_by_role("complementary", name="What to try next")
    for _ in ("at once", "after a reload"):
        await expect(tip).to_contain_text("The permission has lapsed: it was good for a year.")
        await page.reload()

    await _skip(page, "Back to real time")
    await expect(page.locator("#window")).to_contain_text("1 permission for one message")


async def test_a_permission_that_was_spent_is_taken_from_the_list_of_people(chat: Chat) -> None:
    page = chat.page
    await chat.agree()
    await page.get_by_label("Name of somebody new").press("Enter")
    ada = page.get_by_role("button", name=re.compile("^Ada"))
    await expect(ada).to_contain_text("1 permission")

    await chat.shop.follow_up()

    await expect(ada).to_contain_text("1 unread")
    await expect(ada).not_to_contain_text("1 permission")


async def test_many_people_are_asked_for_at_once(chat: Chat) -> None:
    people = [chat.world.add_person({"first_name": f"Guest {n}", "wrote": True}) for n in range(50)]
    await chat.page.reload()
    await expect(chat.page.get_by_role("button", name=re.compile("^Guest 49"))).to_be_visible()
    asked: list[str] = []
    chat.page.on("request", lambda made: asked.append(made.url) if "/simulator/people" in made.url else None)

    async with chat.page.expect_response("**/simulator/people"):
        await asyncio.gather(*[chat.shop.send({"id": person.psid}, {"text": "news"}) for person in people])

    assert len(asked) < len(people)


async def _skip(page: Tab, name: str) -> None:
    """Move time by a button of the panel, and put the panel away."""
    await page.get_by_role("button", name="Simulated time").click()
    await page.get_by_role("dialog", name="Let time pass").get_by_role("button", name=name).click()
    await page.keyboard.press("Escape")


async def test_the_panel_says_what_time_moves_and_what_not(chat: Chat) -> None:
    page = chat.page
    await page.get_by_role("button", name="Simulated time").click()
    panel = page.get_by_role("dialog", name="Let time pass")
    await expect(panel).to_contain_text("how long it pauses after too many calls")
    await expect(panel).to_contain_text("own session expiry, how many calls a second allows, leases")
    await expect(panel).to_contain_text("OTN_CLOCK_FILE is not set")
    for skip, offset in (("Skip 1 hour", "+1 h"), ("Skip 8 days", "+8 days"), ("Skip a year", "+374 days")):
        await panel.get_by_role("button", name=skip).click()
        await expect(page.locator("#offset")).to_have_text(offset)

    await panel.get_by_role("button", name="Back to real time").click()
    await expect(page.locator("#offset")).to_have_text("real time")
    await page.keyboard.press("Escape")
    await expect(panel).to_be_hidden()


# What messages show


async def test_quick_replies_disappear_when_another_message_follows(chat: Chat) -> None:
    replies = chat.page.get_by_role("group", name="Quick replies")
    await chat.write("colours")
    await replies.get_by_role("button", name="Green").wait_for()
    await replies.get_by_role("button", name="Blue").click()

    await chat.hear("Blue it is")
    await expect(replies).to_be_hidden()
    await expect(chat.page.locator(".message.mine", has_text="Blue")).to_be_visible()
    link = chat.page.get_by_role("link", name="https://shop.example/blue")
    assert await link.get_attribute("rel") == "noopener noreferrer"
    assert [e["message"]["quick_reply"] for e in chat.shop.seen if "quick_reply" in e.get("message", {})] == [
        {"payload": "Blue"}
    ]


async def test_buttons_are_postbacks(chat: Chat) -> None:
    await chat.write("help")
    await chat.page.get_by_role("button", name="An order").click()

    await chat.hear("Tell me its number.")
    await expect(chat.page.locator(".message.mine").last).to_contain_text("An order")
    await expect(chat.wire("Webhook: postback")).to_contain_text("payload order")


async def test_cards_and_pictures_show_what_this_machine_has(chat: Chat) -> None:
    await chat.write("show")
    cards = chat.page.get_by_role("list", name="3 cards")
    await expect(cards.get_by_role("listitem")).to_have_count(3)
    await expect(cards.get_by_role("link", name="See it")).to_have_attribute(
        "href", "https://shop.example/backpack"
    )
    shown = cards.get_by_role("img", name="Canvas backpack")
    await expect(shown).to_be_visible()
    await chat.page.wait_for_function("(image) => image.naturalWidth > 0", arg=await shown.element_handle())

    await expect(cards).to_contain_text(
        "Trail shoe (at shop.example, not loaded: nothing is fetched from outside)"
    )
    await expect(chat.page.get_by_role("link", name="Open https://shop.example/spring.jpg")).to_be_visible()


async def test_a_picture_that_is_gone_says_so(chat: Chat) -> None:
    await chat.write("hi")
    await chat.shop.send(
        {"id": chat.psid},
        {"attachment": {"type": "image", "payload": {"url": f"{chat.url}/simulator/page/gone.svg"}}},
    )

    await expect(chat.page.get_by_text("Picture (cannot be loaded)")).to_be_visible()
    assert [text for text in chat.complaints if "404" not in text] == []
    chat.complaints.clear()  # the browser's own words about the 404


async def test_html_of_the_bot_stays_text(chat: Chat) -> None:
    await chat.write("html")

    await expect(await chat.hear(HTML)).to_have_count(1)
    await expect(chat.page.get_by_role("button", name="<i>tap</i>")).to_be_visible()
    await chat.write(HTML)
    await expect(chat.page.locator(".message.mine", has_text="<b>bold</b>")).to_be_visible()
    assert await chat.page.locator(".messages script, .messages b, .wire b, .messages img").count() == 0
    assert await chat.page.title() == "Messenger on this machine"


async def test_reactions_come_and_are_taken_back(chat: Chat) -> None:
    await chat.write("/greet")
    message = await chat.hear("Ask me about a product")
    await message.hover()
    await message.get_by_role("button", name="React").click()
    menu = chat.page.get_by_role("menu", name="React")
    await menu.get_by_role("menuitemradio", name="wow").click()

    await expect(message.locator(".reactions")).to_contain_text("😮")
    await expect(chat.wire("Webhook: reaction")).to_contain_text("react 😮")
    await message.get_by_role("button", name="Change the reaction").click()
    await expect(menu.get_by_role("menuitemradio", name="wow")).to_be_checked()
    await menu.get_by_role("menuitemradio", name="wow").click()
    await expect(message.locator(".reactions")).to_have_count(0)


async def test_typing_and_marks(chat: Chat) -> None:
    await chat.write("hello?")
    await expect(chat.page.locator("#mark")).to_have_text("Delivered")
    await chat.shop.show(chat.psid, "mark_seen")
    await expect(chat.page.locator("#mark")).to_have_text("Seen by Demo Shop")
    await chat.shop.show(chat.psid, "typing_on")
    await expect(chat.page.get_by_text("Demo Shop is typing")).to_be_attached()
    await expect(chat.page.locator(".dots")).to_be_visible()
    await chat.shop.send({"id": chat.psid}, {"text": "here I am"})
    await chat.hear("here I am")
    await expect(chat.page.locator(".dots")).to_be_hidden()


async def test_what_is_written_after_time_went_back_is_not_seen_yet(chat: Chat) -> None:
    mark, dots = chat.page.locator("#mark"), chat.page.locator(".dots")
    await _skip(chat.page, "Skip 25 hours")
    await chat.write("hello?")
    await chat.shop.show(chat.psid, "mark_seen")
    await expect(mark).to_have_text("Seen by Demo Shop")
    await chat.shop.show(chat.psid, "typing_on")
    await expect(dots).to_be_visible()
    await _skip(chat.page, "Back to real time")
    await expect(dots).to_be_hidden()

    await chat.write("and now?")
    await expect(mark).to_have_text("Delivered")
    await chat.shop.show(chat.psid, "mark_seen")
    await expect(mark).to_have_text("Seen by Demo Shop")


async def test_what_the_page_has_seen_is_known_after_a_reload(chat: Chat) -> None:
    page, mark = chat.page, chat.page.locator("#mark")
    await chat.write("hello?")
    ada = chat.psid
    await chat.shop.show(ada, "mark_seen")
    await expect(mark).to_have_text("Seen by Demo Shop")
    await page.get_by_label("Name of somebody new").press("Enter")
    await expect(page.get_by_text("You are Ben", exact=True)).to_be_visible()
    await page.reload()

    await page.get_by_role("button", name=re.compile("^Ada")).click()
    await expect(mark).to_have_text("Seen by Demo Shop")


async def test_the_bot_learns_that_its_messages_are_read(chat: Chat) -> None:
    await chat.write("/greet")
    await chat.hear("Ask me about a product")
    await chat.page.get_by_role("button", name="Receipts").click()

    await expect(chat.wire("Webhook: read")).to_have_count(1)
    await expect(chat.wire("Webhook: echo")).to_have_count(1)


async def test_pictures_likes_links_and_get_started(chat: Chat) -> None:
    page = chat.page
    await page.get_by_role("button", name="Get Started").click()
    await chat.hear("Hi! Ask me about a product.")
    await page.get_by_role("button", name="Send a picture").click()
    await expect(page.locator(".mine").get_by_role("img", name="Picture")).to_be_visible()
    await page.get_by_role("button", name="Send a like").click()
    await expect(page.locator(".mine").get_by_role("img", name="Like")).to_be_visible()
    await page.get_by_role("button", name="What else this person can do").click()
    await page.get_by_label("Follow m.me/…?ref=").fill("autumn")
    await page.get_by_role("button", name="Follow").click()

    await expect(page.get_by_text("Followed an m.me link with ref=autumn")).to_be_visible()
    await expect(chat.wire("Webhook: referral")).to_contain_text("ref autumn")


async def test_an_m_me_link_of_somebody_who_never_wrote_is_refused_in_words(chat: Chat) -> None:
    page = chat.page
    await page.get_by_role("button", name="What else this person can do").click()
    await page.get_by_role("button", name="Follow").click()

    told = page.get_by_role("alert").filter(has_text="there is no thread with the Page yet")
    await expect(told).to_contain_text("write first, or tap Get Started")
    await expect(page.locator("#window")).to_contain_text("Demo Shop may not write before Ada does")
    assert all("409" in text for text in chat.complaints)
    chat.complaints.clear()


# Beside the chat


async def test_a_line_of_the_wire_opens_to_its_json_without_a_secret(chat: Chat) -> None:
    await chat.agree()
    line = chat.wire("opt-in by Notify Me")
    await line.locator("summary").click()

    shown = json.loads(await line.locator("pre").inner_text())
    assert shown["events"][0]["optin"]["payload"] == "otn:restock-canvas-backpack"
    whole = await chat.page.content()
    for secret in (chat.shop.token, PAGE_TOKEN, chat.world.config.app_secret, chat.world.config.verify_token):
        assert secret
        assert secret not in whole


async def test_a_webhook_by_hand_is_not_said_to_be_repeated(chat: Chat) -> None:
    sent = {"data": {"body": {"object": "page", "entry": []}}}
    chat.shop.status = 403
    await chat.page.request.post(f"{chat.url}/simulator/webhook", **sent)
    by_hand = chat.wire("Webhook: sent by hand")
    await expect(by_hand).to_contain_text("only 200 counts: sent by hand, it is not repeated")

    chat.world.config = replace(chat.world.config, webhook_url="http://127.0.0.1:9/webhook")
    await chat.page.request.post(f"{chat.url}/simulator/webhook", **sent)
    await expect(by_hand.last).to_contain_text("the bot cannot be reached")
    await expect(by_hand.last).to_contain_text("sent by hand, it is not repeated")


async def test_the_wire_says_until_when_an_act_opens_the_window(browser: Browser) -> None:
    begun = datetime(2027, 3, 1, 12, 0, tzinfo=timezone.utc).timestamp()
    async with open_chat(browser, wall=lambda: begun, timezone_id="UTC") as chat:
        await chat.write("hello")
        await chat.page.get_by_role("button", name="Acts").click()
        rule = "a message opens the window for 24 hours (SEND): open until Tue 2 Mar, 12:00"
        for line in ("Webhook: message", "wrote"):
            await expect(chat.wire(line)).to_contain_text(rule)

        ben = chat.world.add_person({"first_name": "Ben"}).psid
        late = {"text": "late", "timestamp": int((begun - 2 * 86400) * 1000)}
        await chat.page.request.post(f"{chat.url}/simulator/people/{ben}/message", data=late)
        await chat.page.get_by_label("Whose").first.select_option("Everybody")
        await expect(chat.wire("“late”").first).to_contain_text("closed since Sun 28 Feb, 12:00")


async def test_the_wire_is_filtered_by_person_and_kind(chat: Chat) -> None:
    page = chat.page
    await chat.write("hello")
    await expect(chat.wire("“hello”")).to_have_count(1)
    await page.get_by_label("Name of somebody new").fill("Ben")
    await page.get_by_role("button", name="Add").click()
    await expect(page.get_by_text("You are Ben", exact=True)).to_be_visible()
    await expect(chat.wire("“hello”")).to_have_count(0)
    await page.get_by_label("Whose").first.select_option("Everybody")
    await expect(chat.wire("“hello”")).to_contain_text("Ada")
    await page.get_by_role("button", name="Webhooks").click()
    await expect(chat.wire("“hello”")).to_have_count(0)
    await expect(page.get_by_text("of other kinds are hidden")).to_be_visible()


async def test_the_wire_of_one_person_has_nothing_of_others_or_of_other_pages(browser: Browser) -> None:
    pages = tuple(Page(id=str(number), name=f"Shop {number}", token=f"token-{number}") for number in (1, 2))
    async with open_shop() as (_, url), running(made_up_config(url, pages=pages)) as (base, world):
        for psid, page_id in (("71", "1"), ("72", "1"), ("73", "2")):
            world.add_person({"psid": psid, "page_id": page_id})
        page = await browser.new_page()
        await page.goto(base)
        wire = page.get_by_role("region", name="Calls and webhooks").get_by_role("listitem")
        for path, of in (("71", "1"), ("72", "1"), ("me", "1"), ("me", "2"), ("73", "2")):
            token = {"access_token": f"token-{of}"}
            assert (await page.request.get(f"{base}/v26.0/{path}", params=token)).ok
        for psid in ("71", "72"):
            await page.request.post(f"{base}/simulator/people/{psid}/read")

        await expect(page.locator("#wire-hidden")).to_have_text("2 of other kinds are hidden")
        await expect(wire.locator(".line-title")).to_have_text(["GET /v26.0/71", "GET /v26.0/me"])
        await page.get_by_label("Whose").first.select_option("Everybody")
        await expect(wire).to_have_count(5)
        await expect(page.locator("#wire-hidden")).to_have_text("4 of other kinds are hidden")
        await page.context.close()


async def test_a_fault_is_switched_on_strikes_and_is_off_again(chat: Chat) -> None:
    page = chat.page
    await chat.write("hi")
    await chat.view("Faults")
    switch = page.get_by_role("switch", name="Too many calls")
    await switch.click()
    await expect(switch).to_be_checked()
    await expect(page.get_by_text("waits to strike once")).to_be_visible()

    answer = await chat.shop.send({"id": chat.psid}, {"text": "one too many"})

    assert answer["error"]["code"] == 613
    await expect(switch).not_to_be_checked()
    await chat.view("Wire")
    await expect(chat.wire("A fault struck on a Graph call")).to_contain_text("Too many calls")


async def test_a_fault_can_be_aimed_and_taken_back(chat: Chat) -> None:
    page = chat.page
    await chat.agree()
    await chat.view("Faults")
    await page.get_by_label("How often").select_option("until switched off")
    await page.get_by_label("Sends").select_option("paid for with a permission")
    await page.get_by_role("switch", name="Any other error").click()
    await expect(page.get_by_text("(sends with a permission)")).to_be_visible()

    assert "message_id" in await chat.shop.send({"id": chat.psid}, {"text": "by the window"})
    assert (await chat.shop.follow_up())["error"]["code"] == 100
    await page.get_by_role("button", name="Switch all off").click()
    await expect(page.get_by_role("switch", name="Any other error")).not_to_be_checked()
    assert "message_id" in await chat.shop.follow_up()


async def test_an_answer_is_chosen_where_nobody_knows(chat: Chat) -> None:
    page = chat.page
    await chat.view("Unknowns")
    switch = page.get_by_role("switch", name="Notify Me opens the window")
    await expect(switch).not_to_be_checked()
    await switch.click()
    await expect(switch).to_be_checked()
    code = page.get_by_label("Error for a used token")
    await code.fill("10/2018065")
    await code.press("Tab")
    await expect(page.get_by_role("button", name=re.compile("Unknowns"))).to_contain_text("2")
    await page.reload()
    await expect(page.get_by_role("button", name=re.compile("Unknowns"))).to_contain_text("2")
    await chat.view("Unknowns")
    await expect(switch).to_be_checked()
    assert chat.world.settings.notify_me_opens_window is True
    assert chat.world.settings.used_token_error == "10/2018065"

    await code.fill("not a code")
    await code.press("Tab")
    await expect(page.get_by_role("alert").filter(has_text="used_token_error")).to_be_visible()
    await expect(code).to_have_value("10/2018065")
    # The browser notes every refused request: this one was meant.
    assert all("400" in text for text in chat.complaints)
    chat.complaints.clear()


@pytest.mark.parametrize(
    ("label", "typed", "told"),
    [
        ("Calls in a second, real time", "", "takes a number"),
        ("Calls in a second, real time", "many", "takes a number"),
        ("Seconds between attempts", "", "takes numbers with commas between them"),
        ("Seconds between attempts", "1, , 2", "takes numbers with commas between them"),
    ],
)
async def test_a_number_that_is_none_is_refused_in_words(
    chat: Chat, label: str, typed: str, told: str
) -> None:
    before = chat.world.settings
    await chat.view("Unknowns")
    field = chat.page.get_by_label(label)
    shown = await field.input_value()

    await field.fill(typed)
    await field.press("Tab")

    await expect(chat.page.get_by_role("alert").filter(has_text=f"“{label}” {told}.")).to_be_visible()
    await expect(field).to_have_value(shown)
    assert chat.world.settings == before


# When something is not as it should be


async def test_a_bot_that_fails_is_named_in_words_until_it_answers(chat: Chat) -> None:
    trouble = chat.page.locator("#bot-trouble")
    chat.shop.status = 403
    await chat.write("anybody there?")
    await expect(trouble).to_contain_text("The bot refused the webhook (403): it checks signatures")
    await expect(chat.page.locator("#mark")).to_have_text("Not delivered yet: Messenger tries again")
    await expect(chat.wire("only 200 counts: Messenger tries again (HOOKS)").first).to_be_visible()

    chat.shop.status = 200
    await expect(trouble).to_be_hidden()
    await expect(chat.page.locator("#mark")).to_have_text("Delivered")


async def test_what_messenger_has_given_up_is_not_said_to_be_tried_again(chat: Chat) -> None:
    trouble, mark = chat.page.locator("#bot-trouble"), chat.page.locator("#mark")
    chat.world.settings = chat.world.settings.changed({"retry_delays": []})
    chat.shop.status = 500
    await chat.write("anybody there?")
    for _ in ("at once", "after a reload"):
        await expect(mark).to_have_text("Not delivered: Messenger gave up")
        await expect(trouble).to_contain_text(
            "answered the webhook with 500 instead of 200. Messenger has given"
        )
        await chat.page.reload()

    chat.shop.status = 200
    await chat.write("hello?")
    await expect(trouble).to_be_hidden()
    await expect(mark).to_have_text("Delivered")


async def test_an_app_that_was_unsubscribed_is_named_until_it_is_subscribed_again(chat: Chat) -> None:
    trouble, mark = chat.page.locator("#bot-trouble"), chat.page.locator("#mark")
    chat.world.settings = chat.world.settings.changed({"unsubscribe_after": 0})
    chat.shop.status = 500
    await chat.write("anybody there?")
    chat.shop.status = 200
    await expect(mark).to_have_text("Not delivered: Messenger gave up")
    await expect(trouble).to_contain_text("failed for too long: mend the bot, then run: otn page subscribe")
    await chat.write("and now?")
    for _ in ("at once", "after a reload"):
        await expect(mark).to_have_text("Not delivered: the app was not subscribed to the Page")
        await expect(trouble).to_contain_text("Messenger tells the bot nothing of Demo Shop any more")
        await chat.page.reload()

    await chat.shop.subscribe()
    await expect(trouble).not_to_contain_text("otn page subscribe")
    await chat.write("hello?")
    await expect(mark).to_have_text("Delivered")
    await expect(trouble).to_be_hidden()


async def test_a_bot_that_is_not_running_is_named_in_words(browser: Browser) -> None:
    async with open_chat(browser, webhook_url="http://127.0.0.1:9/webhook") as chat:
        await chat.write("anybody there?")
        await expect(chat.page.locator("#bot-trouble")).to_contain_text(
            "No answer from the bot at 127.0.0.1:9/webhook: the bot cannot be reached"
        )
        await expect(chat.page.locator("#bot-trouble")).to_contain_text("Is it running?")


async def test_a_simulator_that_was_started_again_is_found_again(browser: Browser) -> None:
    runner, url = await start(create_app(made_up_config()), 0)
    page = await browser.new_page()
    await page.goto(url)
    await expect(page.get_by_text("You are Ada", exact=True)).to_be_visible()
    await runner.cleanup()
    await expect(page.get_by_text("The simulator does not answer")).to_be_visible()

    app = create_app(made_up_config())
    runner, _ = await start(app, int(url.rpartition(":")[2]))
    app[WORLD].add_person({"first_name": "Zoe"})
    await expect(page.get_by_text("You are Zoe", exact=True)).to_be_visible()
    await expect(page.get_by_text("The simulator does not answer")).to_be_hidden()
    await page.context.close()
    await runner.cleanup()


async def test_what_was_just_said_stays_when_the_simulator_goes(browser: Browser) -> None:
    runner, url = await start(create_app(made_up_config()), 0)
    page = await browser.new_page()
    await page.goto(url)
    await page.get_by_role("navigation", name="Views").get_by_role("button", name="Faults").click()
    await page.get_by_label("Error code").fill("not a number")
    await page.get_by_role("switch", name="Any other error").click()
    await runner.cleanup()

    await expect(page.get_by_text("The simulator does not answer")).to_be_visible()
    await expect(page.get_by_role("alert").filter(has_text="An error code is a number")).to_be_visible()
    await page.context.close()


@pytest.mark.parametrize("first", ["a request", "the stream"])
async def test_a_simulator_that_goes_while_the_page_loads_is_told_of_once(
    browser: Browser, first: str
) -> None:
    runner, url = await start(create_app(made_up_config()), 0)
    page, gone = await browser.new_page(), asyncio.Event()
    told = page.get_by_text("The simulator does not answer")

    async def fail(route: Route) -> None:
        if first == "the stream":
            await gone.wait()
        await route.abort()

    await page.route("**/thread?*", fail)
    async with page.expect_event("requestfailed", lambda request: "/thread?" in request.url):
        await page.goto(url)
        await expect(page.get_by_text("You are Ada", exact=True)).to_be_visible()
        if first == "a request":
            await expect(page.get_by_role("alert").filter(has=told)).to_be_visible()
        await runner.cleanup()
        await expect(
            page.locator("#connection").filter(has_text="The simulator does not answer")
        ).to_be_visible()
        gone.set()
    await expect(told).to_have_count(1)
    await page.context.close()


async def test_a_person_who_blocked_the_page_can_do_nothing_there(chat: Chat) -> None:
    page = chat.page
    await chat.write("hi")
    await page.get_by_role("button", name="What else this person can do").click()
    await page.get_by_role("switch", name="Has blocked the Page").click()
    await page.keyboard.press("Escape")
    await chat.type("let me in")

    await expect(page.get_by_role("alert").filter(has_text="this person blocked the Page")).to_be_visible()
    await expect(page.get_by_label("Message", exact=True)).to_have_value("let me in")
    await chat.shop.send({"id": chat.psid}, {"text": "hello?"})
    await expect(chat.wire("the person blocked the Page (ERR)")).to_be_visible()
    assert all("409" in text for text in chat.complaints)
    chat.complaints.clear()


async def test_reset_asks_twice_and_begins_anew(chat: Chat) -> None:
    page = chat.page
    await chat.agree()
    before = chat.psid
    await page.get_by_role("button", name="Reset").click()
    await page.get_by_role("button", name="Forget everybody?").click()

    await expect(page.get_by_text("You are Ada, and Demo Shop has not heard from you yet.")).to_be_visible()
    await expect(page.get_by_text("Nothing yet. Each webhook")).to_be_visible()
    assert chat.psid != before


async def test_a_reset_seen_in_two_tabs_makes_one_ada(chat: Chat) -> None:
    others = [await chat.page.context.new_page() for _ in range(3)]
    for other in others:
        await other.goto(chat.url)
    chat.world.reset()
    for page in (chat.page, *others):
        await expect(
            page.get_by_text("You are Ada, and Demo Shop has not heard from you yet.")
        ).to_be_visible()
        await expect(page.locator("#people-list .person")).to_have_count(1)
    assert len(chat.world.people) == 1


async def test_an_answer_from_before_a_reset_brings_nobody_back(chat: Chat) -> None:
    page, old = chat.page, chat.psid
    answered, released = asyncio.Event(), asyncio.Event()

    async def hold_back(route: Route) -> None:
        answer = await route.fetch()
        answered.set()
        await released.wait()
        await route.fulfill(response=answer)

    await page.route(f"**/people/{old}?*", hold_back)
    await page.get_by_role("button", name="What else this person can do").click()
    await page.get_by_role("switch", name="Has blocked the Page").click()
    await answered.wait()
    chat.world.reset()
    await expect(page.get_by_text("You are Ada, and Demo Shop has not heard from you yet.")).to_be_visible()
    released.set()
    await expect(page.get_by_role("alert").filter(has_text="Everything was read anew")).to_be_visible()
    await expect(page.locator("#people-list .person")).to_have_count(1)
    assert chat.psid != old


# People


async def test_one_can_be_several_people(chat: Chat) -> None:
    page = chat.page
    await chat.write("/greet")
    await chat.hear("Ask me about a product")
    await page.get_by_label("Name of somebody new").fill("Grace Hopper")
    await page.get_by_label("Name of somebody new").press("Enter")
    await expect(page.get_by_text("You are Grace Hopper", exact=True)).to_be_visible()
    await expect(page.locator(".message")).to_have_count(0)

    await chat.shop.send({"id": chat.psid}, {"text": "news for Ada"})
    ada = page.get_by_role("button", name=re.compile("^Ada"))
    await expect(ada).to_contain_text("1 unread")
    await ada.click()
    await chat.hear("news for Ada")
    await expect(ada).not_to_contain_text("unread")


async def test_a_click_on_somebody_who_gets_a_message_meanwhile_counts(chat: Chat) -> None:
    page, ada = chat.page, chat.page.get_by_role("button", name=re.compile("^Ada"))
    await chat.write("/greet")
    await chat.hear("Ask me about a product")
    await page.get_by_label("Name of somebody new").press("Enter")
    await expect(page.get_by_text("You are Ben", exact=True)).to_be_visible()
    await ada.hover()
    await page.mouse.down()
    await chat.shop.send({"id": chat.psid}, {"text": "news for Ada"})
    await expect(ada).to_contain_text("1 unread")
    await page.mouse.up()

    await expect(page.get_by_text("You are Ada", exact=True)).to_be_visible()


async def test_a_command_for_a_psid_of_two_pages_names_the_page(browser: Browser) -> None:
    pages = tuple(Page(id=str(number), name=f"Shop {number}", token=f"token-{number}") for number in (1, 2))
    async with open_shop() as (_, url), running(made_up_config(url, pages=pages)) as (base, world):
        for number in (1, 2):
            world.add_person({"psid": "77", "page_id": str(number), "wrote": True})
        page = await browser.new_page()
        await page.goto(base)
        await page.request.post(
            f"{base}/v26.0/me/messages",
            headers={"Authorization": "Bearer token-1"},
            data={"recipient": {"id": "77"}, "message": permission_request("When it is back", "otn:restock")},
        )
        await page.get_by_role("button", name="Notify Me").click()
        await page.get_by_role("complementary").get_by_role("button", name="Skip 25 hours").click()

        await expect(page.get_by_text("otn send 77 --page 1 --topic restock")).to_be_visible()
        await page.context.close()


async def test_a_psid_of_two_pages_is_two_people(browser: Browser) -> None:
    pages = tuple(Page(id=str(number), name=f"Shop {number}", token=f"token-{number}") for number in (1, 2))
    async with open_shop() as (_, url), running(made_up_config(url, pages=pages)) as (base, world):
        for number in (1, 2):
            world.add_person({"psid": "77", "page_id": str(number), "first_name": f"Ada{number}"})
        page = await browser.new_page()
        await page.goto(base)
        await page.get_by_role("button", name=re.compile("^Ada2")).click()
        await expect(page.get_by_role("heading", name="Shop 2")).to_be_visible()
        await page.get_by_label("Message", exact=True).fill("hello")
        await page.keyboard.press("Enter")
        await expect(page.locator(".message.mine")).to_contain_text("hello")
        await page.get_by_role("button", name=re.compile("^Ada1")).click()
        await expect(page.get_by_text("You are Ada1, and Shop 1 has not heard from you yet.")).to_be_visible()
        await expect(page.locator(".message")).to_have_count(0)
        await page.get_by_label("Writes to").select_option("Shop 2")
        await page.get_by_role("button", name="Add").click()
        await expect(page.get_by_text("You are Ben", exact=True)).to_be_visible()
        await page.context.close()

    assert [(person.page_id, len(person.thread)) for person in world.people.values()] == [
        ("1", 0), ("2", 1), ("2", 0),
    ]  # fmt: skip


async def test_a_reload_shows_the_same(chat: Chat) -> None:
    await chat.agree()
    await chat.page.get_by_role("button", name="Skip 25 hours").first.click()
    await chat.shop.follow_up()
    await (await chat.hear(FOLLOW_UP)).wait_for()
    texts = "[...document.querySelectorAll('.messages > li')].map((item) => item.innerText)"
    before = await chat.page.evaluate(texts)
    await chat.page.reload()

    await (await chat.hear(FOLLOW_UP)).wait_for()
    await expect(chat.page.locator(".messages > li")).to_have_count(len(before))
    assert await chat.page.evaluate(texts) == before


async def test_after_a_reload_one_is_who_one_was(chat: Chat) -> None:
    await chat.page.get_by_label("Name of somebody new").press("Enter")
    await expect(chat.page.get_by_text("You are Ben", exact=True)).to_be_visible()
    async with chat.page.expect_response("**/simulator/people/*/thread?*") as opened:
        await chat.page.reload()

    assert chat.psid not in (await opened.value).url
    await expect(chat.page.get_by_text("You are Ben", exact=True)).to_be_visible()


async def test_a_thousand_messages_are_no_burden(chat: Chat) -> None:
    page = chat.page
    await chat.write("hi")
    chat.world.settings = chat.world.settings.changed({"calls_per_second": 0})
    for first in range(0, 1000, 25):
        texts = [f"message {number}" for number in range(first, first + 25)]
        await asyncio.gather(*[chat.shop.send({"id": chat.psid}, {"text": text}) for text in texts])
    await chat.shop.send({"id": chat.psid}, {"text": "that was all"})
    await chat.hear("that was all")

    await expect(page.get_by_role("log").get_by_text("that was all", exact=True)).to_be_in_viewport()
    assert await page.locator(".message").count() <= 200
    assert await page.locator(".wire > li").count() <= 300
    await page.get_by_role("button", name="Show earlier messages").click()
    await expect(page.locator(".message")).to_have_count(400)
    frames = await page.evaluate(
        """async () => {
          const box = document.getElementById('scroll');
          const took = [];
          for (let i = 0; i < 30; i += 1) {
            const start = performance.now();
            box.scrollTop = (box.scrollHeight * i) / 30;
            await new Promise(requestAnimationFrame);
            took.push(performance.now() - start);
          }
          return took.sort((a, b) => a - b);
        }"""
    )
    assert frames[15] < 100, "the median frame of a scroll, in milliseconds"


# For everybody


async def test_everything_can_be_done_with_the_keyboard(chat: Chat) -> None:
    page = chat.page
    await page.keyboard.press("Tab")
    await expect(page.get_by_role("link", name="Skip to the message field")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.get_by_label("Message", exact=True)).to_be_focused()
    await page.keyboard.type("do you have the canvas backpack?")
    await page.keyboard.press("Enter")
    await chat.hear("sold out")
    await _tab_to(page, "Notify Me", back=True)
    await page.keyboard.press("Enter")
    await chat.hear("I will write once")
    await expect(page.get_by_role("button", name="You will be notified")).to_be_focused()

    await _tab_to(page, "React", back=True)
    await page.keyboard.press("Enter")
    await page.keyboard.press("ArrowRight")
    await expect(page.get_by_role("menuitemradio", name="smile")).to_be_focused()
    await page.keyboard.press("Enter")
    await expect(page.locator(".reactions")).to_contain_text("😆")

    await _tab_to(page, "Simulated time", back=True)
    await page.keyboard.press("Enter")
    await _tab_to(page, "Skip 25 hours")
    await page.keyboard.press("Space")
    await expect(page.get_by_text("25 hours later", exact=True)).to_be_visible()
    await page.keyboard.press("Escape")
    await _tab_to(page, "Faults")
    await page.keyboard.press("Enter")
    await _tab_to(page, "Lost answer")
    await page.keyboard.press("Space")
    await expect(page.get_by_role("switch", name="Lost answer")).to_be_checked()


async def test_whoever_used_a_button_that_is_gone_goes_on_in_the_message_field(chat: Chat) -> None:
    page = chat.page
    field = page.get_by_label("Message", exact=True)
    await page.get_by_role("button", name="do you have the canvas backpack?").press("Enter")
    await expect(page.locator("#empty")).to_be_hidden()
    await expect(field).to_be_focused()

    await page.get_by_role("button", name="Notify Me").click()
    tip = page.get_by_role("complementary", name="What to try next")
    await tip.get_by_role("button", name="Skip 25 hours").press("Enter")
    await expect(tip).to_contain_text("The window is closed, but the permission pays")
    await expect(field).to_be_focused()

    await chat.view("Faults")
    await page.get_by_label("Error code").fill("not a number")
    await page.get_by_role("switch", name="Any other error").click()
    await page.get_by_role("button", name="Put this message away").press("Enter")
    await expect(field).to_be_focused()


async def test_whoever_chose_a_person_in_a_narrow_window_goes_on_in_the_message_field(
    browser: Browser,
) -> None:
    async with open_chat(browser, viewport=NARROW) as chat:
        await chat.view("People")
        await chat.page.get_by_role("button", name=re.compile("^Ada")).press("Enter")
        await expect(chat.page.get_by_label("Message", exact=True)).to_be_focused()

        await chat.view("Faults")
        await chat.page.get_by_label("Error code").fill("not a number")
        await chat.page.get_by_role("switch", name="Any other error").click()
        await chat.page.get_by_role("button", name="Put this message away").press("Enter")
        faults = chat.page.get_by_role("navigation", name="Views").get_by_role("button", name="Faults")
        await expect(faults).to_be_focused()


async def test_whoever_clicked_a_button_that_is_gone_goes_on_in_the_message_field(chat: Chat) -> None:
    await chat.page.get_by_role("button", name="do you have the canvas backpack?").click()
    await expect(chat.page.locator("#empty")).to_be_hidden()
    await expect(chat.page.get_by_label("Message", exact=True)).to_be_focused()


async def test_a_finger_does_not_bring_the_keyboard_up(browser: Browser) -> None:
    async with open_chat(browser, viewport=NARROW, has_touch=True) as chat:
        await chat.page.get_by_role("button", name="do you have the canvas backpack?").tap()
        await expect(chat.page.locator("#empty")).to_be_hidden()
        await chat.hear("sold out")
        await expect(chat.page.get_by_label("Message", exact=True)).not_to_be_focused()


async def _tab_to(page: Tab, name: str, *, back: bool = False) -> None:
    """Press Tab until something has this name."""
    for _ in range(80):
        await page.keyboard.press("Shift+Tab" if back else "Tab")
        words = (
            "(document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent).trim()"
        )
        if str(await page.evaluate(words)).startswith(name):
            return
    pytest.fail(f"Tab does not lead to {name}")


async def test_a_screen_reader_finds_its_way(chat: Chat) -> None:
    page = chat.page
    await chat.agree()
    await chat.write("show")
    await expect(page.get_by_role("list", name="3 cards")).to_be_visible()

    for role in ("banner", "main"):
        await expect(page.get_by_role(role)).to_have_count(1)  # type: ignore[arg-type]
    await expect(page.get_by_role("main", name="Demo Shop")).to_be_visible()
    await expect(page.get_by_role("log", name="Conversation")).to_be_visible()
    for name in ("People you can be", "What went over the wire"):
        await expect(page.get_by_role("region", name=name)).to_be_visible()
    for view in VIEWS[2:]:
        await chat.view(view)
        assert await page.evaluate(NAMELESS) == []
    await chat.view("Faults")
    await expect(page.get_by_role("switch", name="Slow")).to_have_accessible_description(
        "Everything works, five seconds late."
    )
    await expect(page.locator(".message.theirs .sr").first).to_contain_text("Demo Shop, ")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "viewport",
    [{"width": 320, "height": 568}, NARROW, {"width": 768, "height": 1024}, {"width": 1280, "height": 800}],
)
async def test_it_fits_and_can_be_read(browser: Browser, viewport: dict[str, int], scheme: str) -> None:
    async with open_chat(browser, viewport=viewport, color_scheme=scheme) as chat:
        page = chat.page
        assert await page.evaluate(CONTRAST) == []
        await chat.agree()
        await chat.write("show")
        await chat.hear("Canvas backpack")
        await chat.write("x" * 300)
        await page.get_by_role("button", name="Simulated time").click()
        await page.get_by_role("dialog").get_by_role("button", name="Skip 25 hours").click()
        await page.keyboard.press("Escape")
        await chat.shop.follow_up()
        await chat.shop.follow_up("once more")
        await chat.hear(FOLLOW_UP)
        for view in VIEWS:
            button = page.get_by_role("navigation", name="Views").get_by_role("button", name=view)
            if await button.is_visible():
                await button.click()
            assert await page.evaluate("document.documentElement.scrollWidth") <= viewport["width"], view
            assert await page.evaluate(CONTRAST) == [], view
        background = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", background)[:3])) < 150) == (scheme == "dark")


async def test_whoever_turns_the_phone_still_sees_the_last_message(chat: Chat) -> None:
    await chat.agree()
    for number in range(8):
        await chat.write(f"{number}: on a narrow screen this goes on in a second line, and all of it moves")
    for viewport in (NARROW, {"width": 844, "height": 390}, WIDE, NARROW):
        await chat.page.set_viewport_size(viewport)
        assert await chat.page.evaluate(BELOW_AFTER_FRAMES, "scroll") < 2, viewport


async def test_in_a_window_made_smaller_the_last_line_of_the_wire_is_still_seen(chat: Chat) -> None:
    await chat.agree()
    for height in (500, 800, 600):
        await chat.page.set_viewport_size({"width": 1280, "height": height})
        assert await chat.page.evaluate(BELOW_AFTER_FRAMES, "wire-scroll") < 2, height
    assert await chat.page.evaluate("document.getElementById('wire-scroll').scrollTop") > 0


async def test_in_a_window_made_smaller_whoever_reads_further_up_in_the_wire_is_left_alone(
    chat: Chat,
) -> None:
    await chat.agree()
    await chat.page.set_viewport_size({"width": 1280, "height": 500})
    await chat.page.evaluate("document.getElementById('wire-scroll').scrollTop = 10")
    for height in (600, 450, 500):
        assert await chat.page.evaluate(BELOW_AFTER_FRAMES, "wire-scroll") > 0, height
        assert await chat.page.evaluate("document.getElementById('wire-scroll').scrollTop") == 10
        await chat.page.set_viewport_size({"width": 1280, "height": height})
    await chat.write("one more line")
    await expect(chat.wire("one more line").first).to_be_attached()
    await chat.page.evaluate(BELOW_AFTER_FRAMES, "wire-scroll")
    assert await chat.page.evaluate("document.getElementById('wire-scroll').scrollTop") == 10


async def test_a_narrow_window_shows_the_chat_first(browser: Browser) -> None:
    async with open_chat(browser, viewport=NARROW, has_touch=True, is_mobile=True) as chat:
        page = chat.page
        await expect(page.get_by_label("Message", exact=True)).to_be_in_viewport()
        await expect(page.get_by_role("heading", name="What went over the wire")).to_be_hidden()
        await chat.agree()
        await chat.shop.follow_up()
        await chat.shop.follow_up()
        wire = page.get_by_role("navigation", name="Views").get_by_role("button", name=re.compile("Wire"))
        await expect(wire).to_have_accessible_name("Wire 1 went wrong and not seen yet")
        await expect(page.get_by_role("heading", name="Messenger on this machine")).to_have_count(1)

        await wire.tap()

        await expect(chat.wire("the token was used: one token, one message (OTN)")).to_be_in_viewport()
        await expect(page.locator("#wire-badge")).to_be_hidden()
        await expect(wire).to_have_accessible_name("Wire")
        await expect(page.get_by_label("Message", exact=True)).to_be_hidden()


async def test_what_was_seen_in_the_wire_is_not_counted_again_for_the_next_person(browser: Browser) -> None:
    async with open_chat(browser, viewport=NARROW) as chat:
        page, badge = chat.page, chat.page.locator("#wire-badge")
        await chat.shop.send({"id": chat.psid}, {"text": "too early"})
        await expect(badge).to_have_text("1")
        await chat.view("Wire")
        await expect(badge).to_be_hidden()
        await chat.view("People")
        await page.get_by_label("Name of somebody new").fill("Ben")
        await page.get_by_role("button", name="Add").click()
        await expect(page.get_by_text("You are Ben", exact=True)).to_be_visible()
        for name in ("Ada", "Ben", "Ada"):
            await chat.view("People")
            await page.get_by_role("button", name=re.compile(f"^{name}")).click()
            await expect(page.get_by_text(f"You are {name}", exact=True)).to_be_visible()
        await page.evaluate(BELOW_AFTER_FRAMES, "scroll")
        await expect(badge).to_be_hidden()

        await chat.shop.send({"id": chat.psid}, {"text": "too early again"})
        await expect(badge).to_have_text("1")


async def test_reduced_motion_is_respected(browser: Browser) -> None:
    async with open_chat(browser, reduced_motion="reduce") as chat:
        await chat.write("hi")
        await chat.shop.show(chat.psid, "typing_on")
        await expect(chat.page.locator(".dots")).to_be_visible()
        assert (
            await chat.page.evaluate("getComputedStyle(document.querySelector('.dots i')).animationName")
            == "none"
        )
