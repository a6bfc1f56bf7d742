"""`python -m celery` in a fork of a process that has loaded its modules."""

import mmap

from celery.__main__ import main

from workers.child import lifecycle

if __name__ == "__main__":
    lifecycle._stop_flag = mmap.mmap(-1, 1)  # type: ignore[misc]  # it is shared with all forks
    main()
