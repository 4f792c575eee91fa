"""A gateway that keeps its login in a database of the real SQLCipher: nothing of the files can be told
from noise without the key. The library ($SQLCIPHER) is called through its own interface, so that any
Python will do.

gateway.py wal 100 FILE     writes 100 rows into the write-ahead log, one transaction each, and waits
gateway.py wal busy FILE    writes without a pause until it is told to stop
gateway.py delete busy FILE the same with a rollback journal
gateway.py count FILE       says how many rows there are
"""

import ctypes
import os
import signal
import sys
import time

library = ctypes.CDLL(os.environ["SQLCIPHER"])
pointer, text = ctypes.c_void_p, ctypes.c_char_p
Row = ctypes.CFUNCTYPE(ctypes.c_int, pointer, ctypes.c_int, ctypes.POINTER(text), ctypes.POINTER(text))
library.sqlite3_exec.argtypes = [pointer, text, Row, pointer, pointer]
library.sqlite3_errmsg.argtypes = [pointer]
library.sqlite3_errmsg.restype = text


class Database:
    def __init__(self, path):
        self.handle = pointer()
        if library.sqlite3_open(os.fsencode(path), ctypes.byref(self.handle)):
            sys.exit("failed to open the database")
        self.run("PRAGMA key = 'a key that nobody else has'")
        self.run("PRAGMA busy_timeout = 10000")

    def run(self, sql):
        rows = []

        def row(_, count, values, __):
            rows.append([values[n] for n in range(count)])
            return 0

        if library.sqlite3_exec(self.handle, sql.encode(), Row(row), None, None):
            sys.exit("%s: %s" % (sql, library.sqlite3_errmsg(self.handle).decode()))
        return rows

    def count(self):
        """The rows; exits where one before the last is missing, or the file is not sound."""
        verdict = self.run("PRAGMA integrity_check")[0][0]
        count, newest = self.run("SELECT count(*), ifnull(max(n), 0) FROM t")[0]
        if verdict != b"ok" or count != newest:
            sys.exit("not sound: %s, %s rows, the last is %s" % (verdict, count, newest))
        return int(count)


def main():
    if sys.argv[1] == "count":
        database = Database(sys.argv[2])
        print(database.count(), flush=True)
        return
    journal, work, path = sys.argv[1:]
    database = Database(path)
    database.run("PRAGMA journal_mode = %s" % journal)
    # Nothing reaches the main file by itself.
    if work != "busy":
        database.run("PRAGMA wal_autocheckpoint = 0")
    else:
        database.run("PRAGMA synchronous = OFF")
    database.run("CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, secret BLOB)")
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(True))
    written = database.count()
    while not stopped and (work == "busy" or written < int(work)):
        written += 1
        database.run("INSERT INTO t VALUES (%d, randomblob(%d))" % (written, 200 + written % 2000))
        if written == 100:
            print("written=100;", flush=True)
    if work != "busy" and int(work) < 100:
        print("written=%d;" % written, flush=True)
    while not stopped:
        time.sleep(0.02)
    print("last=%d;" % written, flush=True)


main()
# A process that ends closes nothing: what it would do on closing, a crash would not.
sys.stdout.flush()
os._exit(0)
