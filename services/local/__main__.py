"""`python -m services.local`."""

from services.local.command import main

main()
