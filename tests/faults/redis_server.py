"""A Redis server to be killed, hung and emptied, and a proxy that makes it slow."""

import contextlib
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class RedisServer:
    """A Redis server that a test may kill, stop and start again on the same port."""

    def __init__(self, folder):
        self.program = shutil.which("redis-server")
        if self.program is None:
            pytest.skip("redis-server is not installed (Debian: apt-get install redis-server)")
        self.folder, self.port, self.process = folder, free_port(), None
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self):
        options = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)]
        self.process = subprocess.Popen(
            [self.program, *options, "--save", ""], stdout=subprocess.DEVNULL
        )
        for _ in range(200):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            time.sleep(0.02)
        raise TimeoutError("redis-server does not start")

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()


class SlowProxy:
    """Passes bytes on to a server, each piece later by ``delay`` seconds."""

    def __init__(self, port):
        self.target, self.delay = port, 0.0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self.listener.getsockname()[1]}/0"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                inward, _ = self.listener.accept()
                try:
                    outward = socket.create_connection(("127.0.0.1", self.target), 5)
                except OSError:  # the server is away
                    inward.close()
                    continue
                for pair in ((inward, outward), (outward, inward)):
                    threading.Thread(target=self._pass, args=pair, daemon=True).start()

    def _pass(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                time.sleep(self.delay / 2)
                sink.sendall(data)
        for end in (source, sink):
            end.close()

    def close(self):
        self.listener.close()
