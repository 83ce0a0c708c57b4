"""A headless Chromium, driven by W3C WebDriver with the standard library alone."""

import contextlib
import json
import shutil
import subprocess
import time
import urllib.request

import pytest

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


class Browser:
    """A session of chromedriver."""

    def __init__(self, port):
        self._url = f"http://127.0.0.1:{port}"
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        asked = {"goog:chromeOptions": {"args": flags}, "goog:loggingPrefs": {"browser": "ALL"}}
        made = self._call("POST", "/session", {"capabilities": {"alwaysMatch": asked}})
        self._url += f"/session/{made['sessionId']}"

    def _call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self._url + path, data, headers, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as response:
            return json.load(response)["value"]

    def open(self, address):
        self._call("POST", "/url", {"url": address})

    def find(self, css):
        found = self._call("POST", "/element", {"using": "css selector", "value": css})
        return found[ELEMENT]

    def type(self, css, text):
        self._call("POST", f"/element/{self.find(css)}/value", {"text": text})

    def click(self, css):
        self._call("POST", f"/element/{self.find(css)}/click", {})

    def run(self, script, *arguments):
        """What a script returns."""
        return self._call("POST", "/execute/sync", {"script": script, "args": list(arguments)})

    def text(self, css):
        return self.run("return document.querySelector(arguments[0])?.innerText", css)

    def wait_for(self, css, said):
        """Until an element says something."""
        deadline = time.monotonic() + 15
        while said not in (self.text(css) or ""):
            assert time.monotonic() < deadline, self.text(css)
            time.sleep(0.05)

    def role_and_name(self, css):
        """What a screen reader says of an element."""
        element = self.find(css)
        role = self._call("GET", f"/element/{element}/computedrole")
        return role, self._call("GET", f"/element/{element}/computedlabel")

    def complaints(self):
        """What the browser wrote into its console since it was last asked."""
        return [each["message"] for each in self._call("POST", "/se/log", {"type": "browser"})]

    def quit(self):
        self._call("DELETE", "")


@contextlib.contextmanager
def browser():
    """Skips, saying so, where there is none."""
    driver = shutil.which("chromedriver")
    if driver is None or not (shutil.which("chromium") or shutil.which("google-chrome")):
        pytest.skip("no chromium and chromedriver (Debian: chromium, chromium-driver)")
    process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, text=True)
    try:
        port = None
        while port is None:
            line = process.stdout.readline()
            assert line, "chromedriver ended"
            if "started successfully on port" in line:
                port = int(line.rstrip().rstrip(".").rpartition(" ")[2])
        opened = Browser(port)
        try:
            yield opened
        finally:
            opened.quit()
    finally:
        process.terminate()
        process.communicate(timeout=30)
