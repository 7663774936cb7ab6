"""A questionnaire in a real browser: by mouse, by keys, on a phone, interrupted; the owner's pages; accessibility."""

import pytest
from axe_playwright_python.sync_playwright import Axe
from served_studies import served
from studies import a_study, noise

from simdistill.study.database import Database
from simdistill.study.folder import Draft, StudyFolder
from simdistill.study.owner import Owner
from simdistill.study.settings import Settings

pytestmark = pytest.mark.slow

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


class Served:
    """A study at `address`, and what its database holds."""

    def __init__(self, folder, address):
        self.folder, self.address = folder, address
        self.owner = Owner(folder, Database(folder.database, folder.settings.identity))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = a_study(tmp_path_factory.mktemp("studies") / "s", pairs=3, tie=True, contact="ann@example.org")
    with served(folder) as address:
        yield Served(folder, address)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = a_study(tmp_path_factory.mktemp("studies") / "two", pairs=2, questions="two", tie=True)
    with served(folder) as address:
        yield Served(folder, address)


@pytest.fixture
def visit(browser):
    """A page of a visitor of their own, on which nothing may go wrong but what is refused on purpose."""
    contexts, problems = [], []

    def note(message):
        if message.type == "error" and not message.location["url"].endswith(("/nothing", "/owner")):
            problems.append(message.text)

    def fail(request):
        if not request.url.endswith(".csv"):  # a download is no page, so that its navigation ends
            problems.append(request.url)

    def visit(**options):
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("console", note)
        page.on("requestfailed", fail)
        return page

    yield visit
    assert problems == []
    for context in contexts:
        context.close()


def begin(page, study):
    page.goto(study.address)
    page.get_by_label("I have read this and agree").check()
    page.get_by_role("button", name="Begin").click()
    page.wait_for_url("**/pair/1")


def look(page):
    """Long enough that a click is no second half of a double click."""
    page.wait_for_timeout(400)


def answers(study, before=0):
    return study.owner.votes().sort("at", maintain_order=True)["choice"].to_list()[before:]


def test_by_mouse(study, visit):
    before, page = len(answers(study)), visit()
    begin(page, study)
    boxes = [image.bounding_box() for image in page.get_by_role("img").all()]
    assert (boxes[0]["width"], boxes[0]["height"]) == (boxes[1]["width"], boxes[1]["height"])
    assert boxes[0]["y"] == boxes[1]["y"]
    assert boxes[0]["x"] + boxes[0]["width"] < boxes[1]["x"]
    for name in ("Image 1 is better", "Image 2 is better", "Both are equally good"):
        look(page)
        page.get_by_role("button", name=name).click()
    page.get_by_role("heading", name="Thank you").wait_for()
    assert answers(study, before) == ["left", "right", "tie"]


def test_a_double_click_is_one_vote(study, visit):
    before, page = len(answers(study)), visit()
    begin(page, study)
    look(page)
    page.get_by_role("button", name="Image 1 is better").dblclick()
    page.wait_for_url("**/pair/2")
    page.wait_for_load_state()
    assert answers(study, before) == ["left"]


def test_by_keyboard_alone(study, visit):
    before, page = len(answers(study)), visit()
    page.goto(study.address)
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    for place, key in enumerate("201", 1):
        page.wait_for_url(f"**/pair/{place}")
        look(page)
        page.keyboard.press(key)
    page.wait_for_url("**/thanks")
    assert answers(study, before) == ["right", "tie", "left"]


def test_without_javascript(study, visit):
    before, page = len(answers(study)), visit(java_script_enabled=False)
    begin(page, study)
    assert page.locator("kbd").first.is_hidden()
    for place in (1, 2, 3):
        page.wait_for_url(f"**/pair/{place}")
        look(page)
        page.get_by_role("button", name="Image 2 is better").click()
    page.wait_for_url("**/thanks")
    assert answers(study, before) == ["right"] * 3


def test_on_a_phone(study, visit):
    before, page = len(answers(study)), visit(**PHONE)
    begin(page, study)
    first, second = [image.bounding_box() for image in page.get_by_role("img").all()]
    assert first["x"] == second["x"]
    assert first["y"] + first["height"] < second["y"]
    assert first["width"] == second["width"] > 340  # as wide as the margins leave
    better = page.get_by_role("button", name="Image 1 is better").bounding_box()
    assert second["y"] + second["height"] < better["y"]  # nobody answers before they came to the second
    page.locator("html.keys").wait_for()  # the script runs, but there are no keys
    assert page.locator("kbd").first.is_hidden()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    for button in page.get_by_role("button").all():
        assert button.bounding_box()["height"] >= 44
    look(page)
    page.get_by_role("button", name="Image 2 is better").tap()
    page.wait_for_url("**/pair/2")
    assert answers(study, before) == ["right"]


