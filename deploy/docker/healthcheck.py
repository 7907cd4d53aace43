"""Exits with 0 where an address answers with 200, for HEALTHCHECK: the images have no curl."""

import sys
import urllib.error
import urllib.request

TIMEOUT_SEC = 5

try:
    with urllib.request.urlopen(sys.argv[1], timeout=TIMEOUT_SEC) as answer:
        sys.exit(0 if answer.status == 200 else 1)
except (OSError, urllib.error.URLError) as error:
    sys.exit(f"{sys.argv[1]}: {error}")
