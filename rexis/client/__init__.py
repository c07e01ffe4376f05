"""One REST client per service. Services speak to each other through these too."""
