"""How the psycopg 3 sections connect: by libpq's environment."""

import os
import time

import psycopg


def connect(**options):
    return psycopg.connect("", **options)


def wait_running(mark):
    """Returns when a statement that holds the mark runs, on whatever node."""
    nodes = [
        psycopg.connect(host="127.0.0.1", port=port, user="postgres", sslmode="disable", channel_binding="disable", autocommit=True)
        for port in os.environ["NODE_PORTS"].split()
    ]
    while not any(
        node.execute(
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'"
            " AND pid <> pg_backend_pid() AND query LIKE %s", ["%" + mark + "%"]
        ).fetchone() for node in nodes
    ):
        time.sleep(0.01)
    for node in nodes:
        node.close()
