"""The worker: claims experiments, runs them in a batch engine, brings the results back; one step per call."""

from ippd.worker.loop import Worker, make_worker, run

__all__ = ["Worker", "make_worker", "run"]
