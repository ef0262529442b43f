"""Batch engines: each is one module of data and parsers with the same few functions; a new one is a new line here.

    submit(job) -> id in the engine                  look(jobs) -> {name: Seen}, all jobs in one call
    cancel(job), suspend(job), resume(job)           clean(job): nothing of an ended job is left
    books(jobs) -> {name: Seen} with facts of the run, from the engine's accounting; LATE: seconds by which that may be behind
    PROGRAMS: its commands, without which nothing can be run there
    GRACE: seconds that a job may be unknown (the engine learns of it late, or forgets it early) before it counts as lost
"""

from ippd.runners import gridengine, local, slurm

ENGINES = {"local": local, "slurm": slurm, "gridengine": gridengine}
