"""For tests of code that uses the scheduler: a sandbox in virtual time. No production code imports it."""
