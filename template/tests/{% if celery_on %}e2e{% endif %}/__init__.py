"""Tests on real processes: API, worker and beat, over sockets."""
