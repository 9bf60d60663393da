"""What the two Python scripts share: sections, expected errors, running.

A section is a function; what it prints is compared. An exception that it does
not expect is printed as FAIL. A section that hangs ends the script with the
stacks of all threads on standard error.
"""

import faulthandler
import hashlib
import sys
import traceback

SECTION_TIMEOUT_SECONDS = 30

BIG = 16 * 1024 * 1024


def md5(data):
    if isinstance(data, str):
        data = data.encode()
    return hashlib.md5(bytes(data)).hexdigest()


def error(exception):
    """Prints an exception of the driver as the program's user sees it."""
    diag = exception.diag
    print("error", exception_code(exception), type(exception).__name__)
    for field in (
        "severity", "message_primary", "message_detail", "message_hint", "statement_position", "context",
        "schema_name", "table_name", "column_name", "datatype_name", "constraint_name",
    ):
        value = getattr(diag, field)
        if value is not None:
            print("  %s: %s" % (field, value))


def exception_code(exception):
    return getattr(exception, "sqlstate", None) or getattr(exception, "pgcode", None) or "-"


def refused(function, *args, **kwargs):
    """Calls a function that must fail and prints how."""
    try:
        result = function(*args, **kwargs)
    except Exception as exception:
        if not hasattr(exception, "diag"):
            raise
        error(exception)
        return exception
    print("FAIL: expected an error, got %r" % (result,))


def run(sections, only):
    failed = False
    for section in sections:
        if only and section.__name__ not in only:
            continue
        print("== " + section.__name__, flush=True)
        faulthandler.dump_traceback_later(SECTION_TIMEOUT_SECONDS, exit=True)
        try:
            section()
        except Exception:
            failed = True
            print("FAIL: " + traceback.format_exc())
        sys.stdout.flush()
    faulthandler.cancel_dump_traceback_later()
    sys.exit(1 if failed else 0)
