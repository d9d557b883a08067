"""CTI, the Console TCP/IP Interface of Arbin's MITS Pro: bytes <-> typed messages.

Pure: standard library only, no sockets and no clock. Both ends of a connection use it, the client and the simulator.
Channels are 0-based here, as on the wire.
"""
