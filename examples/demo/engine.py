"""The batch engine of the demo: this machine itself, or a Slurm or Grid Engine of one node that is started for it."""

import os
import subprocess
from pathlib import Path

from portal import Failure

ENGINES = ("local", "slurm", "gridengine")
ROOT = Path(__file__).resolve().parents[2]
PORT = 22000 + 2 * (os.getpid() % 5000)  # a cell and ports of its own: two runs at once must not meet
PORTS = {"SGE_QMASTER_PORT": str(PORT), "SGE_EXECD_PORT": str(PORT + 1)}


class Engine:
    """An engine; `settings` are those of a daemon and worker that use it, `environment` is where its commands find it."""

    def __init__(self, name, folder):
        """Start it. Raises Failure when it is not installed, or nobody may start it here."""
        self.name = name
        self._place = f"demo{os.getpid()}" if name == "gridengine" else str(folder / name)
        self.environment = {
            "slurm": {"SLURM_CONF": f"{self._place}/slurm.conf"},
            "gridengine": {"SGE_ROOT": "/var/lib/gridengine", "SGE_CELL": self._place} | PORTS,
        }.get(name, {})
        self.settings = {
            "apps__directory": ROOT / "examples" / "apps", "worker__folder": folder / "worker", "worker__interval": "0.2s",
        }  # fmt: skip
        self._started = name != "local"
        if self._started:
            self._control("up")

    def _control(self, action):
        given = os.environ | self.environment | {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
        script = ROOT / "tests" / "engines" / f"{self.name}.sh"
        done = subprocess.run([script, action, self._place], env=given, capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise Failure(f"{self.name} cannot be started: {(done.stderr or done.stdout).strip()[-300:]}")

    def stop(self):
        """Stop it, if it was started."""
        if self._started:
            self._control("down")
