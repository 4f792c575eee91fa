#!/usr/bin/env python3
"""Builds the session directory that WAHA leaves behind, for one engine, without WAHA.

    waha_tree.py {webjs|wpp|noweb|gows} DIR [--session NAME] [--keys COUNT]

Databases are real SQLite databases, and GOWS's has whatsmeow's real schema. The `-wal` files hold
rows that the database file lacks, as after a kill. What a Chrome profile holds are random bytes
under the names that Chrome uses. Prints one JSON object: `keep`, the paths that must come back after
a restore; `leave`, the paths that must not be archived; `databases`, with the rows of each.
"""

import argparse
import json
import os
import secrets
import sqlite3
import sys
from base64 import b64encode
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "whatsmeow"))


class Tree:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.keep: list[str] = []
        self.leave: list[str] = []
        self.databases: dict[str, dict] = {}

    def file(self, path: str, content: bytes | str | dict, kept: bool = True) -> None:
        target = self._target(path, kept)
        if isinstance(content, dict):
            content = json.dumps(content)
        target.write_bytes(content.encode() if isinstance(content, str) else content)

    def link(self, path: str, to: str) -> None:
        self._target(path, False).symlink_to(to)

    def database(self, path: str, table: str, schema: str, rows: list[tuple]) -> None:
        """Half of the rows in the database file, half in the WAL only."""
        target = self._target(path, True)
        db = sqlite3.connect(target, isolation_level=None)
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(schema)
        marks = ", ".join("?" * len(rows[0]))
        half = len(rows) // 2
        db.executemany(f"INSERT INTO {table} VALUES ({marks})", rows[:half])
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.executemany(f"INSERT INTO {table} VALUES ({marks})", rows[half:])
        self._live(path, table, db)

    def whatsmeow(self, path: str) -> None:
        import ledger
        import library

        target = self._target(path, True)
        library.list_devices(target)
        db = ledger.connect(target, "wal")
        ledger.log_in(db)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        for _ in range(50):
            ledger.advance(db)
        self._live(path, "whatsmeow_message_secrets", db)

    def _live(self, path: str, table: str, db: sqlite3.Connection) -> None:
        rows = db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        self.databases[path] = {"table": table, "rows": rows}
        self.leave += [f"{path}-wal", f"{path}-shm"]
        # Never closed: closing would move the WAL's content into the database and remove it.
        OPEN.append(db)

    def _target(self, path: str, kept: bool) -> Path:
        (self.keep if kept else self.leave).append(path)
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        return target


OPEN: list[sqlite3.Connection] = []


def common(tree: Tree, engine: str, session: str) -> None:
    """What WAHA itself keeps, whatever the engine."""
    tree.database(
        f"{engine}/waha.sqlite3",
        "session_config",
        "CREATE TABLE session_config (session_name TEXT PRIMARY KEY, config TEXT);"
        "CREATE TABLE me (session_name TEXT PRIMARY KEY, data TEXT);"
        "CREATE TABLE session_worker (session_name TEXT PRIMARY KEY, worker TEXT);"
        "CREATE TABLE api_key (id TEXT PRIMARY KEY, data TEXT);",
        [(session if n == 0 else f"other-{n}", json.dumps({"metadata": {"n": n}})) for n in range(10)],
    )
    tree.file(f"{engine}/{session}/.waha.session.config.json", {"name": session, "config": {"proxy": None}})


