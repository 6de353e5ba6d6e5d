"""From noise to a picture (`image`) and to a clip of any length (`windows`)."""
