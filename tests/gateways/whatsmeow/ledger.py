"""What the bot writes into whatsmeow's tables, and how a copy of them is checked.

Pairing needs WhatsApp's servers, so the device row is made here: random keys, in the real schema,
which checks their lengths, and read back by the real library. Everything after that is what a
paired device does all day: sessions are overwritten, pre-keys come and go, message secrets pile up.

Each transaction `n` moves a hash chain on, seeded by the identity key, and writes it into several
tables at once. A copy in which they disagree was not taken at one moment.
"""

import hashlib
import os
import secrets
import sqlite3
import time
from pathlib import Path

JID = "4915100000001:7@s.whatsapp.net"
CHAT = "4915100000002@s.whatsapp.net"
CHAIN = "sessionkeep-test-chain"
PEERS = 20
PRE_KEYS = 800


def connect(database: Path, mode: str | None = None) -> sqlite3.Connection:
    db = sqlite3.connect(database, timeout=10, isolation_level=None, check_same_thread=False)
    db.execute("PRAGMA foreign_keys = ON")
    if mode is not None:
        got = db.execute(f"PRAGMA journal_mode = {mode}").fetchone()[0]
        if got != mode:
            raise RuntimeError(f"journal mode is {got}, not {mode}")
    return db


def log_in(db: sqlite3.Connection) -> bool:
    """Makes the device row where there is none. Says whether it did: the login was gone."""
    if db.execute("SELECT 1 FROM whatsmeow_device").fetchone():
        return False
    random = secrets.token_bytes
    columns = {
        "jid": JID,
        "lid": "100000000000001:7@lid",
        "registration_id": secrets.randbelow(1 << 14) + 1,
        "noise_key": random(32),
        "identity_key": random(32),
        "signed_pre_key": random(32),
        "signed_pre_key_id": 1,
        "signed_pre_key_sig": random(64),
        "adv_key": random(32),
        "adv_details": random(20),
        "adv_account_sig": random(64),
        "adv_account_sig_key": random(32),
        "adv_device_sig": random(64),
        "platform": "android",
        "push_name": "bot",
    }
    names, marks = ", ".join(columns), ", ".join("?" * len(columns))
    db.execute("BEGIN IMMEDIATE")
    db.execute(f"INSERT INTO whatsmeow_device ({names}) VALUES ({marks})", list(columns.values()))
    for peer in range(PEERS):
        db.execute("INSERT INTO whatsmeow_identity_keys VALUES (?, ?, ?)", (JID, _peer(peer), random(32)))
    seed = hashlib.sha256(columns["identity_key"]).digest()
    db.execute("INSERT INTO whatsmeow_app_state_version VALUES (?, ?, 0, ?)", (JID, CHAIN, seed * 4))
    db.execute("COMMIT")
    return True


def position(db: sqlite3.Connection) -> tuple[int, bytes]:
    n, chain = db.execute("SELECT version, hash FROM whatsmeow_app_state_version WHERE name = ?", (CHAIN,)).fetchone()
    return n, chain[:32]


def advance(db: sqlite3.Connection) -> int:
    """One transaction. It is acknowledged once this returns."""
    db.execute("BEGIN IMMEDIATE")
    n, chain = position(db)
    n += 1
    chain = _next(chain, n)
    db.execute("UPDATE whatsmeow_app_state_version SET version = ?, hash = ? WHERE name = ?", (n, chain * 4, CHAIN))
    db.execute("INSERT OR REPLACE INTO whatsmeow_sessions VALUES (?, ?, ?)", (JID, _peer(n % PEERS), _session(n, chain)))
    db.execute("INSERT INTO whatsmeow_pre_keys VALUES (?, ?, ?, ?)", (JID, n, chain, n % 2))
    db.execute("DELETE FROM whatsmeow_pre_keys WHERE key_id <= ?", (n - PRE_KEYS,))
    db.execute("INSERT INTO whatsmeow_message_secrets VALUES (?, ?, ?, ?, ?)", (JID, CHAT, JID, f"{n:012d}", chain))
    db.execute("COMMIT")
    return n


