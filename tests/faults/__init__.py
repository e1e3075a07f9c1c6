"""Real processes and databases, a seeded schedule of faults, and a checker of what they left behind."""
