"""Statuses that MQI Communicator writes into its table, of every revision. The only place that spells them."""

TERMINAL = ("completed", "failed", "cancelled")
COMPLETED = ("completed",)
POST_RUN = ("downloading", "postprocessing")
SIMULATING = ("hpc_running", "simulation_running")
RESET = ("pending",)
BEFORE_SIMULATION = ("csv_interpreting", "uploading", "tps_generation", "hpc_queued")
OF_CASES = ("processing",)

ALL = frozenset((*TERMINAL, *POST_RUN, *SIMULATING, *RESET, *BEFORE_SIMULATION, *OF_CASES))
