"""What the Python applications share: sections, expected errors, running.

A section is a function; what it prints is compared. An exception that it does
not expect is printed as FAIL, and the next sections run all the same. A section
that hangs ends the script with the stacks of all threads on standard error.
"""

import contextlib
import faulthandler
import sys
import traceback

SECTION_TIMEOUT_SECONDS = 30


@contextlib.contextmanager
def refused(*exceptions):
    """A block that must raise one of the exceptions; prints which, and the SQLSTATE."""
    try:
        yield
    except exceptions as e:
        cause = getattr(e, "orig", None) or e.__cause__
        print("raises", type(e).__name__, getattr(cause, "pgcode", None))
    else:
        print("FAIL: expected an exception")


def run(sections, after_failure=lambda: None):
    failed = False
    for section in sections:
        print("== " + section.__name__, flush=True)
        faulthandler.dump_traceback_later(SECTION_TIMEOUT_SECONDS, exit=True)
        try:
            section()
        except Exception:
            failed = True
            print("FAIL: " + traceback.format_exc())
            after_failure()
        sys.stdout.flush()
    faulthandler.cancel_dump_traceback_later()
    sys.exit(1 if failed else 0)
