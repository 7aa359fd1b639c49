"""Migrations of the jobs' tables: one module each in ``versions``, run by ``database`` at every start."""
