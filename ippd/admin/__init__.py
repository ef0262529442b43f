"""The panel: a family that answers HTML on the local listener, and the page behind the link of a password reset."""

from ippd.admin.panel import panel
from ippd.admin.reset import reset

__all__ = ["panel", "reset"]
