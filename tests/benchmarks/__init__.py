"""How fast, beside whom: `python -m tests.benchmarks`.

Every measurement is a fresh process that prints one JSON object of figures; each also runs alone, say under a
profiler: `python -m tests.benchmarks.peers.raw_sqlite group_commit rows=50000 group=500 synchronous=FULL`.
`ours.py` measures ContentHub, `peers/` what it is compared with; `__main__.py` declares the comparisons, runs and
shows them.
"""
