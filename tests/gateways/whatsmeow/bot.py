#!/usr/bin/env python3
"""A bot that keeps a whatsmeow database under live writes. README.md beside it tells the protocol."""

import argparse
import json
import os
import signal
import sys
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import ledger
import library


class Bot:
    """Owns the database; whoever wants to use it takes the lock first."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.database = Path(options.dir) / options.name
        self.database.parent.mkdir(parents=True, exist_ok=True)
        library.list_devices(self.database)
        self.db = ledger.connect(self.database, options.mode)
        self.fresh = ledger.log_in(self.db)
        # The library has the last word on whether this is a login.
        self.devices = library.list_devices(self.database)
        self.lock = threading.Lock()
        self.rate = options.rate
        self.changed = threading.Event()
        self.stopping = threading.Event()
        self.run = str(uuid.uuid4())
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self.journal = os.open(options.journal, flags, 0o644) if options.journal else None

    def write(self, count: int) -> int:
        n = 0
        for _ in range(count):
            with self.lock:
                n = ledger.advance(self.db)
                # Inside the lock, so that the journal's numbers never go backwards.
                ledger.write_line(self.journal, n, self.run)
        return n

    def write_at_rate(self) -> None:
        while not self.stopping.is_set():
            pause = 1 / self.rate if self.rate > 0 else None
            if self.changed.wait(pause):
                self.changed.clear()
            elif not self.stopping.is_set():
                self.write(1)

    def state(self) -> dict:
        with self.lock:
            return {"fresh": self.fresh, "devices": self.devices, "rate": self.rate, **ledger.state(self.db)}


def handler(bot: Bot) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer({"/ping": lambda query: {"message": "pong"}, "/state": lambda query: bot.state()})

        def do_POST(self) -> None:
            self.answer({"/write": self.write, "/rate": self.rate})

        def write(self, query: dict) -> dict:
            return {"n": bot.write(int(query.get("n", ["1"])[0]))}

        def rate(self, query: dict) -> dict:
            bot.rate = float(query.get("per_second", ["0"])[0])
            bot.changed.set()
            return {"rate": bot.rate}

        def answer(self, pages: dict) -> None:
            url = urlsplit(self.path)
            try:
                page = pages.get(url.path)
                status, body = (200, page(parse_qs(url.query))) if page else (404, {"error": "no such page"})
            except Exception as error:
                status, body = 500, {"error": f"{type(error).__name__}: {error}"}
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """Requests are the test's own; its log needs no echo of them."""

    return Handler


def serve(options: argparse.Namespace) -> None:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    bot = Bot(options)
    server = ThreadingHTTPServer((options.host, options.port), handler(bot))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    writer = threading.Thread(target=bot.write_at_rate, daemon=True)
    writer.start()
    ready = {"ready": True, "port": server.server_port, "pid": os.getpid(), "fresh": bot.fresh, "devices": bot.devices}
    print(json.dumps(ready), flush=True)
    stop.wait()

    server.shutdown()
    bot.stopping.set()
    bot.changed.set()
    writer.join()
    if options.last_words:
        bot.write(1)
    with bot.lock:
        if options.leave_wal:
            # As a process that is killed: nothing is checkpointed, the WAL stays with its content.
            os._exit(0)
        bot.db.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", metavar="DATABASE", help="check a copy, print what is in it, exit 1 if it is not whole")
    parser.add_argument("--dir", default=os.environ.get("SESSIONS_PATH"), help="the session directory")
    parser.add_argument("--name", default="session.db", help="the database's path in it")
    parser.add_argument("--host", default=os.environ.get("HOST", "127.0.0.1"))
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "0")))
    parser.add_argument("--mode", choices=("delete", "wal"), default="delete", help="journal mode; whatsmeow's own is delete")
    parser.add_argument("--rate", type=float, default=0, help="transactions a second")
    parser.add_argument("--journal", default=os.environ.get("JOURNAL"), help="file outside the session directory")
    parser.add_argument("--last-words", action="store_true", help="one more transaction after TERM")
    parser.add_argument("--leave-wal", action="store_true", help="do not close the database at the end")
    options = parser.parse_args()
    if options.check:
        told = ledger.check(Path(options.check))
        print(json.dumps(told))
        return 0 if told["ok"] else 1
    if not options.dir:
        parser.error("--dir or SESSIONS_PATH must name the session directory")
    serve(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
