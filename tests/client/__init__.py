"""Tests of the CTI client, against real sockets on loopback."""
