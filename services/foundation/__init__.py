"""What every service stands on: a closed list of modules, none of which knows a service."""
