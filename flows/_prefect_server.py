"""Be Prefect's server until SIGTERM, or until the process that started us is gone; run as a script with a port.

It imports nothing of ours, so that it runs by its path from anywhere.
"""

import gc
import os
import signal
import sys
import threading


def collect_rarely() -> None:
    """Let Python look for garbage less often: imports make a million objects that stay, and looking costs 0.3 s."""
    gc.set_threshold(100_000)


def serve(port: int) -> None:
    """Serve Prefect's API on loopback."""
    collect_rarely()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    import uvicorn

    uvicorn.run("prefect.server.api.server:create_app", factory=True, host="127.0.0.1", port=port, log_level="error")


def _end_with_parent() -> None:
    # Our standard input is a pipe that nobody writes to: it ends when its other end is closed, however that came.
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    serve(int(sys.argv[1]))
