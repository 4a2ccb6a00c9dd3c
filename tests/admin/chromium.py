"""A page in a real browser: Chromium without a screen, spoken to by the DevTools protocol over two pipes."""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
         "--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe")
PATIENCE = 60.0                # seconds for one answer

# Elements that stick out of a window of so many pixels, with what scrolls in itself left out.
OUTSIDE = """[...document.querySelectorAll('body *')].filter(each => !each.closest('.scroll > *, svg *') &&
    (each.getBoundingClientRect().right > %d || each.getBoundingClientRect().left < 0))
    .map(each => each.outerHTML.slice(0, 80))"""


class Chromium:
    """One browser with one page. console: what the page or the browser complained of; requests: addresses fetched."""

    def __init__(self):
        self.console, self.requests, self.events = [], [], []
        self.number, self.buffer, self.session = 0, b"", None

    def __enter__(self):
        self.profile = tempfile.mkdtemp(prefix="chromium-")
        theirs, self.out = os.pipe()
        self.into, answers = os.pipe()
        command = f'exec "$0" "$@" 3<&{theirs} 4>&{answers}'          # not for dash: it knows no descriptor above 9
        self.process = subprocess.Popen(
            ["bash", "-c", command, PROGRAM, *FLAGS, f"--user-data-dir={self.profile}", "about:blank"],
            pass_fds=(theirs, answers), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(theirs)
        os.close(answers)
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in "Page", "Runtime", "Log", "Network":
            self.ask(f"{domain}.enable")
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        os.close(self.out)
        os.close(self.into)
        shutil.rmtree(self.profile, ignore_errors=True)

    def ask(self, method, **parameters):
        """Call a method of the protocol -> its result."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]

    def wait_for(self, method):
        """The next event of that name, or one that has come already."""
        while True:
            for place, event in enumerate(self.events):
                if event == method:
                    del self.events[:place + 1]
                    return
            self._next()

    def _next(self):
        while b"\0" not in self.buffer:
            assert select.select([self.into], [], [], PATIENCE)[0], "the browser does not answer"
            octets = os.read(self.into, 65536)
            assert octets, "the browser has ended"
            self.buffer += octets
        octets, _, self.buffer = self.buffer.partition(b"\0")
        message = json.loads(octets)
        self._hear(message.get("method"), message.get("params", {}))
        return message

    def _hear(self, method, parameters):
        if method == "Network.requestWillBeSent":
            self.requests.append(parameters["request"]["url"])
        elif method == "Log.entryAdded":
            self.console.append(parameters["entry"]["text"])
        elif method in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            self.console.append(json.dumps(parameters)[:500])
        if method:
            self.events.append(method)

    def show(self, address, width, height, scheme):
        """Open an address in a window of that size, in the "light" or "dark" scheme of colours."""
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                 mobile=width < 600)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.events.clear()
        self.ask("Page.navigate", url=address)
        self.wait_for("Page.loadEventFired")

    def value(self, expression):
        """What an expression is in the page."""
        return self.ask("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def picture(self, height=None):
        """All of the page as PNG octets, or so many pixels of it from its head, as wide as the window."""
        clip = {} if height is None else {"clip": {
            "x": 0, "y": 0, "width": self.value("document.documentElement.clientWidth"), "height": height, "scale": 1}}
        return base64.b64decode(self.ask("Page.captureScreenshot", captureBeyondViewport=True, **clip)["data"])