@pytest.mark.parametrize("shape", [(90, 160), (40, 400), (160, 90), (24, 16)])
def test_both_pictures_and_the_buttons_are_on_the_screen(tmp_path, visit, shape):
    pictures = [Draft("a prompt", noise(0, shape), noise(1, shape))]
    with served(StudyFolder.create(tmp_path / "s", Settings(), pictures)) as address:
        page = visit(viewport={"width": 1280, "height": 800})
        page.goto(address)
        page.get_by_label("I have read this and agree").check()
        page.get_by_role("button", name="Begin").click()
        for image in page.get_by_role("img").all():
            box = image.bounding_box()
            scale = image.evaluate(
                "image => Math.min(image.width / image.naturalWidth, image.height / image.naturalHeight)"
            )
            assert scale * max(shape) > 240  # small ones are enlarged
            assert box["y"] + box["height"] < 800
        button = page.get_by_role("button", name="Image 2 is better").bounding_box()
        assert button["y"] + button["height"] <= 800


def test_interrupted_and_resumed(study, browser, visit):
    before, page = len(answers(study)), visit()
    begin(page, study)
    look(page)
    page.get_by_role("button", name="Image 1 is better").click()
    page.wait_for_url("**/pair/2")
    kept = page.context.storage_state()
    page.get_by_role("link", name="Pause or withdraw").click()
    link = page.get_by_role("code").inner_text()
    page.context.close()
    again = visit(storage_state=kept)  # the browser was closed, and is opened again
    again.goto(study.address)
    again.wait_for_url("**/pair/2")
    again.get_by_role("link", name="Back").click()
    assert "your answer" in again.get_by_role("button", name="Image 1").inner_text()
    elsewhere = visit(**PHONE)
    elsewhere.goto(link)
    elsewhere.get_by_role("heading", name="Continue here?").wait_for()
    look(elsewhere)
    elsewhere.get_by_role("button", name="Continue these answers").click()
    elsewhere.wait_for_url("**/pair/2")
    elsewhere.get_by_role("link", name="Pause or withdraw").click()
    elsewhere.get_by_role("button", name="Delete my answers").click()
    elsewhere.get_by_role("heading", name="Your answers are deleted").wait_for()
    assert answers(study, before) == []


def test_two_questions_by_keyboard(two, visit):
    before, page = len(answers(two)), visit(viewport={"width": 1280, "height": 800})
    begin(page, two)
    page.locator("kbd").first.wait_for()  # visible once the script runs
    button = page.get_by_role("button", name="Next").bounding_box()
    assert button["y"] + button["height"] <= 800
    assert page.get_by_role("img").first.bounding_box()["width"] > 300
    look(page)
    page.keyboard.press("1")
    page.keyboard.press("0")
    assert [one.get_attribute("value") for one in page.locator("input:checked").all()] == ["left", "tie"]
    page.keyboard.press("Enter")
    page.wait_for_url("**/pair/2")
    assert answers(two, before) == ["tie", "left"]  # quality before text


def test_the_owners_pages(study, visit):
    page = visit()
    page.goto(f"{study.address}/owner?token={study.folder.token}")
    assert page.url == f"{study.address}/owner"  # the token does not stay in the address
    page.get_by_role("button", name="Drop pair 2").click()
    page.get_by_text("Dropped.").wait_for()
    assert study.owner.reviews() == {2: False}
    page.get_by_role("button", name="Keep pair 2").click()
    page.get_by_text("Kept.").wait_for()
    page.get_by_role("button", name="Keep all 2 undecided").click()
    page.get_by_role("button", name="Keep all").wait_for(state="detached")
    assert study.owner.reviews() == {1: True, 2: True, 3: True}
    page.get_by_role("link", name="Results").click()
    page.get_by_role("heading", name="student or teacher?").wait_for()
    assert page.get_by_role("table", name="By question").get_by_role("row").count() == 12
    page.wait_for_load_state()
    assert page.get_by_role("img").evaluate("image => image.naturalWidth") > 500
    phone = visit(**PHONE)
    phone.goto(f"{study.address}/owner?token={study.folder.token}")
    phone.wait_for_load_state("networkidle")  # with all pictures, or those still on their way would fail
    phone.goto(f"{study.address}/owner/results")
    phone.wait_for_load_state("networkidle")
    title, value = (
        phone.get_by_role("table", name="By question").locator(what).nth(1) for what in ("th[scope=row]", "td")
    )
    assert title.bounding_box()["width"] <= 0.46 * 390
    value.scroll_into_view_if_needed()
    box = value.bounding_box()
    point = [box["x"] + box["width"] - 8, box["y"] + 8]
    assert value.evaluate("(cell, [x, y]) => document.elementFromPoint(x, y) === cell", point)  # and no title over it
    with page.expect_download() as download:
        page.get_by_role("link", name="Votes as CSV").click()
    assert download.value.path().read_text().splitlines()[0].startswith("participant,place,pair,prompt")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_it(study, two, visit, scheme):
    axe, page, found = Axe(), visit(color_scheme=scheme, bypass_csp=True), {}

    def check(name):
        found[name] = [(one["id"], one["nodes"][0]["html"]) for one in axe.run(page).response["violations"]]

    page.goto(study.address)
    check("welcome")
    begin(page, study)
    check("pair")
    page.goto(f"{study.address}/me")
    check("me")
    page.goto(f"{study.address}/owner")
    check("enter")
    page.goto(f"{study.address}/owner?token={study.folder.token}")
    check("review")
    page.goto(f"{study.address}/owner/results")
    check("results")
    page.goto(f"{study.address}/nothing")
    check("refused")
    page.goto(two.address)
    begin(page, two)
    check("two questions")
    assert {name: violations for name, violations in found.items() if violations} == {}
    assert len(found) == 8
