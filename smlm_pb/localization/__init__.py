"""The main job: movie → blocks → network → candidates → table of molecules."""
