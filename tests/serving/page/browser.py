"""Chromium without a window, driven over its DevTools protocol with the standard library alone.

https://chromedevtools.github.io/devtools-protocol, over a WebSocket (RFC 6455).
"""

import base64
import contextlib
import itertools
import json
import os
import socket
import struct
import subprocess
import time
from urllib.parse import urlsplit

_QUIET = (
    "--headless=new --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-extensions --hide-scrollbars "
    "--remote-debugging-port=0"
)
_KEYS = {"Tab": 9, "Enter": 13, "Space": 32}


class Socket:
    """A WebSocket of a client, for short text messages."""

    def __init__(self, url):
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname, parts.port), 30)
        key = base64.b64encode(os.urandom(16)).decode()
        self._socket.sendall(
            f"GET {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self._file = self._socket.makefile("rb")
        assert b" 101 " in self._file.readline()
        while self._file.readline().strip():
            pass

    def send(self, text):
        data, mask = text.encode(), os.urandom(4)
        head = bytes([0x81]) + (
            bytes([0x80 | len(data)])
            if len(data) < 126
            else struct.pack(">BH", 0x80 | 126, len(data))
        )
        masked = bytes(byte ^ mask[place % 4] for place, byte in enumerate(data))
        self._socket.sendall(head + mask + masked)

    def receive(self):
        message = b""
        while True:
            first, second = self._file.read(2)
            size = second & 0x7F
            if size > 125:
                kind = ">H" if size == 126 else ">Q"
                (size,) = struct.unpack(kind, self._file.read(struct.calcsize(kind)))
            data = self._file.read(size)
            if first & 0x0F in (0, 1):  # text, or the rest of one; pings are left alone
                message += data
                if first & 0x80:
                    return message.decode()

    def close(self):
        self._file.close()
        self._socket.close()


class Page:
    """One page of a browser."""

    def __init__(self, url):
        self._socket, self._count = Socket(url), itertools.count(1)
        self.messages = []
        """What the console said, and errors that nobody caught."""
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        number = next(self._count)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            told = json.loads(self._socket.receive())
            if told.get("id") == number:
                assert "error" not in told, told["error"]
                return told["result"]
            if told.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded"):
                self.messages.append(json.dumps(told["params"])[:400])

    def open(self, url, *, width, height=900, dark=False):
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=url)
        self.wait(f"location.href.startsWith({url!r}) && document.readyState === 'complete'")

    def run(self, script):
        found = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def wait(self, script, *, seconds=20):
        """Wait until a script is true."""
        deadline = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < deadline, f"{script} never came true: {self.messages}"
            time.sleep(0.02)

    def press(self, key):
        """Press a key, as a hand does."""
        code = {"windowsVirtualKeyCode": _KEYS[key], "key": " " if key == "Space" else key}
        typed = {"Enter": "\r", "Space": " "}.get(key)
        self.call("Input.dispatchKeyEvent", type="keyDown", text=typed or "", **code)
        self.call("Input.dispatchKeyEvent", type="keyUp", **code)

    def write(self, text):
        """Write into what has the focus."""
        self.call("Input.insertText", text=text)

    def picture(self):
        """What is to be seen from top to bottom, as PNG."""
        told = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        return base64.b64decode(told["data"])

    def close(self):
        self._socket.close()


@contextlib.contextmanager
def browsing(program, folder):
    """A page of a browser that ends with the block."""
    command = [program, *_QUIET.split(), f"--user-data-dir={folder}", "about:blank"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            line = next(line for line in process.stderr if "DevTools listening on" in line)
            browser = Socket(line.split()[-1])
            browser.send(json.dumps({"id": 1, "method": "Target.getTargets"}))
            while "result" not in (told := json.loads(browser.receive())):
                pass
            targets = told["result"]["targetInfos"]
            target = next(t["targetId"] for t in targets if t["type"] == "page")
            browser.close()
            page = Page(f"{line.split()[-1].partition('/devtools')[0]}/devtools/page/{target}")
            yield page
            page.close()
        finally:
            process.kill()
            process.communicate()
