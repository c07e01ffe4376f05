"""What each site contributed to a federation, as far as sums of random groups tell it: intervals and bands, never a single update. Pure."""
