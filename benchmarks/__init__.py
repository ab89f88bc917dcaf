"""What this repository claims, measured; ``python -m benchmarks`` writes docs/evidence.md."""
