"""What a service promises inside a database transaction and does afterwards: chain calls, tasks, and work under a lease."""
