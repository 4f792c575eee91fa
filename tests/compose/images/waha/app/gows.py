#!/usr/bin/env python3
"""What GOWS's Go process is to WAHA: started detached, it alone writes the sessions' databases.

The real whatsmeow library makes each database and reads it at each start; the writes are those of
the `whatsmeow` test gateway, in WAL mode. Requests come over a Unix socket, one JSON object a line.
At TERM, or once nobody is at the other end of the socket, it writes on for a second, has a last
word in every session, and exits without closing the databases: their WALs stay as after a kill.
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import sqlite3
import sys
import threading
from hashlib import sha256
from pathlib import Path

import ledger
import library

WRITES_ON_SECONDS = float(os.environ.get("STAND_IN_CHILD_SECONDS") or "1")
WRITE_EVERY_SECONDS = 0.05
BULK_ROW = 32 * 1024


class Session:
    def __init__(self, database: Path) -> None:
        self.database = database
        # The library first: it makes the schema, and it is who says whether this is a login.
        self.devices = library.list_devices(database)
        self.db = ledger.connect(database, "wal")
        self.db.execute("CREATE TABLE IF NOT EXISTS stand_in_last_words (id INTEGER PRIMARY KEY CHECK (id = 1), n INTEGER)")
        self.db.execute("CREATE TABLE IF NOT EXISTS stand_in_bulk (id INTEGER PRIMARY KEY, data BLOB)")

    @property
    def logged_in(self) -> bool:
        return bool(self.devices)

    def scan(self) -> None:
        ledger.log_in(self.db)
        self.devices = library.list_devices(self.database)

    def last_words(self) -> int:
        n = ledger.advance(self.db)
        self.db.execute("INSERT OR REPLACE INTO stand_in_last_words VALUES (1, ?)", (n,))
        return n

    def state(self) -> dict:
        if not self.logged_in:
            return {"identity": None, "messages": 0, "last_words": None, "problems": []}
        told = ledger.check(self.database)
        identity = json.dumps(told.get("identity"), sort_keys=True)
        words = self.db.execute("SELECT n FROM stand_in_last_words").fetchone()
        return {
            "identity": sha256(identity.encode()).hexdigest(),
            "messages": told.get("n", 0),
            "last_words": words[0] if words else None,
            "problems": told["problems"],
        }

    def size(self) -> int:
        """Of the database's pages; the WAL may hold some of them twice."""
        return self.db.execute("SELECT page_count * page_size FROM pragma_page_count, pragma_page_size").fetchone()[0]

    def grow(self, size: int) -> int:
        while (lacking := size - self.size()) > 0:
            rows = ((os.urandom(BULK_ROW),) for _ in range(lacking // BULK_ROW + 1))
            self.db.execute("BEGIN IMMEDIATE")
            self.db.executemany("INSERT INTO stand_in_bulk (data) VALUES (?)", rows)
            self.db.execute("COMMIT")
        self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return self.size()


class Sessions:
    """All of them, under one lock: a request and the writing after TERM never meet."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.open: dict[str, Session] = {}

    def answer(self, request: dict) -> dict:
        op, database = request["op"], request["database"]
        with self.lock:
            if op == "open" and database not in self.open:
                self.open[database] = Session(Path(database))
            session = self.open[database]
            if op == "open":
                return {"logged_in": session.logged_in}
            if op == "scan":
                session.scan()
                return {}
            if op == "send":
                return {"n": ledger.advance(session.db)}
            if op == "state":
                return session.state()
            if op == "grow":
                return {"size": session.grow(request["bytes"])}
            if op == "close":
                self.open.pop(database).db.close()
                return {}
        raise ValueError(f"no such request: {op}")

    def end(self) -> None:
        with self.lock:
            working = [session for session in self.open.values() if session.logged_in]
            pause = threading.Event()
            for _ in range(round(WRITES_ON_SECONDS / WRITE_EVERY_SECONDS)):
                for session in working:
                    ledger.advance(session.db)
                pause.wait(WRITE_EVERY_SECONDS)
            for session in working:
                say("last words", session=session.database.parent.name, n=session.last_words())


def say(message: str, **fields: object) -> None:
    line = json.dumps({"level": "info", "pid": os.getpid(), "name": "gows", **fields, "msg": message})
    # Whoever read the log may be gone; the sessions come first.
    with contextlib.suppress(OSError):
        os.write(1, line.encode() + b"\n")


def serve(listener: socket.socket, sessions: Sessions, over: threading.Event) -> None:
    connection, _ = listener.accept()
    # Node may be killed in the middle of a line; a connection that breaks is one that is closed.
    with contextlib.suppress(OSError, json.JSONDecodeError):
        for line in connection.makefile("r"):
            request = json.loads(line)
            try:
                answer = sessions.answer(request)
            except (sqlite3.Error, RuntimeError, OSError, KeyError, TypeError, ValueError) as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            connection.sendall(json.dumps({"id": request["id"], **answer}).encode() + b"\n")
    over.set()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--socket", required=True)
    options = parser.parse_args()
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: over.set())
    sessions = Sessions()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(options.socket)
    listener.listen()
    threading.Thread(target=serve, args=(listener, sessions, over), daemon=True).start()
    say("gows listens", socket=options.socket)
    over.wait()
    sessions.end()
    say("gows ends")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
