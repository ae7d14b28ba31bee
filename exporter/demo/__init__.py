"""The demo and the simulator that writes its logs."""
