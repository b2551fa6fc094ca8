"""A small supervisor for the demo's services. It starts what it is told to and restarts nothing by itself: that is midwatch's work here.

supervisor.py serve DIRECTORY            reads DIRECTORY/services.json (name → port), answers on DIRECTORY/supervisor.sock
supervisor.py tell DIRECTORY VERB NAME   VERB: start, restart, reload, kill, freeze; prints the answer, exit 0 if it was done
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

SERVICE = Path(__file__).with_name("service.py")
PATIENCE = 5.0
"""Seconds for a service to listen."""


class Supervisor:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ports: dict[str, int] = json.loads((directory / "services.json").read_text())
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start_all(self) -> None:
        for name in self._ports:
            self._spawn(name)
        for name in self._ports:
            self._await_listening(name)

    def do(self, verb: str, name: str) -> str:
        """Carry out one order; gives `ok` or what went wrong."""
        if name not in self._ports:
            return f"there is no service {name}"
        orders = {
            "start": self._start,
            "restart": self._restart,
            "reload": self._reload,
            "kill": self._kill,
            "freeze": self._freeze,
        }
        return orders[verb](name) if verb in orders else f"there is no order {verb}"

    def stop_all(self) -> None:
        for name in list(self._running):
            self._kill(name)

    def _alive(self, name: str) -> bool:
        process = self._running.get(name)
        return process is not None and process.poll() is None

    def _spawn(self, name: str) -> None:
        argv = [sys.executable, "-I", "-S", str(SERVICE), name, str(self._ports[name]), str(self._directory)]
        self._running[name] = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        (self._directory / f"{name}.pid").write_text(f"{self._running[name].pid}\n")

    def _start(self, name: str) -> str:
        if not self._alive(name):
            self._spawn(name)
        return self._await_listening(name)

    def _restart(self, name: str) -> str:
        self._kill(name)
        return self._start(name)

    def _reload(self, name: str) -> str:
        return self._signal(name, signal.SIGHUP)

    def _freeze(self, name: str) -> str:
        return self._signal(name, signal.SIGSTOP)

    def _kill(self, name: str) -> str:
        if self._alive(name):
            self._running[name].kill()
            self._running[name].wait()
        return "ok"

    def _signal(self, name: str, number: signal.Signals) -> str:
        if not self._alive(name):
            return f"{name} does not run"
        self._running[name].send_signal(number)
        return "ok"

    def _await_listening(self, name: str) -> str:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self._alive(name):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self._ports[name])) == 0:
                    return "ok"
            time.sleep(0.02)
        return f"{name} does not listen"


def serve(directory: Path) -> None:
    supervisor = Supervisor(directory)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    try:
        supervisor.start_all()
        with socket.socket(socket.AF_UNIX) as orders:
            os.umask(0o077)
            orders.bind(str(directory / "supervisor.sock"))
            orders.listen(32)
            while True:
                _take_order(orders.accept()[0], supervisor)
    finally:
        supervisor.stop_all()


def _take_order(connection: socket.socket, supervisor: Supervisor) -> None:
    with connection:
        verb, _, name = connection.recv(200).decode().partition(" ")
        answer = supervisor.do(verb, name)
        try:
            connection.sendall(answer.encode())
        except BrokenPipeError:
            return


def tell(directory: Path, verb: str, name: str) -> str:
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(directory / "supervisor.sock"))
        line.sendall(f"{verb} {name}".encode())
        return line.recv(1000).decode()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(Path(sys.argv[2]))
    else:
        told = tell(Path(sys.argv[2]), sys.argv[3], sys.argv[4])
        sys.stdout.write(told + "\n")
        sys.exit(told != "ok")
