"""`python -m services.local.schema`: brings the databases of all services to their newest revision, in one process.

`REXIS_LOCAL_DATABASES` holds one `service=url` a line; URLs may carry passwords, which an argument list would show to everyone.
"""

import os

from services.foundation.database import migrate, open_engine


def main() -> None:
    """Migrate each database in turn."""
    for line in os.environ["REXIS_LOCAL_DATABASES"].splitlines():
        service, _, url = line.partition("=")
        engine = open_engine(url)
        migrate(engine, f"services.{service}")
        engine.dispose()


if __name__ == "__main__":
    main()
