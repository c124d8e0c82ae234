"""What every test run needs: one thread per process, for small arrays on few shared cores."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
