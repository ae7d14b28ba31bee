"""Progress exporter for Monte Carlo dose simulations run by MQI Communicator."""

__version__ = "0.1.0"
