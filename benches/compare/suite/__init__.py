"""The parts of benches/compare/run."""
