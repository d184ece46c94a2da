"""Benchmarks: whole processes on a real queue, measured from outside."""
