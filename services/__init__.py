"""The four services, what they stand on (`foundation`), and how they run on one machine (`local`)."""
