"""`python -m services.local.guard MARK`: ends a platform's processes as soon as its supervisor is gone, however it went.

The supervisor holds the other end of standard input and never writes. The kernel closes it when the supervisor ends, also after
SIGKILL; from there the guard sweeps, and ends itself. Works on every POSIX system, and reaches grandchildren.
"""

import signal
import sys

from services.local.sweep import sweep

GRACE_S = 5.0


def main(mark: str) -> None:
    """Wait for the supervisor's end, then sweep."""
    # Nothing but the supervisor's end, or SIGKILL, may end the guard: it is the last to leave.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    sweep(mark, GRACE_S)


if __name__ == "__main__":
    main(sys.argv[1])
