"""An example of a whatsmeow bot: shows the QR code in the log, answers "ping" with "pong", and stops in
order. whatsmeow keeps its login in one SQLite database; the library writes it, and closes it at the end.
"""

import json
import os
import signal
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import segno
from neonize.client import NewClient
from neonize.events import ConnectedEv, LoggedOutEv, MessageEv
from neonize.events import event as library_stop
from neonize.exc import NeonizeError

# WhatsApp ends a round of codes that nobody scans after less than three minutes; then a new one is asked for.
ROUND_SECONDS = 180

database = Path(os.environ.get("SESSIONS_PATH", "./session")) / "session.db"
stopping = threading.Event()


def say(message: str) -> None:
    print(f"bot: {message}", flush=True)


class Ping(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        known = self.path == "/ping"
        body = json.dumps({"message": "pong"} if known else {"error": "no such page"}).encode()
        self.send_response(200 if known else 404)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Health checks come every few seconds; the log needs no line for each."""


def run_once() -> None:
    """One connection: until it is stopped, logged out, or has waited for a scan in vain."""
    client = NewClient(str(database), uuid="bot")
    shown = threading.Event()

    @client.qr
    def on_code(_: NewClient, code: bytes) -> None:
        if not shown.is_set():
            shown.set()
            again = threading.Timer(ROUND_SECONDS, lambda: None if client.connected else client.stop())
            again.daemon = True
            again.start()
        say("scan this code with the phone: Settings, Linked devices, Link a device")
        segno.make_qr(code).terminal(compact=True)

    @client.event(ConnectedEv)
    def on_connected(_: NewClient, __: ConnectedEv) -> None:
        say("connected")

    @client.event(LoggedOutEv)
    def on_logged_out(client: NewClient, _: LoggedOutEv) -> None:
        # The library has deleted the login from its database. Another account may now scan.
        say("the phone has ended this login; beginning anew with a QR code")
        threading.Thread(target=client.stop, daemon=True).start()

    @client.event(MessageEv)
    def on_message(client: NewClient, message: MessageEv) -> None:
        text = message.Message.conversation or message.Message.extendedTextMessage.text
        if not message.Info.MessageSource.IsFromMe and text.strip().lower() == "ping":
            client.reply_message("pong", message)

    # Returns once the library has stopped, which it also does when `library_stop` is set.
    client.connect()


def main() -> None:
    def stop(*_: object) -> None:
        stopping.set()
        library_stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)

    database.parent.mkdir(parents=True, exist_ok=True)
    address = (os.environ.get("HOST", "127.0.0.1"), int(os.environ.get("PORT", "3000")))
    threading.Thread(target=ThreadingHTTPServer(address, Ping).serve_forever, daemon=True).start()

    failures = 0
    while not stopping.is_set():
        begun = time.monotonic()
        try:
            run_once()
            why = "the library has stopped"
        except NeonizeError as error:
            why = str(error)
        failures = 0 if time.monotonic() - begun > 60 else failures + 1
        pause = min(60, 2**failures)
        if not stopping.is_set():
            say(f"not connected ({why}); the next try is in {pause} s")
            stopping.wait(pause)
    say("stopped; the database is closed")


if __name__ == "__main__":
    main()
