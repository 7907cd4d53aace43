"""Targets of measurements: services, engines and peers, each behind the Protocol of `moulin.evaluate.connection`."""
