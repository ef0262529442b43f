"""What one serving process allows its clients."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

SMALL_BODY = 64 << 10  # bytes; a body up to this is collected before a thread is given to the request
LINGER_TIME = 2.0  # seconds that a client has to take the answer after we have said all
LINGER_BYTES = 8 << 20  # bytes that are read and thrown away meanwhile


@dataclass(frozen=True)
class Limits:
    """The settings server.*: times in seconds, sizes in bytes, body_rate in bytes per second."""

    threads: int
    slow_threads: int
    slow_threads_per_address: int
    connections: int
    connections_per_address: int
    handshake_timeout: float
    head_timeout: float
    head_bytes: int
    body_rate: int
    body_grace: float
    keepalive_timeout: float
    drain_timeout: float

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> "Limits":
        """The limits that the settings name."""
        return cls(**{field.name: settings[f"server.{field.name}"] for field in fields(cls)})

    def time_for(self, size: int) -> float:
        """The seconds that so many bytes may take."""
        return self.body_grace + size / max(self.body_rate, 1)
