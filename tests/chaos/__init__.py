"""A site in which everything goes wrong, and an exporter that must say the truth about it all the same.

Fifty beams in every dialect, here and on two hosts, are written, ended and retried beside a program that writes their
rows as the communicator does, while a seeded schedule breaks the exporter, the hosts, the network, the database, the
disk, the clock, the logs and the whole machine. What is shown is checked all along; in the end metrics, API and the
column must equal what the finished logs hold. ``python -m tests.chaos --seed N --seconds S`` does it for hours.

    truth.py         what each log says in the end, worked out from the script it was written by
    beams.py         the beams and their runs
    time_of_day.py   the site's clock, which can be set
    engines.py       write logs as the engine does
    table.py         the database, as the communicator uses it
    communicator.py  plays rows: launches, verdicts, retries
    site.py          all of it, and the exporter
    faults.py        one class for each thing that goes wrong
    schedule.py      which of them when
    watcher.py       scrapes and checks
    oracle.py        what the exporter must say in the end
    campaign.py      one whole run, and its report
"""
