"""`python -m services.admin`."""

from services.admin.command import main

main()
