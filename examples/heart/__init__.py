"""Heart disease at four real hospitals: Cleveland, Hungary, Switzerland and VA Long Beach."""
