"""The panel in a real browser: with scripts off it does all it should, and no other page can make it do anything."""

import http.server
import re
import threading

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.expected_conditions import presence_of_element_located, staleness_of, url_to_be
from selenium.webdriver.support.wait import WebDriverWait

from browser import chromium
from conftest import PASSWORD, join
from ippd.permissions import ANONYMOUS, OPERATOR

EVIL = "<script>document.title='evil'</script><img src=x onerror=\"document.title='evil'\">"


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A browser in which no page can run a script."""
    with chromium(tmp_path_factory.mktemp("plain"), scripts=False) as browser:
        yield browser


@pytest.fixture(scope="module")
def scripting(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("scripting")) as browser:
        yield browser


@pytest.fixture
def served(core, served_core):
    return served_core(core)


@pytest.fixture
def site(served):
    return f"http://localhost:{served.local.port}"


def sign_up(core, email="ada@example.org", **profile):
    core.users.sign_up(ANONYMOUS, email, PASSWORD, profile)
    return core.users.find(OPERATOR, email)["id"]


def press(browser, name):
    """Press the button that assistive programs know by this name, and wait for the page that comes."""
    found = [one for one in browser.find_elements(By.TAG_NAME, "button") if one.accessible_name == name]
    assert len(found) == 1, f"{len(found)} buttons are called {name!r}"
    before = browser.find_element(By.TAG_NAME, "html")
    found[0].click()
    # The driver waits for a load on its own only where scripts are on.
    wait = WebDriverWait(browser, 15, 0.05)
    wait.until(staleness_of(before))
    wait.until(presence_of_element_located((By.TAG_NAME, "footer")))


def opened(browser, row, word):
    """Open the fold with this word in it."""
    next(one for one in browser.find_elements(By.CSS_SELECTOR, f"{row} summary") if one.text.startswith(word)).click()


def test_approve_and_deny(plain, core, site):
    id = sign_up(core, fname="Ada", lname="Lovelace")
    other = sign_up(core, "bob@example.org")
    plain.get(f"{site}/admin")
    assert plain.find_element(By.CSS_SELECTOR, ".bar .count").text.startswith("2")
    press(plain, "Approve ada@example.org")
    assert core.users.find(OPERATOR, id)["status"] == "approved"
    assert plain.find_element(By.CSS_SELECTOR, f"#user-{id} .badge").text == "Approved"
    press(plain, "Deny bob@example.org")
    assert core.users.find(OPERATOR, other)["status"] == "denied"
    opened(plain, f"#user-{id}", "Deny")
    press(plain, "Really deny ada@example.org")
    assert core.users.find(OPERATOR, id)["status"] == "denied"
    press(plain, "Approve ada@example.org")
    assert core.users.find(OPERATOR, id)["status"] == "approved"
    assert not plain.find_elements(By.CSS_SELECTOR, ".bar .count")


def test_check_and_uncheck_groups(plain, core, site):
    id = sign_up(core)
    for name in ("lab", "imaging", "students"):
        core.groups.create(OPERATOR, name)

    def tick(*names):
        for name in names:
            label = next(one for one in plain.find_elements(By.CSS_SELECTOR, f"#user-{id} label") if one.text == name)
            label.click()
        press(plain, "Save the groups of ada@example.org")
        checked = plain.find_elements(By.CSS_SELECTOR, f"#user-{id} input:checked")
        assert sorted(box.accessible_name for box in checked) == core.users.find(OPERATOR, id)["groups"]
        return core.users.find(OPERATOR, id)["groups"]

    plain.get(f"{site}/admin/users")
    assert tick("lab", "imaging") == ["imaging", "lab"]
    assert tick("lab", "students") == ["imaging", "students"]
    assert tick("imaging", "students") == []


def test_create_rename_limit_and_remove_a_group(plain, core, site):
    def field(name):
        return plain.find_element(By.CSS_SELECTOR, f"section input[name={name}]")

    plain.get(f"{site}/admin/groups")
    plain.find_element(By.CSS_SELECTOR, "input[name=group]").send_keys("Neuro <b>Ö</b>")
    press(plain, "Create")
    (group,) = core.groups.list(OPERATOR)
    assert plain.find_element(By.CSS_SELECTOR, "h2").text == group["name"] == "Neuro <b>Ö</b>"

    field("file_bytes").send_keys("100GB")
    press(plain, f"Save the limits of {group['name']}")
    assert core.groups.list(OPERATOR)[0]["limits"] == {"file_bytes": 100 << 30}
    assert field("file_bytes").get_attribute("value") == "100GB"
    field("file_bytes").clear()
    press(plain, f"Save the limits of {group['name']}")
    assert core.groups.list(OPERATOR)[0]["limits"] == {}

    opened(plain, "section", "Rename")
    field("group").clear()
    field("group").send_keys("neuro")
    press(plain, f"Rename {group['name']}")
    assert plain.find_element(By.CSS_SELECTOR, "h2").text == "neuro"

    opened(plain, "section", "Remove")
    press(plain, "Really remove neuro")
    assert core.groups.list(OPERATOR) == []
    assert "There is no group yet." in plain.find_element(By.TAG_NAME, "main").text


def test_a_mistake_is_told_on_a_page_with_a_way_back(plain, core, site):
    core.groups.create(OPERATOR, "lab")
    plain.get(f"{site}/admin/groups")
    plain.find_element(By.CSS_SELECTOR, "input[name=group]").send_keys("lab")
    press(plain, "Create")
    assert "there is a group lab already" in plain.find_element(By.CSS_SELECTOR, "[role=alert]").text
    plain.find_element(By.LINK_TEXT, "Back to the list").click()
    WebDriverWait(plain, 15, 0.05).until(url_to_be(f"{site}/admin/groups"))


def test_everything_that_can_be_used_has_a_name(plain, core, site):
    sign_up(core, fname="Ada")
    core.users.approve(OPERATOR, sign_up(core, "bob@example.org"))
    core.groups.create(OPERATOR, "lab")
    for page in ("users", "groups"):
        plain.get(f"{site}/admin/{page}")
        for fold in plain.find_elements(By.TAG_NAME, "summary"):
            fold.click()
        used = plain.find_elements(By.CSS_SELECTOR, "input:not([type=hidden]), button, a, summary")
        names = [one.accessible_name for one in used if one.is_displayed()]
        assert len(names) > 8
        assert all(names)


def test_on_a_phone_nothing_sticks_out(plain, core, site):
    sign_up(core, f"{'long.' * 12}name@{'sub.' * 12}example.org", institution="x" * 200)
    core.groups.create(OPERATOR, "g" * 64)
    plain.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True})
    try:
        for page in ("users", "groups"):
            plain.get(f"{site}/admin/{page}")
            for fold in plain.find_elements(By.TAG_NAME, "summary"):
                fold.click()
            assert plain.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]["width"] <= 360
    finally:
        plain.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_what_a_user_typed_never_runs(scripting, core, site):
    sign_up(core, fname=EVIL, institution=EVIL, setting=EVIL)
    core.groups.create(OPERATOR, EVIL[:60])
    for page, title in (("users", "Users - ippd"), ("groups", "Groups - ippd")):
        scripting.get(f"{site}/admin/{page}")
        assert scripting.title == title
        assert scripting.execute_script("return document.scripts.length + document.images.length") == 0
        assert "<script>" in scripting.find_element(By.TAG_NAME, "main").get_attribute("textContent")


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_page_of_another_site_changes_nothing(scripting, core, site, host):
    id = sign_up(core)
    done = threading.Event()
    page = (
        f"<img src='{site}/users/approve/{id}'><img src='{site}/experiments/queue'>"
        f"<form id=f method=post target=t action='{site}/groups/create'><input name=group value=evil></form><iframe name=t></iframe>"
        f"<script>fetch('{site}/users/approve/{id}', {{method: 'POST', mode: 'no-cors'}}).catch(() => 0).then(() => {{"
        "document.querySelector('iframe').onload = () => fetch('/done'); document.getElementById('f').submit()})</script>"
    )

    class Evil(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path == "/done":
                done.set()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Evil)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        scripting.get(f"http://{host}:{server.server_address[1]}/")
        assert done.wait(15)
    finally:
        server.shutdown()
        server.server_close()
    assert core.users.find(OPERATOR, id)["status"] == "pending"
    assert core.groups.list(OPERATOR) == []


def test_a_new_password_by_the_link_of_the_mail(plain, core, served):
    join(core)
    core.users.forgot_password(ANONYMOUS, "ada@example.org")
    body = core.store.value("SELECT body FROM outbox WHERE kind = 'password_reset'")
    link = re.search(r"https://portal\.example\.org(/password/reset\?token=\S+)", body)[1]
    plain.get(f"https://localhost:{served.public.port}{link}")
    for typed in ("a new password", "a new passwort"), ("a new password", "a new password"):
        for field, text in zip(plain.find_elements(By.CSS_SELECTOR, "input[type=password]"), typed, strict=True):
            field.send_keys(text)
        press(plain, "Change the password")
        if typed[0] != typed[1]:
            assert "not the same" in plain.find_element(By.CSS_SELECTOR, "[role=alert]").text
    assert "has been changed" in plain.find_element(By.CSS_SELECTOR, "[role=status]").text
    assert core.sessions.log_in(ANONYMOUS, "ada@example.org", "a new password")
