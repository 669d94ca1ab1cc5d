"""`python -m nbdserver` is the same as `nbdserver`."""

import sys

from nbdserver.cli import main

sys.exit(main())
