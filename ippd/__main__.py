"""What `python -m ippd` and the frozen program run."""

from ippd.cli import main

raise SystemExit(main())
