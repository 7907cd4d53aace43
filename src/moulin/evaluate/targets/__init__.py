"""What can be measured: services, engines and peers, each behind the one Protocol of `moulin.evaluate.connection`."""
