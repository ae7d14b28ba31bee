"""What every process of this project needs: worker threads, clock, hardening."""
