"""Deterministic simulation: several nodes on one database, in virtual time, with faults drawn from a seed.

What runs is production's own: fire transaction, embedded engine, runner, rescue, task store. Simulated are the
clock, the crashes, pauses, lost wakes and skewed clocks, the executors and the people. `python -m tests.simulation
--seed S --days 365` runs a long one; a seed that fails replays exactly.
"""
