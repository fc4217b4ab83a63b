"""Debian's Chromium for tests of pages, driven by its ChromeDriver over the W3C WebDriver protocol, plain HTTP.

Requirements:

- No package of Python: ``apt-get install chromium chromium-driver`` is all it takes.
- A click, a key and a download are those of a person: the browser makes them, not a script in the page.
"""

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
"""Name of the reference of an element, WebDriver section 12.1."""

KEYS = {"tab": "\ue004", "enter": "\ue007", "space": "\ue00d", "left": "\ue012", "right": "\ue014", "shift": "\ue008"}
"""Code points of keys, WebDriver section 17.4.2."""

_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",  # tests run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1500,1000",
)

_CHROMIUM, _DRIVER = shutil.which("chromium"), shutil.which("chromedriver")

needs_browser = pytest.mark.skipif(
    not (_CHROMIUM and _DRIVER), reason="needs a browser: apt-get install chromium chromium-driver"
)


class Browser:
    """One window of Chromium.

    Args:
        client: HTTP client.
        url: address of the session at the driver.
        downloads: folder of downloads.
    """

    def __init__(self, client: httpx.Client, url: str, downloads: Path) -> None:
        self._client, self._url, self.downloads = client, url, downloads

    def open(self, page: Path, fragment: str = "") -> None:
        """Leave the page once it has stored its answers, and open a file; a new fragment alone loads nothing again."""
        self._wait()
        self._post("url", {"url": f"{page.resolve().as_uri()}{fragment}"})
        self._wait()

    def visit(self, address: str) -> None:
        """Open a page of a server."""
        self._post("url", {"url": address})

    def reload(self) -> None:
        """Load the page again, once it has stored what it stores."""
        self._wait()
        self._post("refresh", {})
        self._wait()

    def all(self, css: str) -> list[str]:
        """Return the elements that a selector finds."""
        return [each[_ELEMENT] for each in self._post("elements", {"using": "css selector", "value": css})]

    def one(self, css: str) -> str:
        """Return the only element that a selector finds."""
        (found,) = self.all(css)
        return found

    def click(self, css: str) -> None:
        """Click the only element that a selector finds; it must be visible."""
        self._post(f"element/{self.one(css)}/click", {})

    def type(self, text: str) -> None:
        """Press keys, one after the other, on what has the focus; names of keys are those of `KEYS`."""
        pressed = [KEYS.get(each, each) for each in ([text] if text in KEYS else text)]
        actions = [{"type": kind, "value": key} for key in pressed for kind in ("keyDown", "keyUp")]
        self._post("actions", {"actions": [{"type": "key", "id": "keyboard", "actions": actions}]})

    def text(self, css: str) -> str:
        """Return the visible text of the only element that a selector finds."""
        return str(self._get(f"element/{self.one(css)}/text"))

    def script(self, code: str, *arguments: Any) -> Any:
        """Run a script that returns JSON values, to look at the page."""
        return self._post("execute/sync", {"script": code, "args": list(arguments)})

    def devtools(self, command: str, **parameters: Any) -> Any:
        """Run a command of the DevTools protocol."""
        return self._post("goog/cdp/execute", {"cmd": command, "params": parameters})

    def console(self) -> list[str]:
        """Return the messages of the console since the last call; errors of scripts and policies are among them."""
        return [each["message"] for each in self._post("se/log", {"type": "browser"})]

    def screenshot(self) -> bytes:
        """Return the window as PNG."""
        return base64.b64decode(self._get("screenshot"))

    @contextmanager
    def other_window(self) -> Iterator[None]:
        """Work in another tab of the same profile, which is closed afterwards."""
        first = self._get("window")
        self._post("window", {"handle": self._post("window/new", {"type": "tab"})["handle"]})
        try:
            yield
        finally:
            self._wait()
            _value(self._client.delete(f"{self._url}/window"))
            self._post("window", {"handle": first})

    def _wait(self, tries: int = 200) -> None:
        for _ in range(tries):
            if not self.script("return document.querySelector('[aria-busy=true], [data-writing]')"):
                return
            self.script("return new Promise((done) => setTimeout(() => done(null), 20))")
        raise AssertionError("the page must get ready, got a part that is busy")

    def _get(self, path: str) -> Any:
        return _value(self._client.get(f"{self._url}/{path}"))

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        return _value(self._client.post(f"{self._url}/{path}", json=body))


def _value(reply: httpx.Response) -> Any:
    value = reply.json()["value"]
    if reply.status_code != 200:
        raise AssertionError(f"{value['error']}: {value['message'].splitlines()[0]}")
    return value


@contextmanager
def browsing(folder: Path) -> Iterator[Browser]:
    """Start Chromium with an empty profile, and end it with its driver.

    Args:
        folder: empty folder for profile and downloads.
    """
    downloads = folder / "downloads"
    downloads.mkdir(parents=True)
    options = {
        "binary": _CHROMIUM,
        "args": [*_ARGUMENTS, f"--user-data-dir={folder / 'profile'}"],
        "prefs": {"download.default_directory": str(downloads), "download.prompt_for_download": False},
    }
    wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
    with subprocess.Popen([str(_DRIVER), "--port=0"], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        try:
            port = next(found[1] for line in driver.stdout if (found := re.search(r"successfully on port (\d+)", line)))
            address = f"http://127.0.0.1:{port}/session"
            with httpx.Client(timeout=60, trust_env=False) as client:
                begun = _value(client.post(address, json={"capabilities": {"alwaysMatch": wanted}}))
                url = f"{address}/{begun['sessionId']}"
                try:
                    yield Browser(client, url, downloads)
                finally:
                    client.delete(url)
        finally:
            driver.terminate()


def saved(browser: Browser, name: str, tries: int = 100) -> Any:
    """Return the JSON of a download, once the browser has it."""
    file = browser.downloads / name
    for _ in range(tries):
        if file.exists() and not list(browser.downloads.glob("*.crdownload")):
            return json.loads(file.read_text(encoding="utf-8"))
        browser.script("return new Promise((done) => setTimeout(() => done(null), 50))")
    raise AssertionError(f"{name} must be downloaded, got {[each.name for each in browser.downloads.iterdir()]}")
