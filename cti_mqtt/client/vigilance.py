"""Socket options that let the kernel notice a peer that has gone without a word."""

import math
import socket

PROBES = 3
MOST_S = 32_767  # of Linux


def notice_a_dead_peer(peer: socket.socket, timeout_s: float) -> None:
    """End the connection when nothing is acknowledged for about `timeout_s`, also while nobody asks anything.

    Polls notice it by themselves; this is for cyclers that are polled seldom. What a platform does not have is left
    out: there its own keep-alive counts, hours as a rule.
    """
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    seconds = min(max(1, math.ceil(timeout_s)), MOST_S)
    options = {
        "TCP_KEEPIDLE": seconds,
        "TCP_KEEPALIVE": seconds,  # its name on macOS
        "TCP_KEEPINTVL": max(1, math.ceil(seconds / PROBES)),
        "TCP_KEEPCNT": PROBES,
        "TCP_USER_TIMEOUT": 1000 * 2 * seconds,  # ms; ends the session after a request's own time-out, not before
    }
    for name, value in options.items():
        option = getattr(socket, name, None)
        if option is not None:
            peer.setsockopt(socket.IPPROTO_TCP, option, value)
