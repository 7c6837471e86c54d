"""A cluster is asked whether it is one before Ray is imported, which would wait."""

import os
import socket
import subprocess

import pytest

from bulk import ray_engine

REFUSED = "ray.exceptions.AuthenticationError: RPC error: InvalidAuthToken"


@pytest.fixture
def cluster(monkeypatch):
    """Listens; returns the address, and a function that sets health checks' answers.

    An answer is None if the check passes, and else what it prints. The function returns
    the list of the values of RAY_AUTH_MODE at each check.
    """
    # Set first, so that what the code sets is undone at the end.
    monkeypatch.setenv("RAY_AUTH_MODE", "")
    monkeypatch.delenv("RAY_AUTH_MODE")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"

        def answer(*answers):
            left, modes = list(answers), []

            def run(command, **settings):
                assert f"--address={address}" in command
                modes.append(os.environ.get("RAY_AUTH_MODE"))
                text = left.pop(0)
                if text is not None:
                    raise subprocess.CalledProcessError(1, command, "", text)

            monkeypatch.setattr(subprocess, "run", run)
            return modes

        yield address, answer


def test_a_token_is_sent_if_the_cluster_needs_it(cluster):
    address, answer = cluster
    modes = answer(REFUSED, None)
    ray_engine._check_address(address)
    assert modes == [None, "token"]
    assert os.environ["RAY_AUTH_MODE"] == "token"


def test_no_token_is_sent_where_none_is_needed(cluster):
    address, answer = cluster
    modes = answer(None)
    ray_engine._check_address(address)
    assert modes == [None]
    assert "RAY_AUTH_MODE" not in os.environ


@pytest.mark.parametrize("mode", [None, "disabled"])
def test_a_refused_token_is_told(cluster, monkeypatch, mode):
    address, answer = cluster
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    modes = answer(*[REFUSED] * (1 if mode else 2))
    with pytest.raises(ValueError, match="or needs the token in ~/.ray/auth_token"):
        ray_engine._check_address(address)
    assert modes == (["disabled"] if mode else [None, "token"])


def test_what_is_no_cluster_is_told(cluster):
    address, answer = cluster
    answer("TimeoutError")
    with pytest.raises(
        ValueError, match=f"what answers at {address} is no Ray cluster"
    ):
        ray_engine._check_address(address)


@pytest.mark.parametrize("address", ["ray://a:1", "a", "a:b", ":1", "a/b:1"])
def test_an_address_is_a_host_and_a_port(address):
    with pytest.raises(ValueError, match="must be local, auto or HOST:PORT"):
        ray_engine._check_address(address)
