"""Image processing portal daemon: takes experiments in over HTTP, hands them to job scripts, keeps the results."""

VERSION = "0.1.0"
