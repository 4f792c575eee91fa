"""The real whatsmeow library, as far as it works without a network.

It creates and upgrades its schema, and it reads the devices in it. `list_devices` is called in a
process of its own: the library brings its own SQLite, and two of those in one process drop each
other's POSIX locks when one of them closes the file.
"""

import ctypes
import importlib.util
import os
import subprocess
import sys
from pathlib import Path


def _find() -> Path:
    if named := os.environ.get("WHATSMEOW_LIBRARY"):
        return Path(named)
    fetched = Path(__file__).resolve().parent / "../../../.cache/neonize/neonize.so"
    if not fetched.is_file() and (package := importlib.util.find_spec("neonize")):
        # In an image, it is an installed package's. Found, not imported: that brings much more.
        for place in package.submodule_search_locations or ():
            for library in Path(place).glob("neonize-*.so"):
                return library
    return fetched


LIBRARY = _find()


def list_devices(database: Path) -> list[str]:
    """The JIDs of the devices that the library finds; creates the schema where there is none."""
    if not LIBRARY.is_file():
        raise SystemExit(f"{LIBRARY} is missing: run `make test-tools`")
    found = subprocess.run(
        [sys.executable, __file__, str(database)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if found.returncode != 0:
        raise RuntimeError(f"failed to open {database} with whatsmeow: {found.stderr.strip()}")
    return [line for line in found.stdout.splitlines() if line]


def _call(database: str) -> None:
    library = ctypes.CDLL(str(LIBRARY))
    log_line = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int)
    library.GetAllDevices.argtypes = [ctypes.c_char_p, log_line]
    library.GetAllDevices.restype = ctypes.c_void_p
    answer = library.GetAllDevices(database.encode(), log_line(lambda text, size: None))
    text = ctypes.string_at(answer).decode() if answer else ""
    # Fields of a device are separated by commas, devices by this sequence.
    for device in filter(None, text.split("|\u0001|")):
        print(device.split(",")[0])
    # Go's runtime has threads of its own; there is nothing to wait for.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    _call(sys.argv[1])