def chrome(tree: Tree, profile: str) -> None:
    """A Chrome user data directory: the login is in two LevelDB trees, the rest is bulk."""
    random = secrets.token_bytes
    indexed = f"{profile}/Default/IndexedDB/https_web.whatsapp.com_0.indexeddb.leveldb"
    for leveldb in (indexed, f"{profile}/Default/Local Storage/leveldb"):
        tree.file(f"{leveldb}/CURRENT", "MANIFEST-000001\n")
        tree.file(f"{leveldb}/MANIFEST-000001", random(300))
        tree.file(f"{leveldb}/000003.log", random(20_000))
        tree.file(f"{leveldb}/000005.ldb", random(60_000))
        tree.file(f"{leveldb}/LOG", "2026/01/01-00:00:00.000000 1 Recovering log #3\n")
        tree.file(f"{leveldb}/LOCK", b"")
    tree.file(f"{profile}/Default/IndexedDB/https_web.whatsapp.com_0.indexeddb.blob/1/00/1", random(5_000))
    bulk = ["Cache/Cache_Data/data_1", "Code Cache/js/index", "GPUCache/data_0", "DawnGraphiteCache/data_0"]
    bulk += ["Service Worker/CacheStorage/0/index", "Service Worker/ScriptCache/index", "Session Storage/000003.log"]
    for path in bulk:
        tree.file(f"{profile}/Default/{path}", random(40_000), kept=False)
    tree.file(f"{profile}/Default/Preferences", {"profile": {"exit_type": "Crashed"}}, kept=False)
    for path in ("Crashpad/settings.dat", "Crashpad/reports/1.dmp", "GrShaderCache/data_0", "ShaderCache/data_0", "BrowserMetrics/1.pma"):
        tree.file(f"{profile}/{path}", random(10_000), kept=False)
    tree.file(f"{profile}/Local State", {"user_experience_metrics": {}}, kept=False)
    # They name the container that is gone; with them in place Chrome refuses to start.
    tree.link(f"{profile}/SingletonLock", "3f9c0e7a1b2d-57")
    tree.link(f"{profile}/SingletonCookie", "1234567890123456789")
    tree.link(f"{profile}/SingletonSocket", "/tmp/org.chromium.Chromium.abcdef/SingletonSocket")


def baileys(tree: Tree, folder: str, keys: int) -> None:
    """Key material in the shape of `useMultiFileAuthState`: one small JSON file a key."""

    def key() -> dict:
        return {"type": "Buffer", "data": b64encode(secrets.token_bytes(32)).decode()}

    pair = lambda: {"private": key(), "public": key()}
    creds = {
        "noiseKey": pair(),
        "signedIdentityKey": pair(),
        "signedPreKey": {"keyPair": pair(), "signature": key(), "keyId": 1},
        "registrationId": 42,
        "nextPreKeyId": keys + 1,
        "me": {"id": "4915100000001:7@s.whatsapp.net", "name": "bot"},
        "registered": True,
    }
    tree.file(f"{folder}/creds.json", creds)
    for n in range(1, keys + 1):
        tree.file(f"{folder}/pre-key-{n}.json", pair())
    for n in range(5):
        tree.file(f"{folder}/session-{4915100000100 + n}.0.json", {"_sessions": {secrets.token_hex(16): key()}, "version": "v1"})
        tree.file(f"{folder}/sender-key-group-{n}@g.us--1.json", key())
    tree.file(f"{folder}/app-state-sync-version-critical_block.json", {"version": 7})


def build(tree: Tree, engine: str, session: str, keys: int) -> None:
    common(tree, engine, session)
    home = f"{engine}/{session}"
    if engine == "webjs":
        chrome(tree, f"{home}/session-{session}")
    elif engine == "wpp":
        chrome(tree, home)
    elif engine == "noweb":
        baileys(tree, home, keys)
        rows = [(n, f"message {n}") for n in range(200)]
        tree.database(f"{home}/store.sqlite3", "messages", "CREATE TABLE messages (id INTEGER PRIMARY KEY, body TEXT)", rows)
    else:
        tree.whatsmeow(f"{home}/gows.db")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", choices=("webjs", "wpp", "noweb", "gows"))
    parser.add_argument("dir", type=Path)
    parser.add_argument("--session", default="default")
    parser.add_argument("--keys", type=int, default=200, help="pre-keys of the noweb engine")
    options = parser.parse_args()
    tree = Tree(options.dir)
    build(tree, options.engine, options.session, options.keys)
    told = {"engine": options.engine, "keep": sorted(tree.keep), "leave": sorted(tree.leave), "databases": tree.databases}
    print(json.dumps(told), flush=True)
    # Ends without closing the databases, so that their WALs stay.
    os._exit(0)


if __name__ == "__main__":
    main()