def identity(db: sqlite3.Connection) -> dict:
    row = db.execute("SELECT jid, registration_id, noise_key, identity_key, signed_pre_key FROM whatsmeow_device").fetchone()
    if row is None:
        return {}
    keys = [hashlib.sha256(key).hexdigest() for key in row[2:]]
    return dict(zip(("jid", "registration_id", "noise_key", "identity_key", "signed_pre_key"), [*row[:2], *keys]))


def state(db: sqlite3.Connection) -> dict:
    n, chain = position(db)
    return {
        "n": n,
        "chain": chain.hex(),
        "journal_mode": db.execute("PRAGMA journal_mode").fetchone()[0],
        "identity": identity(db),
        "pre_keys": db.execute("SELECT count(*) FROM whatsmeow_pre_keys").fetchone()[0],
        "message_secrets": db.execute("SELECT count(*) FROM whatsmeow_message_secrets").fetchone()[0],
    }


def check(database: Path) -> dict:
    """Whether a copy is whole and of one moment. Opens it for writing, as recovery may need that."""
    if not database.is_file():
        return {"ok": False, "problems": ["there is no such file"], "database": str(database)}
    try:
        db = connect(database)
        problems = [line for (line,) in db.execute("PRAGMA integrity_check") if line != "ok"]
        problems += [f"foreign key: {row}" for row in db.execute("PRAGMA foreign_key_check")]
        told = state(db)
        problems += _disagreements(db, told)
        db.close()
    except (sqlite3.Error, TypeError) as error:
        return {"ok": False, "problems": [f"{type(error).__name__}: {error}"], "database": str(database)}
    return {"ok": not problems, "problems": problems, "database": str(database), **told}


def _disagreements(db: sqlite3.Connection, told: dict) -> list[str]:
    n = told["n"]
    (key,) = db.execute("SELECT identity_key FROM whatsmeow_device").fetchone()
    links = [hashlib.sha256(key).digest()]
    for step in range(1, n + 1):
        links.append(_next(links[-1], step))
    found = []
    if links[n].hex() != told["chain"]:
        found.append(f"the chain at {n} is not the one that the identity leads to")
    stored = db.execute("SELECT key FROM whatsmeow_message_secrets ORDER BY message_id").fetchall()
    if [row[0] for row in stored] != links[1:]:
        found.append(f"{len(stored)} message secrets do not match {n} transactions")
    stored = db.execute("SELECT key_id, key FROM whatsmeow_pre_keys ORDER BY key_id").fetchall()
    if stored != [(step, links[step]) for step in range(max(1, n - PRE_KEYS + 1), n + 1)]:
        found.append(f"{len(stored)} pre-keys do not match {n} transactions")
    for step in range(max(1, n - PEERS + 1), n + 1):
        row = db.execute("SELECT session FROM whatsmeow_sessions WHERE their_id = ?", (_peer(step % PEERS),)).fetchone()
        if row is None or row[0] != _session(step, links[step]):
            found.append(f"the session of transaction {step} is of another moment")
    return found


def write_line(fd: int | None, n: int, run: str) -> None:
    """One acknowledged transaction, in one piece, outside the session directory."""
    if fd is not None:
        os.write(fd, f'{{"n":{n},"at_ms":{int(time.time() * 1000)},"run":"{run}"}}\n'.encode())


def _peer(number: int) -> str:
    return f"{4915100000100 + number}.0"


def _next(chain: bytes, n: int) -> bytes:
    return hashlib.sha256(chain + n.to_bytes(8, "big")).digest()


def _session(n: int, chain: bytes) -> bytes:
    """About as large as a session record with a few skipped message keys."""
    return b"".join(hashlib.sha256(chain + bytes([part])).digest() for part in range(32 + n % 32))
