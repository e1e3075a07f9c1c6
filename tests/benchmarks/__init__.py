"""How fast, beside whom: `python -m tests.benchmarks`.

`suite.py` declares the benchmarks, `frame.py` runs them, `report.py` shows them. Every measurement is a fresh
process (`python -m tests.benchmarks.peers.raw_sqlite one_row_a_transaction rows=5000` runs one alone, e.g. under a
profiler) that prints one JSON object of figures. `ours/` measures ContentHub, `peers/` what it is compared with.
"""
