"""Logs on an SSH host: OpenSSH configuration, host keys, login, SFTP."""
