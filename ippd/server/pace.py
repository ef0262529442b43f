"""How slow a client may be: a rate that each window of waiting must bring."""


class Pace:
    """Counts the time spent waiting for a client and the bytes that came of it; time of our own work does not count."""

    def __init__(self, rate: int, grace: float) -> None:
        """`rate` in bytes per second, `grace` in seconds: also the longest single wait, and the length of a window."""
        self.rate, self.grace = max(rate, 1), max(grace, 0.05)
        self._time = 0.0
        self._bytes = 0

    def add(self, seconds: float, count: int) -> None:
        """Takes what one wait brought. Raises TimeoutError at the end of a window that brought too little."""
        self._time += seconds
        self._bytes += count
        if self._time >= self.grace:
            if self._bytes < self.rate * self._time:
                raise TimeoutError(f"less than {self.rate} bytes per second for {self._time:.0f} seconds")
            self._time, self._bytes = 0.0, 0
